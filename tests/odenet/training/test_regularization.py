"""Smoothness in depth as an integral; stochastic depth and noise as part of a reproducible forward pass."""

import math
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from odenet import (
    Basis,
    DataConfig,
    Device,
    ExperimentConfig,
    Gradient,
    ModelConfig,
    Network,
    OptimConfig,
    RegularizationConfig,
    RuntimeConfig,
    Scheme,
    Training,
    TrainingConfig,
    build_model,
    load_checkpoint,
    refine,
)
from odenet.depth.bases import BASES, mix_nodes
from odenet.integrators.integrate import integrate_stages
from odenet.integrators.scheme import Course, OpenRate, Stage
from odenet.networks.model import DepthNet
from odenet.networks.perturbation import Draws, Perturbation
from odenet.training.regularization import roughness
from tests.odenet.networks.test_refinement import EVERY_DEPTH, node_tensors, trained

CPU = RuntimeConfig(device=Device.cpu)
RANDOM = RegularizationConfig(stochastic_depth=0.5, noise=0.1)


def counted(model: DepthNet) -> list[tuple[nn.Parameter, int]]:
    """(parameter, initial nodes) of what should be smooth: kernels and biases of convolutions."""
    return [
        (parameter, stage.depth.initial_nodes)
        for stage in model.depth_stages()
        for layer in stage.rate.modules()
        if any(name == "kernel" for name, _ in layer.named_parameters(recurse=False))
        for parameter in layer.parameters(recurse=False)
    ]


def rough(model: DepthNet) -> float:
    return float(roughness(model).detach())


# Smoothness


def jumps(theta_N: Tensor, initial: int) -> float:
    """Squared jumps over the initial spacing 1 / initial."""
    return initial * sum(float((theta_N[a + 1] - theta_N[a]).square().sum()) for a in range(len(theta_N) - 1))


def slopes(theta_N: Tensor, initial: int) -> float:
    """Squared slopes over the node spacing, times the spacing."""
    spacing = 1 / (len(theta_N) - 1)
    return sum(
        float(((theta_N[a + 1] - theta_N[a]) / spacing).square().sum()) * spacing for a in range(len(theta_N) - 1)
    )


def both(theta_N: Tensor, initial: int) -> float:
    """Slopes within elements and jumps between them."""
    inside = sum(slopes(theta_N[a : a + 2], 2) for a in range(0, len(theta_N), 2)) * (len(theta_N) // 2)
    return inside + initial // 2 * sum(
        float((theta_N[a + 1] - theta_N[a]).square().sum()) for a in range(1, len(theta_N) - 1, 2)
    )


def integral(theta_N: Tensor, initial: int, basis: Basis) -> float:
    """Of the squared difference quotient on a fine grid."""
    cells = 4096
    places = [Stage(place, cells, Fraction(0)) for place in range(cells)]
    fine = mix_nodes(BASES[basis].values_SN(len(theta_N), places), theta_N)
    return float((fine.diff(dim=0) * cells).square().sum()) / (cells - 1)


WRITTEN_OUT: dict[Basis, Callable[[Tensor, int], float]] = {
    Basis.piecewise_constant: jumps,
    Basis.hat: slopes,
    Basis.discontinuous_linear: both,
    Basis.polynomial: partial(integral, basis=Basis.polynomial),
}


@pytest.mark.parametrize("basis", Basis)
def test_roughness_is_the_integral_of_the_squared_slope_of_kernels_and_biases(basis: Basis) -> None:
    model = trained(ModelConfig(width=2, nodes=4, basis=basis))
    expected = sum(WRITTEN_OUT[basis](theta_N.detach(), initial) for theta_N, initial in counted(model))
    assert rough(model) == pytest.approx(expected, rel=1e-3 if basis is Basis.polynomial else 1e-12)


def test_hats_on_a_line_have_the_square_of_its_slope() -> None:
    model = build_model(ModelConfig(width=2, nodes=5, basis=Basis.hat, scheme=Scheme.heun), channels=1, classes=2)
    with torch.no_grad():
        for parameter, _, nodes in node_tensors(model):
            parameter.copy_(3 * torch.linspace(0, 1, nodes).view(-1, *[1] * (parameter.dim() - 1)).expand_as(parameter))
    assert rough(model) == pytest.approx(9 * sum(theta_N[0].numel() for theta_N, _ in counted(model)))


@pytest.mark.parametrize(("network", "basis"), EVERY_DEPTH)
def test_refinement_leaves_the_roughness_as_it_is(network: Network, basis: Basis) -> None:
    model = trained(ModelConfig(network=network, width=4, nodes=4, basis=basis))
    before = rough(model)
    assert before > 0
    for _ in range(3):
        refine(model)
        assert rough(model) == pytest.approx(before, rel=1e-9)


@pytest.mark.parametrize("network", Network)
def test_only_kernels_and_biases_are_to_be_smooth_and_a_single_node_is(network: Network) -> None:
    config = ModelConfig(network=network, width=4, nodes=NODES.get(network, 3), skip_init=True)
    model = build_model(config, channels=1, classes=2)
    smooth = {id(parameter) for parameter, _ in counted(model)}
    roughness(model).backward()
    for stage in model.depth_stages():
        for name, parameter in stage.rate.named_parameters():
            assert (parameter.grad is None) == (id(parameter) not in smooth), name
            if parameter.dim() == 5:  # biases are all equal at first
                assert parameter.grad is not None
                assert bool(parameter.grad.count_nonzero()) == (stage.depth.nodes > 1), name


def test_training_with_smoothness_makes_weights_smoother() -> None:
    reached = []
    for smoothness in (0.0, 0.3):
        config = replace(tiny(Network.continuous), regularization=RegularizationConfig(smoothness=smoothness))
        training = Training(config, CPU)
        before = rough(training.model)
        list(training)
        reached.append(rough(training.model) / before)
    assert reached[1] < 0.9 * reached[0]


# Stochastic depth and noise

NODES = {Network.neural_ode: 1}


def tiny(network: Network, gradient: Gradient = Gradient.direct) -> ExperimentConfig:
    return ExperimentConfig(
        model=ModelConfig(network=network, width=4, nodes=NODES.get(network, 2), gradient=gradient),
        data=DataConfig(per_class=3),
        optim=OptimConfig(batch_size=10, lr=0.01),
        regularization=RANDOM,
        training=TrainingConfig(epochs=2),
    )


def ones(_: Stage, h: Tensor) -> Tensor:
    return torch.ones_like(h)


@pytest.mark.parametrize(("place", "step", "chance"), [((0, 2), 0, 0.1), ((0, 2), 3, 0.4), ((1, 2), 3, 0.8)])
def test_a_later_step_is_left_out_more_often_and_the_mean_is_kept(
    place: tuple[int, int], step: int, chance: float
) -> None:
    course, h = Course(Scheme.heun, 4), torch.zeros(1)
    drawn = []
    for seed in range(2000):
        rate = Perturbation(0.8, 0.0, Draws(seed)).of(OpenRate(ones), course, place)
        first, second = (float(rate.slope(Stage(step, 4, c), h)) for c in (Fraction(0), Fraction(1)))
        assert first == second  # a step is left out as a whole
        drawn.append(first)
    assert sorted(set(drawn)) == pytest.approx([0, 1 / (1 - chance)])
    deviation = math.sqrt(chance * (1 - chance) / len(drawn))
    assert drawn.count(0.0) / len(drawn) == pytest.approx(chance, abs=4 * deviation)


@pytest.mark.parametrize("scheme", [Scheme.euler, Scheme.heun, Scheme.rk4])
@pytest.mark.parametrize("steps", [1, 8])
def test_noise_diffuses_as_brownian_motion_over_depth_time(scheme: Scheme, steps: int) -> None:
    course, h0 = Course(scheme, steps, depth_time=3.0), torch.zeros(1, 20_000, 1, 1)
    rate = Perturbation(0.0, 0.5, Draws(1)).of(OpenRate(lambda _, h: torch.zeros_like(h)), course, (0, 1))
    h1 = integrate_stages(rate, h0, course)
    assert float(h1.mean()) == pytest.approx(0, abs=0.03)
    assert float(h1.var()) == pytest.approx(0.5**2 * 3.0, rel=0.05)


def test_both_halves_of_a_partitioned_rate_are_perturbed_and_not_alike() -> None:
    course, h0 = Course(Scheme.verlet, 4), torch.zeros(1, 1000, 1, 1)

    def zero(_: Stage, h: Tensor) -> Tensor:
        return torch.zeros_like(h)

    rate = Perturbation(0.0, 1.0, Draws(1)).of(OpenRate(zero, halves=(zero, zero)), course, (0, 1))
    y, z = integrate_stages(rate, h0, course).chunk(2, dim=1)
    assert float(y.var()) == pytest.approx(1, rel=0.3)
    assert abs(float((y * z).mean())) < 0.2


@pytest.mark.parametrize("network", Network)
def test_every_network_trains_with_stochastic_depth_and_noise_and_is_the_same_again(network: Network) -> None:
    trainings = [Training(tiny(network), CPU) for _ in range(2)]
    plain = Training(replace(tiny(network), regularization=RegularizationConfig()), CPU)
    losses = []
    for training in (*trainings, plain):
        ((x_BCHW, labels_B),) = training.iterations(1)
        losses.append(float(training.update(x_BCHW, labels_B, 0)))
    assert math.isfinite(losses[0])
    assert losses[0] == losses[1] != losses[2]
    one, other = (training.model.state_dict() for training in trainings)
    assert all(bool(tensor.isfinite().all()) and torch.equal(tensor, other[name]) for name, tensor in one.items())


@pytest.mark.parametrize(
    ("network", "gradient"),
    [
        (Network.continuous, Gradient.direct),
        (Network.hamiltonian, Gradient.reconstructed),
        (Network.lm_resnet, Gradient.checkpointed),
    ],
)
def test_training_with_noise_resumed_equals_uninterrupted_bit_for_bit(
    network: Network, gradient: Gradient, tmp_path: Any
) -> None:
    training = Training(tiny(network, gradient), CPU)
    next(training)
    training.save(tmp_path / "checkpoint")
    next(training)
    torch.rand(3)  # what else is drawn in this process does not matter
    resumed = Training(tiny(network, gradient), CPU, checkpoint=load_checkpoint(tmp_path / "checkpoint"))
    next(resumed)
    expected = training.model.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in resumed.model.state_dict().items())


@pytest.mark.parametrize("network", [Network.hamiltonian, Network.midpoint, Network.leapfrog, Network.revnet])
def test_a_recomputation_draws_again_what_was_drawn(network: Network) -> None:
    perturbation, found = Perturbation(0.5, 0.1, Draws(3)), []
    for gradient in Gradient:
        model = build_model(ModelConfig(network=network, width=4, nodes=3, gradient=gradient), channels=1, classes=3)
        x_BCHW = torch.randn(4, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():  # biases of zero would put the padded channels on the kink of their ReLU
            for parameter in model.double().parameters():
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)) / 10)
        F.cross_entropy(model(x_BCHW, perturbation), torch.arange(4) % 3).backward()
        found.append([p.grad for p in model.parameters()])
    for gradients in found[1:]:
        torch.testing.assert_close(gradients, found[0], rtol=1e-6, atol=1e-9)


def test_evaluation_is_not_perturbed() -> None:
    model = build_model(ModelConfig(width=2), channels=1, classes=2).eval()
    x_BCHW = torch.randn(3, 1, 8, 8)
    assert torch.equal(model(x_BCHW, Perturbation(0.5, 1.0, Draws(0))), model(x_BCHW))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"smoothness": -1.0}, r"regularization\.smoothness=-1\.0: must be at least 0 and finite\."),
        ({"smoothness": math.inf}, r"regularization\.smoothness=inf: must be at least 0 and finite\."),
        ({"noise": -0.1}, r"regularization\.noise=-0\.1: must be at least 0 and finite\."),
        ({"noise": math.nan}, r"regularization\.noise=nan: must be at least 0 and finite\."),
        (
            {"stochastic_depth": 1.0},
            r"regularization\.stochastic_depth=1\.0: the probability to leave out the last block, at least 0 and less "
            r"than 1\.",
        ),
        ({"stochastic_depth": -0.1}, r"regularization\.stochastic_depth=-0\.1: the probability .*"),
    ],
)
def test_a_strength_out_of_range_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        RegularizationConfig(**wrong)
