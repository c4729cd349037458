"""Floating-point operations: counted by hand, by torch, and added up over training."""

import copy
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from odenet import (
    Basis,
    DataConfig,
    Device,
    ExperimentConfig,
    ModelConfig,
    Network,
    RuntimeConfig,
    Scheme,
    Training,
    TrainingConfig,
    build_model,
    refine,
)
from odenet.cost import train_gflops

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


CONFIGS = [
    *(ModelConfig(width=2, network=network) for network in Network),
    *(ModelConfig(width=2, nodes=3, scheme=scheme) for scheme in Scheme),
    ModelConfig(width=2, nodes=3, basis=Basis.hat, scheme=Scheme.heun, substeps=2),
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: f"{c.network.value}-{c.scheme.value}-{c.basis.value}")
@pytest.mark.parametrize("shape", [DIGIT, (3, 9, 11)])
def test_the_count_is_that_of_torch(config: ModelConfig, shape: tuple[int, int, int]) -> None:
    model = build_model(config, channels=shape[0], classes=10)
    state, modes = copy.deepcopy(model.state_dict()), [module.training for module in model.modules()]
    counted = train_gflops(model, shape)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    model.eval()  # in training torch counts the fit of the running statistics, too: once per batch, not per image
    with FlopCounterMode(display=False) as counter:
        F.cross_entropy(model(torch.randn(2, *shape)), torch.zeros(2, dtype=torch.long)).backward()
    torchs = counter.get_total_flops() / 2
    if config.basis is Basis.hat:  # so it does with the mixing of nodes for the stages
        assert torchs > counted * 1e9
    else:
        assert counted * 1e9 == pytest.approx(torchs, rel=1e-12)


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
