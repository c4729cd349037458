"""The dimensions of a family's own: its full space against the one that all families share, on the same draws."""

from collections.abc import Sequence

import numpy as np

from sweep.report.elements import NONE, Block, Table, percent, points, points_interval
from sweep.report.hyperparameters.random_search import drawn_of
from sweep.report.inference import comparison
from sweep.report.inference.bands import area
from sweep.report.inference.pairs import image_means, matched
from sweep.report.results import Family, Study, TaskResults, draw_overlap
from sweep.report.statistics import grand_mean

CAPTION = (
    "What the dimensions of a family's own are worth: searched (full) against left at their defaults (shared). AUTC of "
    "random configurations as above, and the mean test accuracy of the final networks, in percent; Δ: full minus "
    "shared in points, over draws and matched runs, each with its interval. No hypothesis is decided here."
)
COLUMNS = (
    "family", "draws", "AUTC, full", "AUTC, shared", "Δ AUTC", "Δ AUTC interval", "test, full", "test, shared",
    "Δ test", "Δ test interval", "n",
)  # fmt: skip


def blocks(study: Study, results: TaskResults) -> list[Block]:
    """Build the table of a task that was searched in both spaces, below that of the shared one; empty for others."""
    full = next((one for one in study.tasks if _in_full(one, results)), None)
    if full is None:
        return []
    areas = [_areas(one.families) for one in (full, results)]
    beside = {family.name: family for family in full.families}
    rows = [_row(beside[one.name], one, areas) for one in results.families if one.name in beside]
    return [Table(CAPTION, COLUMNS, rows, ("family",))] if rows else []


def _in_full(one: TaskResults, shared: TaskResults) -> bool:
    mine, other = shared.task, one.task
    return mine.shared and not other.shared and (mine.dataset, mine.per_class) == (other.dataset, other.per_class)


Areas = dict[str, dict[int, float]]  # by family and draw


def _areas(families: Sequence[Family]) -> Areas:
    drawn = drawn_of(families)
    return {name: {one.draw: area(one.curve.k_K, one.curve.median_K) for one in own} for name, own in drawn.items()}


def _row(full: Family, shared: Family, areas: Sequence[Areas]) -> list[str]:
    in_full, in_shared = (found.get(full.name, {}) for found in areas)
    pairs = matched(full.runs, shared.runs)
    values = [np.array([a.accuracy - b.accuracy for a, b in own if b]) for own in pairs.values()]
    ahead = [np.array([in_full[draw] - in_shared[draw]]) for draw in in_full if draw in in_shared]
    common = draw_overlap(full, list(pairs)) or 0.0
    return [
        full.name,
        str(len(values) or len(ahead)),
        *(percent(float(np.mean(list(one.values())))) if one else NONE for one in (in_full, in_shared)),
        *_difference(ahead, None, 0.0),
        *(percent(one.mean) if one.runs else NONE for one in (full, shared)),
        *_difference(values, image_means(pairs) if pairs else None, common),
        str(sum(map(len, values))),
    ]


def _difference(by_draw: Sequence[np.ndarray], images_N: np.ndarray | None, common: float) -> tuple[str, str]:
    """Write a mean over draws, which have a share `common` of their images in common, and its interval."""
    if not by_draw:
        return NONE, NONE
    found = comparison.estimate(by_draw, images_N, common if common < 1 else 0.0)
    return points(grand_mean(by_draw)), points_interval(None if found is None else found.interval)
