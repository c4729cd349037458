"""What final networks are worth when they are made smaller without data, against parameters, steps and latency."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go  # type: ignore[import-untyped]

from odenet.enums import Compression
from sweep.records.rows import COMPRESSION
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
    Text,
    count,
    label,
    listing,
    log_axis,
    padded,
    panel,
    percent,
    points,
)
from sweep.report.figures import colour, family_keys
from sweep.report.load import Sweep
from sweep.report.results import BASELINE, Family, Study, TaskResults

COSTS = {
    "parameters": "parameters",
    "rate_evaluations": "rate evaluations of a forward pass",
    "latency_ms": "ms an image",
}
SYMBOLS = {
    Compression.trained: "circle", Compression.projected: "square", Compression.shortened: "diamond",
    Compression.both: "triangle-up", Compression.dropped: "x",
}  # fmt: skip
HOW = (
    "Final networks made smaller without data, on a class-balanced part of the test set: projected has fewer nodes by "
    "L2 projection over depth and as many steps, shortened the trained weights in fewer steps, both fewer of each, "
    "dropped leaves blocks out with their steps. Batch-norm statistics move with the nodes and are not estimated anew. "
    "Not every network is deep enough for every size: means of different n are over different networks, changes are "
    "against the same ones."
)
Way = tuple[str, int]  # of a Compression, and how many times smaller


@dataclass(frozen=True, slots=True)
class Shrunk:
    """The networks of a family made smaller in one way; values by network, changes of accuracy against the same network
    as trained."""

    way: Way
    metrics: dict[str, list[float]]
    changes: list[float]

    def mean(self, metric: str) -> float:
        return float(np.mean(self.metrics[metric]))


def shrunk(family: Family) -> list[Shrunk]:
    """List what was measured of a family, as trained first."""
    metrics: dict[Way, dict[str, list[float]]] = {}
    changes: dict[Way, list[float]] = {}
    for sweep in family.sweeps:
        for values in _by_network(sweep):
            trained = values.get((Compression.trained.value, 1), {}).get("accuracy")
            for way, found in values.items():
                for metric, value in found.items():
                    metrics.setdefault(way, {}).setdefault(metric, []).append(value)
                if trained is not None and "accuracy" in found:
                    changes.setdefault(way, []).append(found["accuracy"] - trained)
    order = [one.value for one in Compression]
    ways = sorted(changes, key=lambda way: (order.index(way[0]), way[1]))
    return [Shrunk(way, metrics[way], changes[way]) for way in ways if {*COSTS, "latency_batch"} <= metrics[way].keys()]


def _by_network(sweep: Sweep) -> list[dict[Way, dict[str, float]]]:
    found: dict[int, dict[Way, dict[str, float]]] = {}
    for row in sweep.evaluations:
        kind, _, how = row.condition.partition("/")
        if kind == COMPRESSION:
            found.setdefault(row.seed, {}).setdefault((how, int(row.severity)), {})[row.metric] = row.value
    return list(found.values())


def blocks(study: Study, results: TaskResults, index: int) -> list[Block]:
    """Build figure, table and what the control says; nothing where nothing was made smaller."""
    measured = found(results)
    if not any(len(own) > 1 for own in measured.values()):
        return [Notice(f"{HOW} Nothing can be made smaller of {listing(list(measured))}.")] if measured else []
    return [figure(study, results, measured, f"compression-{index}"), table(measured), _control(measured)]


def found(results: TaskResults) -> dict[str, list[Shrunk]]:
    """Return what was measured of each family, of those that were."""
    return {family.name: own for family in results.families if (own := shrunk(family))}


def lines(own: Sequence[Shrunk]) -> dict[Compression, list[Shrunk]]:
    """Return, by way, the network as trained and its sizes."""
    trained = [one for one in own if one.way[0] == Compression.trained.value]
    joined = {Compression.trained: trained}
    for way in Compression:
        line = [one for one in own if one.way[0] == way.value]
        if line and way is not Compression.trained:
            joined[way] = [*trained, *line]
    return joined


def figure(study: Study, results: TaskResults, measured: dict[str, list[Shrunk]], name: str) -> Figure:
    panels = [_panel(study, measured, metric, title) for metric, title in COSTS.items()]
    caption = (
        f"{HOW} Means over the networks of a family with the standard error over them; a line joins sizes of one way. "
        f"Latency is of passes of {_batch(measured)} images, on the machine that measured, beside what else it did."
    )
    families = [family for family in results.families if family.name in measured]
    marks = [Key(f"{way.value}: {SYMBOLS[way]}", "dot", INK) for way in Compression]
    return Figure(name, caption, panels, [*family_keys(study, families), *marks])


def _batch(measured: dict[str, list[Shrunk]]) -> str:
    """Tell how many images passes had whose time was taken."""
    return listing(sorted({f"{n:g}" for own in measured.values() for one in own for n in one.metrics["latency_batch"]}))


def _panel(study: Study, measured: dict[str, list[Shrunk]], metric: str, title: str) -> Panel:
    chart, told, costs, heights = go.Figure(), list[str](), list[float](), list[float]()
    for family, own in measured.items():
        for way, line in lines(own).items():
            chart.add_trace(_line(line, metric, colour(study, family), f"{label(family)}, {way.value}"))
        costs += [one.mean(metric) for one in own]
        heights += [100 * one.mean("accuracy") + side * _error_of(one) for one in own for side in (-1, 1)]
        least = min(own, key=lambda one: one.mean(metric))
        told.append(f"{family} down to {count(least.mean(metric))} at {percent(least.mean('accuracy'))} %")
    chart.update_xaxes(title=title, **log_axis(costs))
    chart.update_yaxes(title="test accuracy, %", range=padded(heights))
    return panel(chart, f"Accuracy against {title}: {listing(told)}.", height=340)


def _line(line: Sequence[Shrunk], metric: str, tint: str, name: str) -> go.Scatter:
    return go.Scatter(
        x=[one.mean(metric) for one in line], y=[100 * one.mean("accuracy") for one in line], mode="lines+markers",
        name=name, line={"color": tint, "width": 1},
        error_y={"array": [_error_of(one) for one in line], "thickness": 1},
        marker={"color": tint, "size": 7, "symbol": [SYMBOLS[Compression[one.way[0]]] for one in line]},
        text=[f"{one.way[0]} {one.way[1]}×, n={len(one.changes)}" for one in line],
        hovertemplate="%{text}: %{y:.1f} %, %{x:.3g}",
    )  # fmt: skip


def _error_of(one: Shrunk) -> float:
    """Return the standard error of the mean accuracy over networks in points; 0 of a single one."""
    spread = statistics.spread(one.metrics["accuracy"])
    return 0.0 if spread is None else 100 * spread / len(one.metrics["accuracy"]) ** 0.5


def table(measured: dict[str, list[Shrunk]]) -> Table:
    columns = [
        "family", "made smaller", "times", "networks", "accuracy", "change ± SE", "parameters", "nodes",
        "rate evaluations", "GFLOP", "kB", "ms an image", "sd of passes",
    ]  # fmt: skip
    rows = [[family, *_row(one)] for family, own in measured.items() for one in own]
    caption = (
        f"{HOW} Means over networks; the change of accuracy against the same network as trained in points, its "
        f"standard error over networks; kB of all weights and buffers; latency of passes of {_batch(measured)} images, "
        "with the sd over the passes of a network."
    )
    return Table(caption, columns, rows, ("family", "made smaller"))


def _row(one: Shrunk) -> list[str]:
    mean: Callable[[str], float | None] = lambda metric: one.mean(metric) if metric in one.metrics else None  # noqa: E731
    gflops, latency, sd = mean("gflops"), mean("latency_ms"), mean("latency_sd")
    return [
        one.way[0],
        str(one.way[1]),
        str(len(one.changes)),
        percent(mean("accuracy")),
        f"{points(float(np.mean(one.changes)))} ± {_error(one)}",
        *(count(mean(metric)) for metric in ("parameters", "nodes", "rate_evaluations")),
        *(NONE if value is None else f"{value:.3g}" for value in (gflops, mean("kilobytes"), latency, sd)),
    ]


def _error(one: Shrunk) -> str:
    """Write the standard error of the change over networks."""
    spread = statistics.spread(one.changes)
    return NONE if spread is None else f"{100 * spread / len(one.changes) ** 0.5:.1f}"


def _control(measured: dict[str, list[Shrunk]]) -> Block:
    """Say what the same projection does to the ResNet, whose blocks are no steps of an ODE."""
    own = [one for one in measured.get(BASELINE, []) if one.way[0] == Compression.both.value]
    if not own:
        return Notice(f"There is no control here: no network of {BASELINE} was projected and shortened.")
    least = min(own, key=lambda one: one.way[1])
    return Text(
        f"The control: {BASELINE} with its blocks averaged in twos and as many fewer steps changes by "
        f"{points(float(np.mean(least.changes)))} points (standard error {_error(least)}, n = {len(least.changes)} "
        "networks); its blocks are no steps of an ODE, so that it is expected to lose. Where it does not, keeping "
        "accuracy says nothing of others either."
    )
