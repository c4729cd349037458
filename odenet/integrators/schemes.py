"""The integrators, as data of the kinds in `scheme`, and the adaptive reference."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from odenet.enums import Gradient, Scheme, Start
from odenet.integrators.scheme import (
    Course,
    ExplicitRungeKutta,
    OpenRate,
    PairScheme,
    Shear,
    Stage,
    State,
    Stepping,
    channel_dim,
)

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoStep(PairScheme):
    """The state is (x_j, x_{j-1}); x_{j+1} = keep x_{j-1} + add x_j + (factor h)^power f(t_j, x_j). Cost 1 a step.

    `two_step_midpoint` (MidPoint, Chang et al. 2018, arXiv 1709.03698): x_{j-1} + 2 h f, of order 2, stable only for
    imaginary eigenvalues up to 1/h: where solutions decay an oscillation from step to step grows, however small h is.
    `leapfrog` (Eq. 17 there): 2 x_j - x_{j-1} + h^2 f for the second-order x'' = f, x'(0) = 0, of order 2. Both have
    order 1 if the start is `repeat`, none if it is `paper`. On weights that jump in depth they have order 1 too: one of
    their steps stands astride each jump.
    """

    keep: float
    add: float
    factor: float
    power: int
    reversible: bool = True

    def start(self, h0: Tensor, course: Course) -> State:
        if course.start is not Start.paper:
            return (h0, h0)
        import torch

        return (h0, torch.zeros_like(h0))

    def shears(self, rate: OpenRate, step: int, course: Course) -> list[Shear]:
        weight = self.factor * course.size**self.power
        if step == 0 and course.start is Start.consistent:
            weight /= 2
        return [Shear(1, Stage(step, course.steps, Fraction(0)), rate.slope, weight, self.keep, self.add)]


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearMultistep(PairScheme):
    """u_{n+1} = (1 - k_n) u_n + k_n u_{n-1} + h f(u_n) with learned k_n (LM-ResNet, Lu et al. 2018, arXiv 1710.10121).

    Cost 1 a step. Zero-stable for |k| <= 1, k != -1. It approximates no ODE for general k_n, and its inverse amplifies
    by 1/|k|. Begun with u_{-1} = u_0 the first step is Euler's whatever k_0 is; k_n = 0 is Euler (the ResNet).
    """

    reversible: bool = False
    needs: str = "memory"

    def start(self, h0: Tensor, course: Course) -> State:  # noqa: ARG002
        return (h0, h0)

    def shears(self, rate: OpenRate, step: int, course: Course) -> list[Shear]:
        assert rate.memory is not None
        stage = Stage(step, course.steps, Fraction(0))
        k = rate.memory(stage)
        return [Shear(1, stage, rate.slope, course.size, k, 1 - k)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Partitioned(PairScheme):
    """y <- y + h f(z); z <- z + h g(y): symplectic Euler, Verlet in Chang et al. 2018 (arXiv 1709.03698, Eq. 10).

    Order 1, cost one evaluation of each half a step, reversible. With two residual functions it is RevNet's coupling
    (Gomez et al. 2017, arXiv 1707.04585).
    """

    reversible: bool = True
    needs: str = "halves"

    @property
    def swaps(self) -> bool:
        return False

    def start(self, h0: Tensor, course: Course) -> State:  # noqa: ARG002
        y, z = h0.chunk(2, dim=channel_dim(h0))
        return y, z

    def shears(self, rate: OpenRate, step: int, course: Course) -> list[Shear]:
        assert rate.halves is not None
        stage, size = Stage(step, course.steps, Fraction(0)), course.size
        return [Shear(index, stage, half, size) for index, half in enumerate(rate.halves)]

    def finish(self, state: State) -> Tensor:
        import torch

        return torch.cat(state, dim=channel_dim(state[0]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Adaptive:
    """An embedded pair with step control, by torchdiffeq: a reference of fixed-step schemes.

    It chooses its own stages, so rates with batch norm or weights that depend on depth are not for it. `steps` is
    ignored; the cost depends on the tolerance.
    """

    name: str  # torchdiffeq's
    order: int
    evaluations: int  # new ones of one step; how many steps there are is not known beforehand
    reversible: bool = False
    needs: str = "constant"

    def stages(self, steps: int) -> list[Stage]:  # noqa: ARG002
        """Return no stage: none is known beforehand."""
        return []

    def solve(
        self,
        slope: Callable[[float, Tensor], Tensor],
        h0: Tensor,
        course: Course,
        adjoint: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """Return h(1), differentiated by autograd; or by the adjoint equation, for `adjoint` and h0 only."""
        import torch
        from torchdiffeq import odeint, odeint_adjoint  # type: ignore[import-untyped]

        if torch.is_autocast_enabled(
            h0.device.type
        ):  # half precision would lose what short steps add, and depth itself
            h0 = h0.to(torch.promote_types(h0.dtype, torch.float32))

        def func(t: Tensor, h: Tensor) -> Tensor:
            return course.depth_time * slope(float(t.detach()), h).to(h.dtype)

        ends = torch.tensor([0.0, 1.0], device=h0.device, dtype=h0.real.dtype)
        tolerance = {"rtol": course.tolerance, "atol": course.tolerance, "method": self.name}
        with named_failures():
            if adjoint is None:
                return odeint(func, h0, ends, **tolerance)[-1]
            return odeint_adjoint(func, h0, ends, adjoint_params=tuple(adjoint), **tolerance)[-1]


@contextmanager
def named_failures() -> Iterator[None]:
    """Turn what torchdiffeq asserts of a solution that blows up into a FloatingPointError: its state is finite, and its
    steps are not so short that they vanish beside the depth."""
    try:
        yield
    except AssertionError as error:
        if "underflow in dt" not in str(error) and "non-finite values" not in str(error):
            raise
        raise FloatingPointError(f"the adaptive scheme found no further step ({str(error)[:60]})") from error


def _tableau(name: str, order: int, a: list[list[str]], b: str, of_x: tuple[int, ...] = ()) -> ExplicitRungeKutta:
    rows = tuple(tuple(Fraction(entry) for entry in row) for row in a)
    weights = tuple(Fraction(weight) for weight in b.split())
    return ExplicitRungeKutta(name=name, order=order, a=rows, b=weights, of_x=of_x or (1,) * len(rows))


SCHEMES: dict[Scheme, Stepping | Adaptive] = {
    Scheme.euler: _tableau("Euler", 1, [[]], "1"),
    Scheme.midpoint: _tableau("midpoint", 2, [[], ["1/2"]], "0 1"),
    Scheme.heun: _tableau("Heun", 2, [[], ["1"]], "1/2 1/2"),
    # The second-order scheme of least local error bound (Ralston 1962).
    Scheme.ralston: _tableau("Ralston", 2, [[], ["2/3"]], "1/4 3/4"),
    # Kutta 1901: the classic tableau and the 3/8 rule (torchdiffeq's "rk4" is the latter).
    Scheme.rk4: _tableau("RK4", 4, [[], ["1/2"], ["0", "1/2"], ["0", "0", "1"]], "1/6 1/3 1/3 1/6"),
    Scheme.rk4_38: _tableau("RK4 3/8", 4, [[], ["1/3"], ["-1/3", "1"], ["1", "-1", "1"]], "1/8 3/8 3/8 1/8"),
    # x + h F(x) + h F(h F(x)) (Zhang et al. 2017, arXiv 1611.05725): for rates with F(0) = 0 backward Euler's Neumann
    # series up to the second term.
    Scheme.polynet: _tableau("PolyNet", 1, [[], ["1"]], "1 1", of_x=(1, 0)),
    Scheme.two_step_midpoint: TwoStep(name="two-step midpoint", order=2, keep=1.0, add=0.0, factor=2.0, power=1),
    Scheme.leapfrog: TwoStep(name="leapfrog", order=2, keep=-1.0, add=2.0, factor=1.0, power=2),
    Scheme.lm: LinearMultistep(name="LM", order=None),
    Scheme.verlet: Partitioned(name="Verlet", order=1),
    Scheme.dopri5: Adaptive(name="dopri5", order=5, evaluations=6),  # Dormand and Prince's 5(4) pair
}
ADAPTIVE = tuple(scheme for scheme, method in SCHEMES.items() if isinstance(method, Adaptive))
TWO_STEP = tuple(scheme for scheme, method in SCHEMES.items() if isinstance(method, TwoStep))


def refusal(scheme: Scheme, gradient: Gradient) -> str:
    """Return why an integration cannot be differentiated so, and what can be; an empty text where it can."""
    if gradient is Gradient.reconstructed and SCHEMES[scheme].needs == "memory":
        return "undoing an LM step divides by k_n, which may be 0; use direct or checkpointed."
    if gradient is Gradient.checkpointed and scheme in ADAPTIVE:
        return "an adaptive scheme has no fixed steps; use direct, or reconstructed for its adjoint equation."
    return ""
