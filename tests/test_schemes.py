"""Integrators: their tableaus, observed order, cost, and stepping in integers."""

import math
from collections.abc import Callable
from fractions import Fraction

import pytest
import torch
from torch import Tensor

from odenet import Basis, Scheme, integrate
from odenet.bases import readout
from odenet.integrate import integrate_stages
from odenet.schemes import SCHEMES, ExplicitRungeKutta, StagedRate
from odenet.terms import Stage

CPU = torch.device("cpu")
# order, abscissae as the literature gives them
KNOWN = {
    Scheme.euler: (1, "0"),
    Scheme.midpoint: (2, "0 1/2"),
    Scheme.heun: (2, "0 1"),
    Scheme.ralston: (2, "0 2/3"),
    Scheme.rk4: (4, "0 1/2 1/2 1"),
    Scheme.rk4_38: (4, "0 1/3 2/3 1"),
}


def observed_order(solve: Callable[[int], Tensor], exact: Tensor, steps: list[int]) -> float:
    """Slope of log(error) against log(step size), by least squares."""
    errors = [float((solve(n) - exact).norm()) for n in steps]
    x = torch.tensor([math.log(1 / n) for n in steps], dtype=torch.float64)
    y = torch.tensor([math.log(error) for error in errors], dtype=torch.float64)
    x, y = x - x.mean(), y - y.mean()
    return float((x * y).sum() / (x * x).sum())


def tanh_rate(basis: Basis, theta_NDD: Tensor, scheme: Scheme, steps: int) -> StagedRate:
    """tanh(theta(t) h), reading its weights as the networks do."""
    read = readout(basis, len(theta_NDD), scheme, steps, CPU)
    weights = read.take(theta_NDD)
    return lambda stage, h: torch.tanh(weights[read.slots[stage.key]] @ h)


def solve_tanh(basis: Basis, theta_NDD: Tensor, scheme: Scheme, steps: int) -> Tensor:
    h0 = torch.linspace(-1, 1, theta_NDD.shape[1], dtype=torch.float64)
    return integrate_stages(tanh_rate(basis, theta_NDD, scheme, steps), h0, scheme=scheme, steps=steps)


def test_every_scheme_is_in_both_tables() -> None:
    assert set(SCHEMES) == set(Scheme) == set(KNOWN)


@pytest.mark.parametrize("scheme", Scheme)
def test_a_tableau_is_explicit_and_consistent_and_meets_the_order_conditions_exactly(scheme: Scheme) -> None:
    method, (order, abscissae) = SCHEMES[scheme], KNOWN[scheme]
    a, b, c = method.a, method.b, method.c
    assert method.order == order
    assert c == tuple(Fraction(entry) for entry in abscissae.split())
    assert [len(row) for row in a] == list(range(len(b)))

    def mean(values: list[Fraction]) -> Fraction:
        return sum((weight * value for weight, value in zip(b, values, strict=True)), Fraction(0))

    def through(values: list[Fraction]) -> list[Fraction]:
        return [sum((w * v for w, v in zip(row, values, strict=False)), Fraction(0)) for row in a]

    c1, ones = list(c), [Fraction(1)] * len(b)
    c2, ac = [x**2 for x in c], through(list(c))
    # Hairer, Norsett, Wanner, table II.2.1: rooted trees of order 1 to 4.
    trees = [[(ones, 1)], [(c1, 2)], [(c2, 3), (ac, 6)]]
    trees += [[([x**3 for x in c], 4), ([x * y for x, y in zip(c, ac, strict=True)], 8), (through(c2), 12)]]
    trees[3] += [(through(ac), 24)]
    met = [all(mean(values) == Fraction(1, density) for values, density in trees_of) for trees_of in trees]
    assert met == [True] * order + [False] * (4 - order)


@pytest.mark.parametrize("scheme", Scheme)
def test_the_order_is_observed_on_a_rate_that_depends_on_t(scheme: Scheme) -> None:
    def solve(steps: int) -> Tensor:
        h0 = torch.ones(1, dtype=torch.float64)
        return integrate(lambda t, h: h * math.cos(t), h0, scheme=scheme, steps=steps)

    exact = torch.tensor([math.exp(math.sin(1))], dtype=torch.float64)  # h = exp(sin t)
    assert observed_order(solve, exact, [32, 64, 128, 256]) == pytest.approx(SCHEMES[scheme].order, abs=0.1)


@pytest.mark.parametrize("basis", Basis)
@pytest.mark.parametrize("scheme", Scheme)
def test_the_order_holds_on_weights_that_jump_or_bend_where_steps_meet(scheme: Scheme, basis: Basis) -> None:
    nodes = {Basis.piecewise_constant: 4, Basis.hat: 5}[basis]  # four cells
    theta_NDD = torch.randn(nodes, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(2)) / 2
    exact = solve_tanh(basis, theta_NDD, Scheme.rk4, 2048)  # 16 times the finest
    order = observed_order(lambda steps: solve_tanh(basis, theta_NDD, scheme, steps), exact, [32, 64, 128])
    assert order == pytest.approx(SCHEMES[scheme].order, abs=0.1)


def naive_rate(theta_NDD: Tensor) -> StagedRate:
    """What must not be done: every stage reads the cell in which its step begins."""
    return lambda stage, h: torch.tanh(theta_NDD[len(theta_NDD) * stage.step // stage.steps] @ h)


@pytest.mark.parametrize(("steps", "gain"), [(8, 5), (16, 100)])
def test_a_step_longer_than_a_cell_gains_by_reading_the_cells_it_stands_in(steps: int, gain: float) -> None:
    t = torch.arange(32, dtype=torch.float64)[:, None, None] / 32
    draws = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, 1, 5, 5, dtype=torch.float64, generator=draws)
    theta_NDD = 2 * (first * torch.cos(3 * t) + second * torch.sin(3 * t))
    exact = solve_tanh(Basis.piecewise_constant, theta_NDD, Scheme.rk4, 1024)
    h0 = torch.linspace(-1, 1, 5, dtype=torch.float64)
    naive = integrate_stages(naive_rate(theta_NDD), h0, scheme=Scheme.rk4_38, steps=steps)
    ours = solve_tanh(Basis.piecewise_constant, theta_NDD, Scheme.rk4_38, steps)
    assert (naive - exact).norm() > gain * (ours - exact).norm()


@pytest.mark.parametrize("scheme", Scheme)
def test_the_cost_is_one_evaluation_per_stage_at_the_stages_announced(scheme: Scheme) -> None:
    seen: list[Stage] = []

    def rate(stage: Stage, h: Tensor) -> Tensor:
        seen.append(stage)
        return h

    integrate_stages(rate, torch.ones(1), scheme=scheme, steps=7)
    method: ExplicitRungeKutta = SCHEMES[scheme]
    assert seen == method.stages(7)
    assert len(seen) == 7 * method.evaluations
    assert len({stage.key for stage in seen}) == len(set(seen))


def test_the_number_of_steps_is_exact_and_no_time_is_accumulated() -> None:
    for steps in range(1, 257):
        times: list[float] = []

        def rate(t: float, h: Tensor, times: list[float] = times) -> Tensor:
            times.append(t)
            return h

        integrate(rate, torch.zeros(1), scheme=Scheme.euler, steps=steps)
        assert times == [k / steps for k in range(steps)]


def test_a_callable_gets_the_depth_of_each_stage_as_a_float() -> None:
    times: list[float] = []

    def rate(t: float, h: Tensor) -> Tensor:
        times.append(t)
        return torch.full_like(h, t**3)

    h = integrate(rate, torch.zeros(2, dtype=torch.float64), scheme=Scheme.rk4_38, steps=2)
    assert times == [0, 1 / 6, 1 / 3, 1 / 2, 1 / 2, 2 / 3, 5 / 6, 1]
    assert {type(t) for t in times} == {float}
    torch.testing.assert_close(h, torch.full_like(h, 1 / 4))


def test_depth_time_stretches_the_rate() -> None:
    h = integrate_stages(lambda _, h: h, torch.ones(1), scheme=Scheme.euler, steps=2, depth_time=3.0)
    assert float(h) == (1 + 3 / 2) ** 2


@pytest.mark.parametrize("steps", [0, -1])
def test_less_than_one_step_is_refused(steps: int) -> None:
    with pytest.raises(ValueError, match=f"^steps={steps}: an integration needs at least 1 step.$"):
        integrate(lambda t, h: h, torch.ones(1), scheme=Scheme.rk4, steps=steps)
