"""What the papers' theory and toy problems say, measured: who learns an ODE, and when weights stay smooth in depth."""

import math
from collections.abc import Callable
from functools import cache

import pytest
import torch
from torch import Tensor, nn

from odenet import Basis, Scheme, integrate
from odenet.depth.node_weights import readout
from odenet.integrators.integrate import integrate_stages
from odenet.integrators.scheme import Course, OpenRate
from odenet.seeding import global_seed

# The pendulum of Queiruga et al. 2020 (arXiv 2008.02389): theta'' = -9.81 sin(theta), 10 s in 1000 steps.
INTERVAL = 0.01
POINTS = 1000


def pendulum() -> Tensor:
    """(theta, theta') at all points, exactly: theta = 2 asin(S sn(K - w t)) with S = sin(theta_0 / 2)."""
    from scipy.special import ellipj, ellipk  # type: ignore[import-untyped]

    top, frequency = math.sin(1.5 * math.pi / 4), math.sqrt(9.81)
    t = torch.arange(POINTS, dtype=torch.float64) * INTERVAL
    sn, cn, *_ = (torch.as_tensor(x) for x in ellipj(ellipk(top**2) - frequency * t.numpy(), top**2))
    return torch.stack([2 * torch.asin(top * sn), -2 * frequency * top * cn], dim=1)


def advance(net: nn.Module, state: Tensor, scheme: Scheme, steps: int) -> Tensor:
    """The state(s) one interval later."""
    return integrate(lambda _, x: INTERVAL * net(x), state, scheme=scheme, steps=steps)


@cache
def learned(schemes: tuple[Scheme, ...]) -> nn.Module:
    """A tanh net trained to be right one interval ahead under all the schemes."""
    with global_seed(0, "pendulum"):
        net = nn.Sequential(nn.Linear(2, 50), nn.Tanh(), nn.Linear(50, 2)).double()
    points = pendulum()
    optimizer = torch.optim.LBFGS(net.parameters(), max_iter=300, history_size=30, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        ahead = [advance(net, points[:-1], scheme, 1) - points[1:] for scheme in schemes]
        loss = sum(((error / INTERVAL) ** 2).mean() for error in ahead)
        assert isinstance(loss, Tensor)
        loss.backward()
        return loss

    optimizer.step(closure)
    return net


@torch.no_grad()
def rms_error(net: nn.Module, scheme: Scheme, steps: int) -> float:
    """Over half the trajectory, integrated from its first point with so many steps to an interval."""
    points, state, squares = pendulum()[: POINTS // 2], pendulum()[0], []
    for point in points:
        squares.append((state - point).square().sum())
        state = advance(net, state, scheme, steps)
    return float(torch.stack(squares).mean().sqrt())


@pytest.mark.parametrize("scheme", [Scheme.euler, Scheme.rk4])
def test_a_net_trained_with_euler_is_right_at_its_own_step_only(scheme: Scheme) -> None:
    net = learned((Scheme.euler,))
    own = rms_error(net, Scheme.euler, 1)
    assert own < 0.05
    assert rms_error(net, scheme, 10) > 5 * own
    assert rms_error(net, scheme, 10) > 0.3  # of an amplitude of 2.4


def test_a_net_trained_with_midpoint_and_rk4_has_learned_an_ode_and_is_as_right_at_any_step() -> None:
    net = learned((Scheme.midpoint, Scheme.rk4))
    errors = [rms_error(net, Scheme.rk4, steps) for steps in (1, 2, 10)]
    assert max(errors) < 0.05
    assert max(errors) < 1.5 * min(errors)
    euler = [rms_error(net, Scheme.euler, steps) for steps in (1, 10)]
    assert 8 < euler[0] / euler[1] < 12  # of order 1, as of any ODE


# Linear residual networks under gradient flow (Sander et al. 2022, arXiv 2205.14612): Pi = prod (I + theta_n / N).

SIZE = 4


def product(theta_NDD: Tensor) -> Tensor:
    """dP/dt = theta(t) P by one step of Euler a node."""
    nodes = len(theta_NDD)
    read = readout(Basis.piecewise_constant, nodes, Scheme.euler, nodes, torch.device("cpu"))
    weights = read.take(theta_NDD)
    rate = OpenRate(lambda stage, p: weights[read.slot(stage)] @ p)
    return integrate_stages(rate, torch.eye(SIZE, dtype=torch.float64), Course(Scheme.euler, nodes))


def draws(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, SIZE, SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def smooth(nodes: int) -> Tensor:
    t = torch.arange(nodes, dtype=torch.float64)[:, None, None] / nodes
    return (draws(1) * torch.cos(t) + draws(2) * torch.sin(t)) / 4


INITIAL: dict[str, Callable[[int], Tensor]] = {
    "zero": lambda nodes: torch.zeros(nodes, SIZE, SIZE, dtype=torch.float64),
    "smooth": smooth,
    "iid": lambda nodes: draws(3, nodes) / 4,
}


def trained_roughness(initial: str, nodes: int) -> float:
    """N max |theta_{n+1} - theta_n| after gradient flow, d theta_n / d time = -N grad_n, has brought the loss to 0."""
    theta_NDD = INITIAL[initial](nodes)
    target = product(theta_NDD) + draws(4) / 10  # a small loss to begin with
    for _ in range(60):
        theta_NDD.requires_grad_()
        loss = (product(theta_NDD) - target).square().sum() / 2
        (gradient,) = torch.autograd.grad(loss, theta_NDD)
        theta_NDD = (theta_NDD - 0.5 * nodes * gradient).detach()
    assert (product(theta_NDD) - target).square().sum() < 1e-6
    return nodes * float(theta_NDD.diff(dim=0).abs().max())


@pytest.mark.parametrize("initial", ["zero", "smooth"])
def test_weights_that_begin_smooth_in_depth_stay_so_at_any_depth(initial: str) -> None:
    roughness = [trained_roughness(initial, nodes) for nodes in (8, 32, 128)]
    assert max(roughness) < 1.1 * min(roughness)


def test_weights_that_begin_independent_stay_rough_and_the_rougher_the_deeper() -> None:
    roughness = [trained_roughness("iid", nodes) for nodes in (8, 32, 128)]
    assert roughness[1] > 3 * roughness[0]
    assert roughness[2] > 3 * roughness[1]
