"""Draw final runs as dots, against what they cost, and differences to the baseline; choose the colours of families."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any
from zlib import crc32

import plotly.graph_objects as go  # type: ignore[import-untyped]

from sweep.records.rows import Phase, TrialRow
from sweep.report.elements import (
    GREY,
    INK,
    Figure,
    Key,
    Panel,
    count,
    label,
    listing,
    log_axis,
    padded,
    panel,
    percent,
    points,
)
from sweep.report.inference.comparison import EQUIVALENCE, MARGIN
from sweep.report.results import Difference, Family, Study, TaskResults, mean_or_none
from sweep.report.statistics import INTERVAL, Interval

# The first seven are told apart with any common colour vision (after Okabe & Ito 2008, darkened where they were too
# faint on white); variants of a network are shades of it.
COLOURS = {
    "resnet": "#0072B2",
    "continuous": "#D55E00",
    "hamiltonian": "#009E73",
    "lm_resnet": "#AA4499",
    "midpoint": "#A87400",
    "revnet": "#5B5B5B",
    "leapfrog": "#C9699E",
    "neural_ode": "#332288",
    "heunnet": "#882255",
    "polynet": "#117733",
    "fractalnet": "#008B8B",
    "continuous_preact": "#8A3D00",
    "stateful": "#BF3B3B",
    "preact_resnet": "#00456E",
    "wide_resnet": "#3B8CC4",
    "scaled_resnet": "#5A6FD6",
    "bottleneck_resnet": "#6A3D9A",
    "resnext": "#4E79A7",
    "lm_bottleneck": "#6E2A63",
    "lm_resnext": "#8E6BBF",
    "resnet18": "#2E86AB",
    "resnet50": "#1B4F72",
    "resnet101": "#0E2F44",
    "smoke": "#8C7B6B",
}
WIDE = 5.0  # a cost axis that spans this is logarithmic
COSTS: tuple[tuple[str, str, Callable[[TrialRow], float]], ...] = (  # words, title of the axis, value
    ("parameters", "parameters", lambda row: row.model_parameters),
    ("training FLOPs", "GFLOP of training", lambda row: row.gflops),
    ("rate evaluations", "rate evaluations", lambda row: row.rate_evaluations),
    ("seconds", "seconds", lambda row: row.seconds),
)
DRAWN = COSTS[:3]  # seconds depend on the machine and what else it did
SYMBOLS = ("circle", "diamond", "square", "triangle-up", "star", "pentagon", "hexagon", "triangle-down")


def colours(families: Iterable[str]) -> dict[str, str]:
    """Choose a colour per family. One that is not ours gets the colour of its name's checksum, or the next free one."""
    names = sorted(families)
    chosen = {name: COLOURS[name] for name in names if name in COLOURS}
    offered = list(COLOURS.values())
    for name in names:
        if name not in chosen:
            first = crc32(name.encode()) % len(offered)
            turned = offered[first:] + offered[:first]
            chosen[name] = next((one for one in turned if one not in chosen.values()), turned[0])
    return chosen


def colour(study: Study, family: str) -> str:
    """Return the colour of a family, the same everywhere on the page."""
    return colours(study.families)[family]


def family_keys(study: Study, families: Sequence[Family], mark: str = "dot") -> list[Key]:
    return [Key(family.name, mark, colour(study, family.name)) for family in families]


def runs_as_dots(study: Study, results: TaskResults, name: str) -> Figure:
    chart = go.Figure()
    shown = [family for family in results.families if family.runs]
    for place, family in enumerate(shown):
        draws = sorted({run.draw for run in family.runs})
        for rank, draw in enumerate(draws):
            x = place - 0.22 + 0.3 * rank / max(1, len(draws) - 1)
            chart.add_trace(_dots(family, draw, x, colour(study, family.name)))
        mean = 100 * family.mean
        chart.add_scatter(
            x=[place + 0.25], y=[mean], mode="markers", error_y=whiskers(mean, family.interval),
            hovertemplate="mean %{y:.1f} %<extra></extra>",
            marker={"color": INK, "symbol": "line-ew-open", "size": 18, "line": {"width": 2}},
        )  # fmt: skip
    ticks = [f"{label(family.name)}<br>n = {len(family.runs)}" for family in shown]
    chart.update_xaxes(tickvals=list(range(len(shown))), ticktext=ticks, range=[-0.6, len(shown) - 0.4])
    chart.update_yaxes(title="test accuracy, %")
    caption = (
        "Every final run: one symbol and column per draw; × is a failed run, counted as chance. Bar and whiskers: mean "
        f"over draws and its {INTERVAL} (none for n = 1)."
    )
    told = listing([f"{f.name} {percent(f.mean)} % (n = {len(f.runs)})" for f in shown])
    return Figure(name, caption, [panel(chart, f"Mean test accuracies: {told}.")])


def _dots(family: Family, draw: int, x: float, tint: str) -> go.Scatter:
    runs = [run for run in family.runs if run.draw == draw]
    symbols = ["x" if run.failed else SYMBOLS[draw % len(SYMBOLS)] for run in runs]
    return go.Scatter(
        x=[x + 0.012 * (i - (len(runs) - 1) / 2) for i in range(len(runs))],
        y=[100 * run.accuracy for run in runs],
        mode="markers",
        name=f"{label(family.name)}, draw {draw}",
        marker={"color": tint, "symbol": symbols, "size": 9, "opacity": 0.8, "line": {"color": "white", "width": 1}},
        customdata=[run.seed for run in runs],
        hovertemplate=f"draw {draw}, seed %{{customdata}}: %{{y:.1f}} %<extra></extra>",
    )


def whiskers(centre: float, interval: Interval | None) -> dict[str, Any] | None:
    """Return plotly's error bars for a mean in percent and its interval in fractions."""
    if interval is None:
        return None
    return {"array": [100 * interval.high - centre], "arrayminus": [centre - 100 * interval.low], "thickness": 2}


def differences(study: Study, results: TaskResults, name: str) -> Figure:
    chart = go.Figure()
    names = [label(difference.family.name) for difference in results.differences]
    for title, difference in zip(names, results.differences, strict=True):
        tint, centre = colour(study, difference.family.name), 100 * difference.comparison.delta
        chart.add_scatter(
            x=[100 * value for value in difference.by_draw.values()], y=[title] * len(difference.by_draw),
            mode="markers", marker={"color": tint, "symbol": "circle-open", "size": 9},
            customdata=list(difference.by_draw), hovertemplate="draw %{customdata}: %{x:+.1f} points<extra></extra>",
        )  # fmt: skip
        chart.add_scatter(
            x=[centre], y=[title], mode="markers", error_x=whiskers(centre, difference.comparison.interval),
            marker={"color": tint, "symbol": "square", "size": 10},
            hovertemplate="mean %{x:+.1f} points<extra></extra>",
        )  # fmt: skip
    chart.add_vrect(x0=-100 * EQUIVALENCE, x1=100 * EQUIVALENCE, fillcolor="#E4E4E4", line_width=0, layer="below")
    chart.add_vline(x=0, line_color=GREY, line_width=1)
    chart.update_xaxes(title=f"test accuracy minus that of {label(results.baseline.name)}, points")
    chart.update_yaxes(range=[len(names) - 0.5, -0.5], type="category")
    caption = f"Difference to {results.baseline.name} over matched runs (same draw, same seed)."
    keys = [
        Key(f"mean, with its {INTERVAL} over draws and test images (none for one pair)", "square", INK),
        Key("a draw", "open", INK),
        Key(f"±{MARGIN}: within it families count as equivalent", "band", GREY),
    ]
    told = "; ".join(map(_told, results.differences))
    return Figure(name, caption, [panel(chart, f"{told}.", height=90 + 46 * len(names))], keys)


def _told(difference: Difference) -> str:
    interval = difference.comparison.interval
    spread = f" ({points(interval.low)} to {points(interval.high)})" if interval else ""
    return f"{difference.family.name}: {points(difference.comparison.delta)} points{spread}"


def accuracy_against_costs(study: Study, results: TaskResults, name: str) -> Figure | None:
    """Draw a panel per cost: every final network as a dot, its family's mean as a square; None for the networks of a
    single configuration, which cost the same."""
    shown = [family for family in results.families if family.runs]
    if len({(family.name, run.draw) for family in shown for run in family.runs}) < 2:
        return None
    ends = [end for family in shown if (one := family.interval) for end in (max(0.0, one.low), min(1.0, one.high))]
    heights = padded(100 * one for one in (*ends, *(run.accuracy for family in shown for run in family.runs)))
    panels = [_panel(study, shown, title, value, heights) for _, title, value in DRAWN]
    caption = (
        "Final networks on the test set against their size and what their training cost. Up and to the left is better."
    )
    keys = [
        *family_keys(study, shown),
        Key("a network", "dot", INK),
        Key(f"mean, with the {INTERVAL} of the accuracy", "square", INK),
    ]
    return Figure(name, caption, panels, keys, 230)


def _panel(
    study: Study, families: list[Family], title: str, value: Callable[[TrialRow], float], heights: list[float]
) -> Panel:
    chart, told, every = go.Figure(), [], []
    for family in families:
        costs = _costs(family, value)
        found = [
            (costs[run.draw, run.seed], 100 * run.accuracy) for run in family.runs if (run.draw, run.seed) in costs
        ]
        if not found:
            continue
        x, tint = [cost for cost, _ in found], colour(study, family.name)
        every += x
        mean = sum(x) / len(x)
        chart.add_scatter(
            x=x, y=[accuracy for _, accuracy in found], mode="markers", name=label(family.name),
            marker={"color": tint, "size": 8, "opacity": 0.6}, hovertemplate="%{y:.1f} %, %{x:,.4g}",
        )  # fmt: skip
        chart.add_scatter(
            x=[mean], y=[100 * family.mean], mode="markers", name=f"{label(family.name)}, mean",
            error_y=whiskers(100 * family.mean, family.interval),
            marker={"color": tint, "size": 11, "symbol": "square", "line": {"color": "white", "width": 1}},
            hovertemplate="%{y:.1f} %, %{x:,.4g}",
        )  # fmt: skip
        told.append(f"{family.name} {percent(family.mean)} % at {count(mean)}")
    if every and min(every) > 0 and max(every) >= WIDE * min(every):
        chart.update_xaxes(**log_axis(every))
    else:
        chart.update_xaxes(range=padded([*every, 0.9 * min(every, default=0)]), nticks=5, tickformat="~s")
    chart.update_xaxes(title=title)
    chart.update_yaxes(title="test accuracy, %", range=heights)
    return panel(chart, f"Mean test accuracy against {title}: {listing(told)}.", height=290)


def _costs(family: Family, value: Callable[[TrialRow], float]) -> dict[tuple[int, int], float]:
    rows = [row for sweep in family.sweeps for row in sweep.final_trials if row.phase is Phase.final]
    return {(row.draw, row.seed): value(row) for row in rows}


def ratios(family: Family, base: Family) -> list[tuple[str, float, float, float]]:
    """List the measures with the family's mean over final trainings, that of the base, and their ratio."""
    found = []
    for words, _, value in COSTS:
        own, other = mean_or_none(map(value, family.final_trials)), mean_or_none(map(value, base.final_trials))
        if own is not None and other:
            found.append((words, own, other, own / other))
    return found
