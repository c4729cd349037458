"""Networks for images of any size: nodes of each stage, stems, and torchvision's ResNets with their weights."""

import pytest
import torch
import torchvision  # type: ignore[import-untyped]
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from odenet import ExperimentConfig, ModelConfig, Network, build_model, refine
from odenet.enums import Gradient, Scheme, Stem
from odenet.networks.model import DepthNet
from odenet.networks.model_config import stage_depths, stage_nodes
from odenet.networks.table import NETWORKS
from odenet.pretrained.torchvision_names import from_torchvision, is_torchvision
from odenet.seeding import global_seed
from odenet.training.config import from_plain, identity, to_plain
from odenet.training.cost import forward_gflops

PUBLISHED = {"resnet18": (1, 11_689_512), "resnet50": (4, 25_557_032), "resnet101": (4, 44_549_160)}


def theirs_and_ours(name: str, widen: int) -> tuple[nn.Module, DepthNet]:
    """With batch norms that are nobody's default."""
    with global_seed(0, "init"):
        theirs = getattr(torchvision.models, name)().double()
        with torch.no_grad():
            for norm in theirs.modules():
                if isinstance(norm, nn.BatchNorm2d):
                    for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
                        tensor.add_(torch.rand_like(tensor) / 2)
    ours = build_model(ModelConfig(network=Network[name], width=64, widen=widen), channels=3, classes=1000).double()
    ours.load_state_dict(from_torchvision(theirs.state_dict()))
    return theirs, ours


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_resnets_equal_torchvisions_with_its_weights_also_in_training(name: str) -> None:
    theirs, ours = theirs_and_ours(name, PUBLISHED[name][0])
    x_BCHW = torch.randn(2, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(ours.eval()(x_BCHW), theirs.eval()(x_BCHW), rtol=1e-10, atol=1e-10)
    for net in (theirs, ours):
        net.train()(x_BCHW).square().mean().backward()
    mine = dict(ours.named_parameters())
    for key, expected in from_torchvision({k: p.grad for k, p in theirs.named_parameters()}).items():
        torch.testing.assert_close(mine[key].grad, expected, rtol=1e-8, atol=1e-8 * float(expected.abs().max()))
    for key, expected in from_torchvision(theirs.state_dict()).items():  # running statistics moved alike
        torch.testing.assert_close(ours.state_dict()[key], expected, rtol=1e-9, atol=1e-9)


def test_parameters_and_operations_are_torchvisions() -> None:
    for name, (widen, parameters) in PUBLISHED.items():
        ours = build_model(ModelConfig(network=Network[name], width=64, widen=widen), channels=3, classes=1000)
        assert ours.parameter_count == parameters
    with torch.device("meta"):
        theirs = torchvision.models.resnet101()
        counter = FlopCounterMode(display=False)
        with counter:
            theirs(torch.empty(1, 3, 224, 224))
    assert round(forward_gflops(ours, (3, 224, 224)) * 1e9) == counter.get_total_flops()


def test_names_of_torchvision_are_recognised_and_those_of_others_left_alone() -> None:
    assert is_torchvision(torchvision.models.resnet18().state_dict())
    ours = build_model(ModelConfig(nodes=1, width=4), channels=3, classes=2).state_dict()
    assert not is_torchvision(ours)
    assert list(from_torchvision(ours)) == list(ours)


def test_nodes_are_one_number_or_one_for_each_stage() -> None:
    assert (
        stage_nodes(ModelConfig())
        == [2, 2, 2]
        == stage_nodes(ModelConfig(nodes="2"))
        == stage_nodes(ModelConfig(nodes=2))
    )
    assert stage_nodes(ModelConfig(network=Network.resnet50)) == [2, 3, 5, 2]
    assert stage_nodes(ModelConfig(network=Network.hamiltonian, nodes=4)) == [4, 4, 3]
    assert stage_nodes(ModelConfig(network=Network.hamiltonian, nodes="4-4-4")) == [4, 4, 4]
    depths = stage_depths(ModelConfig(nodes="3-4-6-3"))
    assert [(depth.nodes, depth.course.steps, depth.course.depth_time) for depth in depths] == [
        (3, 3, 3.0), (4, 4, 4.0), (6, 6, 6.0), (3, 3, 3.0)
    ]  # fmt: skip
    for wrong in ("3-4-", "0-1", "a", "3--4", "1-1-1-1-1-1-1-1-1", "99999", "3-5000"):
        with pytest.raises(ValueError, match=f"model.nodes={wrong}: "):
            ModelConfig(nodes=wrong)


def test_stages_of_any_number_halve_the_sides_and_refine() -> None:
    model = build_model(ModelConfig(width=4, nodes="1-2-1-1-2", stem=Stem.imagenet), channels=3, classes=7)
    assert model(torch.zeros(2, 3, 64, 64)).shape == (2, 7)
    sides = [model.stem(torch.zeros(1, 3, 64, 64)).shape[2]]
    x = model.stem(torch.zeros(1, 3, 64, 64))
    for transition, stage in zip(model.transitions, model.stages, strict=True):
        x = stage(transition(x))
        sides.append(x.shape[2])
    assert sides == [16, 16, 8, 4, 2, 1]
    refine(model)
    assert [depth.nodes for depth in model.depths()] == [2, 4, 2, 2, 4]


@pytest.mark.parametrize(
    "network", ["continuous", "scaled_resnet", "hamiltonian", "bottleneck_resnet", "lm_bottleneck"]
)
def test_other_networks_take_that_shape_with_every_gradient_they_can_have(network: str) -> None:
    x_BCHW = torch.randn(2, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for gradient in Gradient:
        if gradient is Gradient.reconstructed and network.startswith("lm"):
            continue
        config = ModelConfig(network=Network[network], width=4, widen=4, nodes="1-2-2-1", stem=Stem.imagenet)
        config.gradient = gradient
        model = build_model(config, channels=3, classes=5).double()
        assert len(model.depths()) == 4 + (NETWORKS[config.network].opening is not None)
        model(x_BCHW).square().mean().backward()
        assert all(parameter.grad is not None for parameter in model.parameters())


def test_what_a_block_that_ends_with_a_relu_cannot_have_is_refused() -> None:
    because = "is possible, its blocks end with a ReLU, which nothing undoes"
    with pytest.raises(ValueError, match=f"gradient=reconstructed: only direct, checkpointed {because}"):
        ExperimentConfig(model=ModelConfig(network=Network.resnet18, gradient=Gradient.reconstructed))
    with pytest.raises(ValueError, match=f"scheme=rk4: only euler {because}"):
        ExperimentConfig(model=ModelConfig(network=Network.resnet18, scheme=Scheme.rk4))
    for gradient in (Gradient.direct, Gradient.checkpointed):
        ExperimentConfig(model=ModelConfig(network=Network.resnet50, gradient=gradient))


def test_a_config_of_before_is_read_and_has_its_old_identity() -> None:
    old = to_plain(ExperimentConfig())
    del old["model"]["stem"]
    old["model"]["nodes"] = 2
    read = from_plain(ExperimentConfig, old)
    assert read.model.nodes == 2
    assert identity(read) == identity(ExperimentConfig())
    assert identity(ExperimentConfig(model=ModelConfig(nodes="2-2-2"))) != identity(read)
