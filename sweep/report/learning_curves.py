"""Draw learning curves: the median and the middle half of runs, with single runs faint behind them."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go  # type: ignore[import-untyped]

from sweep.records.outcome import Outcome
from sweep.records.rows import CurveRow, Phase, TrialRow
from sweep.report.elements import GREY, INK, Figure, Key, label, padded, panel, plural
from sweep.report.figures import colour, family_keys
from sweep.report.results import UNFINISHED, WITHOUT_RESULT, Family, Study, TaskResults

Curves = list[list[CurveRow]]
Quantity = Callable[[CurveRow], float | None]
FEWEST = 3  # runs: fewer have no middle half
GROUPS: tuple[
    tuple[str, tuple[Outcome, ...], dict[str, Any], str | None], ...
] = (  # of search trials: title, outcomes, style of a line, mark at its end
    ("done", (Outcome.done,), {}, None),
    ("pruned", (Outcome.pruned,), {"color": GREY}, "circle"),
    ("failed", WITHOUT_RESULT, {"color": INK, "dash": "dot"}, "x"),
    ("not ended", UNFINISHED, {"color": GREY, "dash": "dash"}, None),
)


def search_curves(study: Study, results: TaskResults, name: str) -> Figure:
    """Draw a panel per family of its search trials."""
    panels, counted = [], []
    every = [value for f in results.families for s in f.sweeps for row in s.curves if (value := _validation(row))]
    for family in results.families:
        chart, tint = go.Figure(), colour(study, family.name)
        for title, ended, line, end in GROUPS:
            curves = [curve for s in family.sweeps for curve in _curves(s.trials, s.curves, ended)]
            if curves:
                chart.add_trace(_bundle(curves, _validation, title, {"color": tint, "width": 1, **line}, end))
        done = [curve for s in family.sweeps for curve in _curves(s.trials, s.curves, (Outcome.done,))]
        chart.add_traces(_middle(done, _validation, tint, "done"))
        chart.update_xaxes(title="epoch")
        chart.update_yaxes(title="validation accuracy, %", range=padded(every))
        counted.append(f"{family.name} {len(done)}")
        panels.append(panel(chart, _ending(done, _validation, "validation accuracy in percent"), family.name))
    caption = (
        "Search trials, one seed each. Median and middle half are of the trials that ended done (n over all draws: "
        f"{', '.join(counted)}). Curves that still rise at the end had too few epochs."
    )
    return Figure(name, caption, panels, _keys("trial"))


def final_curves(study: Study, results: TaskResults, name: str) -> Figure:
    """Draw the confirm phase on validation, and the final phase, which has no validation images left."""
    phases = (
        (Phase.confirm, _validation, "confirm: validation accuracy, %"),
        (Phase.final, lambda row: row.train_loss, "final, on train + val: training loss"),
    )
    panels, runs = [], 0
    for phase, measure, title in phases:
        chart, told = go.Figure(), []
        for family in results.families:
            curves, tint = _retrained(family, phase), colour(study, family.name)
            runs += len(curves)
            chart.add_trace(_bundle(curves, measure, label(family.name), {"color": tint, "width": 1}, None))
            chart.add_traces(_middle(curves, measure, tint, label(family.name)))
            told.append(f"{family.name}: {_ending(curves, measure, title)}")
        chart.update_xaxes(title="epoch")
        panels.append(panel(chart, " ".join(told), title))
    caption = (
        f"{plural(runs, 'retrained network')}. Confirm: every candidate over its seeds; final: the crowned "
        "configuration over fresh seeds, all draws together."
    )
    return Figure(name, caption, panels, [*family_keys(study, results.families, "line"), *_keys("run")])


def _keys(one: str) -> list[Key]:
    marks = [Key("median", "line", INK), Key("middle half", "band", GREY), Key(f"a {one}", "faint", INK)]
    ends = [Key("pruned", "dot", GREY), Key("failed", "cross", INK), Key("not ended", "dashed", GREY)]
    return marks + (ends if one == "trial" else [])


def _retrained(family: Family, phase: Phase) -> Curves:
    return [
        curve
        for sweep in family.sweeps
        for curve in _curves([r for r in sweep.final_trials if r.phase is phase], sweep.final_curves, tuple(Outcome))
    ]


def _curves(trials: Sequence[TrialRow], curves: Sequence[CurveRow], ended: Sequence[Outcome]) -> Curves:
    by_number: dict[int, list[CurveRow]] = {}
    for row in curves:
        by_number.setdefault(row.number, []).append(row)
    chosen = [by_number.get(trial.number, []) for trial in trials if trial.outcome in ended]
    return [sorted(curve, key=lambda row: row.epoch) for curve in chosen if curve]


def _validation(row: CurveRow) -> float | None:
    return None if row.val_accuracy is None else 100 * row.val_accuracy


def _quartiles(curves: Curves, measure: Quantity) -> tuple[list[int], np.ndarray]:
    """Compute (3, epochs): the quartiles at every epoch that all curves reached."""
    last = min((curve[-1].epoch for curve in curves), default=0)
    by_epoch: dict[int, list[float]] = {}
    for curve in curves:
        for row in curve:
            value = measure(row)
            if row.epoch <= last and value is not None and np.isfinite(value):
                by_epoch.setdefault(row.epoch, []).append(value)
    epochs = sorted(by_epoch)
    return epochs, np.array([np.quantile(by_epoch[epoch], [0.25, 0.5, 0.75]) for epoch in epochs]).reshape(-1, 3).T


def _middle(curves: Curves, measure: Quantity, tint: str, title: str) -> list[go.Scatter]:
    """Draw the median, and the band of the middle half where there are enough runs to have one."""
    epochs, (low, median, high) = _quartiles(curves, measure)
    line = go.Scatter(
        x=epochs, y=median.tolist(), name=f"{title}, median", mode="lines", line={"color": tint, "width": 3},
        hovertemplate=f"median of {len(curves)}, epoch %{{x}}: %{{y:.3g}}<extra></extra>",
    )  # fmt: skip
    if len(curves) < FEWEST:
        return [line] if len(curves) > 1 else []
    band = go.Scatter(
        x=[*epochs, *epochs[::-1]], y=[*low.tolist(), *high.tolist()[::-1]], name=f"{title}, middle half", mode="lines",
        fill="toself", fillcolor=tint, opacity=0.2, line={"width": 0}, hoverinfo="skip",
    )  # fmt: skip
    return [band, line]


def _ending(curves: Curves, measure: Quantity, what: str) -> str:
    epochs, (low, median, high) = _quartiles(curves, measure)
    if not epochs:
        return f"No {what} yet."
    spread = f", middle half {low[-1]:.3g} to {high[-1]:.3g}" if len(curves) >= FEWEST else ""
    return f"Median {what} of {plural(len(curves), 'run')} at epoch {epochs[-1]}: {median[-1]:.3g}{spread}."


def _bundle(curves: Curves, measure: Quantity, title: str, line: dict[str, Any], end: str | None) -> go.Scatter:
    """Draw many curves as one faint trace, with gaps between them; `end` marks the last epoch of each."""
    x: list[int | None] = []
    y: list[float | None] = []
    sizes: list[int] = []
    trial: list[int | None] = []
    for curve in curves:
        x += [*(row.epoch for row in curve), None]
        y += [*(measure(row) for row in curve), None]
        trial += [*(row.number for row in curve), None]
        sizes += [0] * (len(curve) - 1) + [7, 0]
    return go.Scatter(
        x=x, y=y, name=title, line=line, opacity=0.35, mode="lines+markers" if end else "lines", customdata=trial,
        marker={"symbol": end or "circle", "size": sizes}, hovertemplate="trial %{customdata}, epoch %{x}: %{y:.3g}",
    )  # fmt: skip
