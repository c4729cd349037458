"""Draw what tuning buys: the expected best objective against the budget, and what each sweep did, in its own order.

The expectation holds only for trials drawn independently of each other and run to their end, that is those proposed at
random and never stopped. A sampler's trials depend on each other: of them there is a single history.
"""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go  # type: ignore[import-untyped]
from plotly.subplots import make_subplots  # type: ignore[import-untyped]

from sweep.config.search_config import SchedulerKind
from sweep.records.outcome import Outcome
from sweep.records.rows import TrialRow, ranked
from sweep.report.elements import Figure, figure, label, listing, plural
from sweep.report.figures import colour
from sweep.report.load import Sweep
from sweep.report.results import UNFINISHED, Study, TaskResults, chance

RANDOM = "random"
FEWEST = 2  # random trials: with one there is nothing to choose from
POINTS = 200  # of one curve

Curve = tuple[np.ndarray, np.ndarray]  # x, and y in percent


def random_trials(sweep: Sweep) -> list[TrialRow]:
    """List the ended trials of which an expectation can be taken: proposed at random and never to be stopped.

    A trial that might have been stopped does not count even where it survived: survivors alone would be too good.
    """
    drawn = [row for row in sweep.trials if row.proposed_by == RANDOM and not row.schedule]
    if sweep.search is not None and sweep.search.scheduler is not SchedulerKind.none:
        drawn = [row for row in drawn if sweep.search.is_unstopped(row.number, row.proposed_by)]
    if any(row.outcome is Outcome.pruned for row in drawn):
        return []
    ended = [row for row in drawn if row.outcome not in UNFINISHED]
    return ended if len(ended) >= FEWEST else []


def expected_best(values: Sequence[float], k: int) -> float:
    """Compute the expected maximum of k of n values drawn without replacement: sum_i C(i-1, k-1) / C(n, k) v_(i),
    unbiased.

    Source: Tang et al. 2020, arXiv 2004.13705, instead of the biased one of Dodge et al. 2019, arXiv 1909.03004.
    """
    n = len(values)
    assert 1 <= k <= n
    ranks = np.arange(n, 1, -1)
    weights = np.cumprod(np.concatenate([[k / n], np.maximum(ranks - k, 0) / (ranks - 1)]))
    return float(weights @ np.sort(np.asarray(values, dtype=float))[::-1])


def without_expectation(results: TaskResults) -> str | None:
    """Say which sweeps have no tuning curve, why, and what gives one; None where all have."""
    sweeps = [sweep for family in results.families for sweep in family.sweeps if sweep.trials]
    lacking = [sweep.name for sweep in sweeps if not random_trials(sweep)]
    if not lacking:
        return None
    where = "any sweep" if len(lacking) == len(sweeps) > 1 else listing(lacking)
    return (
        f"{results.task}: no expected best-so-far of {where}: it needs at least {FEWEST} ended trials that were "
        "proposed at random and never stopped early (search.sampler=random without a scheduler, or a "
        "search.random_share). Trials of another sampler depend on each other, and survivors of a scheduler are too "
        "good."
    )


def tuning_curves(study: Study, results: TaskResults, name: str) -> Figure | None:
    """Draw the expected best objective; None where no sweep of the task has random trials."""
    chart = _panels("expected best validation objective, %", "random trials", "training GFLOP of random trials")
    counted = []
    for family in results.families:
        sweeps = [(sweep, rows) for sweep in family.sweeps if (rows := random_trials(sweep))]
        if sweeps:
            titles = [f"draw {sweep.draw}, n = {len(rows)}" for sweep, rows in sweeps]
            lines = [_expectation(sweep, rows) for sweep, rows in sweeps]
            _add(chart, (label(family.name), colour(study, family.name)), titles, lines)
            counted.append(f"{family.name} {', '.join(str(len(rows)) for _, rows in sweeps)}")
    if not counted:
        return None
    caption = (
        f"{results.task}: best objective that a random search of this budget would have found on average, from the "
        f"trials proposed at random and run to their end (n by draw: {'; '.join(counted)}). Trials that failed or "
        "exceeded a limit count as chance. GFLOP: the number of trials times their mean cost. Thick: mean over draws, "
        "where every draw has a value; thin: each draw. Towards its right end a curve rests on few combinations of "
        "trials, and its last value is simply the best of them."
    )
    return figure(name, caption, chart, 400, legend=True)


def histories(study: Study, results: TaskResults, name: str) -> Figure | None:
    """Draw the best so far as it happened, of the sweeps with other than random trials; None where there are none."""
    chart = _panels("best validation objective so far, %", "trials of the sweep", "training GFLOP of the sweep")
    shown = []
    for family in results.families:
        sweeps = [sweep for sweep in family.sweeps if len(random_trials(sweep)) < len(sweep.trials)]
        if sweeps:
            titles = [f"draw {sweep.draw}" for sweep in sweeps]
            _add(chart, (label(family.name), colour(study, family.name)), titles, [_history(s) for s in sweeps])
            shown.append(f"{family.name} {plural(len(sweeps), 'draw')}")
    if not shown:
        return None
    caption = (
        f"{results.task}: a single history of each sweep, not an expectation: best objective so far among done trials "
        "within all limits, in the order in which trials were proposed; failed and pruned trials use up budget. "
        f"Thick: mean over draws, where every draw has a value; thin: each draw ({', '.join(shown)})."
    )
    return figure(name, caption, chart, 400, legend=True)


def _expectation(sweep: Sweep, rows: Sequence[TrialRow]) -> tuple[Curve, Curve]:
    """Compute the expectation against trials and against GFLOP."""
    chosen = {row.number: row.objective for row in ranked(list(rows))}
    values = [chosen.get(row.number) for row in rows]
    fractions = [chance(sweep.task) if value is None else value for value in values]
    k = np.unique(np.linspace(1, len(rows), min(len(rows), POINTS)).round().astype(int))
    best = np.array([100 * expected_best(fractions, int(one)) for one in k])
    return (k.astype(float), best), (k * float(np.mean([row.gflops for row in rows])), best)


def _history(sweep: Sweep) -> tuple[Curve, Curve]:
    chosen = {row.number: row.objective for row in ranked(sweep.trials)}
    values = [chosen.get(row.number) for row in sweep.trials]
    best = np.maximum.accumulate([-np.inf if value is None else 100 * value for value in values])
    best = np.where(np.isfinite(best), best, np.nan)
    return (np.arange(1.0, len(best) + 1), best), (np.cumsum([row.gflops for row in sweep.trials]), best)


def _panels(measure: str, left: str, right: str) -> go.Figure:
    """Make two panels: left against the number of trials, right against what they cost."""
    chart = make_subplots(1, 2, shared_yaxes=True, horizontal_spacing=0.04)
    chart.update_xaxes(title=left, row=1, col=1)
    chart.update_xaxes(title=right, rangemode="tozero", row=1, col=2)
    return chart.update_yaxes(title=measure, row=1, col=1)


def _add(chart: go.Figure, look: tuple[str, str], titles: Sequence[str], lines: Sequence[tuple[Curve, Curve]]) -> None:
    """Add one family to both panels. look: its name and colour; titles and lines: one per draw."""
    family, tint = look
    for column, own in enumerate(zip(*lines, strict=True), start=1):
        for title, (x, best) in zip(titles, own, strict=True):
            chart.add_trace(_steps(x, best, tint, f"{family}, {title}", thin=True), 1, column)
        trace = _steps(*_mean_line(own), tint, family, thin=False)
        chart.add_trace(trace.update(showlegend=column == 1), 1, column)


def _mean_line(lines: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Average step functions over the range in which all of them have a value."""
    known = [(x[np.isfinite(best)], best[np.isfinite(best)]) for x, best in lines]
    if any(len(x) == 0 for x, _ in known):
        return np.array([]), np.array([])
    low, high = max(x[0] for x, _ in known), min(x[-1] for x, _ in known)
    grid = np.unique(np.concatenate([x for x, _ in known]))
    grid = grid[(low <= grid) & (grid <= high)]
    values = [best[np.searchsorted(x, grid, side="right") - 1] for x, best in known]
    return grid, np.mean(values, axis=0)


def _steps(x: np.ndarray, y: np.ndarray, tint: str, title: str, *, thin: bool) -> go.Scatter:
    return go.Scatter(
        x=x.tolist(), y=y.tolist(), name=title, mode="lines", opacity=0.35 if thin else 1.0, showlegend=not thin,
        line={"color": tint, "width": 1 if thin else 3, "shape": "hv"}, hovertemplate="%{y:.1f} %",
    )  # fmt: skip
