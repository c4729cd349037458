"""Gradients in L2 over depth: what a step does to theta(t) does not depend on the grid, in any basis."""

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD

from odenet import Basis, ModelConfig, Network, Scheme, build_model, coarsen, manifest, project, refine
from odenet.depth.bases import BASES, mix_nodes
from odenet.depth.projection import projection_MN
from odenet.networks.model import DepthNet
from odenet.networks.table import NETWORKS
from odenet.training.optim import scale_depth_gradients
from tests.odenet.networks.test_refinement import EVERY_DEPTH, continuous, learn, node_tensors, trained

OPTIMIZERS = [
    {},
    {"weight_decay": 0.01},
    {"weight_decay": 0.01, "momentum": 0.9},
    {"weight_decay": 0.01, "momentum": 0.9, "nesterov": True},
]


def sgd(model: DepthNet, options: dict[str, float]) -> SGD:
    return SGD(model.parameters(), lr=0.1, **options)


def of_same_steps(model: DepthNet) -> DepthNet:
    """All grids integrate the same function of depth by the same steps."""
    possible = NETWORKS[model.config.network].capability.manifestations
    return manifest(model, scheme=Scheme.rk4 if Scheme.rk4 in possible else possible[0], steps=8)


def step(model: DepthNet, optimizer: SGD) -> None:
    learn(of_same_steps(model))
    scale_depth_gradients(model)
    optimizer.step()


def refined(model: DepthNet, optimizer: SGD, times: int) -> tuple[DepthNet, SGD]:
    finer = copy.deepcopy((model, optimizer))
    for _ in range(times):
        refine(*finer)
    return finer


def pairs(coarse: DepthNet, fine: DepthNet) -> Iterator[tuple[nn.Parameter, nn.Parameter, Basis]]:
    for (one, basis, _), (other, _, _) in zip(node_tensors(coarse), node_tensors(fine), strict=True):
        yield one, other, basis


def on_finer_grid(theta_N: Tensor, basis: Basis, nodes: int) -> Tensor:
    while len(theta_N) < nodes:
        theta_N = mix_nodes(BASES[basis].refinement_MN(len(theta_N)), theta_N)
    return theta_N


def dual(theta_N: Tensor, basis: Basis) -> Tensor:
    """The plain gradient whose gradient in L2 over depth is theta, but for the factor of the initial nodes."""
    return mix_nodes(BASES[basis].mass_NN(len(theta_N)), theta_N)


SINGLE_AND_MANY = [(Network.continuous, basis, nodes) for basis in Basis for nodes in (1, 3)]


@pytest.mark.slow
@pytest.mark.parametrize(("network", "basis", "nodes"), [*((*depth, 2) for depth in EVERY_DEPTH), *SINGLE_AND_MANY])
def test_a_step_on_a_finer_grid_projected_in_l2_is_the_step_on_the_coarse_one(
    network: Network, basis: Basis, nodes: int
) -> None:
    nodes += nodes % 2 if basis is Basis.discontinuous_linear else 0
    for times, options in ((2, OPTIMIZERS[0]), (1, OPTIMIZERS[-1])):
        model = trained(ModelConfig(network=network, width=4, nodes=nodes, basis=basis))
        optimizer = sgd(model, options)
        step(model, optimizer)
        fine, fine_optimizer = refined(model, optimizer, times)
        step(model, optimizer)
        step(fine, fine_optimizer)
        for coarse, finer, basis_of_stage in pairs(model, fine):
            back_MN = projection_MN(basis_of_stage, len(finer), basis_of_stage, len(coarse))
            torch.testing.assert_close(mix_nodes(back_MN, finer.detach()), coarse.detach(), rtol=1e-10, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(("network", "basis"), EVERY_DEPTH)
@pytest.mark.parametrize("gradient", ["zero", "representable"])
def test_steps_commute_with_refinement_where_the_coarse_grid_can_represent_the_gradient(
    network: Network, basis: Basis, gradient: str
) -> None:
    start = trained(ModelConfig(network=network, width=4, nodes=2, basis=basis))
    for options in OPTIMIZERS:
        model = copy.deepcopy(start)
        optimizer = sgd(model, options)
        step(model, optimizer)
        fine, fine_optimizer = refined(model, optimizer, 2)
        draws = torch.Generator().manual_seed(0)
        for _ in range(3):
            for coarse, finer, basis_of_stage in pairs(model, fine):
                function_N = torch.randn(coarse.shape, generator=draws, dtype=coarse.dtype)
                function_N *= gradient == "representable"
                coarse.grad = dual(function_N, basis_of_stage)
                finer.grad = dual(on_finer_grid(function_N, basis_of_stage, len(finer)), basis_of_stage)
            for net, steps in ((model, optimizer), (fine, fine_optimizer)):
                scale_depth_gradients(net)
                steps.step()
        for coarse, finer, basis_of_stage in pairs(model, fine):
            expected = on_finer_grid(coarse.detach(), basis_of_stage, len(finer))
            torch.testing.assert_close(finer.detach(), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("basis", Basis)
def test_a_constant_gradient_moves_the_same_constant_in_every_basis_on_every_grid(basis: Basis) -> None:
    """A gradient spread evenly over depth, summed over the 4 initial nodes: each learns a quarter of the sum."""
    model = trained(ModelConfig(width=2, nodes=4, basis=basis))
    for change in (None, refine, refine, coarsen, lambda net: project(net, basis=Basis.hat, nodes=3)):
        if change is not None:
            change(model)
        for parameter, present, nodes in node_tensors(model):
            parameter.grad = dual(torch.ones_like(parameter), present)
            assert nodes == len(parameter)
        scale_depth_gradients(model)
        for parameter, _, _ in node_tensors(model):
            torch.testing.assert_close(parameter.grad, torch.full_like(parameter, 1 / 4), rtol=1e-12, atol=0)


def test_stages_without_gradients_are_left_alone() -> None:
    model = continuous()
    refine(model)
    model.depth_stages()[0].requires_grad_(False)
    learn(model)
    model.depth_stages()[1].zero_grad()
    scale_depth_gradients(model)
    learned = [any(p.grad is not None for p in stage.rate.parameters()) for stage in model.depth_stages()]
    assert learned == [False, False, True]


def test_gradients_keep_their_layout_and_parameters_without_one_are_left_alone() -> None:
    model = build_model(ModelConfig(width=4, nodes=3, basis=Basis.hat, scheme=Scheme.heun), channels=2, classes=5)
    frozen = next(iter(model.depth_stages()[0].rate.parameters())).requires_grad_(False)
    learn(model.double())
    before = {id(p): (p.grad, p.grad.stride(), p.grad.clone()) for p in model.parameters() if p.grad is not None}
    scale_depth_gradients(model)
    assert frozen.grad is None
    of_nodes = {id(parameter) for parameter, _, _ in node_tensors(model)}
    for parameter in model.parameters():
        if parameter is not frozen:
            gradient, stride, old = before[id(parameter)]
            assert parameter.grad is gradient
            assert gradient.stride() == stride
            assert torch.equal(gradient, old) == (id(parameter) not in of_nodes)


def test_piecewise_constants_take_a_factor_and_only_once_they_are_refined() -> None:
    model = continuous()
    for factor in (1, 2, 4):  # nodes over initial nodes
        learn(model)
        named = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
        assert len(named) == len(list(model.parameters()))
        before = {name: gradient.clone() for name, gradient in named.items()}
        scale_depth_gradients(model)
        for name, gradient in named.items():
            assert torch.equal(gradient, before[name] * (factor if ".rate." in name else 1))
        refine(model)
