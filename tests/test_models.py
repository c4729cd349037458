"""Networks: their size, the ResNet they are under Euler, other manifestations of the same weights."""

from dataclasses import replace
from itertools import chain

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from odenet import Basis, ModelConfig, Network, Scheme, build_model, manifest
from odenet.models import NETWORKS, DepthNet
from odenet.rates import LayeredRate

CONTINUOUS = ModelConfig(width=4, nodes=3)


def tiny(config: ModelConfig = CONTINUOUS, seed: int = 0) -> DepthNet:
    """In float64, with batch-norm statistics and affine parameters that are nobody's default."""
    model = build_model(config, channels=2, classes=5, seed=seed).double()
    draws = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.dim() < 3 and tensor.is_floating_point():
                noise = torch.rand(tensor.shape, generator=draws, dtype=torch.float64) / 2
                tensor.add_(noise if "var" in name else noise - 0.25)
    return model


def images(count: int = 6) -> Tensor:
    return torch.randn(count, 2, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(7))


# Size


@pytest.mark.parametrize("network", [Network.continuous, Network.resnet])
@pytest.mark.parametrize(("nodes", "parameters"), [(1, 175_770), (2, 273_210), (8, 857_850), (16, 1_637_370)])
def test_the_continuous_net_and_its_twin_have_the_parameters_of_the_paper(
    network: Network, nodes: int, parameters: int
) -> None:
    model = build_model(ModelConfig(network=network, nodes=nodes), channels=3, classes=10)
    assert model.parameter_count == parameters


@pytest.mark.parametrize(("nodes", "parameters"), [(2, 272_474), (8, 855_770)])
def test_resnet_20_and_56_have_the_parameters_of_the_paper(nodes: int, parameters: int) -> None:
    model = build_model(ModelConfig(network=Network.preact_resnet, nodes=nodes), channels=3, classes=10)
    assert model.parameter_count == parameters


@pytest.mark.parametrize(("scheme", "evaluations"), [(Scheme.euler, 18), (Scheme.heun, 36), (Scheme.rk4, 72)])
def test_a_forward_pass_costs_cells_times_substeps_times_stages(scheme: Scheme, evaluations: int) -> None:
    assert tiny(replace(CONTINUOUS, scheme=scheme, substeps=2)).rate_evaluations == evaluations


# The ResNet


class WrittenOut(nn.Module):
    """A block or a transition: skip(x) + residual(x)."""

    def __init__(self, skip: nn.Module, *residual: nn.Module) -> None:
        super().__init__()
        self.skip, self.residual = skip, nn.Sequential(*residual)

    def forward(self, x: Tensor) -> Tensor:
        return self.skip(x) + self.residual(x)


def conv(inputs: int, outputs: int, stride: int = 1, *, bias: bool) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=bias)


def post_activation(i: int, o: int, stride: int = 1) -> list[nn.Module]:
    first = [conv(i, o, stride, bias=True), nn.ReLU(), nn.BatchNorm2d(o)]
    return [*first, conv(o, o, bias=True), nn.ReLU(), nn.BatchNorm2d(o)]


def pre_activation(i: int, o: int, stride: int = 1) -> list[nn.Module]:
    first = [nn.BatchNorm2d(i), nn.ReLU(), conv(i, o, stride, bias=False)]
    return [*first, nn.BatchNorm2d(o), nn.ReLU(), conv(o, o, bias=False)]


def written_out_resnet(w: int, nodes: int) -> nn.Sequential:
    layers: list[nn.Module] = [conv(2, w, bias=False), nn.BatchNorm2d(w), nn.ReLU()]
    for i, o, stride in ((w, w, 1), (w, 2 * w, 2), (2 * w, 4 * w, 2)):
        layers += [WrittenOut(nn.Conv2d(i, o, 1, stride, bias=False), *post_activation(i, o, stride))]
        layers += [WrittenOut(nn.Identity(), *post_activation(o, o)) for _ in range(nodes)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * w, 5)).double()


def written_out_preact_resnet(w: int, nodes: int) -> nn.Sequential:
    layers: list[nn.Module] = [conv(2, w, bias=False)]
    layers += [WrittenOut(nn.Identity(), *pre_activation(w, w)) for _ in range(nodes + 1)]
    for i in (w, 2 * w):
        projection = nn.Sequential(nn.Conv2d(i, 2 * i, 1, 2, bias=False), nn.BatchNorm2d(2 * i))
        layers += [WrittenOut(projection, *pre_activation(i, 2 * i, 2))]
        layers += [WrittenOut(nn.Identity(), *pre_activation(2 * i, 2 * i)) for _ in range(nodes)]
    head = [nn.BatchNorm2d(4 * w), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * w, 5)]
    return nn.Sequential(*layers, *head).double()


def in_order(model: DepthNet, tensors: str) -> list[Tensor]:
    """Our parameters, gradients, or running statistics as the written-out network has them, block after block."""

    def of(module: nn.Module) -> list[Tensor]:
        if tensors == "statistics":
            return [b for name, b in module.named_buffers() if "running" in name]
        if tensors == "gradients":
            return [p.grad for p in module.parameters() if p.grad is not None]
        return list(module.parameters())

    found = of(model.stem)
    for transition, stage in zip(model.transitions, model.depth_stages(), strict=True):
        found += of(transition) + [tensor[n] for n in range(stage.depth.nodes) for tensor in of(stage.rate)]
    return found + of(model.head)


def statistics(model: nn.Module) -> list[Tensor]:
    return [buffer for name, buffer in model.named_buffers() if "running" in name]


@pytest.mark.parametrize("network", Network)
def test_under_euler_with_a_step_per_node_every_network_is_a_residual_network(network: Network) -> None:
    model = tiny(replace(CONTINUOUS, network=network))
    write = written_out_preact_resnet if network is Network.preact_resnet else written_out_resnet
    theirs, x_BCHW = write(CONTINUOUS.width, CONTINUOUS.nodes), images()
    with torch.no_grad():
        targets = [*theirs.parameters(), *statistics(theirs)]
        sources = in_order(model, "parameters") + in_order(model, "statistics")
        for target, source in zip(targets, sources, strict=True):
            target.copy_(source)
    torch.testing.assert_close(model.eval()(x_BCHW), theirs.eval()(x_BCHW), rtol=1e-12, atol=1e-12)
    logits_BK, expected_BK = model.train()(x_BCHW), theirs.train()(x_BCHW)
    torch.testing.assert_close(logits_BK, expected_BK, rtol=1e-10, atol=1e-10)
    for out in (logits_BK, expected_BK):
        F.cross_entropy(out, torch.arange(6) % 5).backward()
    gradients = [parameter.grad for parameter in theirs.parameters()]
    for mine, theirs_ in zip(in_order(model, "gradients"), gradients, strict=True):
        torch.testing.assert_close(mine, theirs_, rtol=1e-8, atol=1e-10)
    for mine, theirs_ in zip(in_order(model, "statistics"), statistics(theirs), strict=True):
        torch.testing.assert_close(mine, theirs_, rtol=1e-10, atol=1e-10)


TRAINABLE = [
    *(replace(CONTINUOUS, network=network) for network in Network),
    *(replace(CONTINUOUS, scheme=scheme) for scheme in Scheme),
    *(replace(CONTINUOUS, scheme=scheme, basis=Basis.hat, substeps=2) for scheme in Scheme),
]


@pytest.mark.parametrize("config", TRAINABLE, ids=lambda c: f"{c.network.value}-{c.scheme.value}-{c.basis.value}")
def test_no_parameter_is_without_a_gradient(config: ModelConfig) -> None:
    model = tiny(config)
    F.cross_entropy(model(images()), torch.arange(6) % 5).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        nodes = parameter.grad.flatten(1) if ".rate." in name else parameter.grad.reshape(1, -1)
        assert bool(nodes.any(dim=1).all()), f"{name} has a node without a gradient"


# Building


def test_weights_are_a_function_of_the_seed_and_the_global_generator_is_left_alone() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = build_model(CONTINUOUS, channels=2, classes=5, seed=3).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    again = build_model(CONTINUOUS, channels=2, classes=5, seed=3).state_dict()
    other = build_model(CONTINUOUS, channels=2, classes=5, seed=4).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    drawn = [name for name, tensor in first.items() if tensor.dim() > 2]
    assert drawn
    assert not any(torch.equal(first[name], other[name]) for name in drawn)


def test_the_kernel_of_a_node_is_channels_last_without_a_copy() -> None:
    for stage in tiny().depth_stages():
        assert isinstance(stage.rate, LayeredRate)
        kernel_N = next(parameter for parameter in stage.rate.parameters() if parameter.dim() == 5)
        for node, kernel in enumerate(kernel_N.unbind(0)):
            assert kernel.is_contiguous(memory_format=torch.channels_last)
            assert kernel.untyped_storage().data_ptr() == kernel_N.untyped_storage().data_ptr()
            assert kernel.storage_offset() == node * kernel.numel()


def test_every_network_names_its_source() -> None:
    assert all("arXiv" in wiring.source for wiring in NETWORKS.values())


# Manifestations


def test_a_manifestation_shares_all_weights_and_leaves_the_original_as_it_was() -> None:
    model = tiny()
    other = manifest(model, scheme=Scheme.rk4, steps=7)
    for mine, theirs in zip(
        chain(model.parameters(), model.buffers()), chain(other.parameters(), other.buffers()), strict=True
    ):
        assert mine is theirs
    assert [(s.depth.scheme, s.depth.steps) for s in model.depth_stages()] == [(Scheme.euler, 3)] * 3
    assert [(s.depth.scheme, s.depth.steps) for s in other.depth_stages()] == [(Scheme.rk4, 7)] * 3
    assert other.rate_evaluations == 3 * 7 * 4


@pytest.mark.parametrize("basis", Basis)
@pytest.mark.parametrize("scheme", Scheme)
def test_every_scheme_approaches_the_same_limit_as_steps_grow(basis: Basis, scheme: Scheme) -> None:
    model = tiny(replace(CONTINUOUS, basis=basis, scheme=Scheme.heun)).eval()
    with torch.no_grad():
        limit = manifest(model, scheme=Scheme.rk4, steps=192)(images())
        errors = [float((manifest(model, scheme=scheme, steps=n)(images()) - limit).norm()) for n in (6, 24, 96)]
    # A fourth of the step: at least half of first order, ReLU spoils the higher ones.
    assert errors[0] > 2 * errors[1] > 4 * errors[2]


def test_a_manifestation_needs_a_step() -> None:
    with pytest.raises(ValueError, match=r"^steps=0: a manifestation needs at least 1 step\.$"):
        manifest(tiny(), scheme=Scheme.euler, steps=0)
