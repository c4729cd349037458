"""Tuning curves of independent random trials with exact simultaneous bands, by opda.

Legend: `N` trials, sorted by their value; `k` how many of them are tried; `R` ranks 0 ... N + 1, those of an accuracy's
bounds 0 and 1 included.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from opda.nonparametric import EmpiricalDistribution  # type: ignore[import-untyped]

from sweep.report.statistics import LEVEL

LONGEST = (
    128  # trials; of more the exact bands take minutes, and those of Kolmogorov and Smirnov are as exact but wider
)
MEDIAN = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class TuningCurve:
    """The best of k trials, k = 1 ... K, in fractions. Bands hold for all k at once."""

    k_K: np.ndarray
    median_K: np.ndarray
    low_K: np.ndarray  # of the median
    high_K: np.ndarray
    mean_K: np.ndarray


@cache
def _cdfs(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the lower and the upper band of the distribution function at the ranks (R,) of any n values.

    They depend on n alone. Exact where values are continuous; with ties they cover more. Source: Learned-Miller and
    DeStefano 2008, as used by Lourie et al. 2024, arXiv 2311.09480; the largest deviation is simulated, seeded.
    """
    low, _, high = EmpiricalDistribution.confidence_bands(
        np.arange(1.0, n + 1), LEVEL, a=0.0, b=n + 1.0, generator=np.random.default_rng(0), n_jobs=1,
        method="ld_equal_tailed" if n <= LONGEST else "ks",
    )  # fmt: skip
    ranks_R = np.arange(n + 2.0)
    return low.cdf(ranks_R), high.cdf(ranks_R)


def tuning_curve(values: Sequence[float], ks: Sequence[int]) -> TuningCurve:
    """Estimate the median and the mean of the best of k trials, each k at most a quarter of the trials.

    A median of the best is the quantile 0.5^(1/k) of one trial; a band of the distribution function is one of it, with
    the ends exchanged. Beyond a quarter of the trials an estimate rests on a few of them.
    """
    n, k_K = len(values), np.asarray(ks)
    assert k_K.min() >= 1 and k_K.max() <= n / 4
    values_R = np.concatenate([[0.0], np.sort(np.asarray(values, dtype=float)), [1.0]])
    lower_R, upper_R = _cdfs(n)
    found_R = np.append(np.arange(n + 1) / n, 1.0)
    quantiles_K = MEDIAN ** (1 / k_K)
    low_K, median_K, high_K = (_quantiles(cdf_R, values_R, quantiles_K) for cdf_R in (upper_R, found_R, lower_R))
    mean_K = np.array([expected_best(values, int(k)) for k in k_K])
    return TuningCurve(k_K, median_K, low_K, high_K, mean_K)


def _quantiles(cdf_R: np.ndarray, values_R: np.ndarray, quantiles_K: np.ndarray) -> np.ndarray:
    """Return the smallest values at which a distribution function reaches the quantiles."""
    return values_R[(cdf_R[None] >= quantiles_K[:, None] - 1e-12).argmax(1)]


def expected_best(values: Sequence[float], k: int) -> float:
    """Compute the expected maximum of k of n values drawn without replacement: sum_i C(i-1, k-1) / C(n, k) v_(i),
    unbiased.

    Source: Tang et al. 2020, arXiv 2004.13705, instead of the biased one of Dodge et al. 2019, arXiv 1909.03004.
    """
    n = len(values)
    assert 1 <= k <= n
    ranks = np.arange(n, 1, -1)
    weights = np.cumprod(np.concatenate([[k / n], np.maximum(ranks - k, 0) / (ranks - 1)]))
    return float(weights @ np.sort(np.asarray(values, dtype=float))[::-1])


def area(k_K: np.ndarray, best_K: np.ndarray) -> float:
    """Average a tuning curve over log2 k, by trapezoids; the value itself where there is one."""
    if len(k_K) == 1:
        return float(best_K[0])
    x_K = np.log2(k_K)
    return float(np.trapezoid(best_K, x_K) / (x_K[-1] - x_K[0]))
