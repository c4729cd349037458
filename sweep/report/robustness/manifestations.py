"""Compare networks with themselves under other integrators and numbers of steps, relative to training."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go  # type: ignore[import-untyped]

from odenet.enums import Scheme
from sweep.records.rows import MANIFESTATION, REESTIMATED, EvaluationRow
from sweep.report import statistics
from sweep.report.elements import INK, Figure, Key, Panel, label, listing, panel, points
from sweep.report.inference import comparison
from sweep.report.load import Sweep
from sweep.report.results import Family, TaskResults, is_test_accuracy, is_trained
from sweep.report.statistics import Interval

RED, WHITE, BLUE = "#B35806", "#F7F7F7", "#2166AC"
Cell = tuple[str, float]  # a scheme, and its steps relative to those of training


@dataclass(frozen=True, slots=True, kw_only=True)
class Robustness:
    """The loss of a family's networks under manifestations at least as fine as their own. Accuracies are fractions."""

    change: float  # mean over draws of the mean over networks of the mean over manifestations
    interval: Interval | None  # over draws, or the networks of the only draw; None for one
    networks: int
    worst: float  # the lowest mean of a cell
    worst_cell: Cell


def cells(family: Family, condition: str = MANIFESTATION) -> dict[Cell, list[float]]:
    """Collect, by scheme and relative steps, each network's accuracy minus its own at its trained manifestation, on
    the same test images."""
    found: dict[Cell, list[float]] = {}
    for sweep in family.sweeps:
        for changes in _networks(sweep, condition):
            for cell, change in changes.items():
                found.setdefault(cell, []).append(change)
    return found


def robustness(family: Family) -> Robustness | None:
    """Average the manifestations with at least the trained number of steps, the trained one left out; None where none
    was measured."""
    sample = []
    for sweep in family.sweeps:
        finer = [[c for cell, c in changes.items() if _counts(cell, sweep)] for changes in _networks(sweep)]
        means = [float(np.mean(changes)) for changes in finer if changes]
        sample += [np.array(means)] if means else []
    if not sample:
        return None
    means_of = {
        cell: float(np.mean(changes)) for cell, changes in cells(family).items() if cell[1] >= 1 and any(changes)
    }
    worst = min(means_of, key=means_of.__getitem__, default=("", 1.0))
    found = comparison.estimate(sample)
    return Robustness(
        change=statistics.grand_mean(sample),
        interval=found.interval if found else None,
        networks=sum(map(len, sample)),
        worst=means_of.get(worst, 0.0),
        worst_cell=worst,
    )


def _counts(cell: Cell, sweep: Sweep) -> bool:
    return cell[1] >= 1 and cell not in _trained(sweep)


def _trained(sweep: Sweep) -> set[Cell]:
    return {(row.trained_scheme, 1.0) for row in sweep.evaluations}


def _networks(sweep: Sweep, condition: str = MANIFESTATION) -> list[dict[Cell, float]]:
    """List, by network, its changes of accuracy."""
    rows = [row for row in sweep.evaluations if is_test_accuracy(row) and row.condition == condition]
    by_seed: dict[int, list[EvaluationRow]] = {}
    for row in rows:
        by_seed.setdefault(row.seed, []).append(row)
    found = []
    for own in by_seed.values():
        trained = next((row.value for row in own if is_trained(row)), None)
        if trained is not None:
            found.append({(row.scheme, row.steps / max(1, row.trained_steps)): row.value - trained for row in own})
    return found


def heat_maps(results: TaskResults, name: str, condition: str = MANIFESTATION) -> Figure | None:
    """Draw a panel per family, all with one colour scale, the same rows and columns; None where nothing else than the
    trained manifestation was measured under this condition."""
    found = {family.name: table for family in results.families if len(table := cells(family, condition)) > 1}
    if not found:
        return None
    seen = {cell for table in found.values() for cell in table}
    known = [one.value for one in Scheme]
    schemes = sorted(
        {scheme for scheme, _ in seen}, key=lambda one: (known.index(one) if one in known else len(known), one)
    )
    ratios = sorted({ratio for _, ratio in seen})
    means = {name: {cell: 100 * float(np.mean(c)) for cell, c in table.items()} for name, table in found.items()}
    largest = max((abs(value) for table in means.values() for value in table.values()), default=0.0) or 1.0
    grid = _Grid(schemes, ratios, largest)
    panels = [
        _heat_map(grid, family, found[family.name], means[family.name])
        for family in results.families
        if family.name in found
    ]
    caption = (
        "Final networks on test images: mean accuracy under another integrator (rows) and number of steps (columns, "
        "relative to training) minus that of the same network as it was trained, in points; below it the standard "
        "error over the n networks of the cell. A network that is an ODE loses nothing with more steps or a better "
        "integrator."
    )
    if condition == REESTIMATED:
        caption = "The same with batch-norm statistics estimated anew on training images under each manifestation."
    keys = [
        Key(f"−{largest:.0f} to +{largest:.0f} points, the same in every panel", "scale", INK),
        Key("as trained", "outline", INK),
    ]
    return Figure(name, caption, panels, keys, 330)


@dataclass(frozen=True, slots=True)
class _Grid:
    """Rows, columns and the end of the colour scale that all panels share."""

    schemes: Sequence[str]
    ratios: Sequence[float]
    largest: float


def _heat_map(grid: _Grid, family: Family, table: dict[Cell, list[float]], means: dict[Cell, float]) -> Panel:
    columns = [f"{ratio:.2g}×" for ratio in grid.ratios]
    places = [[(scheme, ratio) for ratio in grid.ratios] for scheme in grid.schemes]
    chart = go.Figure(
        go.Heatmap(
            z=[[means.get(cell) for cell in row] for row in places], x=columns, y=[label(s) for s in grid.schemes],
            text=[[_text(table.get(cell, [])) for cell in row] for row in places], texttemplate="%{text}",
            textfont={"size": 11}, xgap=2, ygap=2, zmin=-grid.largest, zmax=grid.largest, showscale=False,
            colorscale=[[0, RED], [0.5, WHITE], [1, BLUE]], hovertemplate="%{y}, %{x}: %{text}<extra></extra>",
        )
    )  # fmt: skip
    trained = {cell for sweep in family.sweeps for cell in _trained(sweep)} & set(table)
    for scheme, ratio in trained:
        x, y = grid.ratios.index(ratio), grid.schemes.index(scheme)
        chart.add_shape(type="rect", x0=x - 0.5, x1=x + 0.5, y0=y - 0.5, y1=y + 0.5, line={"color": INK, "width": 3})
    chart.update_xaxes(title="steps relative to training", type="category")
    chart.update_yaxes(type="category", autorange="reversed")
    told = listing([f"{scheme} {ratio:.2g}× {points(means[scheme, ratio] / 100)}" for scheme, ratio in sorted(table)])
    return panel(chart, f"Changes in points: {told}.", family.name, 90 + 62 * len(grid.schemes))


def _text(changes: Sequence[float]) -> str:
    """Write a cell: mean, then its standard error (none for one network) and n."""
    if not changes:
        return ""
    spread = statistics.spread(changes)
    error = "" if spread is None else f"±{100 * spread / len(changes) ** 0.5:.1f}, "
    return f"{points(float(np.mean(changes)))}<br>{error}n={len(changes)}"
