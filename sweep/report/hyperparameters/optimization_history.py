"""Draw the best so far of each sweep as it happened: a single history, not an expectation.

An expectation holds only for trials drawn independently of each other and run to their end (`tuning_curves`); a
sampler's trials depend on each other.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go  # type: ignore[import-untyped]

from sweep.records.rows import ranked
from sweep.report.elements import INK, Figure, Key, Panel, label, listing, padded, panel
from sweep.report.figures import colour, family_keys
from sweep.report.hyperparameters.random_search import random_trials
from sweep.report.load import Sweep
from sweep.report.results import Family, Study, TaskResults

Curve = tuple[np.ndarray, np.ndarray]  # x, and y in percent


def histories(study: Study, results: TaskResults, name: str) -> Figure | None:
    """Draw the best so far as it happened, of the sweeps with other than random trials; None where there are none."""
    drawn = []
    for family in results.families:
        sweeps = [sweep for sweep in family.sweeps if len(random_trials(sweep)) < len(sweep.trials)]
        if sweeps:
            drawn.append(_Lines(family, [f"draw {sweep.draw}" for sweep in sweeps], [_history(s) for s in sweeps]))
    if not drawn:
        return None
    caption = (
        "A single history of each sweep, not an expectation: the best search objective so far (one seed per trial) "
        "among done trials within all limits, in the order in which trials were proposed; failed and pruned trials use "
        "up budget."
    )
    axes = ("best objective so far, %", ("trials of the sweep", "training GFLOP of the sweep"))
    return _figure(study, name, caption, axes, drawn)


def _history(sweep: Sweep) -> tuple[Curve, Curve]:
    chosen = {row.number: row.objective for row in ranked(sweep.trials)}
    values = [chosen.get(row.number) for row in sweep.trials]
    best = np.maximum.accumulate([-np.inf if value is None else 100 * value for value in values])
    best = np.where(np.isfinite(best), best, np.nan)
    return (np.arange(1.0, len(best) + 1), best), (np.cumsum([row.gflops for row in sweep.trials]), best)


@dataclass(frozen=True, slots=True)
class _Lines:
    """The curves of a family: against the number of trials and against their cost, by draw."""

    family: Family
    titles: Sequence[str]
    curves: Sequence[tuple[Curve, Curve]]


def _figure(
    study: Study, name: str, caption: str, axes: tuple[str, tuple[str, str]], drawn: Sequence[_Lines]
) -> Figure:
    """Make two panels: against the number of trials, and against what they cost."""
    measure, titles = axes
    heights = padded(float(one) for lines in drawn for curve in lines.curves for one in curve[0][1])
    panels = [_panel(study, drawn, which, (measure, title), heights) for which, title in enumerate(titles)]
    families = [lines.family for lines in drawn]
    keys = [*family_keys(study, families, "line"), Key("mean over draws", "line", INK), Key("a draw", "faint", INK)]
    several = any(len(lines.curves) > 1 for lines in drawn)
    return Figure(name, caption, panels, keys if several else keys[:-2])


def _panel(study: Study, drawn: Sequence[_Lines], which: int, axes: tuple[str, str], heights: Sequence[float]) -> Panel:
    chart, told = go.Figure(), []
    measure, title = axes
    for lines in drawn:
        family, tint = label(lines.family.name), colour(study, lines.family.name)
        own = [curve[which] for curve in lines.curves]
        for one, (x, best) in zip(lines.titles, own, strict=True):
            chart.add_trace(_steps(x, best, tint, f"{family}, {one}", thin=True))
        x, best = _mean_line(own)
        chart.add_trace(_steps(x, best, tint, family, thin=False))
        told += [f"{lines.family.name} {best[-1]:.1f} at {x[-1]:.4g}"] if len(x) else []
    chart.update_xaxes(title=title, rangemode="tozero" if which else "normal")
    chart.update_yaxes(title=measure, range=heights)
    return panel(chart, f"{measure} against {title}: {listing(told)}.")


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
        x=x.tolist(), y=y.tolist(), name=title, mode="lines", opacity=0.35 if thin else 1.0,
        line={"color": tint, "width": 1 if thin else 3, "shape": "hv"}, hovertemplate="%{y:.1f} %",
    )  # fmt: skip
