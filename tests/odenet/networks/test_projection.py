"""The way back from a fine depth, and to other bases: coarsening in training, compression after it."""

import copy
import math

import pytest
import torch
from torch import Tensor

from odenet import (
    Basis,
    DataConfig,
    Initialisation,
    ModelConfig,
    Network,
    Projection,
    RefinementConfig,
    Scheme,
    build_model,
    coarsen,
    evaluate,
    load_data,
    manifest,
    project,
    refine,
)
from odenet.data.batches import Batches, Statistics
from odenet.depth.bases import mix_nodes
from odenet.networks.model import DepthNet
from odenet.training.optim import build_optimizer
from odenet.training.optim_config import OptimConfig, OptimizerKind
from tests.odenet.networks.test_refinement import (
    EVERY_DEPTH,
    REFINING,
    continuous,
    images,
    logits,
    node_tensors,
    trained,
)

PAIRS = [(source, target) for source in Basis for target in Basis if source is not target]


def variances(model: DepthNet) -> list[Tensor]:
    return [b for stage in model.depth_stages() for name, b in stage.rate.named_buffers() if name.endswith("var")]


def smooth(nodes: int, basis: Basis = Basis.piecewise_constant) -> DepthNet:
    """Weights that are one slow wave in depth, read by a scheme that all bases allow."""
    config = ModelConfig(
        width=4, nodes=nodes, basis=basis, scheme=Scheme.rk4, initialisation=Initialisation.smooth, depth_time=1.0
    )
    model = build_model(config, channels=2, classes=5).double()
    with torch.no_grad():
        for _ in range(5):
            model(images())
        for parameter, _, _ in node_tensors(model):
            wave = torch.sin(math.pi * (torch.arange(nodes, dtype=torch.float64) + 0.5) / nodes)
            change = torch.randn(parameter.shape[1:], generator=torch.Generator().manual_seed(3)) / 10
            parameter.add_(wave.view(-1, *[1] * change.dim()) * change)
    return model


def relative(one: Tensor, other: Tensor) -> float:
    return float((one - other).norm() / other.norm())


# Coarsening


@pytest.mark.parametrize(("network", "basis"), EVERY_DEPTH)
def test_coarsening_undoes_a_refinement(network: Network, basis: Basis) -> None:
    model = trained(ModelConfig(network=network, width=4, nodes=4, basis=basis))
    depths, state = model.depths(), {name: tensor.clone() for name, tensor in model.state_dict().items()}
    refine(model)
    coarsen(model)
    assert model.depths() == depths
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, state[name], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", OptimizerKind)
def test_coarsening_takes_the_optimizer_along(kind: OptimizerKind) -> None:
    model = continuous(nodes=4)
    optimizer = build_optimizer(model, OptimConfig(optimizer=kind, lr=0.01))
    model(images()).sum().backward()
    optimizer.step()
    before = [dict(optimizer.state[parameter]) for parameter in model.parameters()]
    refine(model, optimizer)
    coarsen(model, optimizer)
    assert [id(p) for group in optimizer.param_groups for p in group["params"]] == [id(p) for p in model.parameters()]
    for parameter, old in zip(model.parameters(), before, strict=True):
        assert optimizer.state[parameter].keys() == old.keys()
        for name, value in optimizer.state[parameter].items():
            torch.testing.assert_close(value, old[name], rtol=1e-9, atol=1e-12)


def test_cells_are_merged_to_their_mean_and_a_single_one_stays() -> None:
    model = trained(ModelConfig(network=Network.hamiltonian, width=4, nodes=4))
    old = [(p.detach().clone(), nodes) for p, _, nodes in node_tensors(model)]
    coarsen(model)
    depths = [(depth.nodes, depth.course.steps, depth.course.depth_time) for depth in model.depths()]
    # The opening stage has one cell; the last has three, which do not pair up.
    assert depths == [(1, 1, 1), (2, 2, 4), (2, 2, 4), (3, 3, 3)]
    for (new, _, _), (theta_N, nodes) in zip(node_tensors(model), old, strict=True):
        expected = theta_N.unflatten(0, (-1, 2)).mean(1) if nodes == 4 else theta_N
        torch.testing.assert_close(new.detach(), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("coarsened", "epochs", "epoch"),
    [
        (RefinementConfig(), 10, None),
        (RefinementConfig(coarsen=0.5), 10, 5),
        (RefinementConfig(coarsen=0.01), 10, 1),
        (RefinementConfig(count=2, coarsen=0.9), 10, 9),
    ],
)
def test_coarsening_is_due_at_a_fraction_of_the_epochs(
    coarsened: RefinementConfig, epochs: int, epoch: int | None
) -> None:
    assert coarsened.coarsens(epochs) == epoch


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            RefinementConfig(count=1, coarsen=0.3),
            r"refinement\.coarsen=0\.3 falls on epoch 3 \(from 0\) of 10: it must ",
        ),
        (
            RefinementConfig(count=2, coarsen=0.4),
            r".* must come after the last refinement \[5\] and before the last .*",
        ),
        (RefinementConfig(coarsen=0.99), r"refinement\.coarsen=0\.99 falls on epoch 10 \(from 0\) of 10: .*"),
    ],
)
def test_coarsening_comes_after_the_last_refinement_and_before_the_end(wrong: RefinementConfig, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        wrong.coarsens(10)


# Other bases


@pytest.mark.parametrize(("source", "target"), PAIRS)
@pytest.mark.parametrize("how", Projection)
def test_weights_that_are_constant_in_depth_are_the_same_in_every_basis(
    source: Basis, target: Basis, how: Projection
) -> None:
    config = ModelConfig(
        width=2, nodes=4, basis=source, scheme=Scheme.rk4, initialisation=Initialisation.smooth, depth_time=1.0
    )
    model = build_model(config, channels=2, classes=5).double()
    before = logits(manifest(model, scheme=Scheme.rk4, steps=8))
    for nodes in (6, 2):
        project(model, basis=target, nodes=nodes, how=how)
        assert {(depth.basis, depth.nodes, depth.course.depth_time) for depth in model.depths()} == {(target, nodes, 1)}
        after = logits(manifest(model, scheme=Scheme.rk4, steps=8))
        torch.testing.assert_close(after, before, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("source", "target"), PAIRS)
@pytest.mark.parametrize("how", Projection)
def test_variances_stay_positive_in_every_other_basis(source: Basis, target: Basis, how: Projection) -> None:
    model = continuous(source, Scheme.heun, 8)
    for variance in variances(model):
        variance.fill_(1e-12)[3:5] = 1e6
    project(model, basis=target, nodes=6, how=how)
    assert {len(variance) for variance in variances(model)} == {6}
    assert min(float(variance.min()) for variance in variances(model)) > 0


@pytest.mark.parametrize("network", REFINING)
def test_what_is_projected_can_be_evaluated_and_trained_on(network: Network) -> None:
    data = load_data(DataConfig(per_class=3))
    batches = Batches(data.train, statistics=Statistics.of(data.train))
    model = build_model(ModelConfig(network=network, width=4, nodes=4), channels=1, classes=10)
    for nodes in (2, 6):
        project(model, nodes=nodes)
        assert math.isfinite(evaluate(model, batches).loss)
        model.train()
        model(torch.randn(4, 1, 8, 8)).sum().backward()
        assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p, _, _ in node_tensors(model))
    assert {depth.nodes for depth in model.depths()} == {6}


# Compression


@pytest.mark.parametrize("target", Basis)
@pytest.mark.parametrize("how", Projection)
def test_weights_smooth_in_depth_lose_little_by_compression(target: Basis, how: Projection) -> None:
    model = smooth(16)
    expected, before = logits(manifest(model, scheme=Scheme.rk4, steps=16)), model.parameter_count
    small, arbitrary = copy.deepcopy(model), copy.deepcopy(model)
    for net in (small, arbitrary):
        project(net, basis=target, nodes=4, how=how)
    assert small.parameter_count < before / 2
    with torch.no_grad():  # the same nodes, each the mixture of all that chance wants
        shares = torch.rand(4, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64).pow(8)
        for (new, _, _), (old, _, _) in zip(node_tensors(arbitrary), node_tensors(model), strict=True):
            new.copy_(mix_nodes(shares / shares.sum(1, keepdim=True), old))
    lost, by_chance = (
        relative(logits(manifest(net, scheme=Scheme.rk4, steps=16)), expected) for net in (small, arbitrary)
    )
    assert lost < by_chance / 1.5
    if how is Projection.l2:
        assert lost < min(0.03, by_chance / 5)


def test_a_compressed_net_takes_fewer_steps_and_fewer_still_when_asked() -> None:
    model = smooth(16)
    expected = logits(model)
    project(model, nodes=4)
    assert {depth.course.steps for depth in model.depths()} == {4}
    assert relative(logits(model), expected) < 0.05
    assert relative(logits(manifest(model, scheme=Scheme.rk4, steps=2)), expected) < 0.1


def test_the_nearest_in_the_mean_square_is_nearer_than_the_values_at_the_nodes() -> None:
    distances = {}
    for how in Projection:
        model = trained(ModelConfig(width=2, nodes=8))
        fine = [p.detach().clone() for p, _, _ in node_tensors(model)]
        project(model, nodes=4, how=how)
        coarse = [p.detach().repeat_interleave(2, dim=0) for p, _, _ in node_tensors(model)]
        distances[how] = sum(float((a - b).square().sum()) for a, b in zip(fine, coarse, strict=True))
    assert distances[Projection.l2] < 0.8 * distances[Projection.interpolation]


# Refusals


def test_what_cannot_be_projected_or_coarsened_is_refused() -> None:
    fixed = build_model(ModelConfig(network=Network.lm_resnet, width=2), channels=1, classes=2)
    for change in (project, coarsen):
        with pytest.raises(ValueError, match=r"^model\.network=lm_resnet cannot be refined; continuous, .* can\.$"):
            change(fixed)
    model = build_model(ModelConfig(width=2), channels=1, classes=2)
    with pytest.raises(ValueError, match=r"^model\.nodes=3 with model\.basis=discontinuous_linear: .* must be even"):
        project(model, basis=Basis.discontinuous_linear, nodes=3)
    assert {depth.basis for depth in model.depths()} == {Basis.piecewise_constant}
