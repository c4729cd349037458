"""What an integrator of dh/dt = rate(t, h) is: start, step, unstep and finish; and the two kinds there are.

Explicit one-step schemes are a tableau and one generic step; schemes on a pair of states are *shears*, each
of which changes one state by the slope at the other. A shear is undone exactly by the same evaluation; a tableau is
walked back by itself with the step reversed, which is as exact as its order.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from operator import index
from typing import TYPE_CHECKING, NamedTuple, SupportsIndex, TypeVar

from odenet.enums import Gradient, Scheme, Start

if TYPE_CHECKING:  # a configuration is checked against the table of schemes, before torch is loaded
    from torch import Tensor, nn


class Stage(NamedTuple):
    """One evaluation point of an integration: in step `step` of `steps`, a fraction `abscissa` of a step further on.

    Depth is never a float here: which weights a stage reads is integer arithmetic (see `odenet.depth.bases`).
    """

    step: int
    steps: int
    abscissa: Fraction

    @property
    def t(self) -> float:
        """Return the depth in [0, 1]."""
        return float((self.step + self.abscissa) / self.steps)

    @property
    def key(self) -> tuple[int, int, int]:
        """Return the stage within its integration as integers: torch.compile looks these up, but not fractions."""
        return self.step, self.abscissa.numerator, self.abscissa.denominator


PlaceT = TypeVar("PlaceT")  # in depth: a stage, or t itself
Slope = Callable[[Stage, "Tensor"], "Tensor"]
State = tuple["Tensor", ...]
TOLERANCE = 1e-3


def _reads_nothing(_: Stage) -> Sequence[Tensor]:
    return ()


def whole_steps(steps: SupportsIndex) -> int:
    """Return a number of steps as an int; ValueError where it is no whole number (a bool, or 8.0)."""
    try:
        whole = index(steps)
    except TypeError:
        whole = None
    if whole is None or isinstance(steps, bool):
        raise ValueError(f"steps={steps!r}: must be a whole number, without a decimal point.")
    return whole


@dataclass(frozen=True, slots=True)
class OpenRate:
    """A rate during one integration.

    `halves` are (f, g) of a partitioned rate y' = f(z), z' = g(y), whose state is [y; z] along dimension 1 (0 of
    vectors). `memory` is k_n of the LM step. `reads` are the tensors behind a stage for which gradients are wanted.
    `modules` are those whose buffers an evaluation may change.
    """

    slope: Slope
    reads: Callable[[Stage], Sequence[Tensor]] = _reads_nothing
    halves: tuple[Slope, Slope] | None = None
    memory: Callable[[Stage], Tensor] | None = None
    modules: tuple[nn.Module, ...] = ()


@dataclass(frozen=True, slots=True)
class Course:
    """One integration of dh/dt = depth_time * rate(t, h) over [0, 1] in equal steps, and how it is differentiated."""

    scheme: Scheme
    steps: int
    depth_time: float = 1.0
    start: Start = Start.consistent  # of two-step schemes
    gradient: Gradient = Gradient.direct
    tolerance: float = TOLERANCE  # relative and absolute, of adaptive schemes

    @property
    def size(self) -> float:
        """Return the depth time of a step."""
        return self.depth_time / self.steps


@dataclass(frozen=True, slots=True, kw_only=True)
class Stepping(ABC):
    """A fixed-step scheme. Its state is a tuple of tensors shaped alike."""

    name: str
    order: int | None  # observed on smooth rates; None: it approximates no ODE
    reversible: bool  # unstep is the exact inverse of step
    needs: str = ""  # what a rate must have: "halves" or "memory"

    @property
    @abstractmethod
    def abscissae(self) -> tuple[Fraction, ...]:
        """Return where in a step the rate is evaluated, in order."""

    @property
    def evaluations(self) -> int:
        """Return the rate evaluations per step."""
        return len(self.abscissae)

    def stages(self, steps: int) -> list[Stage]:
        """Return every evaluation of an integration, in the order in which it happens."""
        return [Stage(step, steps, c) for step in range(steps) for c in self.abscissae]

    def stages_of(self, step: int, steps: int, *, backward: bool = False) -> list[Stage]:
        """Return the evaluations of one step; `backward`: of the same step taken in reverse."""
        return [Stage(step, steps, 1 - c if backward else c) for c in self.abscissae]

    @abstractmethod
    def start(self, h0: Tensor, course: Course) -> State:
        """Return the state before the first step."""

    @abstractmethod
    def step(self, rate: OpenRate, state: State, step: int, course: Course) -> State:
        """Return the state one step on."""

    @abstractmethod
    def unstep(self, rate: OpenRate, state: State, step: int, course: Course) -> State:
        """Return the state before `step`: exactly if `reversible`, else by the scheme in reverse time."""

    @abstractmethod
    def finish(self, state: State) -> Tensor:
        """Return h(1) from the last state."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplicitRungeKutta(Stepping):
    """k_i = f(t + c_i h, x + h sum_{j<i} a_ij k_j);  x <- x + h sum_i b_i k_i   (Hairer, Norsett, Wanner, II.1).

    Costs one rate evaluation per row of the tableau and step, and is exact for nothing but polynomials of degree
    `order` in t. It is not adaptive and not implicit. `of_x` is 1 for each row; PolyNet leaves x out of its second.
    """

    a: tuple[tuple[Fraction, ...], ...]  # row i: the i coefficients of the slopes before it
    b: tuple[Fraction, ...]
    of_x: tuple[int, ...]
    reversible: bool = False

    @property
    def abscissae(self) -> tuple[Fraction, ...]:
        """Return c_i = sum_j a_ij, as in a consistent tableau."""
        return tuple(sum(row, Fraction(0)) for row in self.a)

    def start(self, h0: Tensor, course: Course) -> State:  # noqa: ARG002
        return (h0,)

    def step(self, rate: OpenRate, state: State, step: int, course: Course) -> State:
        return (self._advance(rate.slope, state[0], self.stages_of(step, course.steps), course.size),)

    def unstep(self, rate: OpenRate, state: State, step: int, course: Course) -> State:
        stages = self.stages_of(step, course.steps, backward=True)
        return (self._advance(rate.slope, state[0], stages, -course.size),)

    def finish(self, state: State) -> Tensor:
        return state[0]

    def _advance(self, slope: Slope, x: Tensor, stages: list[Stage], size: float) -> Tensor:
        slopes: list[Tensor] = []
        for stage, row, of_x in zip(stages, self.a, self.of_x, strict=True):
            slopes.append(slope(stage, _combine(x if of_x else None, row, slopes, size)))
        return _combine(x, self.b, slopes, size)


def _combine(x: Tensor | None, weights: tuple[Fraction, ...], slopes: list[Tensor], size: float) -> Tensor:
    for weight, slope in zip(weights, slopes, strict=True):
        if weight:
            alpha = float(weight) * size
            x = alpha * slope if x is None else x.add(slope, alpha=alpha)
    assert x is not None, "a stage sees x or a slope"
    return x


@dataclass(frozen=True, slots=True)
class Shear:
    """state[target] <- keep * state[target] + add * state[source] + weight * slope(stage, state[source])."""

    target: int
    stage: Stage
    slope: Slope
    weight: float
    keep: float | Tensor = 1.0
    add: float | Tensor = 0.0

    @property
    def source(self) -> int:
        return 1 - self.target

    def apply(self, state: State) -> State:
        slope = self.slope(self.stage, state[self.source])
        return self._with(state, self._kept(state, self.keep, self.add).add(slope, alpha=self.weight))

    def invert(self, state: State, slope: Tensor) -> State:
        """Return the state before, given the slope at the source, which a shear leaves alone; needs keep = 1 or -1."""
        assert isinstance(self.keep, float)
        changed = state[self.target].add(slope, alpha=-self.weight)
        before = self._kept(self._with(state, changed), self.keep, -self.keep * self.add)
        return self._with(state, before)

    def _kept(self, state: State, keep: float | Tensor, add: float | Tensor) -> Tensor:
        target, source = state[self.target], state[self.source]
        if isinstance(keep, float) and keep == 1:
            return target
        return keep * target + add * source

    def _with(self, state: State, target: Tensor) -> State:
        return (target, state[1]) if self.target == 0 else (state[0], target)


@dataclass(frozen=True, slots=True, kw_only=True)
class PairScheme(Stepping):
    """A scheme whose state is a pair, made of shears."""

    @property
    def abscissae(self) -> tuple[Fraction, ...]:
        return (Fraction(0),)

    @abstractmethod
    def shears(self, rate: OpenRate, step: int, course: Course) -> list[Shear]:
        """Return what a step does, in order."""

    @property
    def swaps(self) -> bool:
        """Return whether a step ends by exchanging the two states."""
        return True

    def step(self, rate: OpenRate, state: State, step: int, course: Course) -> State:
        for shear in self.shears(rate, step, course):
            state = shear.apply(state)
        return self.swapped(state)

    def unstep(self, rate: OpenRate, state: State, step: int, course: Course) -> State:
        assert self.reversible
        state = self.swapped(state)
        for shear in reversed(self.shears(rate, step, course)):
            state = shear.invert(state, shear.slope(shear.stage, state[shear.source]))
        return state

    def swapped(self, state: State) -> State:
        return state[::-1] if self.swaps else state

    def finish(self, state: State) -> Tensor:
        return state[0]


def channel_dim(h: Tensor) -> int:
    return min(1, h.dim() - 1)


def composed(
    f: Callable[[PlaceT, Tensor], Tensor], g: Callable[[PlaceT, Tensor], Tensor]
) -> Callable[[PlaceT, Tensor], Tensor]:
    """Return the slope of [y; z] from the two halves of a partitioned rate, for schemes that know no halves."""
    import torch

    def slope(place: PlaceT, h: Tensor) -> Tensor:
        y, z = h.chunk(2, dim=channel_dim(h))
        return torch.cat([f(place, z), g(place, y)], dim=channel_dim(h))

    return slope
