"""What an evaluation under attack found: a row per attack, the curve over epsilon, the sanity checks and their verdict.

Legend: `B` images attacked.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from odenet.robustness.config import Norm

MASKED = "masked: upper bound only"
UNION = "union"


@dataclass(frozen=True, slots=True)
class Check:
    """One sanity check of an evaluation: `value` passes where it keeps to `limit`; nan: it could not be had."""

    name: str
    passed: bool
    value: float
    limit: float

    @staticmethod
    def at_most(name: str, value: float, limit: float) -> "Check":
        return Check(name, value <= limit, value, limit)  # nan is no pass

    @staticmethod
    def above(name: str, value: float, limit: float) -> "Check":
        return Check(name, value > limit, value, limit)


@dataclass(frozen=True, slots=True)
class AttackResult:
    """The share of all `n` images that are classified right after an attack; those that were wrong before stay wrong.

    `attack` may be `union`, of the worst for each image. `first` is the share of images that this attack broke and none
    before it in the order of the rows did: of transfer and Square it indicates masked gradients.
    """

    norm: Norm
    epsilon: float  # of images in [0, 1]
    attack: str
    accuracy: float
    n: int
    first: float = 0.0


@dataclass(frozen=True, slots=True)
class GradientError:
    """The distance of the gradient of a reconstructed integration from that of stored activations."""

    steps: int
    relative_error: float


@dataclass(frozen=True, slots=True, eq=False)
class AttackReport:
    """An evaluation of one network.

    Attributes:
        results: rows in the order of norm, epsilon and attack, `union` last.
        checks: the nine sanity checks; one that fails labels the whole.
        flags: what pyautoattack warns of, in its words without advice.
        survivors: (norm, epsilon, attack) to a mask (B,): the image was right and stayed so.
        minimal_norms: norm to the least norm (B,) that FAB found for each image: 0 where it was wrong from the start,
            inf where none was found; without fab_t empty.
        gradient_errors: of the memory-free gradient, which no attack uses, by depth; empty where there is none.
        adaptive: whether the network chooses its own steps.
    """

    results: tuple[AttackResult, ...]
    checks: tuple[Check, ...]
    flags: tuple[str, ...]
    clean_B: np.ndarray
    survivors: Mapping[tuple[Norm, float, str], np.ndarray]
    minimal_norms: Mapping[Norm, np.ndarray]
    gradient_errors: tuple[GradientError, ...]
    adaptive: bool

    @property
    def label(self) -> str:
        """Return what the accuracies must be called: nothing, or that they are upper bounds."""
        return MASKED if self.adaptive or not all(check.passed for check in self.checks) else ""

    @property
    def clean_accuracy(self) -> float:
        return float(self.clean_B.mean())

    def curve(self, norm: Norm) -> list[tuple[float, float]]:
        """Return pairs (epsilon, robust accuracy), the union of all attacks, by increasing epsilon."""
        return [(row.epsilon, row.accuracy) for row in self.results if (row.norm, row.attack) == (norm, UNION)]

    def area(self, norm: Norm) -> float:
        """Return the mean robust accuracy over log epsilon, by the trapezoidal rule; nan below two epsilons."""
        return area_under(self.curve(norm))

    def median_minimal_norm(self, norm: Norm) -> float:
        """Return the median of FAB's least norms over the images that were right; nan without FAB or such images."""
        norms_B = self.minimal_norms.get(norm)
        return float("nan") if norms_B is None or not self.clean_B.any() else float(np.median(norms_B[self.clean_B]))


def area_under(curve: list[tuple[float, float]]) -> float:
    """Return the mean over log epsilon of pairs (epsilon, accuracy), by the trapezoidal rule; nan below two pairs.

    >>> area_under([(0.1, 1.0), (1.0, 0.5), (10.0, 0.0)])
    0.5
    """
    if len(curve) < 2:
        return float("nan")
    parts = [(math.log(right / left), (high + low) / 2) for (left, high), (right, low) in pairwise(curve)]
    return math.fsum(width * height for width, height in parts) / math.fsum(width for width, _ in parts)


def rows_of(norm: Norm, epsilon: float, survivors: Mapping[str, np.ndarray], clean_B: np.ndarray) -> list[AttackResult]:
    """Return the rows of one epsilon, given what survived each attack, in order; the union comes last."""
    rows, union_B, n = list[AttackResult](), clean_B, len(clean_B)
    for attack, survived_B in survivors.items():
        first = float((union_B & ~survived_B).mean())
        union_B = union_B & survived_B
        rows.append(AttackResult(norm, epsilon, attack, float(survived_B.mean()), n, first))
    return [*rows, AttackResult(norm, epsilon, UNION, float(union_B.mean()), n)]
