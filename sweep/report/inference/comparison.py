"""Estimate a difference over draws and test images, and decide by the rules fixed before the final runs.

Legend: `D` data draws, `S` seeds within a draw, `N` test images. Functions of arrays take any shape: the simulations of
`power` apply the very rules that the report applies.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import Any

import numpy as np
from scipy import special, stats  # type: ignore[import-untyped]

from sweep.report.statistics import (
    LEVEL,
    Interval,
    bootstrap,
    grand_mean,
    holm,
    sign_flip_p,
    wilson,
    wins,
)

ALPHA = 0.05  # of Holm-adjusted p
EQUIVALENCE = 0.01  # accuracy: within one point
MARGIN = f"{100 * EQUIVALENCE:g} point"  # as the report says it
MEANINGFUL = 0.75  # P(A > B); the threshold of Bouthillier et al. 2021, from memory, unverified
POINTS = 60  # of a quadrature
DECIDES = 5  # draws; with fewer there is no verdict
RESAMPLED = 10  # draws from which the two-level bootstrap is printed beside; with fewer it is too narrow


class Verdict(Enum):
    """The conclusion that the rules, fixed before the final runs, allow about a family against the baseline."""

    better = "better"
    worse = "worse"
    better_within = f"better, within {MARGIN}"
    worse_within = f"worse, within {MARGIN}"
    equivalent = "equivalent"
    inconclusive = "inconclusive"
    pilot = "pilot: no verdict"


@dataclass(frozen=True, slots=True, kw_only=True)
class MeanEstimate:
    """A mean over draws, or over the seeds of the only draw, with the two variances that it has."""

    mean: float
    units: int  # draws, or seeds of the only draw
    between: float  # variance of the mean by draws (seeds)
    within: float | None  # variance of the mean by test images; None where nobody kept what networks said of them
    df: float

    @property
    def interval(self) -> Interval:
        half = float(half_width(self.between + (self.within or 0.0), self.df))
        return Interval(self.mean - half, self.mean + half)

    @property
    def p(self) -> float:
        """Return the two-sided p of a mean of 0."""
        return float(p_value(self.mean, self.between, self.units, self.within or 0.0))


def satterthwaite(between: Any, units: int, within: Any, images: int) -> Any:
    """Compute the degrees of freedom of a sum of two variances: of `units` draws, and of `images` test images.

    Source: Satterthwaite 1946, Biometrics Bulletin 2:110-114.
    """
    parts = np.square(between) / (units - 1) + np.square(within) / max(images - 1, 1)
    total = np.square(np.asarray(between) + within)
    return np.divide(total, parts, out=np.full_like(parts, units - 1.0), where=parts > 0)


def p_value(mean: Any, between: Any, units: int, within: Any) -> Any:
    """Compute the two-sided p of a mean of 0: by Student's t with units - 1 degrees of freedom where `within` is 0, by
    the normal distribution where `between` is, and by that of Behrens and Fisher between them.

    The variance of the draws is what was found, over a chi-square by its degrees of freedom; that of the images, which
    are hundreds, is taken to be known. With Satterthwaite's degrees of freedom nine families of no difference had a
    false verdict in up to 9 % of simulated studies of five draws (image error 0.4, interaction 1.4 points): where few
    draws happen to lie close, he takes their variance to be well known, and Holm's rule asks for the far tail. With
    these it is 4 %. Source: Fisher 1935, Ann. Eugenics 6:391-398.
    """
    means, drawn, fixed = np.broadcast_arrays(
        *(np.asarray(one, dtype=float)[..., None] for one in (mean, between, within))
    )
    x, weights = _chi(units - 1)
    sd = np.sqrt(np.divide(drawn, x**2) + fixed)
    ratio = np.divide(np.abs(means), sd, out=np.where(means == 0, 0.0, np.inf) + 0 * sd, where=sd > 0)
    return 2 * (special.ndtr(-ratio) @ weights)


@cache
def _chi(df: int) -> tuple[np.ndarray, np.ndarray]:
    """Return places and weights (sum 1) of the root of a chi-square over its degrees of freedom, by Gauss-Legendre."""
    nodes, weights = np.polynomial.legendre.leggauss(POINTS)
    end = np.sqrt(stats.chi2.isf(1e-15, df) / df)
    x = end * (nodes + 1) / 2
    density = weights * stats.chi.pdf(x * np.sqrt(df), df)
    return x, density / density.sum()


def half_width(variance: Any, df: Any, level: float = LEVEL) -> Any:
    """Compute half of Student's t interval of a mean with this variance."""
    return stats.t.ppf((1 + level) / 2, df) * np.sqrt(variance)


def estimate(
    sample: Sequence[np.ndarray], images_N: np.ndarray | None = None, overlap: float = 0.0
) -> MeanEstimate | None:
    """Estimate `grand_mean`: s^2 over draws / D, plus the variance over test images / N; None for a single run.

    Draws share the test images, so that their spread cannot tell how lucky the images are: `images_N` is what each
    image contributes, averaged over draws and seeds alike. With one draw the estimand is the mean over its seeds,
    conditional on this training set.

    Args:
        overlap: the share of its images that a draw has in common with another. Where it is above 0 the variance over
            draws is s^2 (1 / D + overlap / (1 - overlap)), the corrected resampled t of Nadeau and Bengio 2003, whose
            rule is from memory and unverified.
    """
    units = np.array([np.mean(seeds) for seeds in sample]) if len(sample) > 1 else sample[0]
    if len(units) < 2:
        return None
    between = float(np.var(units, ddof=1)) * (1 / len(units) + overlap / (1 - overlap))
    images = 0 if images_N is None else len(images_N)
    within = float(np.var(images_N, ddof=1)) / images if images_N is not None and images > 1 else None
    df = float(satterthwaite(between, len(units), within or 0.0, images))
    return MeanEstimate(mean=grand_mean(sample), units=len(units), between=between, within=within, df=df)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A family against the baseline, over matched (draw, seed) pairs. Accuracies are fractions."""

    delta: float  # mean over draws of the mean over seeds of the differences
    estimate: MeanEstimate | None  # of delta; None for a single pair, which has no spread
    improvement: float  # P(family > baseline)
    improvement_interval: Interval | None
    sign_flip: float  # two-sided, exact, on draw-level differences
    resampled: Interval | None  # of the two-level bootstrap, where there are draws enough for it
    draws: int
    pairs: int
    overlap: float  # share of images that two draws have in common; 1: they are one training set

    @property
    def interval(self) -> Interval | None:
        return self.estimate.interval if self.estimate else None

    @property
    def p(self) -> float:
        return self.estimate.p if self.estimate else 1.0

    @property
    def conditional(self) -> bool:
        """Tell whether all runs learned from one training set: nothing is known of others."""
        return self.draws == 1 or self.overlap >= 1


def compare(differences: Sequence[np.ndarray], images_N: np.ndarray | None = None, overlap: float = 0.0) -> Comparison:
    """Compare by differences of matched runs (family minus baseline); see `estimate` for the arguments.

    The interval of P(family > baseline) is Wilson's, with draws as the cases (seeds where there is one draw): results
    of a draw lie between 0 and 1, and vary at most as much as cases of all or nothing.
    """
    won, draws, pairs = wins(differences), len(differences), sum(len(seeds) for seeds in differences)
    improvement = grand_mean(won)
    return Comparison(
        delta=grand_mean(differences),
        estimate=estimate(differences, images_N, overlap if overlap < 1 else 0.0),
        improvement=improvement,
        improvement_interval=wilson(improvement, draws if draws > 1 else pairs) if pairs > 1 else None,
        sign_flip=sign_flip_p([float(np.mean(seeds)) for seeds in differences]),
        resampled=bootstrap(differences, np.random.default_rng(0)) if draws >= RESAMPLED else None,
        draws=draws,
        pairs=pairs,
        overlap=overlap,
    )


def is_better(delta: Any, p_holm: Any, improvement: Any) -> Any:
    """Tell whether a family is better: ahead, by more than chance, and in three of four pairs."""
    return (np.asarray(delta) > 0) & (np.asarray(p_holm) <= ALPHA) & (np.asarray(improvement) >= MEANINGFUL)


def is_worse(delta: Any, p_holm: Any, improvement: Any) -> Any:
    """Tell whether a family is worse: the mirror image of `is_better`."""
    return (np.asarray(delta) < 0) & (np.asarray(p_holm) <= ALPHA) & (np.asarray(improvement) <= 1 - MEANINGFUL)


def is_equivalent(low: Any, high: Any) -> Any:
    """Tell whether an interval of the difference lies within one point on either side."""
    return (np.asarray(low) >= -EQUIVALENCE) & (np.asarray(high) <= EQUIVALENCE)


def verdict(found: Comparison, p_holm: float) -> Verdict:
    """Apply the rules: better or worse first, and whether by less than a point; then equivalent; else undecided."""
    if found.draws < DECIDES or found.conditional or found.interval is None:
        return Verdict.pilot
    within = bool(is_equivalent(found.interval.low, found.interval.high))
    if is_better(found.delta, p_holm, found.improvement):
        return Verdict.better_within if within else Verdict.better
    if is_worse(found.delta, p_holm, found.improvement):
        return Verdict.worse_within if within else Verdict.worse
    return Verdict.equivalent if within else Verdict.inconclusive


def decide(comparisons: Sequence[Comparison]) -> list[tuple[float, Verdict]]:
    """Adjust the p of the families of one task by Holm's rule, and decide on each."""
    adjusted = holm([found.p for found in comparisons])
    return [(p, verdict(found, p)) for found, p in zip(comparisons, adjusted, strict=True)]


def smallest_adjusted(draws: int, families: int) -> float:
    """Return the smallest p that a sign-flip test over draws can have after Holm's adjustment over families."""
    return min(1.0, families * 2 / 2**draws)
