"""Networks: their size, initialisation, that all of them learns, other manifestations of the same weights."""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from itertools import chain, product

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from odenet import (
    Basis,
    ExperimentConfig,
    Initialisation,
    ModelConfig,
    Network,
    OptimConfig,
    Scheme,
    build_model,
    manifest,
)
from odenet.networks.model import DepthNet
from odenet.networks.table import FIRST_ORDER, NETWORKS, PARTITIONED
from odenet.training.optim import build_optimizer

CONTINUOUS = ModelConfig(width=4, nodes=3)
HAMILTONIAN = ModelConfig(network=Network.hamiltonian, width=32, final_width=112)


def smallest(network: Network) -> ModelConfig:
    return replace(CONTINUOUS, network=network, nodes=NETWORKS[network].capability.most_nodes or 3)


def fresh(config: ModelConfig, seed: int = 0) -> DepthNet:
    return build_model(config, channels=2, classes=5, seed=seed).double()


def tiny(config: ModelConfig = CONTINUOUS) -> DepthNet:
    """With batch-norm statistics and affine parameters that are nobody's default."""
    model, draws = fresh(config), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.dim() < 3 and tensor.is_floating_point():
                noise = torch.rand(tensor.shape, generator=draws, dtype=torch.float64) / 2
                tensor.add_(noise if "var" in name else noise - 0.25)
    return model


def images(count: int = 6, size: int = 8) -> Tensor:
    return torch.randn(count, 2, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(7))


# Size


def of_papers() -> Iterator[tuple[ModelConfig, int, int]]:
    """(config, classes, parameters); of LM the paper's less the k of the three plain blocks, which get no gradient."""
    for network in (Network.continuous, Network.resnet):
        for nodes, count in ((1, 175_770), (2, 273_210), (8, 857_850), (16, 1_637_370)):
            yield ModelConfig(network=network, nodes=nodes), 10, count
    yield ModelConfig(network=Network.continuous_preact, widen=4, nodes=8), 100, 13_630_676
    yield replace(HAMILTONIAN, nodes=6), 10, 432_010
    yield replace(HAMILTONIAN, nodes=6), 100, 442_180
    yield replace(HAMILTONIAN, nodes=18, final_width=128), 10, 1_690_890
    yield replace(HAMILTONIAN, nodes=100, final_width=128), 10, 9_699_338
    for nodes, count in ((2, 272_387), (8, 855_701), (17, 1_730_672)):
        yield ModelConfig(network=Network.lm_resnet, nodes=nodes), 10, count - 3
    for nodes, count in ((2, 272_474), (8, 855_770)):
        yield ModelConfig(network=Network.preact_resnet, nodes=nodes), 10, count
    counts = (11_290, 20_698, 39_514, 77_146, 152_410, 302_938)
    for network, (exponent, count) in product((Network.scaled_resnet, Network.heunnet), enumerate(counts, start=1)):
        yield ModelConfig(network=network, nodes=2**exponent), 10, count


@pytest.mark.parametrize(("config", "classes", "parameters"), [*of_papers()])
def test_networks_have_the_parameters_of_the_papers(config: ModelConfig, classes: int, parameters: int) -> None:
    assert build_model(config, channels=3, classes=classes).parameter_count == parameters


def authors_lm_resnet(blocks: int, expansion: int) -> int:
    """Parameters of the authors' LM-ResNet for 10 classes, counted module by module, unused ones too."""

    def block(inputs: int, planes: int) -> int:
        if expansion == 1:
            return 2 * inputs + 9 * inputs * planes + 2 * planes + 9 * planes**2
        return 2 * inputs + inputs * planes + 2 * planes + 9 * planes**2 + 2 * planes + 4 * planes**2

    def downsample(inputs: int, outputs: int) -> int:
        return 2 * inputs + inputs * outputs

    total, inputs = 3 * 16 * 9 + 2 * 16 + 3 * blocks + downsample(16, 64), 16
    for planes in (16, 32, 64):
        outputs = expansion * planes
        total += block(inputs, planes) + (blocks - 1) * block(outputs, planes)
        total += downsample(inputs, outputs) if planes > 16 else 0
        inputs = outputs
    return total + 2 * inputs + 10 * inputs + 10


def test_the_authors_lm_networks_have_parameters_more_that_get_no_gradient() -> None:
    """Three k, a batch norm of the stem, and the projection of bottlenecks in a network that has none."""
    for nodes in (2, 5, 17):
        basic = ModelConfig(network=Network.lm_resnet, nodes=nodes)
        wide = ModelConfig(network=Network.lm_bottleneck, nodes=nodes, widen=4)
        for config, expansion, unused in ((basic, 1, 3 + 32 + 1056), (wide, 4, 3 + 32)):
            ours = build_model(config, channels=3, classes=10).parameter_count
            assert authors_lm_resnet(nodes + 1, expansion) - ours == unused


@pytest.mark.parametrize(("scheme", "evaluations"), [(Scheme.euler, 18), (Scheme.heun, 36), (Scheme.rk4, 72)])
def test_a_forward_pass_costs_cells_times_substeps_times_stages(scheme: Scheme, evaluations: int) -> None:
    assert tiny(replace(CONTINUOUS, scheme=scheme, substeps=2)).rate_evaluations == evaluations


# Learning


def assert_everything_learns(model: DepthNet, x_BCHW: Tensor) -> None:
    model.zero_grad()
    F.cross_entropy(model(x_BCHW), torch.arange(len(x_BCHW)) % 5).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        nodes = parameter.grad.flatten(1) if parameter.grad.dim() > 1 else parameter.grad[:, None]
        assert bool((nodes if ".rate." in name else nodes.reshape(1, -1)).any(dim=1).all()), name


TRAINABLE = [
    *(replace(smallest(network), width=8) for network in Network),
    *(replace(CONTINUOUS, nodes=4, scheme=s, basis=b, substeps=2) for s, b in product(FIRST_ORDER, Basis)),
]


@pytest.mark.parametrize("config", TRAINABLE, ids=lambda c: f"{c.network.value}-{c.scheme}-{c.basis}")
def test_no_parameter_of_any_node_is_without_a_gradient(config: ModelConfig) -> None:
    assert ExperimentConfig(model=config).model == config
    assert_everything_learns(tiny(config), images(size=16))


# Initialisation


def zero_at_first() -> Iterator[ModelConfig]:
    for network in Network:
        yield replace(smallest(network), skip_init=True)
        if Initialisation.zero in NETWORKS[network].capability.initialisations:
            yield replace(smallest(network), initialisation=Initialisation.zero)


@pytest.mark.parametrize("config", [*zero_at_first()], ids=lambda c: f"{c.network.value}-{c.initialisation.value}")
def test_a_zero_rate_makes_every_stage_the_identity_and_yet_everything_learns(config: ModelConfig) -> None:
    model = fresh(config)
    x_BCHW = model.stem(images())
    for transition, stage in zip(model.transitions, model.depth_stages(), strict=True):
        before = transition(x_BCHW)
        before_BCHW = before if isinstance(before, Tensor) else before[0]  # without the history of an LM stage
        x_BCHW = stage(before_BCHW)
        torch.testing.assert_close(x_BCHW, before_BCHW, rtol=1e-12, atol=1e-12)
    optimizer = build_optimizer(model, OptimConfig(lr=0.1))
    for _ in range(2):  # the first moves what is zero; odd nodes of MidPoint wait for the even ones
        optimizer.zero_grad()
        F.cross_entropy(model(images()), torch.arange(6) % 5).backward()
        optimizer.step()
    assert_everything_learns(model, images())


@pytest.mark.parametrize("network", Network)
def test_a_smooth_start_has_the_drawn_weights_of_the_first_node_at_every_node(network: Network) -> None:
    smooth = fresh(replace(smallest(network), initialisation=Initialisation.smooth))
    drawn = fresh(smallest(network)).state_dict()
    for stage in smooth.depth_stages():
        assert all(torch.equal(p, p[:1].expand_as(p)) for p in stage.rate.parameters())
    assert all(torch.equal(tensor[:1], drawn[name][:1]) for name, tensor in smooth.state_dict().items() if tensor.dim())


def test_the_memory_of_lm_steps_starts_between_minus_a_tenth_and_zero_and_does_not_decay() -> None:
    model = build_model(ModelConfig(network=Network.lm_resnet, nodes=17), channels=3, classes=10)
    memories = [stage.rate.memory for stage in model.depth_stages() if stage.rate.memory is not None]
    k = torch.cat([memory.detach() for memory in memories])
    assert len(k) == 51
    assert float(k.min()) >= -0.1
    assert float(k.max()) <= 0
    assert float(k.mean()) == pytest.approx(-0.05, abs=0.015)
    decayed, free = build_optimizer(model, OptimConfig(weight_decay=0.1)).param_groups
    assert [decayed["weight_decay"], free["weight_decay"]] == [0.1, 0.0]
    assert {id(p) for p in free["params"]} == {id(p) for p in memories}
    assert len(decayed["params"]) + 3 == len(list(model.parameters()))


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
    assert [(d.course.scheme, d.course.steps) for d in model.depths()] == [(Scheme.euler, 3)] * 3
    assert [(d.course.scheme, d.course.steps) for d in other.depths()] == [(Scheme.rk4, 7)] * 3
    assert [d.course.depth_time for d in other.depths()] == [d.course.depth_time for d in model.depths()]
    assert other.rate_evaluations == 3 * 7 * 4


# PolyNet's step approximates x' = F(x) + F(0), so it has the same limit only where F(0) = 0.
LIMITS = [
    *(replace(CONTINUOUS, nodes=2, scheme=s, basis=b) for s, b in product(FIRST_ORDER, Basis) if s != Scheme.polynet),
    *(replace(CONTINUOUS, network=Network.hamiltonian, scheme=s) for s in PARTITIONED if s != Scheme.polynet),
]


@cache
def limit_of(network: Network, nodes: int, basis: Basis | None) -> tuple[DepthNet, Tensor]:
    """A network, and what its manifestations approach."""
    model = tiny(replace(CONTINUOUS, network=network, nodes=nodes, basis=basis)).eval()
    with torch.no_grad():
        return model, manifest(model, scheme=Scheme.rk4, steps=192)(images())


@pytest.mark.slow
@pytest.mark.parametrize("config", LIMITS, ids=lambda c: f"{c.network.value}-{c.scheme.value}-{c.basis}")
def test_every_scheme_approaches_the_same_limit_as_steps_grow(config: ModelConfig) -> None:
    (model, limit), scheme = limit_of(config.network, config.nodes, config.basis), config.scheme
    assert scheme is not None
    with torch.no_grad():
        errors = [float((manifest(model, scheme=scheme, steps=n)(images()) - limit).norm()) for n in (6, 24, 96)]
    # A fourth of the step: at least half of first order, ReLU spoils the higher ones.
    assert errors[0] > 2 * errors[1] > 4 * errors[2]


@pytest.mark.parametrize("network", Network)
def test_a_network_manifests_under_the_schemes_that_make_sense_for_it_and_refuses_the_others(network: Network) -> None:
    model, can = tiny(smallest(network)).eval(), NETWORKS[network].capability
    assert can.because
    for scheme in Scheme:
        if scheme in can.manifestations:
            assert bool(manifest(model, scheme=scheme, steps=2)(images()).isfinite().all())
            continue
        possible = ", ".join(choice.value for choice in can.manifestations)
        with pytest.raises(ValueError, match=r"^scheme=") as refused:
            manifest(model, scheme=scheme, steps=2)
        asked = f"scheme={scheme.value} with model.network={network.value}"
        assert str(refused.value) == f"{asked}: {can.because}; {possible} can be."


def test_a_manifestation_needs_a_step() -> None:
    with pytest.raises(ValueError, match=r"^steps=0: a manifestation needs at least 1 step\.$"):
        manifest(tiny(), scheme=Scheme.euler, steps=0)
    with pytest.raises(ValueError, match=r"^steps=\[2, 0, 2\]: a manifestation needs at least 1 step\.$"):
        manifest(tiny(), scheme=Scheme.euler, steps=[2, 0, 2])


def test_a_manifestation_can_have_steps_for_each_stage() -> None:
    other = manifest(tiny(), scheme=Scheme.heun, steps=[2, 3, 4])
    assert [depth.course.steps for depth in other.depths()] == [2, 3, 4]
    assert other.rate_evaluations == 2 * (2 + 3 + 4)
    with pytest.raises(ValueError, match=r"^steps=\[2, 3\]: there are 3 stages; give one number for all, or one for"):
        manifest(tiny(), scheme=Scheme.heun, steps=[2, 3])
