"""Refinement in depth: the function is kept, the momentum carried, and learning goes on at the same pace."""

import copy
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, AdamW, Optimizer

from odenet import Basis, ModelConfig, Network, RefinementConfig, Scheme, build_model, manifest, refine
from odenet.depth.bases import BASES, mix_nodes
from odenet.networks.model import DepthNet
from odenet.networks.table import NETWORKS
from odenet.training.optim import build_optimizer
from odenet.training.optim_config import OptimConfig, OptimizerKind

OPTIMIZERS: dict[str, Callable[[Iterator[nn.Parameter]], Optimizer]] = {
    "sgd": lambda parameters: SGD(parameters, lr=0.1, momentum=0.9, weight_decay=0.01, nesterov=True),
    "adamw": lambda parameters: AdamW(parameters, lr=0.1, weight_decay=0.01),
}
REFINING = [network for network, row in NETWORKS.items() if row.capability.refines]


def images() -> Tensor:
    return torch.randn(6, 2, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(7))


def trained(config: ModelConfig) -> DepthNet:
    """In float64, every tensor of every node different, statistics as after some training."""
    model = build_model(config, channels=2, classes=5).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) / 10)
        for _ in range(5):
            model(images())
    return model


def continuous(basis: Basis = Basis.piecewise_constant, scheme: Scheme = Scheme.euler, nodes: int = 2) -> DepthNet:
    return trained(ModelConfig(width=2, nodes=nodes, basis=basis, scheme=scheme))


def logits(model: DepthNet) -> Tensor:
    with torch.no_grad():
        return model.eval()(images())


def learn(model: DepthNet) -> Tensor:
    """Gradients of the loss; the statistics stay put."""
    model.zero_grad()
    loss = F.cross_entropy(model.eval()(images()), torch.arange(6) % 5)
    loss.backward()
    return loss.detach()


def node_tensors(model: DepthNet) -> list[tuple[nn.Parameter, Basis, int]]:
    """(parameter, basis, nodes) of everything that depends on depth."""
    stages = model.depth_stages()
    return [(p, s.depth.basis, s.depth.nodes) for s in stages for p in s.rate.parameters()]


def refined_like(tensors: list[tuple[nn.Parameter, Basis, int]]) -> list[Tensor]:
    """What refinement must make of them, by its definition."""
    return [mix_nodes(BASES[basis].refinement_MN(nodes), p.detach()) for p, basis, nodes in tensors]


# The function


@pytest.mark.parametrize("basis", Basis)
@pytest.mark.parametrize("nodes", [1, 2, 3, 4])
def test_refinement_keeps_the_network_as_a_function_of_depth(basis: Basis, nodes: int) -> None:
    if basis is Basis.discontinuous_linear:
        nodes += nodes % 2
    model = continuous(basis, Scheme.heun, nodes)
    before = logits(manifest(model, scheme=Scheme.rk4_38, steps=32))
    for _ in range(2):
        refine(model)
        after = logits(manifest(model, scheme=Scheme.rk4_38, steps=32))
        torch.testing.assert_close(after, before, rtol=0, atol=1e-10)


@pytest.mark.parametrize("network", REFINING)
def test_every_network_that_refines_is_kept_in_any_manifestation(network: Network) -> None:
    model = trained(ModelConfig(network=network, width=4, nodes=3))
    schemes = NETWORKS[network].capability.manifestations
    before = [logits(manifest(model, scheme=scheme, steps=8)) for scheme in schemes]
    refine(model)
    for scheme, expected in zip(schemes, before, strict=True):
        torch.testing.assert_close(logits(manifest(model, scheme=scheme, steps=8)), expected, rtol=0, atol=1e-10)


TRAINED_WITH = [(network, scheme) for network in REFINING for scheme in NETWORKS[network].capability.schemes]


@pytest.mark.parametrize(("network", "scheme"), TRAINED_WITH)
def test_a_refined_net_is_the_old_one_in_twice_the_steps(network: Network, scheme: Scheme) -> None:
    model = trained(ModelConfig(network=network, width=4, nodes=3, scheme=scheme))
    finer = copy.deepcopy(model)
    for stage in finer.depth_stages():
        stage.depth = replace(stage.depth, course=replace(stage.depth.course, steps=2 * stage.depth.course.steps))
    refine(model)
    torch.testing.assert_close(logits(model), logits(finer), rtol=0, atol=1e-12)


BASES_OF_CONTINUOUS = [(Network.continuous, basis) for basis in Basis]
EVERY_DEPTH = [(network, NETWORKS[network].basis) for network in REFINING] + BASES_OF_CONTINUOUS[1:]


@pytest.mark.parametrize(("network", "basis"), EVERY_DEPTH)
def test_refinement_changes_the_depth_of_stages_and_nothing_else(network: Network, basis: Basis) -> None:
    model = trained(ModelConfig(network=network, width=4, nodes=4, basis=basis))
    outside = {name: tensor for name, tensor in model.named_parameters() if ".rate." not in name}
    config, depths = model.config, model.depths()
    refine(model)
    assert {name: tensor for name, tensor in model.named_parameters() if ".rate." not in name} == outside
    assert model.config == config
    for depth, old in zip(model.depths(), depths, strict=True):
        course = replace(old.course, steps=2 * old.course.steps)  # depth time, above all, stays
        assert depth == replace(old, nodes=BASES[basis].refined(old.nodes), course=course)
    for parameter, _, nodes in node_tensors(model):
        assert parameter.requires_grad
        assert len(parameter) == nodes
        assert parameter.dim() != 5 or parameter[0].is_contiguous(memory_format=torch.channels_last)


def test_a_heunnet_keeps_its_time_when_its_intervals_are_halved() -> None:
    model = build_model(ModelConfig(network=Network.heunnet, width=2, nodes=5), channels=1, classes=2)
    refine(model)
    (depth,) = model.depths()
    assert (depth.nodes, depth.course.steps, depth.course.depth_time) == (9, 8, 4 / 5)


@pytest.mark.parametrize("basis", Basis)
def test_variances_stay_positive_through_refinements(basis: Basis) -> None:
    model = continuous(basis)
    with torch.no_grad():
        for stage in model.depth_stages():
            for name, buffer in stage.rate.named_buffers():
                if "var" in name:
                    buffer[0], buffer[1] = 1e-12, 1e6
    for _ in range(3):
        refine(model)
    variances = [b for s in model.depth_stages() for name, b in s.rate.named_buffers() if "var" in name]
    assert variances
    assert min(float(variance.min()) for variance in variances) > 0


# The optimizer


@pytest.mark.parametrize(
    ("network", "basis", "name"),
    [
        *((network, basis, "sgd") for network, basis in EVERY_DEPTH),
        # Adam's step is no linear function of its state: only where refinement repeats nodes is it the same one.
        *((network, Basis.piecewise_constant, "adamw") for network in (Network.continuous, Network.hamiltonian)),
    ],
)
def test_after_refinement_the_optimizer_takes_the_step_it_was_about_to_take(
    network: Network, basis: Basis, name: str
) -> None:
    model = trained(ModelConfig(network=network, width=4, nodes=2, basis=basis))
    optimizer = OPTIMIZERS[name](model.parameters())
    for _ in range(2):
        learn(model)
        optimizer.step()
    refined = copy.deepcopy((model, optimizer))
    refine(*refined)
    learn(model)
    old = node_tensors(model)
    for (new, _, _), gradient in zip(node_tensors(refined[0]), refined_like(gradients(old)), strict=True):
        new.grad = gradient
    optimizer.step()
    refined[1].step()
    for (new, _, _), expected in zip(node_tensors(refined[0]), refined_like(old), strict=True):
        torch.testing.assert_close(new.detach(), expected, rtol=1e-12, atol=1e-14)


def gradients(tensors: list[tuple[nn.Parameter, Basis, int]]) -> list[tuple[nn.Parameter, Basis, int]]:
    return [(nn.Parameter(p.grad), basis, nodes) for p, basis, nodes in tensors if p.grad is not None]


@pytest.mark.parametrize("basis", Basis)
@pytest.mark.parametrize("kind", OptimizerKind)
def test_training_goes_on_with_a_refined_optimizer(basis: Basis, kind: OptimizerKind) -> None:
    model = continuous(basis, Scheme.heun)
    optimizer = build_optimizer(model, OptimConfig(optimizer=kind, lr=0.01))
    learn(model)
    optimizer.step()
    refine(model, optimizer)
    assert [id(p) for group in optimizer.param_groups for p in group["params"]] == [id(p) for p in model.parameters()]
    assert set(optimizer.state) == set(model.parameters())
    for parameter in model.parameters():
        state = optimizer.state[parameter]
        moments = {name: value for name, value in state.items() if name != "step"}
        assert {value.shape for value in moments.values()} == {parameter.shape}
        assert float(moments.get("exp_avg_sq", torch.zeros(1)).min()) >= 0
    before = float(learn(model))
    optimizer.step()
    assert float(learn(model)) != before


def test_an_optimizer_that_has_not_stepped_yet_is_refined_too() -> None:
    model = continuous()
    optimizer = build_optimizer(model, OptimConfig(optimizer=OptimizerKind.adamw))
    refine(model, optimizer)
    learn(model)
    optimizer.step()
    assert set(optimizer.state) == set(model.parameters())


# Refusals and the schedule


@pytest.mark.parametrize("network", [network for network in Network if network not in REFINING])
def test_a_network_whose_depth_is_fixed_is_not_refined(network: Network) -> None:
    model = build_model(ModelConfig(network=network, width=4, nodes=1), channels=1, classes=2)
    possible = "continuous, continuous_preact, stateful, hamiltonian, midpoint, leapfrog, scaled_resnet, heunnet"
    with pytest.raises(ValueError, match=rf"^model.network={network.value} cannot be refined; {possible} can\.$"):
        refine(model)


@pytest.mark.parametrize(
    ("config", "epochs", "due"),
    [
        (RefinementConfig(), 1, []),
        (RefinementConfig(count=1), 10, [3]),
        (RefinementConfig(count=3, first=0.25, interval=0.25), 8, [2, 4, 6]),
        (RefinementConfig(count=3, first=0.01, interval=0.01), 10, [1, 2, 3]),
        (RefinementConfig(count=2, first=0.5, interval=0.25), 100, [50, 75]),
        (RefinementConfig(at=[1, 2, 9]), 10, [1, 2, 9]),
    ],
)
def test_refinements_are_due_at_fractions_of_the_epochs_or_at_those_named(
    config: RefinementConfig, epochs: int, due: list[int]
) -> None:
    assert config.due(epochs) == due
    assert config.times == len(due)


def test_a_schedule_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"falls on the epochs \[3, 5, 7, 9, 11\] \(from 0\), but training has 10: "):
        RefinementConfig(count=5).due(10)
    with pytest.raises(ValueError, match=r"refine less often, earlier, or train longer\.$"):
        RefinementConfig(count=1).due(1)
    with pytest.raises(ValueError, match=r"^refinement\.at=\[2, 10\]: training has 10 epochs, 0 to 9\.$"):
        RefinementConfig(at=[2, 10]).due(10)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"count": -1}, r"refinement\.count=-1: must be from 0 to 10\."),
        ({"count": 11}, r"refinement\.count=11: must be from 0 to 10\."),
        ({"first": 0.0}, r"refinement\.first=0\.0: a fraction of the epochs, between 0 and 1\."),
        ({"interval": 1.0}, r"refinement\.interval=1\.0: a fraction of the epochs, between 0 and 1\."),
        ({"first": float("nan")}, r"refinement\.first=nan: a fraction of the epochs, between 0 and 1\."),
        ({"coarsen": 1.0}, r"refinement\.coarsen=1\.0: a fraction of the epochs, between 0 and 1, or null\."),
        ({"count": 1, "at": [1]}, r"refinement\.count=1 with refinement\.at=\[1\]: either says when; use one\."),
        *(
            ({"at": at}, rf"refinement\.at={re.escape(str(at))}: 1 to 10 epochs \(counted from 0\), above 0 and .*")
            for at in ([], [0], [-1, 2], [2, 2], [3, 2], list(range(1, 12)))
        ),
        ({"coarsen": 0.0}, r"refinement\.coarsen=0\.0: a fraction of the epochs, between 0 and 1, or null\."),
    ],
)
def test_a_wrong_schedule_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        RefinementConfig(**wrong)
