"""Integrators: their tableaus, cost, stepping in integers, and what is refused. Their order is in test_order."""

import math
from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from torch import Tensor

from odenet import Basis, Gradient, Scheme, integrate
from odenet.depth.node_weights import readout
from odenet.integrators.integrate import integrate_stages
from odenet.integrators.scheme import Course, ExplicitRungeKutta, OpenRate, Slope, Stage
from odenet.integrators.schemes import ADAPTIVE, SCHEMES
from odenet.networks.table import RUNGE_KUTTA

CPU = torch.device("cpu")
ABSCISSAE = {  # as the literature gives them
    Scheme.euler: "0",
    Scheme.midpoint: "0 1/2",
    Scheme.heun: "0 1",
    Scheme.ralston: "0 2/3",
    Scheme.rk4: "0 1/2 1/2 1",
    Scheme.rk4_38: "0 1/3 2/3 1",
}
H0 = torch.tensor([0.2, 0.5], dtype=torch.float64)
FIXED = [scheme for scheme in Scheme if scheme not in ADAPTIVE]


# Tableaus and tables


def test_the_reversible_schemes_are_those_of_the_papers() -> None:
    reversible = {Scheme.two_step_midpoint, Scheme.leapfrog, Scheme.verlet}
    assert {s for s, m in SCHEMES.items() if m.reversible} >= reversible
    assert not any(SCHEMES[s].reversible for s in (*RUNGE_KUTTA, *ADAPTIVE, Scheme.polynet, Scheme.lm))


@pytest.mark.parametrize("scheme", ABSCISSAE)
def test_a_tableau_has_the_abscissae_of_the_literature(scheme: Scheme) -> None:
    method = SCHEMES[scheme]
    assert isinstance(method, ExplicitRungeKutta)
    assert method.abscissae == tuple(Fraction(entry) for entry in ABSCISSAE[scheme].split())


@pytest.mark.parametrize("scheme", RUNGE_KUTTA)
def test_a_tableau_is_explicit_and_consistent_and_meets_the_order_conditions_exactly(scheme: Scheme) -> None:
    method = SCHEMES[scheme]
    assert isinstance(method, ExplicitRungeKutta)
    a, b, c = method.a, method.b, method.abscissae
    assert method.order is not None and 1 <= method.order <= 4, "conditions of order 5 and more are not here"
    assert [len(row) for row in a] == list(range(len(b)))
    assert set(method.of_x) == {1}

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
    assert met == [True] * method.order + [False] * (4 - method.order)


@pytest.mark.parametrize("scheme", RUNGE_KUTTA)
def test_a_step_in_reverse_evaluates_the_rate_from_its_later_end_backwards(scheme: Scheme) -> None:
    method, seen = SCHEMES[scheme], list[float]()
    assert isinstance(method, ExplicitRungeKutta)

    def slope(stage: Stage, h: Tensor) -> Tensor:
        seen.append(stage.t)
        return h

    method.unstep(OpenRate(slope), (H0,), 2, Course(scheme, 4))
    assert seen == pytest.approx([(3 - float(c)) / 4 for c in method.abscissae])


def test_verlet_with_two_residual_functions_is_the_coupling_of_revnet() -> None:
    draws = torch.Generator().manual_seed(0)
    f_NDD, g_NDD = torch.randn(2, 3, 4, 4, dtype=torch.float64, generator=draws)
    y, z = torch.randn(2, 5, 4, dtype=torch.float64, generator=draws)
    rate = OpenRate(  # unused: the scheme takes the halves
        lambda stage, h: h,
        halves=(lambda s, z: torch.tanh(z @ f_NDD[s.step]), lambda s, y: torch.tanh(y @ g_NDD[s.step])),
    )
    h = integrate_stages(rate, torch.cat([y, z], dim=1), Course(Scheme.verlet, 3, depth_time=3.0))
    for f_DD, g_DD in zip(f_NDD, g_NDD, strict=True):  # Gomez et al. 2017, arXiv 1707.04585
        y = y + torch.tanh(z @ f_DD)
        z = z + torch.tanh(y @ g_DD)
    torch.testing.assert_close(h, torch.cat([y, z], dim=1), rtol=1e-14, atol=0)


def solve_tanh(theta_NDD: Tensor, scheme: Scheme, steps: int, *, naive: bool = False) -> Tensor:
    """tanh(theta(t) h) on piecewise constant weights; `naive`: each stage reads the cell in which its step begins."""
    read = readout(Basis.piecewise_constant, len(theta_NDD), scheme, steps, CPU)

    def slope(stage: Stage, h: Tensor) -> Tensor:
        slot = len(theta_NDD) * stage.step // stage.steps if naive else read.slot(stage)
        return torch.tanh(theta_NDD[slot] @ h)

    return integrate_stages(OpenRate(slope), torch.linspace(-1, 1, 5, dtype=torch.float64), Course(scheme, steps))


@pytest.mark.parametrize(("steps", "gain"), [(8, 5), (16, 100)])
def test_a_step_longer_than_a_cell_gains_by_reading_the_cells_it_stands_in(steps: int, gain: float) -> None:
    t = torch.arange(32, dtype=torch.float64)[:, None, None] / 32
    first, second = torch.randn(2, 1, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    theta_NDD = 2 * (first * torch.cos(3 * t) + second * torch.sin(3 * t))
    exact = solve_tanh(theta_NDD, Scheme.rk4, 1024)
    naive = solve_tanh(theta_NDD, Scheme.rk4_38, steps, naive=True)
    ours = solve_tanh(theta_NDD, Scheme.rk4_38, steps)
    assert (naive - exact).norm() > gain * (ours - exact).norm()


# Against torchdiffeq


def curved(t: float, h: Tensor) -> Tensor:
    return torch.sin(h + t) * math.exp(-t) + h.flip(0)


@pytest.mark.parametrize(
    ("scheme", "theirs"),
    [(Scheme.euler, "euler"), (Scheme.midpoint, "midpoint"), (Scheme.heun, "heun2"), (Scheme.rk4_38, "rk4")],
)
def test_a_runge_kutta_scheme_equals_the_fixed_grid_solver_of_torchdiffeq(scheme: Scheme, theirs: str) -> None:
    from torchdiffeq import odeint  # type: ignore[import-untyped]

    grid = torch.linspace(0, 1, 11, dtype=torch.float64)
    expected = odeint(lambda t, h: curved(float(t), h), H0, grid, method=theirs)[-1]
    torch.testing.assert_close(integrate(curved, H0, scheme=scheme, steps=10), expected, rtol=1e-12, atol=0)


def adaptive(gradient: Gradient, tolerance: float) -> tuple[Tensor, Tensor]:
    """h(1) of a rate that does not depend on t, and the gradient of its sum by the one weight."""
    theta_DD = torch.tensor([[0.3, -1.2], [0.8, 0.1]], dtype=torch.float64, requires_grad=True)
    rate = OpenRate(lambda _, h: torch.tanh(theta_DD @ h), lambda _: [theta_DD])
    scheme = Scheme.dopri5 if tolerance else Scheme.rk4
    h = integrate_stages(rate, H0, Course(scheme, 100, gradient=gradient, tolerance=tolerance))
    return h.detach(), torch.autograd.grad(h.sum(), theta_DD)[0]


@pytest.mark.parametrize("tolerance", [1e-4, 1e-8])
@pytest.mark.parametrize("gradient", [Gradient.direct, Gradient.reconstructed])
def test_the_adaptive_scheme_and_its_adjoint_are_as_close_to_fine_rk4_as_they_are_told(
    gradient: Gradient, tolerance: float
) -> None:
    for ours, exact in zip(adaptive(gradient, tolerance), adaptive(Gradient.direct, 0), strict=True):
        torch.testing.assert_close(ours, exact, rtol=0, atol=20 * tolerance)


@pytest.mark.parametrize("scheme", [Scheme.euler, Scheme.rk4, Scheme.dopri5])
def test_a_pair_of_half_rates_is_one_rate_to_schemes_that_know_no_halves(scheme: Scheme) -> None:
    halves = (lambda t, z: z.sin() * (1 + t), lambda t, y: -y * math.cos(t))

    def whole(t: float, h: Tensor) -> Tensor:
        return torch.cat([halves[0](t, h[1:]), halves[1](t, h[:1])])

    assert torch.equal(integrate(halves, H0, scheme=scheme, steps=5), integrate(whole, H0, scheme=scheme, steps=5))


def test_two_step_midpoint_oscillates_from_step_to_step_where_the_solution_decays() -> None:
    def error(scheme: Scheme, steps: int) -> float:
        h = integrate(lambda t, h: -10 * h, torch.ones(1, dtype=torch.float64), scheme=scheme, steps=steps)
        return float(h) - math.exp(-10)

    assert error(Scheme.two_step_midpoint, 98) > 50
    assert error(Scheme.two_step_midpoint, 99) < -50
    assert abs(error(Scheme.midpoint, 98)) < 1e-6


# Cost and depth


@pytest.mark.parametrize("scheme", FIXED)
def test_the_cost_is_the_evaluations_announced_in_their_order(scheme: Scheme) -> None:
    seen: list[tuple[str, Stage]] = []

    def slope(name: str) -> Slope:
        def seeing(stage: Stage, h: Tensor) -> Tensor:
            seen.append((name, stage))
            return h

        return seeing

    rate = OpenRate(slope("whole"), halves=(slope("f"), slope("g")), memory=lambda _: torch.tensor(0.0))
    integrate_stages(rate, torch.ones(2), Course(scheme, 7))
    method = SCHEMES[scheme]
    parts = ("f", "g") if method.needs == "halves" else ("whole",)
    assert seen == [(part, stage) for stage in method.stages(7) for part in parts]
    assert len(method.stages(7)) == 7 * method.evaluations
    assert len({stage.key for stage in method.stages(7)}) == len(set(method.stages(7)))
    if isinstance(method, ExplicitRungeKutta):  # docs/networks.md holds the others to theirs
        assert method.evaluations == len(method.b)


def test_the_adaptive_scheme_announces_no_stages() -> None:
    assert SCHEMES[Scheme.dopri5].stages(7) == []
    assert SCHEMES[Scheme.dopri5].evaluations == 6


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
    course = Course(Scheme.euler, 2, depth_time=3.0)
    assert float(integrate_stages(OpenRate(lambda _, h: h), torch.ones(1), course)) == (1 + 3 / 2) ** 2
    long = integrate_stages(OpenRate(lambda _, h: h), torch.ones(1), replace(course, scheme=Scheme.dopri5))
    assert float(long) == pytest.approx(math.exp(3), rel=1e-2)


# What is refused


@pytest.mark.parametrize(
    ("scheme", "steps", "message"),
    [
        (Scheme.rk4, 0, "steps=0: an integration needs at least 1 step."),
        (Scheme.dopri5, -1, "steps=-1: an integration needs at least 1 step."),
        (
            Scheme.verlet,
            1,
            r"scheme=verlet needs a partitioned rate: a pair \(f, g\) of y' = f\(z\), z' = g\(y\).",
        ),
        (Scheme.lm, 1, "scheme=lm needs a rate with k_n, which only the LM networks have."),
    ],
)
def test_what_a_rate_cannot_be_asked_for_is_refused(scheme: Scheme, steps: int, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        integrate(lambda t, h: h, torch.ones(2), scheme=scheme, steps=steps)


@pytest.mark.parametrize(
    ("scheme", "gradient", "message"),
    [
        (Scheme.lm, Gradient.reconstructed, "undoing an LM step divides by k_n, which may be 0; use direct or "),
        (Scheme.dopri5, Gradient.checkpointed, "an adaptive scheme has no fixed steps; use direct, or reconstructed "),
    ],
)
def test_a_gradient_that_cannot_be_had_is_refused_with_the_reason_and_the_choices(
    scheme: Scheme, gradient: Gradient, message: str
) -> None:
    rate = OpenRate(lambda _, h: h, memory=lambda _: torch.tensor(0.5))
    with pytest.raises(ValueError, match=f"^scheme={scheme.value} with gradient={gradient.value}: {message}"):
        integrate_stages(rate, torch.ones(1), Course(scheme, 3, gradient=gradient))
