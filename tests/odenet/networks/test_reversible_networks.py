"""Reconstructed gradients of whole reversible networks, wherever training goes: against direct ones in float64."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from odenet import Gradient, ModelConfig, Network, Scheme, Start, build_model
from odenet.integrators.gradients import Drift
from odenet.integrators.schemes import SCHEMES
from odenet.networks.model import DepthNet
from odenet.networks.table import NETWORKS

REVERSIBLE = [network for network, row in NETWORKS.items() if SCHEMES[row.scheme].reversible]
LABELS = torch.tensor([0, 1, 2, 3])


def images() -> Tensor:
    return torch.randn(4, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(7))


def configs() -> Iterator[ModelConfig]:
    for network in REVERSIBLE:
        base = ModelConfig(network=network, width=8, nodes=4)
        for how in NETWORKS[network].capability.initialisations:
            yield replace(base, initialisation=how)
        yield replace(base, skip_init=True)
        if NETWORKS[network].capability.substeps:
            yield replace(base, nodes=2, substeps=3)
    for network in (Network.midpoint, Network.leapfrog):
        yield from (ModelConfig(network=network, width=8, nodes=4, start=start) for start in Start)
    # As one rate; RevNet trains by its coupling only.
    yield ModelConfig(network=Network.hamiltonian, width=8, nodes=4, scheme=Scheme.two_step_midpoint)


def named(config: ModelConfig) -> str:
    scheme = config.scheme.value if config.scheme else "published"
    how = "skip_init" if config.skip_init else config.initialisation.value
    return f"{config.network.value}-{scheme}-{how}-{config.start.value}-{config.nodes}x{config.substeps}"


def gradients(model: DepthNet, gradient: Gradient) -> list[Tensor]:
    """Of the image and of every parameter, in training mode."""
    for stage in model.depth_stages():
        stage.depth = replace(stage.depth, course=replace(stage.depth.course, gradient=gradient))
    x_BCHW = images().requires_grad_()
    model.zero_grad()
    F.cross_entropy(model.train()(x_BCHW), LABELS).backward()
    found = [x_BCHW.grad, *(parameter.grad for parameter in model.parameters())]
    return [gradient.clone() for gradient in found if gradient is not None]


def off(model: DepthNet) -> float:
    """The largest error of any entry, relative to the largest of all gradients."""
    found, exact = gradients(model, Gradient.reconstructed), gradients(model, Gradient.direct)
    largest = max(float(tensor.abs().max()) for tensor in exact)
    return max(float((a - b).abs().max()) for a, b in zip(found, exact, strict=True)) / largest


def scramble_norms(model: DepthNet) -> None:
    draws = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() < 3:
                parameter.add_(torch.rand(parameter.shape, generator=draws, dtype=torch.float64).sub(0.5).div(2))


def train(model: DepthNet, iterations: int) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for iteration in range(iterations):
        optimizer.zero_grad()
        F.cross_entropy(model.train()(images() + 0.1 * iteration), LABELS).backward()
        optimizer.step()


@pytest.mark.slow
@pytest.mark.parametrize("config", [*configs()], ids=named)
def test_a_reconstructed_gradient_is_exact_at_initialisation_off_it_and_after_training(config: ModelConfig) -> None:
    # At initialisation channels are exactly 0 (padding, biases), and which side of 0 decides their ReLU.
    def fresh() -> DepthNet:
        return build_model(config, channels=3, classes=5).double()

    scrambled, trained = fresh(), fresh()
    scramble_norms(scrambled)
    assert off(fresh()) <= 1e-13
    assert off(scrambled) <= 1e-13
    for iterations in (1, 7):
        train(trained, iterations)
        assert off(trained) <= 1e-13


@pytest.mark.parametrize("network", REVERSIBLE)
def test_a_stage_of_one_step_is_differentiated_as_exactly_as_kept(network: Network) -> None:
    config = ModelConfig(network=network, width=8, nodes=NETWORKS[network].capability.most_nodes or 2)
    assert off(build_model(config, channels=3, classes=5).double()) <= 1e-14


# Two-step midpoint: 3e-12 at 513 steps; leapfrog, whose state is a double sum of its slopes: 5e-8.
@pytest.mark.slow
@pytest.mark.parametrize(("network", "bound"), [(n, 1e-9 if n is Network.leapfrog else 1e-12) for n in REVERSIBLE])
def test_rounding_errors_of_unit_steps_grow_with_the_depth_within_bounds(network: Network, bound: float) -> None:
    assert off(build_model(ModelConfig(network=network, width=4, nodes=128), channels=3, classes=5).double()) <= bound


@pytest.mark.parametrize("network", REVERSIBLE)
def test_checking_the_drift_changes_no_gradient(network: Network) -> None:
    model = build_model(ModelConfig(network=network, width=8, nodes=3), channels=3, classes=5).double()
    plain = gradients(model, Gradient.reconstructed)
    drift = Drift()
    for stage in model.depth_stages():
        stage.drift = drift
    assert all(map(torch.equal, gradients(model, Gradient.reconstructed), plain))
    noted = drift.take()
    assert noted is not None
    assert noted <= 1e-12
