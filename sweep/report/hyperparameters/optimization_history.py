"""Draw what tuning buys: the expected best objective against the budget, and what each sweep did, in its own order.

The expectation holds only for trials drawn independently of each other and run to their end, that is those proposed at
random and never stopped. A sampler's trials depend on each other: of them there is a single history.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go  # type: ignore[import-untyped]

from sweep.config.search_config import SchedulerKind
from sweep.records.outcome import Outcome
from sweep.records.rows import TrialRow, ranked
from sweep.report.elements import INK, Figure, Key, Panel, label, listing, padded, panel
from sweep.report.figures import colour, family_keys
from sweep.report.load import Sweep
from sweep.report.results import UNFINISHED, Family, Study, TaskResults, chance

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
        f"No expected best-so-far of {where}: it needs at least {FEWEST} ended trials that were "
        "proposed at random and never stopped early (search.sampler=random without a scheduler, or a "
        "search.random_share). Trials of another sampler depend on each other, and survivors of a scheduler are too "
        "good."
    )


def tuning_curves(study: Study, results: TaskResults, name: str) -> Figure | None:
    """Draw the expected best objective; None where no sweep of the task has random trials."""
    drawn, counted = [], []
    for family in results.families:
        sweeps = [(sweep, rows) for sweep in family.sweeps if (rows := random_trials(sweep))]
        if sweeps:
            titles = [f"draw {sweep.draw}, n = {len(rows)}" for sweep, rows in sweeps]
            drawn.append(_Lines(family, titles, [_expectation(sweep, rows) for sweep, rows in sweeps]))
            counted.append(f"{family.name} {', '.join(str(len(rows)) for _, rows in sweeps)}")
    if not drawn:
        return None
    caption = (
        "What a random search of this budget would have found on average: the best search objective (one seed per "
        f"trial) among trials proposed at random and run to their end (n by draw: {'; '.join(counted)}). Trials that "
        "failed or exceeded a limit count as chance. GFLOP: the number of trials times their mean cost. Towards its "
        "right end a curve rests on few combinations of trials, and its last value is simply the best of them."
    )
    axes = ("expected best objective, %", ("random trials", "training GFLOP of random trials"))
    return _figure(study, name, caption, axes, drawn)


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
