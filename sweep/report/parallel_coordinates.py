"""What the search saw of its space, and what a trained network does under other integrators."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go  # type: ignore[import-untyped]

from sweep.report.elements import INK, Figure, figure, label, parameter_value, points
from sweep.report.figures import colour
from sweep.report.param_importances import Importance
from sweep.report.results import Family, Study, TaskResults, configuration_value, is_trained, manifestation_differences

LOG_FROM = 30.0  # axes of positive values whose largest is this many times the smallest are logarithmic


def importances(study: Study, task: TaskResults, family: Family, found: Sequence[Importance], name: str) -> Figure:
    ordered = sorted(found, key=lambda one: one.share)
    titles = [f"{label(one.parameter)} (n = {one.n})" for one in ordered]
    chart = go.Figure()
    chart.add_bar(
        x=[one.share for one in ordered], y=titles, orientation="h", marker={"color": colour(study, family.name)},
        name="share explained", hovertemplate="%{x:.2f}",
    )  # fmt: skip
    chart.add_scatter(
        x=[one.noise for one in ordered], y=titles, mode="markers", name="reached by chance in 1 of 20 shuffles",
        marker={"symbol": "line-ns-open", "size": 16, "color": INK, "line": {"width": 2}}, hovertemplate="%{x:.2f}",
    )  # fmt: skip
    chart.update_layout(bargap=0.4)
    chart.update_xaxes(title="share of the rank variance of the objective", rangemode="tozero")
    caption = (
        f"{task.task}, {family.name}: importance of each parameter alone. Only bars that end beyond their black mark "
        "stand out from noise."
    )
    return figure(name, caption, chart, 150 + 28 * len(ordered), legend=True)


def parallel_coordinates(task: TaskResults, family: Family, varied: Sequence[str], name: str) -> Figure:
    """`varied`: the parameters that took more than one value."""
    trials = [row for sweep in family.sweeps for row in sweep.trials]
    rows = [(row, value) for row in trials if (value := configuration_value(row)) is not None]
    objective = [100 * value for _, value in rows]
    axes = [_axis(parameter, [row.parameters.get(parameter) for row, _ in rows]) for parameter in varied]
    chart = go.Figure(
        go.Parcoords(
            dimensions=[*axes, {"label": "objective, %", "values": objective}],
            line={
                "color": objective, "colorscale": "Viridis", "showscale": True, "colorbar": {"title": {"text": "%"}},
                "cmin": float(np.quantile(objective, 0.1)), "cmax": max(objective),
            },
            labelfont={"size": 12},
            labelangle=-14,
            rangefont={"color": "rgba(0,0,0,0)"},
        )
    )  # fmt: skip
    caption = (
        f"{task.task}, {family.name}: every trial that ended as a line (n = {len(rows)}), coloured by its objective "
        "(the worst tenth share the darkest colour), failures at chance; – where a parameter did not apply. Drag along "
        "an axis to keep only the lines that pass there; click the axis to undo."
    )
    return figure(name, caption, chart.update_layout(margin_t=84), 440)


def _axis(title: str, values: Sequence[Any]) -> dict[str, Any]:
    """One axis: named ticks for choices, numbers otherwise."""
    if any(isinstance(value, str | bool) for value in values):
        names = sorted({str(value) for value in values if value is not None}) + ["–"] * (None in values)
        places = [names.index("–" if value is None else str(value)) for value in values]
        ticks = [label(name) for name in names]
        return {"label": label(title), "values": places, "tickvals": list(range(len(names))), "ticktext": ticks}
    return {"label": label(title), **_scale(values)}


def _scale(values: Sequence[float | None]) -> dict[str, Any]:
    """Logarithmic where values span decades; what is None stands on a tick of its own below the others."""
    given = [value for value in values if value is not None]
    logarithmic = min(given) > 0 and max(given) / min(given) >= LOG_FROM
    scaled = [None if value is None else math.log10(value) if logarithmic else float(value) for value in values]
    known = [value for value in scaled if value is not None]
    low, high = min(known), max(known)
    ticks = _decades(low, high) if logarithmic else sorted(set(known)) if _few_whole(given) else _even(low, high)
    texts = [parameter_value(10.0**tick if logarithmic else tick) for tick in ticks]
    below = low - 0.15 * ((high - low) or 1.0)
    if len(given) < len(values):
        ticks, texts = [below, *ticks], ["–", *texts]
    return {"values": [below if value is None else value for value in scaled], "tickvals": ticks, "ticktext": texts}


def _decades(low: float, high: float) -> list[float]:
    inner = [float(power) for power in range(math.ceil(low), math.floor(high) + 1)]
    return [low, *(power for power in inner if low + 0.3 < power < high - 0.3), high]


def _even(low: float, high: float) -> list[float]:
    return np.linspace(low, high, 5).tolist()


def _few_whole(values: Sequence[float]) -> bool:
    return len(set(values)) <= 8 and all(value == int(value) for value in values)


def manifestations(task: TaskResults, family: Family, name: str) -> Figure | None:
    """None when the networks were measured under nothing but what they were trained with."""
    found = manifestation_differences(family)
    if len(found) < 2:
        return None
    schemes, steps = list(dict.fromkeys(scheme for scheme, _ in found)), sorted({steps for _, steps in found})
    trained = {(row.scheme, row.steps) for s in family.sweeps for row in s.evaluations if is_trained(row)}
    means = [[_mean_points(found.get((scheme, n))) for n in steps] for scheme in schemes]
    texts = [["" if value is None else points(value / 100) for value in row] for row in means]
    largest = max(abs(value) for row in means for value in row if value is not None) or 1.0
    chart = go.Figure(
        go.Heatmap(
            z=means, x=[str(n) for n in steps], y=[label(scheme) for scheme in schemes], text=texts,
            texttemplate="%{text}", xgap=2, ygap=2, zmin=-largest, zmax=largest,
            colorscale=[[0, "#B35806"], [0.5, "#F7F7F7"], [1, "#2166AC"]], colorbar={"title": {"text": "points"}},
            hovertemplate="%{y}, %{x} steps: %{text} points<extra></extra>",
        )
    )  # fmt: skip
    for scheme, n in trained & set(found):
        x, y = steps.index(n), schemes.index(scheme)
        chart.add_shape(type="rect", x0=x - 0.5, x1=x + 0.5, y0=y - 0.5, y1=y + 0.5, line={"color": INK, "width": 3})
    numbers = sorted({len(values) for values in found.values()})
    n_text = str(numbers[-1]) if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"
    chart.update_layout(title={"text": f"{label(family.name)}, n = {n_text} networks per cell", "font": {"size": 14}})
    chart.update_xaxes(title="integrator steps per stage", type="category")
    chart.update_yaxes(type="category", autorange="reversed")
    caption = (
        f"{task.task}, {family.name}: mean test accuracy under another integrator and number of steps, minus that of "
        "the same network as it was trained, in points (n = " + n_text + "). Outlined: trained manifestations; where "
        "draws chose different ones, an outlined cell need not be 0. A network that is an ODE loses nothing "
        "with more steps or a better integrator."
    )
    return figure(name, caption, chart, 170 + 44 * len(schemes))


def _mean_points(values: Sequence[float] | None) -> float | None:
    return None if not values else 100 * float(np.mean(values))
