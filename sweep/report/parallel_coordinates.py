"""Draw what the search saw of its space: every trial as a line through its parameters to its objective."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go  # type: ignore[import-untyped]

from sweep.report.elements import Figure, figure, label, parameter_value
from sweep.report.results import Family, TaskResults, configuration_value

LOG_FROM = 30.0  # axes of positive values whose largest is this many times the smallest are logarithmic


def parallel_coordinates(task: TaskResults, family: Family, varied: Sequence[str], name: str) -> Figure:
    """Draw every trial as a line through its parameters; `varied` are those that took more than one value."""
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
    """Describe one axis: named ticks for choices, numbers otherwise."""
    if any(isinstance(value, str | bool) for value in values):
        names = sorted({str(value) for value in values if value is not None}) + ["–"] * (None in values)
        places = [names.index("–" if value is None else str(value)) for value in values]
        ticks = [label(name) for name in names]
        return {"label": label(title), "values": places, "tickvals": list(range(len(names))), "ticktext": ticks}
    return {"label": label(title), **_scale(values)}


def _scale(values: Sequence[float | None]) -> dict[str, Any]:
    """Scale an axis, logarithmic where values span decades; what is None stands on a tick of its own below the
    others."""
    given = [value for value in values if value is not None]
    logarithmic = min(given) > 0 and max(given) / min(given) >= LOG_FROM
    scale = math.log10 if logarithmic else float
    scaled = [None if value is None else scale(value) for value in values]
    known = [value for value in scaled if value is not None]
    low, high = min(known), max(known)
    if logarithmic:
        ticks = _decades(low, high)
    elif len(set(given)) <= 8 and all(value == int(value) for value in given):
        ticks = sorted(set(known))
    else:
        ticks = np.linspace(low, high, 5).tolist()
    texts = [parameter_value(10.0**tick if logarithmic else tick) for tick in ticks]
    below = low - 0.15 * ((high - low) or 1.0)
    if len(given) < len(values):
        ticks, texts = [below, *ticks], ["–", *texts]
    return {"values": [below if value is None else value for value in scaled], "tickvals": ticks, "ticktext": texts}


def _decades(low: float, high: float) -> list[float]:
    inner = [float(power) for power in range(math.ceil(low), math.floor(high) + 1)]
    return [low, *(power for power in inner if low + 0.3 < power < high - 0.3), high]
