"""Figures over several tasks, by the definitions of Agarwal et al. 2021 (rliable, arXiv 2108.13264).

A sample is a list of tasks, each a list of draws, each an array of the normalised scores of its runs: chance is 0, the
best family's mean on that task 1.
"""

from collections.abc import Callable, Sequence

import numpy as np
from scipy import stats  # type: ignore[import-untyped]

from sweep.report.statistics import LEVEL, Interval

Sample = Sequence[Sequence[np.ndarray]]
RESAMPLES = 1000


def pooled(sample: Sample) -> np.ndarray:
    """Return all scores in one row."""
    return np.concatenate([runs for task in sample for runs in task])


def iqm(sample: Sample) -> float:
    """Compute the interquartile mean of all runs on all tasks: of the middle half of the scores."""
    return float(stats.trim_mean(pooled(sample), 0.25))


def optimality_gap(sample: Sample, target: float = 1.0) -> float:
    """Compute how far scores stay below the target on average; those above it count as the target."""
    return float(target - np.minimum(pooled(sample), target).mean())


def profile(sample: Sample, score: float) -> float:
    """Compute the share of runs above a score, averaged over tasks: a point of the performance profile."""
    return float(np.mean([np.mean(np.concatenate(list(task)) > score) for task in sample]))


def improvement(sample: Sample, other: Sample) -> float:
    """Compute P(a run of one > a run of the other), ties half, over all pairs of a task, averaged over tasks.

    Raises ValueError where they are not of the same tasks.
    """
    pairs = zip(sample, other, strict=True)
    signs = [np.sign(np.subtract.outer(np.concatenate(list(a)), np.concatenate(list(b)))) for a, b in pairs]
    return float(np.mean([(1 + sign).mean() / 2 for sign in signs]))


def stratified(
    samples: Sequence[Sample], value: Callable[..., float], generator: np.random.Generator, resamples: int = RESAMPLES
) -> Interval:
    """Compute the percentile interval of a figure of one or two samples: draws are resampled, within each task alike.

    Samples of the same draws keep their pairing. With few draws it is too narrow, as every bootstrap over them.
    """
    found = []
    for _ in range(resamples):
        picks = [generator.integers(len(task), size=len(task)) for task in samples[0]]
        drawn = [[[task[d] for d in pick] for task, pick in zip(s, picks, strict=True)] for s in samples]
        found.append(value(*drawn))
    low, high = np.quantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high))
