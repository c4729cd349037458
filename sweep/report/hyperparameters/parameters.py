"""What the search says of its parameters: importances, the objective against each, and trials through all of them.

Importances need no model of the space. Optuna's PED-ANOVA is not used: on the 12 to 60 trials of a sweep its values are
mostly noise, and it shows none.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go  # type: ignore[import-untyped]

from sweep.console import short_names
from sweep.records.outcome import Outcome
from sweep.records.rows import TrialRow
from sweep.report.elements import (
    GREY,
    INK,
    Figure,
    Key,
    Panel,
    label,
    listing,
    log_axis,
    padded,
    panel,
    parameter_value,
    plural,
)
from sweep.report.figures import colour, family_keys
from sweep.report.results import Family, Study, TaskResults, configuration_value
from sweep.report.statistics import average_ranks

NOISE = 0.95  # quantile of the importances of shuffled objectives
IMPORTANCE_KEYS = [
    Key("share explained", "square", INK),
    Key(
        f"reached by the longest bar in 1 of {1 / (1 - NOISE):.0f} shuffles: only bars beyond it stand out from noise",
        "tick",
        INK,
    ),
]
LOG_FROM = 30.0  # axes of positive values whose largest is this many times the smallest are logarithmic
SHADES = ("#C8C8C8", "#9ECAE1", "#4292C6", "#084594")  # the worst quarter of the trials to the best
FEW_TICKS = 4  # different whole numbers, each of which has a tick
QUARTERS = ("worst quarter of the trials", "third", "second", "best quarter")
PARALLEL_KEYS = [Key(text, "line", tint) for text, tint in zip(QUARTERS, SHADES, strict=True)]
ROW = 46  # pixels from an axis to the next
FEW = 20  # trials: below, a warning
SHUFFLES = 200
MEASURE = (
    "Importance is the adjusted share of the variance of the objective's ranks that one parameter explains by itself:"
    " numbers through a parabola in their rank (so that an optimum in the middle is seen), choices through their group"
    " means. It does not see interactions. Objectives are ranked within each draw and pooled over draws; failures count"
    " as chance, pruned trials and those that ran out of time by their last value, which is lower than what they would"
    " have reached."
)


@dataclass(frozen=True, slots=True)
class Importance:
    """The share that one parameter explains, over the n trials that had it. `noise`: the quantile `NOISE` of the
    largest share of all parameters when objectives are shuffled, so that few of all bars reach it by chance."""

    parameter: str
    share: float
    noise: float
    n: int


def varied_parameters(family: Family) -> list[str]:
    """List the parameters that took more than one value, counting absent as a value, in alphabetical order."""
    rows = [row.parameters for s in family.sweeps for row in s.trials if configuration_value(row) is not None]
    names = sorted({name for row in rows for name in row})
    return [name for name in names if len({str(row.get(name)) for row in rows}) > 1]


def importances(family: Family, names: Sequence[str]) -> list[Importance]:
    """Measure the importances in the order of `names`, without parameters that too few trials had."""
    parameters, ranks_T = _pooled(family)
    designs: dict[str, tuple[np.ndarray, np.ndarray]] = {}  # with the trials that had the parameter
    for name in names:
        had = [index for index, own in enumerate(parameters) if name in own]
        values = [parameters[index][name] for index in had]
        if len(set(map(str, values))) > 1 and len(values) >= 4:
            designs[name] = _design(values), np.array(had)
    if not designs:
        return []
    generator = np.random.default_rng(0)
    shuffles = [generator.permutation(ranks_T) for _ in range(SHUFFLES)]
    largest = [max(explained(design, ranks[had]) for design, had in designs.values()) for ranks in shuffles]
    noise = float(np.quantile(largest, NOISE))
    return [
        Importance(name, explained(design, ranks_T[had]), noise, len(had)) for name, (design, had) in designs.items()
    ]


def explained(design: np.ndarray, ranks: np.ndarray) -> float:
    """Compute the adjusted R^2 of a least-squares fit, 0 where it is negative or has no degrees of freedom left.

    design: (n, k), its columns spanning the constant; ranks: (n,).
    Source: Ezekiel 1930, Methods of Correlation Analysis.
    """
    n, k = len(ranks), int(np.linalg.matrix_rank(design))
    total = float(np.sum((ranks - ranks.mean()) ** 2))
    if n <= k or total == 0:
        return 0.0
    residual = ranks - design @ np.linalg.lstsq(design, ranks, rcond=None)[0]
    return max(0.0, 1 - float(residual @ residual) / total * (n - 1) / (n - k))


def _pooled(family: Family) -> tuple[list[dict[str, Any]], np.ndarray]:
    """Pool the parameters of the trials that ended, and the objectives' ranks in (0, 1), ranked within each sweep."""
    parameters, ranks = list[dict[str, Any]](), list[float]()
    for sweep in family.sweeps:
        ended = [(row.parameters, value) for row in sweep.trials if (value := configuration_value(row)) is not None]
        parameters += [own for own, _ in ended]
        ranks += list(average_ranks([value for _, value in ended]) / (len(ended) + 1)) if ended else []
    return parameters, np.array(ranks)


def _design(values: Sequence[Any]) -> np.ndarray:
    if any(isinstance(value, str | bool) or value is None for value in values):
        groups = sorted({str(value) for value in values})
        return np.array([[float(str(value) == group) for group in groups] for value in values])
    x = average_ranks(values) / len(values)
    return np.stack([np.ones_like(x), x, x**2], axis=1)


def importance_bars(family: Family, tint: str, found: Sequence[Importance]) -> Panel:
    ordered = sorted(found, key=lambda one: one.share)
    short = short_names(one.parameter for one in ordered)
    titles = [f"{label(short[one.parameter])} (n = {one.n})" for one in ordered]
    chart = go.Figure()
    chart.add_bar(
        x=[one.share for one in ordered], y=titles, orientation="h", marker={"color": tint}, name="share explained",
        hovertemplate="%{x:.2f}",
    )  # fmt: skip
    chart.add_scatter(
        x=[one.noise for one in ordered], y=titles, mode="markers", name="the longest bar in 1 of 20 shuffles",
        marker={"symbol": "line-ns-open", "size": 14, "color": INK, "line": {"width": 2}}, hovertemplate="%{x:.2f}",
    )  # fmt: skip
    chart.update_layout(bargap=0.4)
    chart.update_xaxes(title="share of the rank variance", rangemode="tozero", nticks=5)
    told = listing([f"{one.parameter} {one.share:.2f} (chance {one.noise:.2f})" for one in ordered[::-1]])
    return panel(chart, f"Importance of each parameter alone: {told}.", family.name, 80 + 26 * len(ordered))


def slices(study: Study, results: TaskResults, name: str) -> Figure | None:
    """Draw a panel per parameter that varied in any family; None where none did."""
    varied = {family.name: varied_parameters(family) for family in results.families}
    names = sorted({parameter for found in varied.values() for parameter in found})
    if not names:
        return None
    rows = [row for family in results.families for row in _ended(family)]
    heights = padded(100 * (configuration_value(row) or 0.0) for row in rows)
    panels = [_slice(study, results.families, parameter, heights) for parameter in names]
    caption = (
        "Search trials, one seed each: validation objective against each parameter that varied. Failures stand at "
        "chance, pruned trials at their last value."
    )
    keys = [
        *family_keys(study, results.families),
        Key("done", "dot", INK),
        Key("pruned, or out of time", "open", INK),
        Key("failed", "cross", INK),
    ]
    return Figure(name, caption, panels, keys, 230)


def _ended(family: Family) -> list[TrialRow]:
    return [row for sweep in family.sweeps for row in sweep.trials if configuration_value(row) is not None]


def _slice(study: Study, families: Sequence[Family], parameter: str, heights: Sequence[float]) -> Panel:
    chart, every = go.Figure(), []
    for family in families:
        rows = [row for row in _ended(family) if row.parameters.get(parameter) is not None]
        if rows:
            every += [row.parameters[parameter] for row in rows]
            chart.add_trace(_slice_dots(rows, parameter, colour(study, family.name), label(family.name)))
    if is_choice(every):
        order = sorted({str(value) for value in every})
        chart.update_xaxes(type="category", categoryorder="array", categoryarray=[label(one) for one in order])
    elif is_logarithmic(every):
        chart.update_xaxes(**log_axis(every))
    elif len(set(every)) <= FEW_TICKS and all(float(value).is_integer() for value in every):
        chart.update_xaxes(tickvals=sorted(set(every)))  # there are no halves of a node
    else:
        chart.update_xaxes(nticks=5)
    chart.update_yaxes(title="objective, %", range=heights, nticks=5)
    return panel(chart, f"Objective against {parameter}, {_extent(every)}.", parameter, 220)


def _extent(values: Sequence[Any]) -> str:
    if is_choice(values):
        return ", ".join(sorted({str(value) for value in values}))
    return f"{parameter_value(min(values))} to {parameter_value(max(values))}"


def _slice_dots(rows: Sequence[TrialRow], parameter: str, tint: str, title: str) -> go.Scatter:
    values = [row.parameters[parameter] for row in rows]
    return go.Scatter(
        x=[label(str(value)) for value in values] if is_choice(values) else values,
        y=[100 * (configuration_value(row) or 0.0) for row in rows],
        mode="markers",
        name=title,
        marker={"color": tint, "size": 7, "opacity": 0.7, "symbol": [_symbol(row) for row in rows]},
        customdata=[row.number for row in rows],
        hovertemplate="trial %{customdata}: %{y:.1f} %, %{x}",
    )


def _symbol(row: TrialRow) -> str:
    if row.outcome is Outcome.done:
        return "circle"
    last = row.outcome is Outcome.timeout and row.objective is not None  # what it counts by
    return "circle-open" if last or row.outcome is Outcome.pruned else "x"


def is_choice(values: Sequence[Any]) -> bool:
    """Tell whether a parameter's values are names rather than numbers."""
    return any(isinstance(value, bool) or not isinstance(value, int | float) for value in values)


def is_logarithmic(values: Sequence[float]) -> bool:
    return bool(values) and min(values) > 0 and max(values) / min(values) >= LOG_FROM


def parallel_coordinates(family: Family, varied: Sequence[str]) -> Panel:
    """Draw every trial as a line through its parameters; `varied` are those that took more than one value."""
    trials = [row for sweep in family.sweeps for row in sweep.trials]
    rows = [(row, value) for row in trials if (value := configuration_value(row)) is not None]
    objective = [100 * value for _, value in rows]
    short = short_names(varied)
    axes = [_Axis.of(short[name], [row.parameters.get(name) for row, _ in rows]) for name in varied]
    axes.append(_Axis.of("objective, %", objective))
    chart = go.Figure()
    rank = np.argsort(np.argsort(objective, kind="stable"), kind="stable")
    quarter = rank * len(SHADES) // max(1, len(rows))
    for place, tint in enumerate(SHADES):
        chart.add_trace(_lines([axis.places for axis in axes], np.flatnonzero(quarter == place).tolist(), tint))
    for depth, axis in enumerate(axes):
        axis.draw(chart, depth)
    chart.update_xaxes(range=[-0.04, 1.04], visible=False)
    chart.update_yaxes(range=[len(axes) - 0.35, -0.6], visible=False)
    told = f"{plural(len(rows), 'trial')} through {', '.join(varied)} to the objective."
    return panel(chart, told, f"{family.name}, n = {len(rows)}", 40 + ROW * len(axes))


def _lines(places: Sequence[Sequence[float]], chosen: Sequence[int], tint: str) -> go.Scatter:
    x: list[float | None] = []
    y: list[float | None] = []
    for trial in chosen:
        x += [*(axis[trial] for axis in places), None]
        y += [*range(len(places)), None]
    return go.Scatter(x=x, y=y, mode="lines", line={"color": tint, "width": 1.5}, opacity=0.8, hoverinfo="skip")


class _Axis:
    """One axis: its title, where each trial stands on it (0 to 1), and its ticks as (place, text)."""

    def __init__(self, title: str, places: Sequence[float], ticks: Sequence[tuple[float, str]]) -> None:
        self.title, self.places, self.ticks = title, places, ticks

    @classmethod
    def of(cls, title: str, values: Sequence[Any]) -> "_Axis":
        """Scale the values: choices evenly, numbers linearly or by their logarithm, what is None left of all others."""
        absent = any(value is None for value in values)
        given = [value for value in values if value is not None]
        left = 0.12 if absent else 0.0
        if is_choice(given):
            names = sorted({str(value) for value in given})
            scaled = {name: place / max(1, len(names) - 1) for place, name in enumerate(names)}
            ticks = [(scaled[name], name) for name in names]
        else:
            of = math.log10 if is_logarithmic(given) else float
            low, high = of(min(given)), of(max(given))
            scaled = {value: (of(value) - low) / ((high - low) or 1.0) for value in given}
            ticks = [(scaled[value], parameter_value(value)) for value in dict.fromkeys((min(given), max(given)))]
        key = str if is_choice(given) else lambda value: value
        places = [0.0 if value is None else left + (1 - left) * scaled[key(value)] for value in values]
        marks = [(left + (1 - left) * place, text) for place, text in ticks]
        return cls(title, places, [(0.0, "–"), *marks] if absent else marks)

    def draw(self, chart: go.Figure, depth: int) -> None:
        chart.add_shape(type="line", x0=0, x1=1, y0=depth, y1=depth, line={"color": GREY, "width": 1})
        small = {"showarrow": False, "font": {"size": 11, "color": INK}, "bgcolor": "rgba(255,255,255,0.8)"}
        title = f"<b>{label(self.title)}</b>"
        chart.add_annotation(x=0.5, y=depth, yanchor="bottom", text=title, borderpad=0, **small)
        for place, text in self.ticks:
            side = "left" if place == 0 else "right" if place == 1 else "center"
            chart.add_annotation(x=place, y=depth, yanchor="top", xanchor=side, text=label(text), borderpad=0, **small)
