"""Final runs on the test set, matched by draw and seed, and what they say image by image.

Shapes: `N` test images.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True, eq=False)
class FinalRun:
    """One final network on the test set, at the manifestation it was trained with."""

    draw: int
    seed: int
    accuracy: float
    failed: bool = False  # counted as chance
    indices_N: np.ndarray | None = None  # the test images, and which of them it has right; None: nobody kept that
    hits_N: np.ndarray | None = None


Pairs = dict[int, list[tuple[FinalRun, FinalRun | None]]]  # by draw: a family's run and the baseline's


def matched(runs: Sequence[FinalRun], others: Sequence[FinalRun]) -> Pairs:
    """Pair runs of the same draw and seed."""
    partner = {(run.draw, run.seed): run for run in others}
    pairs: Pairs = {}
    for run in runs:
        if (run.draw, run.seed) in partner:
            pairs.setdefault(run.draw, []).append((run, partner[run.draw, run.seed]))
    return pairs


def image_means(pairs: Pairs) -> np.ndarray | None:
    """Average over draws and runs, image by image, what runs have right, minus what their partners have (None: 0).

    A failed run has every image right with the probability of chance. None: of some run nobody kept it, or the runs
    were not tested on the same images.
    """
    runs = [run for own in pairs.values() for pair in own for run in pair if run is not None and not run.failed]
    images = [run.indices_N for run in runs if run.hits_N is not None and run.indices_N is not None]
    if not images or len(images) < len(runs) or not all(np.array_equal(one, images[0]) for one in images):
        return None
    draws = [sum(_right(run) - _right(partner) for run, partner in own) / len(own) for own in pairs.values()]
    return np.asarray(sum(draws) / len(draws))


def _right(run: FinalRun | None) -> np.ndarray | float:
    if run is None:
        return 0.0
    return run.accuracy if run.failed or run.hits_N is None else run.hits_N.astype(float)
