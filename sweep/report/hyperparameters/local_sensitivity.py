"""How sharp the optimum of a search is: what neighbours of the selected configuration reach, trained alike."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go  # type: ignore[import-untyped]

from odenet.training.config import to_plain
from sweep.config.overrides import flat
from sweep.report import statistics
from sweep.report.elements import (
    INK,
    NONE,
    Block,
    Figure,
    Key,
    Notice,
    Panel,
    Table,
    listing,
    panel,
    parameter_value,
    percent,
    plural,
    points,
)
from sweep.report.hyperparameters.tuning_curves import NEAR
from sweep.report.inference.comparison import EQUIVALENCE, MARGIN
from sweep.report.load import Sweep
from sweep.report.results import TaskResults, configuration_value
from sweep.report.robustness.manifestations import BLUE, RED, WHITE
from sweep.tuning.local_grid import KEYS, LR, WEIGHT_DECAY

SLIGHT = EQUIVALENCE + 1e-9  # a drop that still counts as none
WITHIN = f"within {100 * NEAR:.0f} points"
HOW = (
    "Trained anew as ordinary trials on train, from the same seeds for all and other ones than the search had; "
    "validation objective, failures at chance. Nothing was chosen by it."
)


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A configuration on the grid. `factors`: of the selected one's values; `values` and `changes`, against the
    selected one, are by seed, fractions."""

    factors: dict[str, float]
    values: list[float]
    changes: list[float]

    @property
    def change(self) -> float:
        return float(np.mean(self.changes))

    def varies_only(self, *keys: str) -> bool:
        return all(factor == 1 for key, factor in self.factors.items() if key not in keys)


def neighbours(sweep: Sweep) -> list[Neighbour]:
    """List what was trained around the selected configuration and has ended, that one first."""
    if sweep.center is None:
        return []
    plain = flat(to_plain(sweep.center.experiment))
    by_point: dict[str, dict[int, float]] = {}
    for row in sweep.sensitivity:
        if (value := configuration_value(row)) is not None:
            by_point.setdefault(json.dumps(row.parameters, sort_keys=True), {})[row.seed] = value
    center = by_point.get(json.dumps({key: plain[key] for key in KEYS}, sort_keys=True), {})
    found = []
    for text, values in by_point.items():
        factors = {key: _factor(value, plain[key]) for key, value in json.loads(text).items()}
        shared = [seed for seed in values if seed in center]
        if shared:
            changes = [values[seed] - center[seed] for seed in shared]
            found.append(Neighbour(factors, list(values.values()), changes))
    return sorted(found, key=lambda one: (not one.varies_only(), [one.factors[key] for key in KEYS]))


def _factor(value: float, center: float) -> float:
    return float(f"{value / center:.6g}") if center else 1.0


def blocks(results: TaskResults, name: str) -> list[Block]:
    """Build the heat maps, a row for each sweep that was asked, and all neighbours, folded away."""
    around_each = found(results)
    asked = [sweep for family in results.families for sweep in family.sweeps if sweep.sensitivity]
    made: list[Block] = [Notice(told) for sweep in asked for told in _notices(sweep)]
    if not around_each:
        return made
    panels = [
        heat_map(f"{family}, draw {draw}", around)
        for (family, draw), around in around_each.items()
        if any(one.factors[LR] != 1 and one.factors[WEIGHT_DECAY] != 1 for one in around)
    ]
    if panels:
        caption = (
            "Learning rate and weight decay around the selected configuration, times the factors at the axes: mean "
            "objective in percent, below it the change against the selected one from the same seeds, in points, with "
            f"its standard error over n seeds (none for one). {HOW}"
        )
        keys = [Key("worse than the selected one to better, to each panel's largest change", "scale", INK)]
        made.append(Figure(name, caption, panels, [*keys, Key("selected", "outline", INK)], 420))
    made.append(table(around_each))
    made += [_each(family, draw, around) for (family, draw), around in around_each.items()]
    return made


def found(results: TaskResults) -> dict[tuple[str, int], list[Neighbour]]:
    """Return, by family and draw, what was trained around selected configurations."""
    return {
        (family.name, sweep.draw): around
        for family in results.families
        for sweep in family.sweeps
        if len(around := neighbours(sweep)) > 1
    }


def _notices(sweep: Sweep) -> list[str]:
    """Say what of a sweep is not as a reader would expect."""
    told, center = [], None if sweep.center is None else int(sweep.center.provenance["trial"])
    if center is None:
        told.append(f"sensitivity/best.yaml of {sweep.name} is missing: around which configuration is not known.")
    elif sweep.crowned_candidate not in (None, center):
        told.append(
            f"What was trained around a configuration of {sweep.name} is around trial {center}; the crowned one is "
            f"trial {sweep.crowned_candidate}."
        )
    if open_rows := [row for row in sweep.sensitivity if configuration_value(row) is None]:
        told.append(
            f"{plural(len(open_rows), 'training')} around trial {center} of {sweep.name} has not ended or was lost, "
            f"and is left out: `sweep sensitivity {sweep.name}` goes on."
        )
    return told


def table(around_each: dict[tuple[str, int], list[Neighbour]]) -> Table:
    """Give a row to every sweep: how much of the grid is near the selected configuration."""
    columns = [
        "family", "draw", "selected", "sd", "n", "neighbours", "n each", WITHIN, "share", "mean change",
        "largest drop", f"lr, drop < {MARGIN}", f"weight decay, drop < {MARGIN}",
    ]  # fmt: skip
    rows = [[family, str(draw), *_row(around)] for (family, draw), around in around_each.items()]
    caption = (
        f"{HOW} Selected: mean objective of that configuration in percent, its sd over n seeds in points, which is "
        "what seeds alone change. Changes of its neighbours against it from the same seeds, in points; the last "
        "columns: how far each can be changed alone, within the factors that were tried."
    )
    return Table(caption, columns, rows, ("family",))


def _row(around: Sequence[Neighbour]) -> list[str]:
    center, *others = around
    near, sd = [one for one in others if one.change >= -NEAR], statistics.spread(center.values)
    each = sorted({len(one.changes) for one in others})
    return [
        percent(float(np.mean(center.values))),
        NONE if sd is None else f"{100 * sd:.1f}",
        str(len(center.values)),
        str(len(others)),
        " to ".join(map(str, dict.fromkeys([each[0], each[-1]]))),
        str(len(near)),
        f"{percent(len(near) / len(others), 0)} %",
        points(float(np.mean([one.change for one in others]))),
        points(min(one.change for one in others)),
        *(slight_range(around, key) for key in (LR, WEIGHT_DECAY)),
    ]


def slight_range(around: Sequence[Neighbour], key: str) -> str:
    """Write the factors of one parameter, from the selected value to either side, before the first drop of more than
    the margin of equivalence."""
    alone = {one.factors[key]: one.change for one in around if one.varies_only(key)}
    if len(alone) < 2:
        return NONE
    below = _until_a_drop(alone, [factor for factor in sorted(alone, reverse=True) if factor <= 1])
    above = _until_a_drop(alone, [factor for factor in sorted(alone) if factor >= 1])
    return f"{below:.3g}× to {above:.3g}×"


def _until_a_drop(changes: dict[float, float], factors: Sequence[float]) -> float:
    last = factors[0]
    for factor in factors:
        if changes[factor] < -SLIGHT:
            break
        last = factor
    return last


def cells(around: Sequence[Neighbour]) -> dict[tuple[float, float], Neighbour]:
    """Return by the factors of learning rate and weight decay what has everything else as selected."""
    return {(one.factors[LR], one.factors[WEIGHT_DECAY]): one for one in around if one.varies_only(LR, WEIGHT_DECAY)}


def heat_map(title: str, around: Sequence[Neighbour]) -> Panel:
    """Draw learning rate against weight decay, everything else as selected."""
    found = cells(around)
    lrs, decays = (sorted({cell[axis] for cell in found}) for axis in (0, 1))
    largest = max(abs(100 * one.change) for one in found.values()) or 1.0
    places = [[found.get((lr, decay)) for decay in decays] for lr in lrs]
    chart = go.Figure(
        go.Heatmap(
            z=[[None if one is None else 100 * one.change for one in row] for row in places],
            x=[f"{decay:.3g}×" for decay in decays], y=[f"{lr:.3g}×" for lr in lrs],
            text=[[_text(one) for one in row] for row in places], texttemplate="%{text}", textfont={"size": 10},
            xgap=2, ygap=2, zmin=-largest, zmax=largest, showscale=False,
            colorscale=[[0, RED], [0.5, WHITE], [1, BLUE]],
            hovertemplate="lr %{y}, weight decay %{x}: %{text}<extra></extra>",
        )
    )  # fmt: skip
    x, y = decays.index(1.0), lrs.index(1.0)
    chart.add_shape(type="rect", x0=x - 0.5, x1=x + 0.5, y0=y - 0.5, y1=y + 0.5, line={"color": INK, "width": 3})
    chart.update_xaxes(title="weight decay relative to the selected one", type="category")
    chart.update_yaxes(title="learning rate", type="category")
    told = [f"lr {lr:.3g}× decay {decay:.3g}× {points(one.change)}" for (lr, decay), one in sorted(found.items())]
    return panel(chart, f"Changes in points: {listing(told)}.", title, 110 + 46 * len(lrs))


def _text(one: Neighbour | None) -> str:
    if one is None:
        return ""
    spread = statistics.spread(one.changes)
    error = "" if spread is None else f"±{100 * spread / len(one.changes) ** 0.5:.1f}"
    change = "selected" if one.varies_only() else f"{points(one.change)}{error}"
    return f"{percent(float(np.mean(one.values)))}<br>{change}, n={len(one.changes)}"


def _each(family: str, draw: int, around: Sequence[Neighbour]) -> Table:
    columns = [*(key.partition(".")[2].replace("_", " ") for key in KEYS), "objective", "sd", "n", "change"]
    rows = []
    for one in around:
        sd = statistics.spread(one.values)
        rows.append([
            *(f"{parameter_value(one.factors[key])}×" for key in KEYS),
            percent(float(np.mean(one.values))),
            NONE if sd is None else f"{100 * sd:.1f}",
            str(len(one.values)),
            points(one.change),
        ])  # fmt: skip
    folded = f"All {len(rows)} configurations around the selected one of {family}, draw {draw}"
    return Table(f"Factors of the selected configuration's values. {HOW}", columns, rows, folded=folded)
