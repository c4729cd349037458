"""Floating-point operations: counted by hand, by torch, and added up over training."""

import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from odenet import (
    Basis,
    DataConfig,
    Device,
    ExperimentConfig,
    Gradient,
    ModelConfig,
    Network,
    RuntimeConfig,
    Scheme,
    Training,
    TrainingConfig,
    build_model,
    manifest,
    refine,
)
from odenet.integrators.schemes import refusal
from odenet.networks.model import DepthNet
from odenet.networks.table import NETWORKS
from odenet.training.cost import train_gflops

DIGIT = (1, 8, 8)


def convolutions(width: int) -> Iterator[tuple[int, int]]:
    """(multiply-adds of the transition, of one rate evaluation) per 8x8 image and stage."""
    inputs = width
    for index, size in enumerate((8, 4, 2)):
        outputs = width * 2**index
        yield size**2 * outputs * (inputs + 9 * inputs + 9 * outputs), size**2 * 2 * 9 * outputs**2
        inputs = outputs


@pytest.mark.parametrize(("scheme", "evaluations"), [(Scheme.euler, 1), (Scheme.rk4, 4)])
def test_a_multiply_add_is_two_operations_and_backward_costs_twice_as_much(scheme: Scheme, evaluations: int) -> None:
    width = 3
    model = build_model(ModelConfig(width=width, nodes=1, scheme=scheme), channels=1, classes=10)
    stem, head = 64 * 9 * width, 4 * width * 10
    fixed = sum(transition for transition, _ in convolutions(width)) + head
    depth = evaluations * sum(rate for _, rate in convolutions(width))
    # The stem's input needs no gradient: forward and backward are two thirds of the others'.
    operations = [2 * (2 * stem + 3 * (fixed + depth * steps)) for steps in (1, 2, 4)]
    assert train_gflops(model, DIGIT) == pytest.approx(operations[0] / 1e9, rel=1e-12)
    for doubled in operations[1:]:
        refine(model)
        assert train_gflops(model, DIGIT) == pytest.approx(doubled / 1e9, rel=1e-12)


def of(network: Network, **more: Any) -> ModelConfig:
    return ModelConfig(network=network, width=4, **{"nodes": 1 if network is Network.neural_ode else 3, **more})


# Where torch counts what we do: schemes that choose no steps, one group (see below), weights that are not mixed.
FIXED = [network for network in Network if network is not Network.neural_ode]
CONFIGS = [
    *(of(network) for network in FIXED if network is not Network.heunnet),
    *(of(Network.continuous, scheme=scheme) for scheme in NETWORKS[Network.continuous].capability.schemes),
    of(Network.neural_ode, scheme=Scheme.rk4),
    of(Network.heunnet),
]
SHAPES = [DIGIT, (3, 9, 11)]


def name(config: ModelConfig) -> str:
    return "-".join(part.value for part in (config.network, config.scheme, config.basis, config.gradient) if part)


def torchs_count(model: DepthNet, x_BCHW: Tensor, *, backward: bool = True) -> float:
    """Floating-point operations per image."""
    model.eval()  # in training torch counts the fit of the running statistics, too: once per batch, not per image
    with FlopCounterMode(display=False) as counter:
        loss = F.cross_entropy(model(x_BCHW), torch.zeros(len(x_BCHW), dtype=torch.long))
        if backward:
            loss.backward()
    return counter.get_total_flops() / len(x_BCHW)


@pytest.mark.parametrize("config", CONFIGS, ids=name)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_count_is_that_of_torch_and_leaves_the_model_as_it_was(
    config: ModelConfig, shape: tuple[int, int, int]
) -> None:
    model = build_model(config, channels=shape[0], classes=10)
    state, modes = copy.deepcopy(model.state_dict()), [module.training for module in model.modules()]
    counted = train_gflops(model, shape)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert counted * 1e9 == pytest.approx(torchs_count(model, torch.randn(2, *shape)), rel=1e-12)


RECOMPUTED = [
    *(of(Network.continuous, scheme=scheme) for scheme in (Scheme.euler, Scheme.rk4, Scheme.two_step_midpoint)),
    *(of(network) for network in (Network.hamiltonian, Network.midpoint, Network.leapfrog, Network.revnet)),
    *(of(network) for network in (Network.lm_resnet, Network.bottleneck_resnet, Network.polynet, Network.fractalnet)),
]


@pytest.mark.parametrize("config", RECOMPUTED, ids=name)
@pytest.mark.parametrize("gradient", Gradient)
def test_what_a_gradient_recomputes_is_counted(config: ModelConfig, gradient: Gradient) -> None:
    if refusal(config.scheme or NETWORKS[config.network].scheme, gradient):
        gradient = Gradient.checkpointed
    model = build_model(replace(config, gradient=gradient), channels=1, classes=10)
    direct = train_gflops(build_model(config, channels=1, classes=10), DIGIT)
    counted = train_gflops(model, DIGIT)
    assert (counted > direct) == (gradient is not Gradient.direct)
    assert counted * 1e9 == pytest.approx(torchs_count(model, torch.randn(2, *DIGIT)), rel=1e-12)


def test_weights_that_are_mixed_for_their_stages_are_not_counted_as_work_on_images() -> None:
    config = ModelConfig(width=2, nodes=3, basis=Basis.hat, scheme=Scheme.heun, substeps=2)
    model = build_model(config, channels=1, classes=10)
    counted = train_gflops(model, DIGIT) * 1e9
    per_batch = [torchs_count(model, torch.randn(n, *DIGIT)) * n for n in (1, 3)]
    assert (per_batch[1] - per_batch[0]) / 2 == pytest.approx(counted, rel=1e-12)
    assert per_batch[0] > counted


@pytest.mark.parametrize("network", [Network.resnext, Network.lm_resnext, Network.bottleneck_resnet])
def test_a_grouped_convolution_costs_a_groups_share_in_both_directions(network: Network) -> None:
    # torch takes the gradient of grouped weights for that of dense ones, so only the forward pass is compared.
    model = build_model(of(network, cardinality=4), channels=1, classes=10)
    forward = torchs_count(model, torch.randn(2, *DIGIT), backward=False)
    assert train_gflops(model, DIGIT) * 1e9 == pytest.approx(3 * forward - first_layer(4), rel=1e-12)


def first_layer(width: int) -> int:
    """Forward operations of the stem, whose input needs no gradient."""
    return 2 * 64 * 9 * width


@pytest.mark.parametrize("tolerance", [1e-1, 1e-4])
def test_an_adaptive_scheme_costs_what_it_evaluates(tolerance: float) -> None:
    model = build_model(of(Network.neural_ode, tolerance=tolerance), channels=1, classes=10)
    assert model.rate_evaluations == 3 * 6  # of one step a stage, before anything is known
    counted = train_gflops(model, DIGIT)
    evaluations, per_evaluation = model.rate_evaluations, 2 * 2 * 9 * 64 * 4**2  # two convolutions in every stage
    assert evaluations > 3 * 6
    once = build_model(of(Network.neural_ode, scheme=Scheme.euler), channels=1, classes=10)
    assert counted * 1e9 == pytest.approx(train_gflops(once, DIGIT) * 1e9 + 3 * (evaluations - 3) * per_evaluation)


def test_an_adaptive_schemes_evaluations_are_those_of_the_forward_pass() -> None:
    """The adjoint evaluates the rate as well, which is the backward pass's."""
    models = [
        build_model(of(Network.neural_ode, gradient=gradient), channels=1, classes=10)
        for gradient in (Gradient.direct, Gradient.reconstructed)
    ]
    x_BCHW = torch.randn(2, *DIGIT)
    for model in models:
        model(x_BCHW).sum().backward()
    assert models[0].rate_evaluations == models[1].rate_evaluations > 18
    assert manifest(models[0], scheme=Scheme.rk4, steps=2).rate_evaluations == 3 * 2 * 4


class Convolutions(TorchDispatchMode):
    """How many there were in either direction."""

    def __init__(self) -> None:
        super().__init__()
        self.forward = self.backward = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.forward += func._schema.name == "aten::convolution"
        self.backward += func._schema.name == "aten::convolution_backward"
        return func(*args, **(kwargs or {}))


def test_the_adjoint_evaluates_once_for_each_pair_of_products() -> None:
    direct, adjoint = (
        build_model(of(Network.neural_ode, gradient=gradient), channels=1, classes=10)
        for gradient in (Gradient.direct, Gradient.reconstructed)
    )
    with Convolutions() as seen:  # torch's own counter cannot look into the adjoint
        adjoint(torch.randn(2, *DIGIT)).sum().backward()
    assert seen.backward == seen.forward - 2 * adjoint.rate_evaluations
    more, per_evaluation = train_gflops(adjoint, DIGIT) - train_gflops(direct, DIGIT), 2 * 2 * 9 * 64 * 4**2
    assert more * 1e9 == pytest.approx(adjoint.rate_evaluations * per_evaluation)


def test_the_twin_costs_what_the_continuous_net_does_and_training_adds_it_up() -> None:
    config = ExperimentConfig(
        model=ModelConfig(width=2, network=Network.resnet),
        data=DataConfig(per_class=5),
        training=TrainingConfig(epochs=3),
    )
    totals = []
    for network in (Network.resnet, Network.continuous):
        reports = Training(
            replace(config, model=replace(config.model, network=network)), RuntimeConfig(device=Device.cpu)
        )
        totals.append([(r.metrics["cost/train_gflops"], r.metrics["cost/rate_evaluations"]) for r in reports])
    assert totals[0] == totals[1]
    per_image = train_gflops(build_model(config.model, channels=1, classes=10), DIGIT)
    assert [gflops for gflops, _ in totals[0]] == pytest.approx([30 * epoch * per_image for epoch in (1, 2, 3)])
    assert [evaluations for _, evaluations in totals[0]] == [6 * 1 * epoch for epoch in (1, 2, 3)]  # one batch of 30
