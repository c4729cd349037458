"""Measure how much each parameter alone explains of the objective, without a model of the space.

Optuna's PED-ANOVA is not used: on the 12 to 60 trials of a sweep its values are mostly noise, and it shows none.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go  # type: ignore[import-untyped]

from sweep.report.elements import INK, Figure, figure, label
from sweep.report.figures import colour
from sweep.report.results import Family, Study, TaskResults, configuration_value
from sweep.report.statistics import average_ranks

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
    """The share that one parameter explains, over the n trials that had it. `noise`: the 95 % quantile when objectives
    are shuffled."""

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
    found = []
    for name in names:
        values, ranks = _pooled(family, name)
        if len(set(map(str, values))) > 1 and len(values) >= 4:
            found.append(_importance(name, values, ranks))
    return found


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


def _pooled(family: Family, name: str) -> tuple[list[Any], np.ndarray]:
    """Pool the parameter's values and the objectives' ranks in (0, 1), ranked within each sweep."""
    values: list[Any] = []
    ranks: list[float] = []
    for sweep in family.sweeps:
        ended = [(row.parameters, value) for row in sweep.trials if (value := configuration_value(row)) is not None]
        ranked = average_ranks([value for _, value in ended]) / (len(ended) + 1)
        for (parameters, _), rank in zip(ended, ranked, strict=True):
            if name in parameters:
                values.append(parameters[name])
                ranks.append(float(rank))
    return values, np.array(ranks)


def _importance(name: str, values: Sequence[Any], ranks: np.ndarray) -> Importance:
    design = _design(values)
    generator = np.random.default_rng(0)
    shuffled = [explained(design, generator.permutation(ranks)) for _ in range(SHUFFLES)]
    return Importance(name, explained(design, ranks), float(np.quantile(shuffled, 0.95)), len(values))


def _design(values: Sequence[Any]) -> np.ndarray:
    if any(isinstance(value, str | bool) or value is None for value in values):
        groups = sorted({str(value) for value in values})
        return np.array([[float(str(value) == group) for group in groups] for value in values])
    x = average_ranks(values) / len(values)
    return np.stack([np.ones_like(x), x, x**2], axis=1)


def importance_bars(study: Study, task: TaskResults, family: Family, found: Sequence[Importance], name: str) -> Figure:
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
