"""Figures for a paper as PDF and SVG, and tables as CSV and LaTeX: `sweep report NAME --figures DIR`.

The one module that uses matplotlib, without pyplot and its state: nothing is shown, and equal results give equal files.
"""

import csv
import io
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from odenet.enums import Compression
from sweep.records.files import write_bytes, write_text
from sweep.records.rows import Phase, TrialRow
from sweep.report import differences, tables
from sweep.report.elements import GREY, INK, Table, padded
from sweep.report.figures import DRAWN, colour
from sweep.report.hyperparameters import local_sensitivity, tuning_curves
from sweep.report.hyperparameters.local_sensitivity import Neighbour
from sweep.report.hyperparameters.random_search import drawn_of
from sweep.report.inference.comparison import EQUIVALENCE
from sweep.report.load import load_sweeps
from sweep.report.results import Family, Study, TaskResults, build_study
from sweep.report.robustness import compression
from sweep.report.robustness.compression import Shrunk
from sweep.report.statistics import Interval

COLUMN, PAGE = 3.3, 6.8  # widths in inches, as journals have them
LOOK: Any = {
    "font.size": 8, "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.6, "lines.linewidth": 1.2,
    "xtick.major.width": 0.6, "ytick.major.width": 0.6, "legend.frameon": False, "legend.fontsize": 7,
    "pdf.fonttype": 42, "svg.fonttype": "none", "svg.hashsalt": "sweep", "figure.constrained_layout.use": True,
}  # fmt: skip
MARKS = {
    Compression.trained: "o", Compression.projected: "s", Compression.shortened: "D", Compression.both: "^",
    Compression.dropped: "x",
}  # fmt: skip
UNDATED = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}
ESCAPES = {"\\": r"\textbackslash{}", **{c: f"\\{c}" for c in "&%$#_{}"}, "~": r"\textasciitilde{}", "^": r"\^{}"}
SYMBOLS = {"−": "$-$", "±": r"$\pm$", "Δ": r"$\Delta$", "τ": r"$\tau$", "–": "--", "×": r"$\times$", ">": "$>$"}


def write_figures(sweeps: Sequence[Path], directory: Path) -> list[Path]:
    """Write all figures and tables of these sweeps, and return their paths.

    Raises InputError as `write_report`; StorageError: a file cannot be written.
    """
    found, empty = load_sweeps(sweeps)
    study, written = build_study(found, empty, directory), []
    directory.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(LOOK):
        for results in study.tasks:
            prefix = f"{_slug(str(results.task))}-" if len(study.tasks) > 1 else ""
            for name, figure in _figures(study, results).items():
                written += _save(figure, directory / f"{prefix}{name}")
            for name, table in _tables(results).items():
                written += _write(table, directory / f"{prefix}{name}")
    return written


def _slug(text: str) -> str:
    return re.sub("[^a-z0-9]+", "-", text.lower()).strip("-")


def _figures(study: Study, results: TaskResults) -> dict[str, Figure]:
    made = {}
    if any(family.runs for family in results.families):
        made = {"accuracy": accuracy(study, results), "costs": costs(study, results)}
    if results.differences:
        made["differences"] = differences_of_runs(study, results)
    if drawn_of(results.families):
        made["tuning"] = tuning(study, results)
    if around := local_sensitivity.found(results):
        made["sensitivity"] = sensitivity(around)
    if smaller := compression.found(results):
        made["compression"] = made_smaller(study, smaller)
    return made


def _tables(results: TaskResults) -> dict[str, Table]:
    made = {"families": tables.families(results)} if any(family.runs for family in results.families) else {}
    if results.differences:
        made["differences"] = differences.found(results)
        if prospects := differences.prospects(results):
            made["design"] = prospects
    if drawn := drawn_of(results.families):
        made["hyperparameters"] = tuning_curves.table(results, drawn)
    if around := local_sensitivity.found(results):
        made["sensitivity"] = local_sensitivity.table(around)
    if smaller := compression.found(results):
        made["compression"] = compression.table(smaller)
    return made


def accuracy(study: Study, results: TaskResults) -> Figure:
    """Draw every final run as a dot, a column per draw, with the mean and its interval beside."""
    shown = [family for family in results.families if family.runs]
    figure = Figure(figsize=(max(COLUMN, 0.9 * len(shown) + 0.8), 2.4))
    axes = figure.subplots()
    for place, family in enumerate(shown):
        draws = sorted({run.draw for run in family.runs})
        for run in family.runs:
            x = place - 0.25 + 0.35 * draws.index(run.draw) / max(1, len(draws) - 1)
            _dot(axes, x, 100 * run.accuracy, colour(study, family.name), failed=run.failed)
        _whisker(axes, (place + 0.3, 100 * family.mean), family.interval, INK)
    axes.set_xticks(range(len(shown)), [f"{_plain(f.name)}\nn = {len(f.runs)}" for f in shown])
    axes.set_ylabel("test accuracy, %")
    return figure


def _dot(axes: Axes, x: float, y: float, tint: str, *, failed: bool = False) -> None:
    axes.plot(x, y, "x" if failed else "o", color=tint, markersize=3, alpha=0.7, markeredgewidth=0.5)


def _whisker(
    axes: Axes, place: tuple[float, float], interval: Interval | None, tint: str, across: bool = False
) -> None:
    """Draw a mean as a square with its interval, upright or across."""
    mean = place[0] if across else place[1]
    ends = None if interval is None else [[mean - 100 * interval.low], [100 * interval.high - mean]]
    errors: Any = {"xerr" if across else "yerr": ends}
    axes.errorbar(*place, **errors, fmt="s", color=tint, markersize=4, capsize=2, elinewidth=1)


def _plain(name: str) -> str:
    """Write a name so that matplotlib does not read it as mathematics."""
    return name.replace("$", r"\$")


def differences_of_runs(study: Study, results: TaskResults) -> Figure:
    """Draw the differences of matched runs as dots, the means of draws as rings, and the mean with its interval."""
    figure = Figure(figsize=(COLUMN, 0.8 + 0.45 * len(results.differences)))
    axes = figure.subplots()
    axes.axvspan(-100 * EQUIVALENCE, 100 * EQUIVALENCE, color="#E4E4E4", linewidth=0)
    axes.axvline(0, color=GREY, linewidth=0.6)
    for place, one in enumerate(results.differences):
        tint = colour(study, one.family.name)
        for values in one.pairs.values():
            for value in values:
                _dot(axes, 100 * float(value), place + 0.15, tint)
            axes.plot(100 * values.mean(), place + 0.15, "o", color=tint, fillstyle="none", markersize=6)
        _whisker(axes, (100 * one.comparison.delta, place - 0.15), one.comparison.interval, tint, across=True)
    names = [
        f"{one.family.name}\nD = {one.comparison.draws}, n = {one.comparison.pairs}" for one in results.differences
    ]
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlabel(f"test accuracy minus that of {_plain(results.baseline.name)}, points")
    return figure


def costs(study: Study, results: TaskResults) -> Figure:
    """Draw accuracy against parameters, training FLOPs and rate evaluations, every run a dot."""
    figure = Figure(figsize=(PAGE, 2.3))
    panels = figure.subplots(1, len(DRAWN), sharey=True)
    for axes, (_, title, value) in zip(panels, DRAWN, strict=True):
        every: list[float] = []
        for family in (family for family in results.families if family.runs):
            every += _against(axes, family, value, colour(study, family.name))
        if every and min(every) > 0 and max(every) > 5 * min(every):
            axes.set_xscale("log")
        axes.set_xlabel(title)
    panels[0].set_ylabel("test accuracy, %")
    panels[-1].legend(loc="best")
    return figure


def _against(axes: Axes, family: Family, value: Callable[[TrialRow], float], tint: str) -> list[float]:
    final = [row for sweep in family.sweeps for row in sweep.final_trials if row.phase is Phase.final]
    known = {(row.draw, row.seed): value(row) for row in final}
    x = [known[run.draw, run.seed] for run in family.runs if (run.draw, run.seed) in known]
    y = [100 * run.accuracy for run in family.runs if (run.draw, run.seed) in known]
    axes.plot(x, y, "o", color=tint, markersize=3, alpha=0.5, markeredgewidth=0)
    if x:
        _whisker(axes, (float(np.mean(x)), 100 * family.mean), family.interval, tint)
        axes.plot([], [], "s", color=tint, markersize=4, label=f"{_plain(family.name)} (n = {len(family.runs)})")
    return x


def tuning(study: Study, results: TaskResults) -> Figure:
    """Draw the median of the best of k random trials: a panel per family, a line and a band for every draw."""
    drawn = drawn_of(results.families)
    figure = Figure(figsize=(max(COLUMN, 1.7 * len(drawn)), 2.2))
    panels = figure.subplots(1, len(drawn), sharey=True, squeeze=False)[0]
    for axes, (name, own) in zip(panels, drawn.items(), strict=True):
        tint = colour(study, name)
        for one in own:
            curve = one.curve
            axes.fill_between(curve.k_K, 100 * curve.low_K, 100 * curve.high_K, color=tint, alpha=0.12, linewidth=0)
            axes.plot(curve.k_K, 100 * curve.median_K, color=tint, linewidth=0.7, alpha=0.7)
        median_K = np.mean([one.curve.median_K for one in own], axis=0)
        axes.plot(own[0].curve.k_K, 100 * median_K, color=tint, linewidth=2)
        axes.set_xscale("log", base=2)
        axes.set_xticks(own[0].curve.k_K[[0, -1]], [str(k) for k in own[0].curve.k_K[[0, -1]]])
        axes.set_title(f"{_plain(name)}, D = {len(own)}", fontsize=8)
        axes.set_xlabel("random trials")
    panels[0].set_ylabel("median of the best, %")
    panels[0].set_ylim(*padded(100 * v for own in drawn.values() for d in own for v in tuning_curves.bounds(d.curve)))
    return figure


def sensitivity(around: Mapping[tuple[str, int], Sequence[Neighbour]]) -> Figure:
    """Draw the change of the objective around the selected configurations: a panel for each, all with one scale."""
    figure = Figure(figsize=(max(COLUMN, 2.2 * len(around)), 2.2))
    panels = figure.subplots(1, len(around), squeeze=False)[0]
    cells = {place: local_sensitivity.cells(own) for place, own in around.items()}
    largest = max(abs(100 * one.change) for own in cells.values() for one in own.values()) or 1.0
    for axes, ((family, draw), own) in zip(panels, cells.items(), strict=True):
        lrs, decays = (sorted({cell[axis] for cell in own}) for axis in (0, 1))
        z = [[100 * own[lr, decay].change if (lr, decay) in own else np.nan for decay in decays] for lr in lrs]
        drawn = axes.imshow(z, origin="lower", cmap="PuOr", vmin=-largest, vmax=largest, aspect="auto")
        axes.set_xticks(range(len(decays)), [f"{one:.3g}" for one in decays])
        axes.set_yticks(range(len(lrs)), [f"{one:.3g}" for one in lrs])
        axes.set_xlabel("weight decay, factor")
        axes.set_title(f"{_plain(family)}, draw {draw}", fontsize=8)
    panels[0].set_ylabel("learning rate, factor")
    figure.colorbar(drawn, ax=list(panels), label="change, points")
    return figure


def made_smaller(study: Study, found: Mapping[str, Sequence[Shrunk]]) -> Figure:
    """Draw accuracy against parameters, rate evaluations and latency of networks made smaller without data."""
    figure = Figure(figsize=(PAGE, 2.3))
    panels = figure.subplots(1, len(compression.COSTS), sharey=True)
    for axes, (metric, title) in zip(panels, compression.COSTS.items(), strict=True):
        for family, own in found.items():
            for way, line in compression.lines(own).items():
                x, y = ([one.mean(name) for one in line] for name in (metric, "accuracy"))
                style = {"color": colour(study, family), "marker": MARKS[way], "markersize": 3, "linewidth": 0.6}
                axes.plot(x, [100 * value for value in y], **style, label=f"{_plain(family)}, {way.value}")
        axes.set_xscale("log")
        axes.set_xlabel(title)
    panels[0].set_ylabel("test accuracy, %")
    panels[-1].legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def _save(figure: Figure, stem: Path) -> list[Path]:
    written = []
    for form, metadata in UNDATED.items():
        buffer, path = io.BytesIO(), stem.with_name(f"{stem.name}.{form}")
        figure.savefig(buffer, format=form, metadata=metadata)
        write_bytes(path, buffer.getvalue())
        written.append(path)
    return written


def _write(table: Table, stem: Path) -> list[Path]:
    rows = [table.columns, *([cell if isinstance(cell, str) else "" for cell in row] for row in table.rows)]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    paths = stem.with_name(f"{stem.name}.csv"), stem.with_name(f"{stem.name}.tex")
    write_text(paths[0], text.getvalue())
    write_text(paths[1], latex(table.columns, rows[1:], table.words, table.caption))
    return list(paths)


def latex(columns: Sequence[str], rows: Sequence[Sequence[str]], words: Sequence[str], caption: str) -> str:
    """Write a tabular that needs no package, its caption above as a comment."""
    sides = "".join("l" if name in words else "r" for name in columns)
    lines = [" & ".join(map(_escaped, row)) + r" \\" for row in [columns, *rows]]
    body = [rf"\begin{{tabular}}{{{sides}}}", r"\hline", lines[0], r"\hline", *lines[1:], r"\hline", r"\end{tabular}"]
    return "\n".join([f"% {caption}", *body, ""])


def _escaped(text: str) -> str:
    return "".join({**ESCAPES, **SYMBOLS}.get(character, character) for character in text)
