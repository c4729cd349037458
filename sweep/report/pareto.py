"""Draw Pareto fronts on validation images: accuracy against inference cost, and what a sweep was asked to optimize."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go  # type: ignore[import-untyped]

from sweep.config.search_config import Objective
from sweep.records.rows import ManifestationRow, TrialRow, ranked
from sweep.report.elements import (
    INK,
    Figure,
    Key,
    Table,
    count,
    label,
    listing,
    log_axis,
    padded,
    panel,
    percent,
    plural,
    written_parameters,
)
from sweep.report.figures import colour, family_keys
from sweep.report.load import Sweep
from sweep.report.results import Family, Study, TaskResults

AXES = {"gflops": "GFLOP of one image's forward pass", "rate_evaluations": "rate evaluations of one forward pass"}
DECADE = 10.0  # a cost axis that spans this is logarithmic
BIAS = (
    "Points on a front were chosen among many measured on the same validation images, so their accuracies are biased"
    " upwards; only the final networks on the test set tell what they are worth."
)


@dataclass(frozen=True, slots=True)
class Point:
    """One network, done and within all limits, in one manifestation."""

    sweep: Sweep
    row: ManifestationRow


@dataclass(frozen=True, slots=True)
class ChosenTrial:
    """One trial of a sweep with several objectives, done and within all limits."""

    sweep: Sweep
    row: TrialRow


def front(costs: Sequence[tuple[float, ...]]) -> list[int]:
    """Find the places of points that no other equals or undercuts in all costs, by rising first cost; ties: the
    earlier."""
    found: list[int] = []
    for place in sorted(range(len(costs)), key=lambda one: (costs[one], one)):
        point = costs[place]
        if not any(all(a <= b for a, b in zip(costs[other], point, strict=True)) for other in found):
            found.append(place)
    return found


def points(family: Family) -> list[Point]:
    return [
        Point(sweep, row)
        for sweep in family.sweeps
        for chosen in [{trial.number for trial in ranked(sweep.trials)}]
        for row in sweep.manifestations
        if row.number in chosen
    ]


def point_front(found: Sequence[Point]) -> list[Point]:
    """Find the front by rising GFLOP."""
    return [found[place] for place in front([(point.row.gflops, -point.row.accuracy) for point in found])]


def inference(study: Study, results: TaskResults, name: str) -> Figure | None:
    """Draw every manifestation of every done trial; None where none was measured."""
    chart, told = go.Figure(), []
    drawn = [(family, found) for family in results.families if (found := points(family))]
    for family, found in drawn:
        tint, title, best = colour(study, family.name), label(family.name), point_front(found)
        chart.add_trace(_cloud(found, tint, title))
        chart.add_trace(_line(best, tint, f"{title}, front"))
        ends = [f"{percent(one.row.accuracy)} % at {count(one.row.gflops)} GFLOP" for one in (best[0], best[-1])]
        told.append(f"{family.name} from {ends[0]} to {ends[1]}")
    costs = [point.row.gflops for _, found in drawn for point in found]
    if not costs:
        return None
    chart.update_xaxes(title="GFLOP of one image's forward pass", **_axis(costs))
    chart.update_yaxes(title="validation accuracy, %")
    caption = (
        "Accuracy on validation images against inference cost, for every scheme and number of steps under which a "
        f"search trial was measured when it was done (one seed each; n = {plural(len(costs), 'point')})."
    )
    keys = [
        *family_keys(study, [family for family, _ in drawn]),
        Key("as it was trained", "dot", INK),
        Key("under another manifestation", "open", INK),
        Key("front of a family, over all its trials and draws", "line", INK),
    ]
    return Figure(name, caption, [panel(chart, f"Fronts: {listing(told)}.", height=360)], keys)


def _axis(costs: Sequence[float]) -> dict[str, Any]:
    logarithmic = costs and min(costs) > 0 and max(costs) >= DECADE * min(costs)
    return log_axis(costs) if logarithmic else {"type": "linear"}


def _cloud(found: Sequence[Point], tint: str, title: str) -> go.Scatter:
    symbols = ["circle" if point.row.trained else "circle-open" for point in found]
    return go.Scatter(
        x=[point.row.gflops for point in found], y=[100 * point.row.accuracy for point in found], mode="markers",
        name=title, marker={"color": tint, "symbol": symbols, "size": 6, "opacity": 0.5},
        text=[f"{label(p.sweep.name)}, trial {p.row.number}, {p.row.scheme}, {p.row.steps} steps" for p in found],
        hovertemplate="%{text}: %{y:.1f} %, %{x:.3g} GFLOP",
    )  # fmt: skip


def _line(best: Sequence[Point], tint: str, title: str) -> go.Scatter:
    return go.Scatter(
        x=[point.row.gflops for point in best], y=[100 * point.row.accuracy for point in best], mode="lines",
        name=title, line={"color": tint, "width": 2.5, "shape": "hv"}, hoverinfo="skip",
    )  # fmt: skip


def inference_table(study: Study, results: TaskResults) -> Table:
    body = []
    for family in results.families:
        for point in point_front(points(family)):
            row = point.row
            body.append([
                family.name,
                study.short(point.sweep),
                str(row.number),
                row.scheme,
                str(row.steps),
                "yes" if row.trained else "no",
                percent(row.accuracy),
                str(row.n),
                count(row.gflops),
                count(row.rate_evaluations),
            ])  # fmt: skip
    columns = [
        "family", "sweep", "trial", "scheme", "steps", "trained", "val accuracy", "n images", "GFLOP",
        "rate evaluations",
    ]  # fmt: skip
    draws = max(len(family.sweeps) for family in results.families)
    caution = " Draws have validation images of their own: accuracies of different sweeps compare roughly." * (
        draws > 1
    )
    caption = (
        f"The front of each family, by rising GFLOP of one image's forward pass; rate evaluations are "
        f"of the same pass, accuracy in percent.{caution}"
    )
    return Table(caption, columns, body, ("family", "sweep", "scheme", "trained"))


def objectives_of(results: TaskResults) -> list[tuple[str, ...]]:
    """List the sets of objectives of the task's sweeps that had several, each in the order of `Objective`."""
    found = {tuple(row.objectives) for f in results.families for s in f.sweeps for row in ranked(s.trials)}
    ordered = {tuple(one.value for one in Objective if one.value in names) for names in found}
    return sorted(names for names in ordered if len(names) > 1)


def choices(sweep: Sweep, names: tuple[str, ...]) -> list[ChosenTrial]:
    return [ChosenTrial(sweep, row) for row in ranked(sweep.trials) if set(row.objectives) == set(names)]


def choice_front(found: Sequence[ChosenTrial], names: tuple[str, ...]) -> list[ChosenTrial]:
    """Find the front, the best accuracy first."""
    signs = [1 if Objective[name].minimized else -1 for name in names]
    costs = [tuple(s * one.row.objectives[name] for s, name in zip(signs, names, strict=True)) for one in found]
    return [found[place] for place in front(costs)]


def objectives(study: Study, results: TaskResults, names: tuple[str, ...], name: str) -> Figure:
    """Draw a panel per objective besides accuracy."""
    found = {f.name: [one for sweep in f.sweeps for one in choices(sweep, names)] for f in results.families}
    best = [one for f in results.families for sweep in f.sweeps for one in choice_front(choices(sweep, names), names)]
    everything = [one for own in found.values() for one in own]
    heights = padded(100 * one.row.objectives[Objective.accuracy.value] for one in everything)
    panels = []
    for other in names:
        if other == Objective.accuracy.value:
            continue
        chart, title = go.Figure(), AXES.get(other, f"{other}, %")
        for family, own in found.items():
            trace = _trials(own, best, other).update(name=label(family), marker_color=colour(study, family))
            chart.add_trace(trace)
        values = [one.row.objectives[other] for one in everything]
        chart.update_xaxes(title=title, **(_axis(values) if Objective[other].minimized else {}))
        chart.update_yaxes(title="validation accuracy, %", range=heights)
        panels.append(panel(chart, f"{plural(len(best), 'trial')} of {len(everything)} on fronts, against {title}."))
    caption = (
        f"Done trials within all limits of the sweeps that optimized {listing(names)} together (n = {len(everything)}, "
        "one seed each), measured on validation images."
    )
    keys = [
        *family_keys(study, results.families),
        Key("on the front of its sweep", "dot", INK),
        Key("not on it", "open", INK),
    ]
    return Figure(name, caption, panels, keys)


def _trials(found: Sequence[ChosenTrial], best: Sequence[ChosenTrial], other: str) -> go.Scatter:
    chosen = {id(one.row) for one in best}
    unit = 1 if Objective[other].minimized else 100  # in percent
    return go.Scatter(
        x=[unit * one.row.objectives[other] for one in found],
        y=[100 * one.row.objectives[Objective.accuracy.value] for one in found], mode="markers",
        marker={"size": 9, "symbol": ["circle" if id(one.row) in chosen else "circle-open" for one in found]},
        text=[f"{label(one.sweep.name)}, trial {one.row.number}" for one in found],
        hovertemplate="%{text}: %{y:.1f} %, %{x:.3g}<extra></extra>",
    )  # fmt: skip


def objectives_table(study: Study, results: TaskResults, names: tuple[str, ...]) -> Table:
    body = []
    for sweep in (sweep for family in results.families for sweep in family.sweeps):
        for one in choice_front(choices(sweep, names), names):
            values = one.row.objectives
            told = [count(values[n]) if Objective[n].minimized else percent(values[n]) for n in names]
            body.append([study.short(sweep), str(one.row.number), *told, written_parameters(one.row.parameters)])
    columns = ["sweep", "trial", *(name.replace("_", " ") for name in names), "parameters"]
    caption = f"The front of each sweep over {listing(names)}, best accuracy first; accuracy and robustness in percent."
    return Table(caption, columns, body, ("sweep", "parameters"))
