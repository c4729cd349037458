"""Draw runs as dots, differences to the baseline, learning curves, and networks under other integrators."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go  # type: ignore[import-untyped]
from plotly.subplots import make_subplots  # type: ignore[import-untyped]

from sweep.records.outcome import Outcome
from sweep.records.rows import CurveRow, Phase, TrialRow
from sweep.report.elements import GREY, INK, PALETTE, Figure, figure, label, plural, points
from sweep.report.results import FAILED, UNFINISHED, Family, Study, TaskResults, is_trained, manifestation_differences
from sweep.report.statistics import EQUIVALENCE, Interval

SYMBOLS = ("circle", "diamond", "square", "triangle-up", "star", "pentagon", "hexagon", "triangle-down")


def colour(study: Study, family: str) -> str:
    """Return the colour of a family, the same everywhere on the page."""
    return PALETTE[study.families.index(family) % len(PALETTE)]


def runs_as_dots(study: Study, results: TaskResults, name: str) -> Figure:
    chart = go.Figure()
    shown = [family for family in results.families if family.runs]
    for place, family in enumerate(shown):
        draws = sorted({run.draw for run in family.runs})
        for rank, draw in enumerate(draws):
            chart.add_trace(
                _dots(family, draw, place - 0.22 + 0.3 * rank / max(1, len(draws) - 1), colour(study, family.name))
            )
        mean = 100 * family.mean
        chart.add_scatter(
            x=[place + 0.25], y=[mean], mode="markers", error_y=_whiskers(mean, family.interval),
            hovertemplate="mean %{y:.1f} %<extra></extra>",
            marker={"color": INK, "symbol": "line-ew-open", "size": 18, "line": {"width": 2}},
        )  # fmt: skip
    ticks = [f"{label(family.name)}<br>n = {len(family.runs)}" for family in shown]
    chart.update_xaxes(tickvals=list(range(len(shown))), ticktext=ticks, range=[-0.6, len(shown) - 0.4])
    chart.update_yaxes(title="test accuracy, %")
    caption = (
        f"{results.task}: every final run as a dot, one symbol and column per draw; × marks a failed run, counted as "
        "chance. The bar is the mean over draws, the whiskers its 95 % interval (none for n = 1). Look for "
        "families whose dots separate in every draw."
    )
    return figure(name, caption, chart)


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


def _whiskers(centre: float, interval: Interval | None) -> dict[str, Any] | None:
    if interval is None:
        return None
    return {"array": [100 * interval.high - centre], "arrayminus": [centre - 100 * interval.low], "thickness": 2}


def differences(study: Study, results: TaskResults, name: str) -> Figure:
    chart = go.Figure()
    names = [label(difference.family.name) for difference in results.differences]
    for title, difference in zip(names, results.differences, strict=True):
        tint, found = colour(study, difference.family.name), difference.comparison
        centre = 100 * found.delta
        chart.add_scatter(
            x=[100 * value for value in difference.by_draw.values()], y=[title] * len(difference.by_draw),
            mode="markers", marker={"color": tint, "symbol": "circle-open", "size": 9},
            customdata=list(difference.by_draw), hovertemplate="draw %{customdata}: %{x:+.1f} points<extra></extra>",
        )  # fmt: skip
        chart.add_scatter(
            x=[centre], y=[title], mode="markers", error_x=_whiskers(centre, difference.delta_interval),
            marker={"color": tint, "symbol": "square", "size": 10},
            hovertemplate="mean %{x:+.1f} points<extra></extra>",
        )  # fmt: skip
    chart.add_vrect(x0=-100 * EQUIVALENCE, x1=100 * EQUIVALENCE, fillcolor="#F0F0F0", line_width=0, layer="below")
    chart.add_vline(x=0, line_color=GREY, line_width=1)
    chart.update_xaxes(title=f"test accuracy minus that of {label(results.baseline.name)}, percentage points")
    chart.update_yaxes(range=[len(names) - 0.5, -0.5], type="category")
    caption = (
        f"{results.task}: difference to {results.baseline.name}; squares are means with their paired 95 % interval "
        "(none for n = 1), circles the mean of each draw. The grey band is ±1 point, within which families count as "
        "equivalent."
    )
    return figure(name, caption, chart, 170 + 60 * len(names))


def search_curves(study: Study, results: TaskResults, name: str) -> Figure:
    """Draw the search's learning curves, a panel per family; done, pruned and failed trials as one trace each."""
    titles = [label(family.name) for family in results.families]
    chart = make_subplots(1, len(titles), shared_yaxes=True, subplot_titles=titles, horizontal_spacing=0.04)
    for column, family in enumerate(results.families, start=1):
        groups = (
            ("done", (Outcome.done,), {"color": colour(study, family.name), "width": 1}, None),
            ("pruned", (Outcome.pruned,), {"color": GREY, "width": 1}, "circle"),
            ("failed", FAILED, {"color": INK, "width": 1, "dash": "dot"}, "x"),
            ("not ended", UNFINISHED, {"color": GREY, "width": 1, "dash": "dash"}, None),
        )
        for title, ended, line, symbol in groups:
            curves = [c for s in family.sweeps for c in _curves(s.trials, s.curves, ended)]
            if curves:
                chart.add_trace(_bundle(curves, _validation, title, line, symbol), 1, column)
    chart.update_xaxes(title="epoch")
    chart.update_yaxes(title="validation accuracy, %", row=1, col=1)
    n = sum(1 for family in results.families for s in family.sweeps for _ in {row.number for row in s.curves})
    caption = (
        f"{results.task}: {plural(n, 'search trial')} with at least one epoch. Coloured: done; grey, ending in a dot: "
        "pruned; dotted, ending in ×: failed; dashed: not ended. Look for curves that still rise at the "
        "end (too few epochs)."
    )
    return figure(name, caption, chart, 400)


def final_curves(study: Study, results: TaskResults, name: str) -> Figure:
    """Draw the confirm phase on validation (left) and the final phase, which has no validation images left (right)."""
    titles = ["confirm: validation accuracy, %", "final (train + val): training loss"]
    chart = make_subplots(1, 2, subplot_titles=titles, horizontal_spacing=0.08)
    measures = ((Phase.confirm, _validation), (Phase.final, lambda row: row.train_loss))
    runs = 0
    for column, (phase, measure) in enumerate(measures, start=1):
        for family in results.families:
            curves = [
                curve
                for sweep in family.sweeps
                for curve in _curves(
                    [r for r in sweep.final_trials if r.phase is phase], sweep.final_curves, tuple(Outcome)
                )
            ]
            runs += len(curves)
            trace = _bundle(
                curves, measure, label(family.name), {"color": colour(study, family.name), "width": 1}, None
            )
            chart.add_trace(trace.update(showlegend=column == 1), 1, column)
    chart.update_xaxes(title="epoch")
    caption = f"{results.task}: learning curves of {plural(runs, 'retrained network')}, one line per run."
    return figure(name, caption, chart, 400, legend=True)


def _curves(trials: Sequence[TrialRow], curves: Sequence[CurveRow], ended: Sequence[Outcome]) -> list[list[CurveRow]]:
    by_number: dict[int, list[CurveRow]] = {}
    for row in curves:
        by_number.setdefault(row.number, []).append(row)
    chosen = [by_number.get(trial.number, []) for trial in trials if trial.outcome in ended]
    return [sorted(curve, key=lambda row: row.epoch) for curve in chosen if curve]


def _validation(row: CurveRow) -> float | None:
    return None if row.val_accuracy is None else 100 * row.val_accuracy


def _bundle(
    curves: Sequence[Sequence[CurveRow]],
    measure: Callable[[CurveRow], float | None],
    title: str,
    line: dict[str, object],
    end: str | None,
) -> go.Scatter:
    """Draw many curves as one trace, with gaps between them; `end` marks the last epoch of each."""
    x: list[int | None] = []
    y: list[float | None] = []
    sizes: list[int] = []
    trial: list[int | None] = []
    for curve in curves:
        x += [*(row.epoch for row in curve), None]
        y += [*(measure(row) for row in curve), None]
        trial += [*(row.number for row in curve), None]
        sizes += [0] * (len(curve) - 1) + [7, 0]
    return go.Scatter(
        x=x, y=y, name=title, line=line, opacity=0.7, mode="lines+markers" if end else "lines", customdata=trial,
        marker={"symbol": end or "circle", "size": sizes}, hovertemplate="trial %{customdata}, epoch %{x}: %{y:.3g}",
    )  # fmt: skip


def manifestations(task: TaskResults, family: Family, name: str) -> Figure | None:
    """Draw a family under other schemes and steps; None when it was measured only as it was trained."""
    found = manifestation_differences(family)
    if len(found) < 2:
        return None
    schemes, steps = list(dict.fromkeys(scheme for scheme, _ in found)), sorted({steps for _, steps in found})
    trained = {(row.scheme, row.steps) for s in family.sweeps for row in s.evaluations if is_trained(row)}
    cells = {key: 100 * float(np.mean(values)) for key, values in found.items()}
    means = [[cells.get((scheme, n)) for n in steps] for scheme in schemes]
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
