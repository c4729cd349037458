"""Gradients that keep states instead of activations: against autograd's, and against what they promise."""

from dataclasses import replace
from functools import partial
from itertools import pairwise
from math import inf

import pytest
import torch
from torch import Tensor

from odenet import Basis, Gradient, Scheme, Start
from odenet.depth.node_weights import readout
from odenet.integrators.gradients import Drift
from odenet.integrators.integrate import integrate_stages
from odenet.integrators.scheme import Course, OpenRate, Slope, Stage, State, Stepping, composed
from odenet.integrators.schemes import ADAPTIVE, SCHEMES

CPU = torch.device("cpu")
FIXED = [scheme for scheme in Scheme if scheme not in ADAPTIVE]
REVERSIBLE = [scheme for scheme in FIXED if SCHEMES[scheme].reversible]
WIDTH = 6
# What is exact up to rounding.
EXACT = [(scheme, Gradient.checkpointed) for scheme in FIXED] + [(s, Gradient.reconstructed) for s in REVERSIBLE]
H0 = torch.linspace(-1, 1, WIDTH, dtype=torch.float64)


def smooth_weights(nodes: int) -> Tensor:
    first, second = torch.randn(2, 1, WIDTH, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    t = torch.linspace(0, 1, nodes, dtype=torch.float64)[:, None, None]
    return first * torch.cos(3 * t) + second * torch.sin(3 * t)


def jumping_weights(nodes: int) -> Tensor:
    return torch.randn(nodes, WIDTH, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def tanh_rate(theta_NDD: Tensor, k_N: Tensor, basis: Basis, course: Course) -> OpenRate:
    """tanh(theta(t) h), whole and as two halves, with a k_n of the LM step; reads its nodes as the networks do."""
    read = readout(basis, len(theta_NDD), course.scheme, course.steps, CPU)
    weights, ks = read.take(theta_NDD), read.take(k_N)
    half = WIDTH // 2

    def part(stage: Stage, h: Tensor, rows: slice = slice(None)) -> Tensor:
        return torch.tanh(weights[read.slot(stage)][rows, : len(h)] @ h)

    halves: tuple[Slope, Slope] = partial(part, rows=slice(half)), partial(part, rows=slice(half, None))
    slope = composed(*halves) if SCHEMES[course.scheme].needs == "halves" else part
    reads = lambda stage: [weights[read.slot(stage)], ks[read.slot(stage)]]  # noqa: E731
    return OpenRate(slope, reads, halves, lambda stage: ks[read.slot(stage)])


def gradients(theta_NDD: Tensor, course: Course, basis: Basis = Basis.hat, drift: Drift | None = None) -> list[Tensor]:
    """The last state and the gradients of a function of it by the first state, the weights and the k_n."""
    h0, theta_NDD = H0.clone().requires_grad_(), theta_NDD.clone().requires_grad_()
    k_N = torch.linspace(-0.5, 0.5, len(theta_NDD), dtype=torch.float64).requires_grad_()
    h = integrate_stages(tanh_rate(theta_NDD, k_N, basis, course), h0, course, drift)
    objective = (h * torch.arange(1, WIDTH + 1) + h**2).sum()
    found = torch.autograd.grad(objective, (h0, theta_NDD, k_N), allow_unused=True)
    return [h.detach(), *(gradient for gradient in found if gradient is not None)]


def off(found: list[Tensor], exact: list[Tensor]) -> float:
    """The largest error relative to the largest entry."""
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(found, exact, strict=True))


# Equality


@pytest.mark.parametrize("basis", [Basis.hat, Basis.piecewise_constant])
@pytest.mark.parametrize(("scheme", "gradient"), EXACT)
def test_the_gradient_is_that_of_autograd_to_rounding(scheme: Scheme, gradient: Gradient, basis: Basis) -> None:
    theta_NDD, course = jumping_weights(5), Course(scheme, 20)
    exact = gradients(theta_NDD, course, basis)
    assert len(exact) == (4 if scheme is Scheme.lm else 3)
    assert off(gradients(theta_NDD, replace(course, gradient=gradient), basis), exact) <= 1e-13


# Begun from zero leapfrog's state is N h(0) in the end, and its rounding errors with it.
@pytest.mark.parametrize("start", [Start.consistent, Start.repeat])
@pytest.mark.parametrize("scheme", REVERSIBLE)
def test_a_reversible_scheme_is_differentiated_exactly_at_depth_100(scheme: Scheme, start: Start) -> None:
    theta_NDD, course = smooth_weights(100), Course(scheme, 100, start=start)
    exact = gradients(theta_NDD, course, Basis.piecewise_constant)
    found = gradients(theta_NDD, replace(course, gradient=Gradient.reconstructed), Basis.piecewise_constant)
    assert off(found, exact) <= 1e-13


def inversion_error(scheme: Scheme, depth_time: float, start: Start = Start.consistent) -> float:
    course, method = Course(scheme, 100, depth_time, start), SCHEMES[scheme]
    assert isinstance(method, Stepping)
    rate = tanh_rate(smooth_weights(100), torch.zeros(100), Basis.piecewise_constant, course)
    first: State = method.start(H0, course)
    state = first
    for step in range(100):
        state = method.step(rate, state, step, course)
    for step in reversed(range(100)):
        state = method.unstep(rate, state, step, course)
    return max(float((a - b).abs().max()) for a, b in zip(state, first, strict=True))


@pytest.mark.parametrize("start", Start)
@pytest.mark.parametrize("scheme", REVERSIBLE)
def test_a_reversible_scheme_walks_back_100_steps_to_where_it_began(scheme: Scheme, start: Start) -> None:
    assert inversion_error(scheme, 1.0, start) <= 1e-12


@pytest.mark.parametrize("scheme", REVERSIBLE)
def test_rounding_errors_of_the_walk_back_grow_with_the_step_size_but_stay_finite(scheme: Scheme) -> None:
    assert inversion_error(scheme, 1.0) < inversion_error(scheme, 100.0) < inf


# The discrete adjoint (Sander et al. 2022, arXiv 2205.14612)


def adjoint_slope(scheme: Scheme, *, smooth: bool) -> float:
    """Of log(error of the reconstructed gradient) against log(steps)."""
    depths, errors = [8, 16, 32, 64, 128], []
    for steps in depths:
        # As in HeunNet: as many nodes as Heun sees in so many steps.
        basis, nodes = (Basis.hat, steps + 1) if scheme is Scheme.heun else (Basis.piecewise_constant, steps)
        theta_NDD = smooth_weights(nodes) if smooth else jumping_weights(nodes)
        exact = gradients(theta_NDD, Course(scheme, steps), basis)
        found = gradients(theta_NDD, Course(scheme, steps, gradient=Gradient.reconstructed), basis)
        errors.append(off(found[2:], exact[2:]))
    x, y = torch.tensor(depths).log2().double(), torch.tensor(errors).log2().double()
    x, y = x - x.mean(), y - y.mean()
    return float((x * y).sum() / (x * x).sum())


def test_the_adjoint_of_euler_is_off_by_one_over_the_depth() -> None:
    assert -1.3 <= adjoint_slope(Scheme.euler, smooth=True) <= -0.8


def test_the_adjoint_of_heun_gains_an_order_where_weights_are_smooth_and_loses_it_where_they_jump() -> None:
    smooth, jumping = adjoint_slope(Scheme.heun, smooth=True), adjoint_slope(Scheme.heun, smooth=False)
    assert smooth <= -1.9
    assert jumping > smooth + 0.5


# Drift


@pytest.mark.parametrize("scheme", REVERSIBLE)
def test_a_reversible_scheme_does_not_drift(scheme: Scheme) -> None:
    drift = Drift()
    gradients(smooth_weights(50), Course(scheme, 50, gradient=Gradient.reconstructed), drift=drift)
    noted = drift.take()
    assert noted is not None
    assert noted <= 1e-13
    assert drift.take() is None


def test_the_drift_of_euler_halves_when_its_steps_do() -> None:
    drift, noted = Drift(), list[float]()
    for steps in (32, 64, 128):
        course = Course(Scheme.euler, steps, gradient=Gradient.reconstructed)
        gradients(smooth_weights(steps), course, Basis.piecewise_constant, drift)
        noted.append(drift.take() or 0.0)
    assert [a / b for a, b in pairwise(noted)] == pytest.approx([2, 2], rel=0.1)


def test_without_a_reconstruction_no_drift_is_noted() -> None:
    drift = Drift()
    for gradient in (Gradient.direct, Gradient.checkpointed):
        gradients(smooth_weights(4), Course(Scheme.verlet, 4, gradient=gradient), drift=drift)
    assert drift.take() is None


# Memory


def saved_bytes(scheme: Scheme, gradient: Gradient, steps: int) -> int:
    """Of the distinct storages that a forward pass keeps, parameters left out."""
    theta_NDD, k_N = smooth_weights(4).requires_grad_(), torch.full((4,), 0.1, dtype=torch.float64, requires_grad=True)
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    h0, course = H0.clone().requires_grad_(), Course(scheme, steps, gradient=gradient)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        h = integrate_stages(tanh_rate(theta_NDD, k_N, Basis.piecewise_constant, course), h0, course)
    kept = {place: size for place, size in kept.items() if place not in {x.data_ptr() for x in (theta_NDD, k_N)}}
    h.sum().backward()  # the graph, and with it every storage counted, lived until here
    return sum(kept.values())


# Both ends of a reversible integration, the end of another. Two-step schemes end with a pair and begin with h0 twice.
@pytest.mark.parametrize(
    ("scheme", "states"),
    [
        (Scheme.euler, 1),
        (Scheme.rk4, 1),
        (Scheme.verlet, 2),
        (Scheme.two_step_midpoint, 3),
        (Scheme.leapfrog, 3),
    ],
)
def test_reconstruction_keeps_the_ends_at_any_depth(scheme: Scheme, states: int) -> None:
    kept = {saved_bytes(scheme, Gradient.reconstructed, steps) for steps in (2, 4, 16, 64, 256)}
    assert kept == {states * H0.nbytes}


@pytest.mark.parametrize("scheme", FIXED)
def test_checkpoints_grow_like_the_root_of_the_depth_and_activations_like_the_depth(scheme: Scheme) -> None:
    states, few, many = (2 if scheme in (*REVERSIBLE, Scheme.lm) else 1), 16, 256
    for steps in (few, many):
        kept = saved_bytes(scheme, Gradient.checkpointed, steps)
        assert kept <= (steps**0.5 + 1) * states * H0.nbytes
    grown = saved_bytes(scheme, Gradient.direct, many) - saved_bytes(scheme, Gradient.direct, few)
    assert grown >= (many - few) * H0.nbytes
