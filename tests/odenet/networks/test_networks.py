"""Every network is what its paper says: it equals its equations written out with the layers of torch.nn."""

from collections.abc import Callable
from dataclasses import replace
from itertools import product

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.resnet import BasicBlock  # type: ignore[import-untyped]

from odenet import Basis, ModelConfig, Network, Scheme, build_model
from odenet.depth.discretisation import Depth
from odenet.integrators.scheme import Course
from odenet.networks.blocks import DepthStage
from odenet.networks.convolutions import convolution
from odenet.networks.model import DepthNet
from odenet.networks.orders import NORM_LAST
from odenet.networks.rates import Rate
from odenet.networks.table import NETWORKS
from odenet.networks.widths import Widths
from odenet.seeding import global_seed
from tests.odenet.networks import written_out as wo

W, N = 4, 3  # width of the stem and nodes
WIDTHS = (W, W, 2 * W, 4 * W)
WIDENED = (W, 4 * W, 8 * W, 16 * W)


def stem(*, norm: bool = True) -> list[nn.Module]:
    return [wo.conv(2, W), nn.BatchNorm2d(W), nn.ReLU()] if norm else [wo.conv(2, W)]


def norm_relu_head(c: int) -> list[nn.Module]:
    return wo.head(c, nn.BatchNorm2d(c), nn.ReLU())


def continuous() -> list[nn.Module]:
    return [*stem(), *wo.three(wo.residual, lambda c: wo.post_activation(c, c), wo.stitch, WIDTHS, N), *wo.head(4 * W)]


def continuous_preact() -> list[nn.Module]:
    stages = wo.three(wo.residual, lambda c: wo.pre_activation(c, c, bias=True), wo.preact_stitch, WIDTHS, N)
    return [*stem(), *stages, *wo.head(4 * W, nn.BatchNorm2d(4 * W))]


def stateful() -> list[nn.Module]:
    stages = wo.three(wo.residual, lambda c: wo.pre_activation(c, c), wo.stateful_stitch, WIDTHS, N)
    return [*stem(), *stages, *wo.head(4 * W, nn.BatchNorm2d(4 * W))]


def preact(solve: wo.Solve = wo.residual, widths: tuple[int, ...] = WIDTHS) -> list[nn.Module]:
    transition = wo.projection(wo.pre_activation)
    stages = wo.three(solve, lambda c: wo.pre_activation(c, c), transition, widths, N)
    return [*stem(norm=False), *stages, *norm_relu_head(widths[-1])]


def bottlenecks(groups: int) -> list[nn.Module]:
    def residual(i: int, o: int, stride: int = 1) -> nn.Module:
        return wo.bottleneck(i, o, groups * o // 4, groups, stride)

    stages = wo.three(wo.residual, lambda c: residual(c, c), wo.projection(residual), WIDENED, N)
    return [*stem(norm=False), *stages, *norm_relu_head(WIDENED[-1])]


def lm(widths: tuple[int, ...], groups: int = 0) -> list[nn.Module]:
    def residual(i: int, o: int, stride: int = 1) -> nn.Module:
        return wo.bottleneck(i, o, groups * o // 4, groups, stride) if groups else wo.pre_activation(i, o, stride)

    stages = wo.three(wo.multistep, lambda c: wo.WithMemory(residual(c, c)), wo.lm_restart(residual), widths, N)
    return [*stem(norm=False), *stages, *norm_relu_head(widths[-1])]


def lm_without_memory() -> list[nn.Module]:
    """The ResNet with the transitions of the LM network."""

    def transition(i: int, o: int, stride: int) -> nn.Module:
        return wo.lm_restart(wo.pre_activation)(i, o, stride).get_submodule("total")

    stages = wo.three(wo.residual, lambda c: wo.pre_activation(c, c), transition, WIDTHS, N)
    return [*stem(norm=False), *stages, *norm_relu_head(4 * W)]


def hamiltonian() -> list[nn.Module]:
    opening = wo.Stage(wo.coupled, [wo.hamiltonian(W, first=True)])
    return [*stem(), opening, *wo.pooled(wo.coupled, wo.hamiltonian, 2, W, (N, N, N - 1)), *norm_relu_head(4 * W)]


def reversible(solve: wo.Solve, block: wo.Block, parts: int = 1) -> list[nn.Module]:
    return [*stem(), *wo.pooled(solve, block, parts, W, (N, N, N)), *norm_relu_head(4 * W)]


def midpoint_block(c: int) -> nn.Module:
    return nn.Sequential(nn.BatchNorm2d(c), wo.Antisymmetric(c), nn.BatchNorm2d(c), nn.ReLU())


def leapfrog_block(c: int) -> nn.Module:
    return nn.Sequential(nn.BatchNorm2d(c), wo.Symmetric(c, -1))


def coupling(c: int) -> nn.Module:
    return wo.Halves(wo.pre_activation(c // 2, c // 2), wo.pre_activation(c // 2, c // 2))


def scaled(solve: wo.Solve) -> list[nn.Module]:
    first = [nn.Conv2d(2, W, 5, 3, padding=1, bias=False), nn.BatchNorm2d(W), nn.ReLU()]
    return [*first, wo.Stage(solve, [wo.norm_last(W) for _ in range(N)]), *wo.head(W, pool=2)]


def fractal() -> list[nn.Module]:
    return [*stem(norm=False), *wo.three(wo.replaced, wo.Fractal, wo.plain, WIDTHS, N), *wo.head(4 * W)]


def neural_ode() -> list[nn.Module]:
    transition = wo.projection(wo.pre_activation)
    stages = wo.three(wo.euler_of_one_function, wo.group_norm, transition, WIDTHS, 1)
    return [*stem(norm=False), *stages, *norm_relu_head(4 * W)]


def imagenet(block: wo.Transition, widths: tuple[int, ...]) -> list[nn.Module]:
    first = [nn.Conv2d(2, W, 7, 2, padding=3, bias=False), nn.BatchNorm2d(W), nn.ReLU(), nn.MaxPool2d(3, 2, padding=1)]
    return [*first, *wo.four(block, (*widths, 2 * widths[-1]), N), *wo.head(2 * widths[-1])]


PLAIN = ModelConfig(width=W, nodes=N)
WIDE = replace(PLAIN, widen=4)
GROUPED = replace(WIDE, cardinality=2)
WRITTEN: dict[Network, tuple[ModelConfig, Callable[[], list[nn.Module]]]] = {
    Network.continuous: (PLAIN, continuous),
    Network.continuous_preact: (PLAIN, continuous_preact),
    Network.stateful: (PLAIN, stateful),
    Network.resnet: (PLAIN, continuous),
    Network.hamiltonian: (PLAIN, hamiltonian),
    Network.midpoint: (PLAIN, lambda: reversible(wo.midpoint, midpoint_block)),
    Network.leapfrog: (PLAIN, lambda: reversible(wo.leapfrog, leapfrog_block)),
    Network.revnet: (PLAIN, lambda: reversible(wo.coupled, coupling, parts=2)),
    Network.scaled_resnet: (PLAIN, lambda: scaled(wo.scaled)),
    Network.heunnet: (PLAIN, lambda: scaled(wo.heun)),
    Network.lm_resnet: (PLAIN, lambda: lm(WIDTHS)),
    Network.lm_bottleneck: (WIDE, lambda: lm(WIDENED, groups=1)),
    Network.lm_resnext: (GROUPED, lambda: lm(WIDENED, groups=2)),
    Network.polynet: (PLAIN, lambda: preact(wo.polynet)),
    Network.fractalnet: (PLAIN, fractal),
    Network.preact_resnet: (PLAIN, preact),
    Network.wide_resnet: (WIDE, lambda: preact(widths=WIDENED)),
    Network.bottleneck_resnet: (WIDE, lambda: bottlenecks(1)),
    Network.resnext: (GROUPED, lambda: bottlenecks(2)),
    Network.neural_ode: (replace(PLAIN, scheme=Scheme.euler, nodes=1, substeps=3), neural_ode),
    Network.resnet18: (PLAIN, lambda: imagenet(wo.basic, WIDTHS)),
    Network.resnet50: (WIDE, lambda: imagenet(wo.basic_bottleneck, WIDENED)),
    Network.resnet101: (WIDE, lambda: imagenet(wo.basic_bottleneck, WIDENED)),
}


def tiny(config: ModelConfig) -> DepthNet:
    """In float64, with batch-norm statistics, affine parameters and k_n that are nobody's default."""
    model = build_model(config, channels=2, classes=wo.CLASSES).double()
    draws = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.dim() < 3 and tensor.is_floating_point():
                noise = torch.rand(tensor.shape, generator=draws, dtype=torch.float64) / 2
                tensor.add_(noise if "var" in name else noise - 0.25)
    return model


def images(side: int = 16) -> Tensor:
    return torch.randn(6, 2, side, side, dtype=torch.float64, generator=torch.Generator().manual_seed(7))


def in_order(model: DepthNet, tensors: Callable[[nn.Module], list[Tensor]]) -> list[Tensor]:
    """Ours as the written-out network has them, block after block."""
    found = tensors(model.stem)
    for transition, stage in zip(model.transitions, model.depth_stages(), strict=True):
        found += tensors(transition) + [tensor[n] for n in range(stage.depth.nodes) for tensor in tensors(stage.rate)]
    return found + tensors(model.head)


def parameters(module: nn.Module) -> list[Tensor]:
    return list(module.parameters())


def gradients(module: nn.Module) -> list[Tensor]:
    return [parameter.grad for parameter in module.parameters() if parameter.grad is not None]


def statistics(module: nn.Module) -> list[Tensor]:
    return [buffer for name, buffer in module.named_buffers() if "running" in name]


def watched(module: nn.Module) -> list[tuple[Tensor, list[Tensor]]]:
    """For each batch norm its statistics now, and a list that collects those of the batches it will see."""
    found = []
    for norm in (part for part in module.modules() if isinstance(part, nn.BatchNorm2d)):
        before, seen = torch.stack(statistics(norm)), list[Tensor]()
        norm.register_forward_pre_hook(
            lambda _, x, seen=seen: seen.append(torch.stack([x[0].mean((0, 2, 3)), x[0].var((0, 2, 3))]).detach())
        )
        found.append((before, seen))
    return found


def assert_close(mine: list[Tensor], theirs: list[Tensor], tolerance: float) -> None:
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def everything(tensors: list[Tensor]) -> list[Tensor]:
    return tensors


def without_memory(tensors: list[Tensor]) -> list[Tensor]:
    """All but the k_n, the only scalars."""
    return [tensor for tensor in tensors if tensor.dim()]


def assert_equal_networks(
    model: DepthNet, theirs: nn.Module, kept: Callable[[list[Tensor]], list[Tensor]] = everything
) -> None:
    """In both modes, with gradients; all calls of a batch norm in one pass make one update of ours, by their mean."""
    sources = kept(in_order(model, parameters)) + in_order(model, statistics)
    with torch.no_grad():
        for target, source in zip([*theirs.parameters(), *statistics(theirs)], sources, strict=True):
            target.copy_(source)
    x_BCHW = images()
    assert_close([model.eval()(x_BCHW)], [theirs.eval()(x_BCHW)], 1e-11)
    seen = watched(theirs)
    logits_BK, expected_BK = model.train()(x_BCHW), theirs.train()(x_BCHW)
    assert_close([logits_BK], [expected_BK], 1e-9)
    moved = [one for before, each in seen for one in before.lerp(torch.stack(each).mean(0), 0.1).unbind()]
    assert_close(in_order(model, statistics), moved, 1e-9)
    for out in (logits_BK, expected_BK):
        F.cross_entropy(out, torch.arange(6) % wo.CLASSES).backward()
    assert_close(kept(in_order(model, gradients)), gradients(theirs), 1e-7)


@pytest.mark.parametrize("network", Network)
def test_every_network_equals_its_equations_written_out(network: Network) -> None:
    config, write = WRITTEN[network]
    model = tiny(replace(config, network=network))
    assert_equal_networks(model, nn.Sequential(*write()).double())


def test_the_head_of_a_scaled_network_pools_4x4_as_published_and_halves_other_maps() -> None:
    """The stem takes 32 pixels to 10, whose last two the authors' pool drops; and 8, 16, 28, 96 to 2, 5, 9, 32."""
    published, halves = nn.AvgPool2d(4), nn.AdaptiveAvgPool2d(2)
    pools = {32: published, 28: published, 29: published, 8: halves, 16: halves, 96: halves, 6: halves, 3: halves}
    for network, (side, pool) in product((Network.scaled_resnet, Network.heunnet), pools.items()):
        model = tiny(replace(PLAIN, network=network)).eval()
        state = model.stages[0](model.stem(images(side)))
        assert_close([model(images(side))], [model.head.linear(pool(state).flatten(1))], 1e-12)
    assert model.stem(images(32)).shape[2:] == (10, 10)


def test_the_average_pool_8x8_of_the_papers_is_the_global_one_of_32_pixels() -> None:
    for network in Network:
        row = NETWORKS[network]
        if row.pool.kernel is None and row.strides == (1, 2, 2):
            model = tiny(replace(WRITTEN[network][0], network=network)).eval()
            x_BCHW = model.stem(images(32))
            for transition, stage in zip(model.transitions, model.stages, strict=True):
                x_BCHW = stage(transition(x_BCHW))
            assert_close(
                [model(images(32))], [model.head.linear(F.avg_pool2d(model.head.norm(x_BCHW), 8).flatten(1))], 1e-12
            )


def test_without_memory_the_lm_network_is_the_resnet() -> None:
    model = tiny(replace(PLAIN, network=Network.lm_resnet))
    with torch.no_grad():
        for stage in model.depth_stages():
            assert stage.rate.memory is not None
            stage.rate.memory.zero_()
    assert_equal_networks(model, nn.Sequential(*lm_without_memory()).double(), without_memory)


def test_the_history_of_an_lm_stage_restarts_with_the_downsampled_state() -> None:
    """Begun with the state twice instead, the first step of each stage would not feel its k."""
    model = tiny(replace(PLAIN, network=Network.lm_resnet)).eval()
    x_BCHW = images()
    for transition, stage in zip(model.transitions, model.depth_stages(), strict=True):
        x_BCHW = model.stem(x_BCHW) if transition is model.transitions[0] else x_BCHW
        total, skip = transition(x_BCHW)
        assert skip.shape == total.shape
        (first, alone) = stage((total, skip)), stage(total)
        assert float((first - alone).detach().abs().max()) > 1e-3
        x_BCHW = first


def test_a_strided_projection_of_few_channels_is_that_of_torch() -> None:
    for inputs, side in product((3, 7, 8), (8, 9)):
        ours = convolution((inputs, 6), size=1, stride=2).double()
        theirs = nn.Conv2d(inputs, 6, 1, stride=2, bias=False).double()
        theirs.load_state_dict(ours.state_dict())
        x_BCHW = torch.randn(2, inputs, side, side, dtype=torch.float64, requires_grad=True)
        for out in (ours(x_BCHW), theirs(x_BCHW)):
            out.square().sum().backward()
        assert_close([ours(x_BCHW), *gradients(ours)], [theirs(x_BCHW), *gradients(theirs)], 1e-12)


def test_a_stage_of_euler_steps_is_a_chain_of_basic_blocks_of_torchvision() -> None:
    """Theirs end in a ReLU, which a large bias of the last batch norm makes the identity."""
    with global_seed(0, "init"):
        rate = Rate(NORM_LAST, N, Widths(W, W)).double()
    stage = DepthStage(rate, Depth(Basis.piecewise_constant, N, Course(Scheme.euler, N, float(N)), N))
    theirs = nn.Sequential(*(BasicBlock(W, W) for _ in range(N))).double()
    with torch.no_grad():
        rate.get_parameter("layers.4.bias").fill_(20)
        named = [("layers.0.kernel", "conv1.weight"), ("layers.3.kernel", "conv2.weight")]
        named += [(f"layers.{i}.{kind}", f"bn{n}.{kind}") for i, n in ((1, 1), (4, 2)) for kind in ("weight", "bias")]
        for (mine, their), n in product(named, range(N)):
            theirs[n].get_parameter(their).copy_(rate.get_parameter(mine)[n])
    x_BCHW = torch.randn(6, W, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
    out, expected = stage(x_BCHW), theirs(x_BCHW)
    assert float(expected.detach().min()) > 0
    assert_close([out], [expected], 1e-12)
    for y in (out, expected):
        y.square().mean().backward()
    for (mine, their), n in product(named, range(N)):
        gradient = rate.get_parameter(mine).grad
        assert gradient is not None
        torch.testing.assert_close(gradient[n], theirs[n].get_parameter(their).grad, rtol=1e-9, atol=1e-12)
    buffers = {"layers.1": "bn1", "layers.4": "bn2"}
    for (mine, their), kind, n in product(buffers.items(), ("running_mean", "running_var"), range(N)):
        ours = rate.get_buffer(f"{mine}.{kind}")[n]
        assert_close([ours], [theirs[n].get_buffer(f"{their}.{kind}")], 1e-12)
