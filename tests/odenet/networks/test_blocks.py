"""The parts of networks: pooling with zero channels, and the random perturbations of a pass in training."""

from dataclasses import replace
from fractions import Fraction
from math import sqrt

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from odenet import Basis, Gradient, ModelConfig, Network, Scheme, build_model
from odenet.depth.discretisation import Depth
from odenet.integrators.integrate import integrate_stages
from odenet.integrators.scheme import Course, OpenRate, Stage, composed
from odenet.networks.blocks import DepthStage, PoolPad
from odenet.networks.model import DepthNet
from odenet.networks.orders import POST_ACTIVATION
from odenet.networks.perturbation import Draws, Perturbation
from odenet.networks.rates import Rate
from odenet.networks.table import RUNGE_KUTTA
from odenet.networks.widths import Change, Widths
from odenet.seeding import global_seed


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


# Pooling and zero channels


@pytest.mark.parametrize(("halves", "kept"), [(1, [4, 5, 6, 7]), (2, [2, 3, 8, 9])])
def test_zero_channels_stand_on_both_sides_of_each_half(halves: int, kept: list[int]) -> None:
    x_BCHW = draw(2, 4, 6, 6)
    out_BCHW = PoolPad(Change(4, Widths(12, 12), 2), halves=halves)(x_BCHW)
    assert out_BCHW.shape == (2, 12, 3, 3)
    torch.testing.assert_close(out_BCHW[:, kept], x_BCHW.unflatten(3, (3, 2)).unflatten(2, (3, 2)).mean((3, 5)))
    assert not out_BCHW[:, [channel for channel in range(12) if channel not in kept]].any()


def test_where_nothing_changes_pooling_and_padding_is_the_identity() -> None:
    x_BCHW = draw(2, 3, 5, 5)
    assert torch.equal(PoolPad(Change(3, Widths(3, 3), 1), halves=1)(x_BCHW), x_BCHW)


@pytest.mark.parametrize(
    ("inputs", "outputs", "halves", "message"),
    [
        (4, 7, 1, r"of the state, so there must be 2 times 0, 1, 2, \.\.\. more\."),
        (4, 10, 2, r"of each half, so there must be 4 times 0, 1, 2, \.\.\. more\."),
        (4, 2, 1, r"of the state, so there must be 2 times 0, 1, 2, \.\.\. more\."),
    ],
)
def test_what_cannot_be_padded_evenly_is_refused(inputs: int, outputs: int, halves: int, message: str) -> None:
    begin = f"^from {inputs} to {outputs} channels: zero channels are added on both sides "
    with pytest.raises(ValueError, match=begin + message):
        PoolPad(Change(inputs, Widths(outputs, outputs), 2), halves=halves)


def test_a_network_of_such_widths_is_refused_when_it_is_built() -> None:
    with pytest.raises(ValueError, match=r"^model\.network=hamiltonian with .*, final_width=18: from 8 to 18 ch"):
        build_model(ModelConfig(network=Network.hamiltonian, width=4, final_width=18), channels=2, classes=5)


# Stochastic depth


def one_step(perturbed: Perturbation | None) -> tuple[Tensor, Tensor]:
    """A state before and after one Euler step of depth time 2."""
    with global_seed(0, "init"):
        rate = Rate(POST_ACTIVATION, 1, Widths(2, 2)).double()
    stage = DepthStage(rate, Depth(Basis.piecewise_constant, 1, Course(Scheme.euler, 1, 2.0), 1))
    x_BCHW = draw(3, 2, 4, 4)
    with torch.no_grad():
        return x_BCHW, stage(x_BCHW, perturbed)


def test_stochastic_depth_leaves_the_mean_of_a_step_as_it_was() -> None:
    seeds, p = 600, 0.4
    x_BCHW, expected_BCHW = one_step(None)
    outs = [one_step(Perturbation(p, 0.0, Draws(seed)))[1] for seed in range(seeds)]
    dropped = [torch.equal(out, x_BCHW) for out in outs]
    kept_BCHW = x_BCHW + (expected_BCHW - x_BCHW) / (1 - p)
    for out, gone in zip(outs, dropped, strict=True):
        torch.testing.assert_close(out, x_BCHW if gone else kept_BCHW)
    error_BCHW = torch.stack(outs).mean(0) - expected_BCHW
    deviation_BCHW = (expected_BCHW - x_BCHW).abs() * sqrt(p / (1 - p) / seeds)  # of the mean
    assert bool((error_BCHW.abs() <= 4 * deviation_BCHW + 1e-12).all())


@pytest.mark.parametrize(("index", "step"), [(0, 0), (0, 3), (1, 0), (1, 3)])
def test_block_l_of_all_survives_with_a_probability_that_falls_linearly(index: int, step: int) -> None:
    """1 - l/L p with l counted from 1 through all stages; here two stages of four steps, so L = 8."""
    p, seeds, steps = 0.8, 1500, 4
    stays = 1 - (4 * index + step + 1) / 8 * p
    unit = OpenRate(lambda _, h: torch.ones_like(h))
    course, where, h = Course(Scheme.euler, steps), Stage(step, steps, Fraction(0)), torch.zeros(1)
    slopes = [float(Perturbation(p, 0.0, Draws(s)).of(unit, course, (index, 2)).slope(where, h)) for s in range(seeds)]
    assert {round(slope, 5) for slope in slopes} == {0.0, round(1 / stays, 5)}
    share = sum(slope > 0 for slope in slopes) / seeds
    assert abs(share - stays) <= 4 * sqrt(stays * (1 - stays) / seeds)


# Noise


def still(h: Tensor, scheme: Scheme, steps: int, depth_time: float, noise: float) -> Tensor:
    """Where noise alone takes a state."""

    def none(_: Stage, h: Tensor) -> Tensor:
        return torch.zeros_like(h)

    rate, course = OpenRate(composed(none, none), halves=(none, none)), Course(scheme, steps, depth_time)
    plain = rate if scheme is Scheme.verlet else replace(rate, halves=None)
    return integrate_stages(Perturbation(0.0, noise, Draws(5)).of(plain, course, (0, 1)), h, course)


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("scheme", [*RUNGE_KUTTA, Scheme.verlet])
def test_noise_has_the_variance_of_a_brownian_motion_over_depth_time(scheme: Scheme, steps: int) -> None:
    """noise^2 h a step of depth time h, independent between steps, so noise^2 T whatever the steps."""
    h = torch.ones(40_000, dtype=torch.float64)
    moved = still(h, scheme, steps, 3.0, 0.2) - h
    assert float(moved.var()) == pytest.approx(0.2**2 * 3, rel=0.05)
    assert abs(float(moved.mean())) < 4 * 0.2 * sqrt(3 / len(h))
    y, z = moved.chunk(2)
    assert abs(float((y * z).mean())) < 0.02 * float(moved.var())


# Whole networks


def perturbed(model: DepthNet, seed: int) -> Tensor:
    return model(draw(4, 2, 8, 8), Perturbation(0.5, 0.1, Draws(seed)))


@pytest.fixture(params=[Network.continuous, Network.hamiltonian, Network.lm_resnet], ids=lambda network: network.value)
def model(request: pytest.FixtureRequest) -> DepthNet:
    return build_model(ModelConfig(network=request.param, width=4, nodes=3), channels=2, classes=5).double()


def test_equal_seeds_give_equal_passes_and_others_do_not(model: DepthNet) -> None:
    assert torch.equal(perturbed(model, 1), perturbed(model, 1))
    assert not torch.equal(perturbed(model, 1), perturbed(model, 2))


def test_in_evaluation_mode_nothing_is_perturbed(model: DepthNet) -> None:
    assert torch.equal(perturbed(model.eval(), 1), model(draw(4, 2, 8, 8)))


def test_a_recomputation_repeats_the_draws() -> None:
    gradients = []
    for how in (Gradient.direct, Gradient.checkpointed):
        model = build_model(ModelConfig(width=4, nodes=3, gradient=how), channels=2, classes=5).double()
        F.cross_entropy(perturbed(model, 1), torch.arange(4)).backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for direct, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(recomputed, direct)
