"""Robustness to hyperparameters: what the best of k random trials is, and how all of them are distributed.

Only independent random trials without a scheduler tell it (`random_search`), each draw of the data for itself.
"""

from collections.abc import Callable, Sequence

import numpy as np
import plotly.graph_objects as go  # type: ignore[import-untyped]

from sweep.report.elements import (
    INK,
    NONE,
    Block,
    Figure,
    Key,
    Panel,
    Table,
    label,
    listing,
    log_axis,
    padded,
    panel,
    percent,
    percent_interval,
    points,
    points_interval,
)
from sweep.report.figures import colour, family_keys
from sweep.report.hyperparameters.random_search import Drawn, drawn_of
from sweep.report.inference import comparison
from sweep.report.inference.bands import TuningCurve, area
from sweep.report.results import FAILED, Study, TaskResults, chance
from sweep.report.statistics import LEVEL, Interval

NEAR = 0.02 + 1e-9  # accuracy: what counts as close to the best, and as no better than guessing
QUARTERS = (0.1, 0.25, 0.5, 0.75)
BAND = f"{100 * LEVEL:g} % band"
BANDS = (
    f"Median of the best of k random trials (validation objective, one seed a trial), a line and a {BAND} for every "
    "draw. A band is exact and holds for all k at once (Lourie et al. 2024, arXiv 2311.09480), where values are "
    "continuous; curves end at a quarter of the trials. A band that leaves the panel above has no upper end but 100 %."
)
CURVES = (
    "What a random search of k trials finds: the median and the mean (unbiased) of its best validation objective, one "
    "seed a trial, thick the mean over draws. Trials that failed or exceeded a limit count as chance. GFLOP: k times "
    "the mean cost of a trial."
)
DISTRIBUTION = (
    "All random configurations: the share with at most this validation objective, thick the mean over draws. The lower "
    "a curve stays, and the further to the right, the less the choice of hyperparameters matters."
)


def blocks(study: Study, results: TaskResults, index: int) -> list[Block]:
    """Build figures and table of the families that have random trials; empty where none has."""
    drawn = drawn_of(results.families)
    if not drawn:
        return []
    return [
        _curves(study, results, drawn, f"tuning-{index}"),
        _bands(study, drawn, f"tuning-bands-{index}"),
        _distribution(study, results, drawn, f"configurations-{index}"),
        table(results, drawn),
    ]


DrawnOf = dict[str, list[Drawn]]


def _curves(study: Study, results: TaskResults, drawn: DrawnOf, name: str) -> Figure:
    heights = padded(100 * v for own in drawn.values() for d in own for v in (*d.curve.median_K, *d.curve.mean_K))
    panels = [
        _lines(study, drawn, ("random trials k", "median of the best, %"), lambda d: (d.curve.k_K, d.curve.median_K)),
        _lines(study, drawn, ("random trials k", "mean of the best, %"), lambda d: (d.curve.k_K, d.curve.mean_K)),
        _lines(
            study, drawn, ("training GFLOP of k random trials", "median of the best, %"),
            lambda d: (d.curve.k_K * d.gflops, d.curve.median_K),
        ),
    ]  # fmt: skip
    told = "; ".join(f"{name} {', '.join(str(len(d.rows)) for d in own)}" for name, own in drawn.items())
    return Figure(
        name,
        f"{CURVES} Trials by draw: {told}.",
        [_ranged(one, heights) for one in panels],
        _keys(study, results, drawn),
    )


def _keys(study: Study, results: TaskResults, drawn: DrawnOf) -> list[Key]:
    shown = family_keys(study, [family for family in results.families if family.name in drawn], "line")
    several = any(len(own) > 1 for own in drawn.values())
    return [*shown, Key("mean over draws", "line", INK), Key("a draw", "faint", INK)] if several else shown


CurveOf = Callable[[Drawn], tuple[np.ndarray, np.ndarray]]


def _lines(study: Study, drawn: DrawnOf, titles: tuple[str, str], line: CurveOf) -> tuple[go.Figure, str]:
    chart, told, every = go.Figure(), [], []
    for name, own in drawn.items():
        tint, found = colour(study, name), [line(one) for one in own]
        for one, (x, y) in zip(own, found, strict=True):
            chart.add_trace(_trace(x, y, tint, f"{label(name)}, draw {one.draw}, n = {len(one.rows)}", thin=True))
        x, y = np.mean([x for x, _ in found], axis=0), np.mean([y for _, y in found], axis=0)
        chart.add_trace(_trace(x, y, tint, label(name), thin=False))
        every += [float(value) for pair in found for value in pair[0]]
        told.append(f"{name} {100 * y[0]:.1f} at {x[0]:.4g} and {100 * y[-1]:.1f} at {x[-1]:.4g}")
    chart.update_xaxes(title=titles[0], **log_axis(every))
    chart.update_yaxes(title=titles[1])
    return chart, f"{titles[1]} against {titles[0]}: {listing(told)}."


def _ranged(made: tuple[go.Figure, str], heights: list[float]) -> Panel:
    chart, alternative = made
    chart.update_yaxes(range=heights)
    return panel(chart, alternative, height=290)


def _trace(x: np.ndarray, y: np.ndarray, tint: str, title: str, *, thin: bool) -> go.Scatter:
    return go.Scatter(
        x=x.tolist(), y=(100 * y).tolist(), name=title, mode="lines+markers", opacity=0.35 if thin else 1.0,
        line={"color": tint, "width": 1 if thin else 3}, marker={"size": 3 if thin else 6},
        hovertemplate="%{y:.1f} %",
    )  # fmt: skip


def _bands(study: Study, drawn: DrawnOf, name: str) -> Figure:
    every = [d.curve for own in drawn.values() for d in own]
    ends = padded(100 * value for curve in every for value in bounds(curve))
    panels = []
    for family, own in drawn.items():
        chart, tint = go.Figure(), colour(study, family)
        for one in own:
            k, low, high = one.curve.k_K, 100 * one.curve.low_K, 100 * one.curve.high_K
            chart.add_scatter(
                x=[*k.tolist(), *k[::-1].tolist()], y=[*low.tolist(), *high[::-1].tolist()], fill="toself",
                fillcolor=tint, opacity=0.15, line={"width": 0}, mode="lines", hoverinfo="skip",
                name=f"{label(family)}, band of draw {one.draw}",
            )  # fmt: skip
            chart.add_trace(_trace(k, one.curve.median_K, tint, f"{label(family)}, draw {one.draw}", thin=False))
        chart.update_xaxes(title="random trials k", **log_axis(map(float, own[0].curve.k_K)))
        chart.update_yaxes(title="median of the best, %", range=ends)
        told = [
            f"draw {one.draw} {100 * one.curve.median_K[-1]:.1f} ({100 * one.curve.low_K[-1]:.1f} to "
            f"{100 * one.curve.high_K[-1]:.1f}) at {one.curve.k_K[-1]}"
            for one in own
        ]
        panels.append(panel(chart, f"Medians with bands of {family}: {listing(told)}.", family, 290))
    return Figure(name, BANDS, panels, [Key("median of a draw", "line", INK), Key(f"its {BAND}", "band", INK)], 280)


def bounds(curve: TuningCurve) -> list[float]:
    """List where a curve and its band are, but for an upper end of 1, which says nothing."""
    return [float(value) for value in (*curve.low_K, *curve.median_K, *curve.high_K[curve.high_K < 1])]


def _distribution(study: Study, results: TaskResults, drawn: DrawnOf, name: str) -> Figure:
    chart, told = go.Figure(), []
    for family, own in drawn.items():
        tint, x = colour(study, family), np.unique(np.concatenate([one.values_N for one in own]))
        shares = [np.mean(one.values_N[:, None] <= x, axis=0) for one in own]
        for one, share in zip(own, shares, strict=True):
            title = f"{label(family)}, draw {one.draw}, n = {len(one.rows)}"
            chart.add_trace(_steps(x, share, tint, title, thin=True))
        chart.add_trace(_steps(x, np.mean(shares, axis=0), tint, label(family), thin=False))
        medians = [float(np.median(one.values_N)) for one in own]
        told.append(f"{family} median {percent(float(np.mean(medians)))}")
    chart.update_xaxes(title="validation objective, %")
    chart.update_yaxes(title="share of configurations, %", range=[0, 102])
    return Figure(name, DISTRIBUTION, [panel(chart, f"{listing(told)}.")], _keys(study, results, drawn))


def _steps(x: np.ndarray, y: np.ndarray, tint: str, title: str, *, thin: bool) -> go.Scatter:
    return go.Scatter(
        x=(100 * x).tolist(), y=(100 * y).tolist(), name=title, mode="lines", opacity=0.35 if thin else 1.0,
        line={"color": tint, "width": 1 if thin else 3, "shape": "hv"},
        hovertemplate="%{y:.0f} % have at most %{x:.1f} %",
    )  # fmt: skip


def table(results: TaskResults, drawn: DrawnOf) -> Table:
    """Build the table of robustness to hyperparameters, a row per family."""
    best: dict[int, float] = {}  # by draw
    for one in (one for own in drawn.values() for one in own):
        best[one.draw] = max(best.get(one.draw, 0.0), float(one.values_N.max()))
    last = next(iter(drawn.values()))[0].curve.k_K[-1]
    base = drawn.get(results.baseline.name, [])
    rows = [_row(results, name, own, best, base) for name, own in drawn.items()]
    columns = [
        "family", "draws", "trials per draw", "10 %", "25 %", "median", "75 %", "within 2 of its best, %",
        "within 2 of the best of all, %", "failed, %", "AUTC", "AUTC interval", "Δ AUTC", "Δ interval",
    ]  # fmt: skip
    caption = (
        "Random configurations by their validation objective in percent, each number the mean over draws: quantiles; "
        "shares within 2 points of the family's best and of the best of all families on the draw; failed: ended "
        "without a result, or less than 2 points above chance. AUTC: area under the median tuning curve, its mean over "
        f"log2 k, k = 1 to {last}; its interval is Student's t over draws, with one draw that of the band, which is "
        f"conservative. Δ AUTC: in points, to {results.baseline.name} on the same draws, with Student's t interval."
    )
    return Table(caption, columns, rows, ("family",))


def _row(results: TaskResults, name: str, own: list[Drawn], best: dict[int, float], base: list[Drawn]) -> list[str]:
    quantiles = np.mean([np.quantile(one.values_N, QUARTERS) for one in own], axis=0)
    near = [np.mean([one.values_N >= one.values_N.max() - NEAR]) for one in own]
    near_all = [np.mean([one.values_N >= best[one.draw] - NEAR]) for one in own]
    areas = {one.draw: area(one.curve.k_K, one.curve.median_K) for one in own}
    others = {one.draw: area(one.curve.k_K, one.curve.median_K) for one in base}
    ahead = [areas[draw] - others[draw] for draw in areas if draw in others] if name != results.baseline.name else []
    return [
        name,
        str(len(own)),
        listing(sorted({str(len(one.rows)) for one in own})),
        *(percent(float(value)) for value in quantiles),
        *(percent(float(np.mean(shares)), 0) for shares in (near, near_all, [_failed(results, one) for one in own])),
        percent(float(np.mean(list(areas.values())))),
        percent_interval(_over_draws(own, list(areas.values()))),
        points(float(np.mean(ahead))) if ahead else NONE,
        points_interval(_student(ahead)),
    ]


def _failed(results: TaskResults, one: Drawn) -> float:
    lost = [row.outcome in FAILED for row in one.rows]
    return float(np.mean(np.array(lost) | (one.values_N < chance(results.task) + NEAR)))


def _over_draws(own: Sequence[Drawn], areas: Sequence[float]) -> Interval | None:
    if len(areas) > 1:
        return _student(areas)
    curve = own[0].curve
    return Interval(area(curve.k_K, curve.low_K), area(curve.k_K, curve.high_K))


def _student(values: Sequence[float]) -> Interval | None:
    found = comparison.estimate([np.array([value]) for value in values]) if len(values) > 1 else None
    return found.interval if found else None
