"""The order of every integrator, observed on problems with known solutions that depend on t and on weights."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import pytest
import torch
from torch import Tensor

from odenet import Basis, Scheme, Start
from odenet.depth.bases import BASES
from odenet.depth.node_weights import readout
from odenet.depth.quadrature import gauss_legendre
from odenet.integrators.integrate import integrate_stages
from odenet.integrators.scheme import Course, OpenRate, Stage
from odenet.integrators.schemes import ADAPTIVE, SCHEMES, TWO_STEP

CPU = torch.device("cpu")
STEPS = (32, 64, 128)
ORDERS = {scheme: method.order for scheme, method in SCHEMES.items()}


@dataclass(frozen=True)
class Weight:
    """w(t) = theta(t) + cos(3 t) with theta of a basis; all its jumps and bends are at multiples of 1/4."""

    basis: Basis
    nodes: int

    @property
    def theta_N(self) -> Tensor:
        return torch.rand(self.nodes, dtype=torch.float64, generator=torch.Generator().manual_seed(3)) + 0.5

    def at(self, scheme: Scheme, steps: int) -> Callable[[Stage], Tensor]:
        """Read by stage, as the networks do."""
        read = readout(self.basis, self.nodes, scheme, steps, CPU)
        taken = read.take(self.theta_N)
        return lambda stage: taken[read.slot(stage)] + math.cos(3 * stage.t)

    def integral(self, kernel: Callable[[float], float] = lambda t: 1.0) -> float:
        """Of kernel(t) theta(t) over [0, 1], to rounding."""
        places, measures = gauss_legendre([Fraction(quarter, 4) for quarter in range(5)], 12)
        values = BASES[self.basis].values_SN(self.nodes, [Stage(0, 1, t) for t in places]) @ self.theta_N
        kernels = [m * kernel(float(t)) for t, m in zip(places, measures, strict=True)]
        return float(values @ torch.tensor(kernels, dtype=torch.float64))


WEIGHTS = {
    "constant": Weight(Basis.piecewise_constant, 1),
    "piecewise_constant": Weight(Basis.piecewise_constant, 4),
    "hat": Weight(Basis.hat, 5),
    "discontinuous_linear": Weight(Basis.discontinuous_linear, 8),
    "polynomial": Weight(Basis.polynomial, 4),
}
JUMPING = ("piecewise_constant", "discontinuous_linear")
H0 = torch.tensor([0.2, 0.5], dtype=torch.float64)


@dataclass(frozen=True)
class Problem:
    """dh/dt of a rate that depends on t and on weights, h(0) = H0, and its solution at 1 in closed form."""

    rate: Callable[[Callable[[Stage], Tensor]], OpenRate]
    solution: Callable[[Weight], Tensor]


def area(weight: Weight) -> float:
    return weight.integral() + math.sin(3) / 3


def swung(weight: Weight) -> Tensor:
    """x'' = w(t) - x, x(0) = H0, x'(0) = 0."""
    driven = weight.integral(lambda t: math.sin(1 - t)) + (math.cos(1) - math.cos(3)) / 8
    return H0 * math.cos(1) + driven


def crossed(weight: Weight) -> Tensor:
    """y' = w z, z' = w y."""
    both, apart = H0.sum() * math.exp(area(weight)), (H0[0] - H0[1]) * math.exp(-area(weight))
    return torch.stack([both + apart, both - apart]) / 2


LOGISTIC = Problem(
    lambda w: OpenRate(lambda s, h: w(s) * h * (1 - h)), lambda weight: 1 / (1 + (1 / H0 - 1) * math.exp(-area(weight)))
)
LINEAR = Problem(lambda w: OpenRate(lambda s, h: w(s) * h), lambda weight: H0 * math.exp(area(weight)))
WITH_K = Problem(
    lambda w: OpenRate(lambda s, h: w(s) * h, memory=lambda _: torch.tensor(0.3, dtype=torch.float64)), LINEAR.solution
)
SWING = Problem(lambda w: OpenRate(lambda s, h: w(s) - h), swung)
CROSSED = Problem(lambda w: OpenRate(lambda s, h: w(s) * h.flip(0), halves=(LINEAR.rate(w).slope,) * 2), crossed)
PROBLEMS = {
    Scheme.polynet: LINEAR,  # its step is made for F(0) = 0
    Scheme.lm: WITH_K,
    Scheme.leapfrog: SWING,
    **{scheme: CROSSED for scheme, method in SCHEMES.items() if method.needs == "halves"},
}


def errors_of(
    scheme: Scheme,
    weight: Weight = WEIGHTS["constant"],
    steps: tuple[int, ...] = STEPS,
    start: Start = Start.consistent,
) -> list[float]:
    """The error at t = 1 on the scheme's problem."""
    problem = PROBLEMS.get(scheme, LOGISTIC)
    exact = problem.solution(weight)
    runs = (integrate_stages(problem.rate(weight.at(scheme, n)), H0, Course(scheme, n, start=start)) for n in steps)
    return [float((run - exact).norm()) for run in runs]


def observed_order(errors: list[float]) -> float:
    """Slope of log(error) against log(step size) where the steps are halved, by least squares."""
    x = torch.arange(len(errors), dtype=torch.float64)
    y = -torch.tensor(errors, dtype=torch.float64).log2()
    x, y = x - x.mean(), y - y.mean()
    return float((x * y).sum() / (x * x).sum())


def test_every_scheme_is_in_the_table_with_its_order() -> None:
    """Those of Runge-Kutta schemes are measured below and meet their conditions exactly in test_schemes.py."""
    assert set(SCHEMES) == set(Scheme)
    others = {Scheme.polynet: 1, Scheme.two_step_midpoint: 2, Scheme.leapfrog: 2, Scheme.lm: None, Scheme.verlet: 1}
    assert {scheme: ORDERS[scheme] for scheme in others} == others
    assert ORDERS[Scheme.dopri5] == 5


@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize(
    "scheme", [scheme for scheme, order in ORDERS.items() if order is not None and scheme not in ADAPTIVE]
)
def test_the_order_is_observed_where_the_rate_depends_on_t_and_on_weights(scheme: Scheme, weight: str) -> None:
    # A two-step scheme steps over a jump with the slope of one of its sides: it falls to order 1.
    jumps = scheme in TWO_STEP and weight in JUMPING
    expected = 1 if jumps else ORDERS[scheme]
    errors = errors_of(scheme, WEIGHTS[weight], (256, 512, 1024) if jumps else STEPS)
    assert observed_order(errors) == pytest.approx(expected, abs=0.1)
    assert errors[-1] < 0.1


@pytest.mark.parametrize("scheme", TWO_STEP)
def test_a_two_step_scheme_has_order_two_begun_consistently_one_if_repeated_none_from_zero(scheme: Scheme) -> None:
    observed = {start: observed_order(errors_of(scheme, start=start)) for start in Start}
    assert observed[Start.consistent] == pytest.approx(2, abs=0.1)
    assert observed[Start.repeat] == pytest.approx(1, abs=0.1)
    assert observed[Start.paper] < 0.5
    assert errors_of(scheme, start=Start.paper)[-1] > 0.1


def test_an_lm_step_with_constant_k_does_not_approach_its_rate_but_that_divided_by_one_plus_k() -> None:
    weight = WEIGHTS["piecewise_constant"]
    errors = errors_of(Scheme.lm, weight)
    assert observed_order(errors) < 0.5
    assert errors[-1] > 0.1
    slower = H0 * math.exp(area(weight) / 1.3)
    problem = PROBLEMS[Scheme.lm]
    runs = [integrate_stages(problem.rate(weight.at(Scheme.lm, n)), H0, Course(Scheme.lm, n)) for n in STEPS]
    assert observed_order([float((run - slower).norm()) for run in runs]) == pytest.approx(1, abs=0.1)
