"""Points in [0, 1] as fractions: Chebyshev-Lobatto for interpolation, Gauss-Legendre for integrals."""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from itertools import pairwise
from math import pi, sin
from typing import TYPE_CHECKING

from odenet.integrators.scheme import Stage

if TYPE_CHECKING:
    from torch import Tensor


@lru_cache(maxsize=256)
def lobatto(count: int) -> tuple[Fraction, ...]:
    """(1 - cos(pi j / (count - 1))) / 2 in ascending order; the middle of [0, 1] for a single one.

    To 52 binary places: so 1/4, 1/2 and 3/4, the only rational ones, are exact, and the two sides of a jump there are
    told apart. Of 2 count - 1 points every second one is one of `count`.
    """
    if count == 1:
        return (Fraction(1, 2),)
    return tuple(Fraction(round(sin(pi / 2 * (j / (count - 1))) ** 2 * 2**52), 2**52) for j in range(count))


def barycentric(count: int) -> list[float]:
    """The weights of barycentric interpolation at two or more Chebyshev-Lobatto points.

    Source: Berrut and Trefethen 2004, SIAM Review 46, 501.
    """
    return [(-1.0) ** j * (0.5 if j in (0, count - 1) else 1.0) for j in range(count)]


def gauss_legendre(ends: list[Fraction], count: int) -> tuple[list[Fraction], list[float]]:
    """`count` points between each two neighbouring ends, and their weights: exact to degree 2 count - 1."""
    from numpy.polynomial.legendre import leggauss

    points, weights = (array.tolist() for array in leggauss(count))
    places, measure = [], []
    for left, right in pairwise(ends):
        places += [left + (right - left) * Fraction((1 + point) / 2) for point in points]
        measure += [float(right - left) / 2 * weight for weight in weights]
    return places, measure


def quadrature(ends: set[Fraction], count: int) -> tuple[list[Stage], Tensor]:
    """Gauss-Legendre between neighbouring ends: where to read theta, and the square roots of the weights (Q, 1)."""
    import torch

    places, measure = gauss_legendre(sorted(ends), count)
    return [Stage(0, 1, place) for place in places], torch.tensor(measure, dtype=torch.float64).sqrt()[:, None]


def piece_ends(pieces: int) -> set[Fraction]:
    """Return the ends of the equal parts of [0, 1]."""
    return {Fraction(end, pieces) for end in range(pieces + 1)}
