"""The selected networks of each draw: what they cost, beside what they reach."""

from collections.abc import Callable, Sequence

from sweep.records.outcome import Outcome
from sweep.records.rows import Phase, TrialRow
from sweep.report.elements import NONE, Table, count, percent
from sweep.report.load import Sweep
from sweep.report.results import Family, TaskResults, mean_or_none
from sweep.report.statistics import spread

WITHIN = 0.05  # of the baseline's parameters
COLUMNS = (
    "draw", "family", "test accuracy", "sd", "n", "epochs", "parameters", "of baseline", "rate evaluations, forward",
    "GFLOP, forward", "GFLOP, training", "seconds, training",
)  # fmt: skip


def table(results: TaskResults) -> Table | None:
    """List, per draw and family, the network that was selected; None before any was retrained."""
    rows = [row for draw in _draws(results) for row in _of_draw(results, draw)]
    caption = (
        "The selected networks of each draw, means over their final trainings: test accuracy in percent, with its sd "
        "over n networks; parameters also as a share of the baseline's on the same draw. Rate evaluations and GFLOP of "
        "a forward pass are those of one image."
    )
    return Table(caption, COLUMNS, rows, ("family",)) if rows else None


def unequal_parameters(results: TaskResults) -> list[str]:
    """Name the selected networks, by draw, whose parameters are more than 5 % off the baseline's."""
    return [
        f"{family.name} in draw {draw}: {ratio:.2f}"
        for draw in _draws(results)
        for family in results.families[1:]
        if (ratio := _ratio(family, results.baseline, draw)) is not None and abs(ratio - 1) > WITHIN
    ]


def _draws(results: TaskResults) -> list[int]:
    return sorted({sweep.draw for family in results.families for sweep in family.sweeps if _networks(sweep)})


def _of_draw(results: TaskResults, draw: int) -> list[list[str]]:
    return [
        _row(sweep, family, _ratio(family, results.baseline, draw))
        for family in results.families
        for sweep in family.sweeps
        if sweep.draw == draw and _networks(sweep)
    ]


def _row(sweep: Sweep, family: Family, ratio: float | None) -> list[str]:
    runs = [run.accuracy for run in family.runs if run.draw == sweep.draw]
    forward = next((one for one in sweep.manifestations if one.trained and one.number == sweep.crowned_candidate), None)
    networks = _networks(sweep)
    return [
        str(sweep.draw),
        family.name,
        percent(mean_or_none(runs)),
        percent(spread(runs)),
        str(len(runs)),
        count(_mean(networks, lambda row: row.epochs)),
        count(_mean(networks, lambda row: row.model_parameters)),
        NONE if ratio is None else f"{ratio:.2f}",
        NONE if forward is None else count(forward.rate_evaluations),
        NONE if forward is None else f"{forward.gflops:.3g}",
        count(_mean(networks, lambda row: row.gflops)),
        count(_mean(networks, lambda row: row.seconds)),
    ]


def _networks(sweep: Sweep) -> list[TrialRow]:
    return [row for row in sweep.final_trials if row.phase is Phase.final and row.outcome is Outcome.done]


def _mean(rows: Sequence[TrialRow], value: Callable[[TrialRow], float]) -> float | None:
    return mean_or_none(map(value, rows))


def _ratio(family: Family, baseline: Family, draw: int) -> float | None:
    """Return the parameters of the network selected on a draw as a share of the baseline's there."""
    mine, base = (
        mean_or_none(row.model_parameters for sweep in one.sweeps if sweep.draw == draw for row in _networks(sweep))
        for one in (family, baseline)
    )
    return mine / base if mine and base else None
