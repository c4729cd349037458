"""Integrators of dh/dt = rate(t, h) as data: a tableau, and one explicit Runge-Kutta step for all of them."""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from odenet.terms import Scheme, Stage

StagedRate = Callable[[Stage, Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class ExplicitRungeKutta:
    """k_i = f(t + c_i h, x + h sum_{j<i} a_ij k_j);  x <- x + h sum_i b_i k_i   (Hairer, Norsett, Wanner, II.1).

    Costs one rate evaluation per row of the tableau and step, and is exact for nothing but polynomials of degree
    `order` in t. It is not adaptive and not implicit.
    """

    name: str
    order: int
    a: tuple[tuple[Fraction, ...], ...]  # row i: the i coefficients of the slopes before it
    b: tuple[Fraction, ...]

    @property
    def c(self) -> tuple[Fraction, ...]:
        """The abscissae; a consistent tableau has c_i = sum_j a_ij."""
        return tuple(sum(row, Fraction(0)) for row in self.a)

    @property
    def evaluations(self) -> int:
        """Rate evaluations per step."""
        return len(self.b)

    def stages(self, steps: int) -> list[Stage]:
        """Every evaluation of an integration, in the order in which it happens."""
        return [Stage(step, steps, c) for step in range(steps) for c in self.c]

    def step(self, rate: StagedRate, x: Tensor, stages: list[Stage], size: float) -> Tensor:
        """One step of depth-time `size` from `x`; `stages` are this step's own."""
        slopes: list[Tensor] = []
        for stage, row in zip(stages, self.a, strict=True):
            slopes.append(rate(stage, _advance(x, row, slopes, size)))
        return _advance(x, self.b, slopes, size)


def _advance(x: Tensor, weights: tuple[Fraction, ...], slopes: list[Tensor], size: float) -> Tensor:
    for weight, slope in zip(weights, slopes, strict=True):
        if weight:
            x = torch.add(x, slope, alpha=float(weight) * size)
    return x


def _tableau(name: str, order: int, a: list[list[str]], b: str) -> ExplicitRungeKutta:
    rows = tuple(tuple(Fraction(entry) for entry in row) for row in a)
    return ExplicitRungeKutta(name, order, rows, tuple(Fraction(weight) for weight in b.split()))


SCHEMES: dict[Scheme, ExplicitRungeKutta] = {
    Scheme.euler: _tableau("Euler", 1, [[]], "1"),
    Scheme.midpoint: _tableau("midpoint", 2, [[], ["1/2"]], "0 1"),
    Scheme.heun: _tableau("Heun", 2, [[], ["1"]], "1/2 1/2"),
    # The second-order scheme of least local error bound (Ralston 1962).
    Scheme.ralston: _tableau("Ralston", 2, [[], ["2/3"]], "1/4 3/4"),
    # Kutta 1901: the classic tableau and the 3/8 rule (torchdiffeq's "rk4" is the latter).
    Scheme.rk4: _tableau("RK4", 4, [[], ["1/2"], ["0", "1/2"], ["0", "0", "1"]], "1/6 1/3 1/3 1/6"),
    Scheme.rk4_38: _tableau("RK4 3/8", 4, [[], ["1/3"], ["-1/3", "1"], ["1", "-1", "1"]], "1/8 3/8 3/8 1/8"),
}
