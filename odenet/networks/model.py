"""Networks, built from their row of the table.

Shapes: `B` batch, `C` channels, `H W` space, `K` classes.
"""

import copy
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain

from torch import Tensor, nn

from odenet.depth.discretisation import Depth
from odenet.enums import Scheme, member
from odenet.integrators.scheme import whole_steps
from odenet.networks.batch_norm import BatchNorm
from odenet.networks.blocks import DepthStage, Transition
from odenet.networks.convolutions import convolution
from odenet.networks.heads import Head
from odenet.networks.model_config import ModelConfig, check_model, stage_changes, stage_depths, stem_order
from odenet.networks.orders import StemOrder
from odenet.networks.perturbation import Perturbation
from odenet.networks.rates import Rate
from odenet.networks.table import NETWORKS
from odenet.seeding import global_seed


class DepthNet(nn.Module):
    """Images (B, C, H, W) to logits (B, K). `config` is what it was built from; each stage has its present depth."""

    def __init__(
        self, config: ModelConfig, *, channels: int, classes: int, depths: Sequence[Depth] | None = None
    ) -> None:
        """Build the network; raise ValueError where it cannot be so: see `check_model`."""
        super().__init__()
        check_model(config)
        wiring, changes = NETWORKS[config.network], stage_changes(config)
        rates, transitions = [wiring.rate] * len(changes), [wiring.transition] * len(changes)
        first = [transitions[0]] if wiring.first_transition else [None]
        if wiring.opening is not None:  # before the first stage, at its width
            changes, rates, first = [changes[0], *changes], [wiring.opening, *rates], [None, None]
        depths = stage_depths(config) if depths is None else depths
        self.stem = _stem(stem_order(config), channels, changes[0].inputs)
        self.transitions, self.stages = nn.ModuleList(), nn.ModuleList()
        for order, change in zip([*first, *transitions[1:]], changes, strict=True):
            self.transitions.append(nn.Identity() if order is None else Transition(order, change))
        for index, (order, change, depth) in enumerate(zip(rates, changes, depths, strict=True)):
            rate = Rate(order, depth.nodes, change.widths, skip_init=config.skip_init)
            rate.initialise(config.initialisation)
            self.stages.append(DepthStage(rate, depth, (index, len(depths))))
        self.head = Head(changes[-1].outputs, classes, layers=wiring.head, pool=wiring.pool)
        self.config = config

    def forward(self, x_BCHW: Tensor, perturbation: Perturbation | None = None) -> Tensor:
        x = self.stem(x_BCHW)
        for transition, stage in zip(self.transitions, self.stages, strict=True):
            x = stage(transition(x), perturbation)
        return self.head(x)

    def parts(self) -> list[nn.ModuleList]:
        """Return the parts from the images on: the stem, each stage with its transition, the head."""
        stages = [nn.ModuleList(part) for part in zip(self.transitions, self.stages, strict=True)]
        return [nn.ModuleList([self.stem]), *stages, nn.ModuleList([self.head])]

    def depth_stages(self) -> list[DepthStage]:
        """Return the stages that integrate over depth, in order."""
        return [stage for stage in self.stages if isinstance(stage, DepthStage)]

    def depths(self) -> list[Depth]:
        """Return the present depth of each."""
        return [stage.depth for stage in self.depth_stages()]

    @property
    def rate_evaluations(self) -> int:
        """Return the rate evaluations of one forward pass, all stages together."""
        return sum(stage.evaluations for stage in self.depth_stages())

    @property
    def parameter_count(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())


def _stem(stem: StemOrder, channels: int, width: int) -> nn.Module:
    conv = convolution((channels, width), size=stem.size, stride=stem.stride)
    conv.padding = (stem.padding, stem.padding)
    norm = [BatchNorm(width), nn.ReLU(inplace=True)] if stem.norm else []
    pool = [nn.MaxPool2d(3, stride=2, padding=1)] if stem.pool else []
    return nn.Sequential(conv, *norm, *pool) if norm or pool else conv


def build_model(
    config: ModelConfig, *, channels: int, classes: int, seed: int = 0, depths: Sequence[Depth] | None = None
) -> DepthNet:
    """Build a network with weights drawn from `seed`, on the CPU, its kernels channels_last.

    Args:
        channels: of the images.
        classes: length of the logits.
        depths: of its stages where they are no longer those of the config: room for the weights of a refined network.

    Raises:
        ValueError: the network cannot be so: see `check_model`.

    >>> import torch
    >>> model = build_model(ModelConfig(width=8, nodes=4), channels=3, classes=10)
    >>> model(torch.zeros(5, 3, 32, 32)).shape
    torch.Size([5, 10])
    """
    with global_seed(seed, "init"):
        return DepthNet(config, channels=channels, classes=classes, depths=depths)


def manifest(model: DepthNet, *, scheme: Scheme | str, steps: int | Sequence[int]) -> DepthNet:
    """Return the same weights (shared, not copied) under another scheme (or its name) and number of steps per stage.

    Args:
        steps: the same for every stage, or one number for each.

    Raises:
        ValueError: `steps` is no whole number, less than 1 or not of the stages, or the network's rate makes no sense
            under the scheme.

    >>> model = build_model(ModelConfig(), channels=3, classes=10)
    >>> deeper = manifest(model, scheme="rk4", steps=8)
    >>> model.rate_evaluations, deeper.rate_evaluations  # in three stages
    (6, 96)
    """
    scheme, stages = member(Scheme, scheme, "scheme"), len(model.depths())
    each = [whole_steps(one) for one in steps] if isinstance(steps, Sequence) else [whole_steps(steps)] * stages
    if len(each) != stages:
        raise ValueError(f"steps={steps}: there are {stages} stages; give one number for all, or one for each.")
    if min(each) < 1:
        raise ValueError(f"steps={steps}: a manifestation needs at least 1 step.")
    can = NETWORKS[model.config.network].capability
    if scheme not in can.manifestations:
        possible = ", ".join(choice.value for choice in can.manifestations)
        raise ValueError(
            f"scheme={scheme.value} with model.network={model.config.network.value}: {can.because}; {possible} can be."
        )
    tensors = {id(tensor): tensor for tensor in chain(model.parameters(), model.buffers())}
    other = copy.deepcopy(model, memo=tensors)
    for stage, count in zip(other.depth_stages(), each, strict=True):
        stage.depth = replace(stage.depth, course=replace(stage.depth.course, scheme=scheme, steps=count))
    return other
