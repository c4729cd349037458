"""Simulate studies of the size and spread of one's own: how often an interval covers, what the rules would find.

Legend: `B` simulated studies, `F` families besides the baseline, `D` draws, `S` seeds within a draw.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sweep.report.inference import comparison
from sweep.report.inference.comparison import DECIDES

STUDIES = 2000
EFFECTS = (0.01, 0.02, 0.03, 0.05)  # true differences whose detection is simulated
MANY_IMAGES = 10_000  # where nothing is known of test images they have no error, and their number does not matter


@dataclass(frozen=True, slots=True, kw_only=True)
class Components:
    """Standard deviations of a family's accuracy minus the baseline's, as fractions."""

    seeds: float  # of a matched pair about the mean of its draw
    draws: float  # of the expected difference between draws
    images: float  # of the mean difference, by which test images there are


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """The size of a study. `families` are those besides the baseline, over which p is adjusted."""

    draws: int
    seeds: int
    families: int = 1
    images: int = MANY_IMAGES


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """The results of simulated studies for every family, each array (B, F)."""

    draws: int
    delta_BF: np.ndarray
    between_BF: np.ndarray  # variances of delta, by draws and by images
    within_BF: np.ndarray
    p_BF: np.ndarray
    ahead_BF: np.ndarray  # P(family > baseline)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prospect:
    """The prospect of a design. `power`: the share of studies that find a family better, by its true difference."""

    coverage: float
    false: float  # share of studies that call any family better or worse where none differs
    power: dict[float, float]


def components(differences: Sequence[np.ndarray], within: float | None) -> Components:
    """Estimate the components by analysis of variance; `within`: variance of the mean difference by test images.

    Where every draw has a single pair, seeds and draws cannot be told apart, and all is put down to draws.
    """
    several = [seeds for seeds in differences if len(seeds) > 1]
    degrees = sum(len(seeds) - 1 for seeds in several)
    seeds = sum(float(np.var(one, ddof=1)) * (len(one) - 1) for one in several) / degrees if degrees else 0.0
    means = [float(np.mean(one)) for one in differences]
    share = seeds * float(np.mean([1 / len(one) for one in differences]))
    draws = max(0.0, float(np.var(means, ddof=1)) - share) if len(means) > 1 else 0.0
    return Components(seeds=seeds**0.5, draws=draws**0.5, images=(within or 0.0) ** 0.5)


def adjusted(p_BF: np.ndarray) -> np.ndarray:
    """Adjust the p-values of each study by Holm's rule, as `statistics.holm` does for one."""
    order_BF = np.argsort(p_BF, axis=1, kind="stable")
    steps_F = np.arange(p_BF.shape[1], 0, -1)
    sorted_BF = np.maximum.accumulate(np.minimum(1.0, np.take_along_axis(p_BF, order_BF, 1) * steps_F), axis=1)
    found = np.empty_like(p_BF)
    np.put_along_axis(found, order_BF, sorted_BF, 1)
    return found


def weigh(differences_BFDS: np.ndarray, within_BF: np.ndarray) -> Evidence:
    """Estimate as `comparison` does, many studies at once."""
    D = differences_BFDS.shape[2]
    means_BFD = differences_BFDS.mean(-1)
    delta_BF, between_BF = means_BFD.mean(-1), means_BFD.var(-1, ddof=1) / D
    return Evidence(
        draws=D,
        delta_BF=delta_BF,
        between_BF=between_BF,
        within_BF=within_BF,
        p_BF=comparison.p_value(delta_BF, between_BF, D, within_BF),
        ahead_BF=((1 + np.sign(differences_BFDS)) / 2).mean((-1, -2)),
    )


def half_widths(found: Evidence, images: int) -> np.ndarray:
    """Return half of each interval (B, F)."""
    df_BF = comparison.satterthwaite(found.between_BF, found.draws, found.within_BF, images)
    return comparison.half_width(found.between_BF + found.within_BF, df_BF)


def called(found: Evidence) -> tuple[np.ndarray, np.ndarray]:
    """Return which families the rules call better, and which worse, each (B, F)."""
    p_BF, decides = adjusted(found.p_BF), found.draws >= DECIDES
    better = comparison.is_better(found.delta_BF, p_BF, found.ahead_BF) & decides
    return better, comparison.is_worse(found.delta_BF, p_BF, found.ahead_BF) & decides


def simulate(design: Design, spread: Components, generator: np.random.Generator, studies: int) -> np.ndarray:
    """Draw the differences (B, F, D, S) of studies in which no family differs from the baseline.

    The baseline is in every difference: half of each variance is its own, so that differences correlate by 0.5.
    """
    shape = (studies, design.families + 1, design.draws, design.seeds)
    accuracies = spread.seeds * generator.standard_normal(shape)
    accuracies += spread.draws * generator.standard_normal((*shape[:3], 1))
    accuracies += spread.images * generator.standard_normal((*shape[:2], 1, 1))
    return (accuracies[:, 1:] - accuracies[:, :1]) / np.sqrt(2)


def coverage_and_power(
    design: Design, spread: Components, generator: np.random.Generator, studies: int = STUDIES
) -> Prospect:
    """Simulate what a design can show where its differences spread like this, one family differing at a time."""
    null_BFDS = simulate(design, spread, generator, studies)
    chi_BF = generator.chisquare(design.images - 1, null_BFDS.shape[:2]) / (design.images - 1)
    within_BF = spread.images**2 * chi_BF
    null, decides = weigh(null_BFDS, within_BF), design.draws >= DECIDES
    power = {}
    for effect in EFFECTS:
        one = weigh(null_BFDS[:, :1] + effect, within_BF[:, :1])  # nothing changes for the other families
        p_BF = adjusted(np.hstack([one.p_BF, null.p_BF[:, 1:]]))
        better_B = comparison.is_better(one.delta_BF[:, 0], p_BF[:, 0], one.ahead_BF[:, 0]) & decides
        power[effect] = float(better_B.mean())
    better_BF, worse_BF = called(null)
    first = weigh(null_BFDS[:, :1], within_BF[:, :1])
    covers = np.abs(first.delta_BF) <= half_widths(first, design.images)
    false = (better_BF | worse_BF).any(axis=1)
    return Prospect(coverage=float(covers.mean()), false=float(false.mean()), power=power)
