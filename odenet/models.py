"""Networks, built from their row of the table.

Shapes: `B` batch, `C` channels, `H W` space, `K` classes.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain

from torch import Tensor, nn

from odenet.bases import BASES
from odenet.blocks import Change, Depth, DepthStage, Head, Perturbation, PoolPad, Transition, convolution
from odenet.layers import Widths
from odenet.networks import NETWORKS, Stem, Wiring
from odenet.rates import Rate, RateOrder
from odenet.seeding import global_seed
from odenet.stepping import TOLERANCE, Course, whole_steps
from odenet.terms import Basis, Gradient, Initialisation, Network, Scheme, Start, member

MOST_STEPS = 4096  # per stage; also the bound of what a width, a number of nodes or of substeps can be


@dataclass(kw_only=True, slots=True)
class ModelConfig:
    """A network. Null stands for what was published with it. Stages have widths `width` * `widen` * (1, 2, 4)."""

    network: Network = Network.continuous
    width: int = 16  # of the stem
    widen: int = 1  # stages over stem; 4 with the bottlenecks of ResNet-164 and ResNeXt-29
    final_width: int | None = None  # of the last stage
    cardinality: int = 1  # groups of a bottleneck, each `width` wide in the first stage
    nodes: int = 2  # depth coefficients per stage at the start of training
    basis: Basis | None = None
    scheme: Scheme | None = None
    substeps: int = 1  # integrator steps per cell
    depth_time: float | None = None  # T of dx/dt = T R; null: mostly the nodes, so that a step of Euler is a ResNet's
    gradient: Gradient = Gradient.direct
    start: Start = Start.consistent  # of two-step schemes
    initialisation: Initialisation = Initialisation.independent
    skip_init: bool = False  # a learned factor of each residual function that starts at 0
    tolerance: float = TOLERANCE  # of adaptive schemes

    def __post_init__(self) -> None:
        for name in ("width", "widen", "cardinality", "nodes", "substeps"):
            if not 1 <= getattr(self, name) <= MOST_STEPS:
                raise ValueError(f"model.{name}={getattr(self, name)}: must be from 1 to {MOST_STEPS}.")
        if self.final_width is not None and not 1 <= self.final_width <= 4 * MOST_STEPS:
            raise ValueError(f"model.final_width={self.final_width}: must be from 1 to {4 * MOST_STEPS}, or null.")
        if self.depth_time is not None and not 0 < self.depth_time < float("inf"):
            raise ValueError(
                f"model.depth_time={self.depth_time}: must be positive and finite, or null for what was published."
            )
        if not 0 < self.tolerance < 1:
            raise ValueError(f"model.tolerance={self.tolerance}: must be above 0 and below 1.")


def stage_depths(config: ModelConfig) -> list[Depth]:
    """The depth of each stage that integrates, in order, at the start of training.

    Raises:
        ValueError: a stage has no node, a number of nodes its basis cannot have, or too many steps.
    """
    wiring = NETWORKS[config.network]
    extra = [0] * (len(wiring.strides) - 1) + [wiring.last_extra]
    opening = [1] if wiring.opening else []
    return [_depth(config, wiring, nodes) for nodes in (*opening, *(config.nodes + more for more in extra))]


def _depth(config: ModelConfig, wiring: Wiring, nodes: int) -> Depth:
    basis = config.basis or wiring.basis
    if nodes < 1:
        raise ValueError(
            f"model.network={config.network.value} with model.nodes={config.nodes}: its last stage has "
            f"{-wiring.last_extra} fewer, so at least {1 - wiring.last_extra} are needed."
        )
    BASES[basis].check(nodes)
    steps = BASES[basis].cells(nodes) * config.substeps
    if steps > MOST_STEPS:
        raise ValueError(
            f"model.nodes={config.nodes} with model.substeps={config.substeps} takes {steps} steps per stage: "
            f"at most {MOST_STEPS} are possible."
        )
    # The same depth time to a node in every stage.
    depth_time = wiring.depth_time(nodes) if config.depth_time is None else config.depth_time * nodes / config.nodes
    course = Course(config.scheme or wiring.scheme, steps, depth_time, config.start, config.gradient, config.tolerance)
    return Depth(basis, nodes, course, initial_nodes=nodes)


class DepthNet(nn.Module):
    """Images (B, C, H, W) to logits (B, K). `config` is what it was built from; each stage has its present depth."""

    def __init__(
        self, config: ModelConfig, *, channels: int, classes: int, depths: Sequence[Depth] | None = None
    ) -> None:
        super().__init__()
        wiring, changes = NETWORKS[config.network], _changes(config)
        rates, transitions = [wiring.rate] * len(changes), [wiring.transition] * len(changes)
        first = [transitions[0]] if wiring.first_transition else [None]
        if wiring.opening is not None:  # before the first stage, at its width
            changes, rates, first = [changes[0], *changes], [wiring.opening, *rates], [None, None]
        depths = stage_depths(config) if depths is None else depths
        self.stem = _stem(wiring.stem, channels, changes[0].inputs)
        self.transitions, self.stages = nn.ModuleList(), nn.ModuleList()
        for order, change in zip([*first, *transitions[1:]], changes, strict=True):
            self.transitions.append(nn.Identity() if order is None else Transition(order, change))
        for index, (order, change, depth) in enumerate(zip(rates, changes, depths, strict=True)):
            rate = _rate(order, depth.nodes, change.widths, config)
            self.stages.append(DepthStage(rate, depth, (index, len(depths))))
        self.head = Head(changes[-1].outputs, classes, layers=wiring.head, pool=wiring.pool)
        self.config = config

    def forward(self, x_BCHW: Tensor, perturbation: Perturbation | None = None) -> Tensor:
        x = self.stem(x_BCHW)
        for transition, stage in zip(self.transitions, self.stages, strict=True):
            x = stage(transition(x), perturbation)
        return self.head(x)

    def depth_stages(self) -> list[DepthStage]:
        """The stages that integrate over depth, in order."""
        return [stage for stage in self.stages if isinstance(stage, DepthStage)]

    def depths(self) -> list[Depth]:
        """The present depth of each."""
        return [stage.depth for stage in self.depth_stages()]

    @property
    def rate_evaluations(self) -> int:
        """Rate evaluations of one forward pass, all stages together."""
        return sum(stage.evaluations for stage in self.depth_stages())

    @property
    def parameter_count(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())


def _changes(config: ModelConfig) -> list[Change]:
    wiring, changes = NETWORKS[config.network], list[Change]()
    inputs = config.width * (1 if wiring.first_transition else config.widen)
    for index, stride in enumerate(wiring.strides):
        outputs = config.width * config.widen * 2**index
        if index == len(wiring.strides) - 1 and config.final_width is not None:
            outputs = config.final_width
        inner = config.width * config.cardinality * 2**index
        changes.append(Change(inputs, Widths(outputs, inner, config.cardinality), stride))
        inputs = outputs
    return changes


def check_widths(config: ModelConfig) -> None:
    """Raises ValueError where the rate or the transitions of a network cannot have such widths."""
    wiring = NETWORKS[config.network]
    try:
        for index, change in enumerate(_changes(config)):
            if wiring.rate.second:
                change.widths.halved()
            if index and wiring.transition.pool_pad_halves:
                PoolPad.side(change, wiring.transition.pool_pad_halves)
    except ValueError as error:
        widths = f"model.width={config.width}, widen={config.widen}, final_width={config.final_width}"
        raise ValueError(f"model.network={config.network.value} with {widths}: {error}") from error


def _stem(stem: Stem, channels: int, width: int) -> nn.Module:
    if stem.stride > 1:  # padding 1, as published
        conv = convolution((channels, width), size=stem.size, stride=stem.stride)
        conv.padding = (1, 1)
    else:
        conv = convolution((channels, width), size=stem.size)
    return nn.Sequential(conv, nn.BatchNorm2d(width), nn.ReLU(inplace=True)) if stem.norm else conv


def _rate(order: RateOrder, nodes: int, widths: Widths, config: ModelConfig) -> Rate:
    rate = Rate(order, nodes, widths, skip_init=config.skip_init)
    rate.initialise(config.initialisation)
    return rate


def build_model(
    config: ModelConfig, *, channels: int, classes: int, seed: int = 0, depths: Sequence[Depth] | None = None
) -> DepthNet:
    """A network with weights drawn from `seed`, on the CPU, its kernels channels_last.

    Args:
        channels: of the images.
        classes: length of the logits.
        depths: of its stages where they are no longer those of the config: room for the weights of a refined network.
    """
    with global_seed(seed, "init"):
        return DepthNet(config, channels=channels, classes=classes, depths=depths)


def manifest(model: DepthNet, *, scheme: Scheme | str, steps: int) -> DepthNet:
    """The same weights (shared, not copied) under another scheme (or its name) and number of steps per stage.

    Raises:
        ValueError: `steps` is no whole number or less than 1, or the network's rate makes no sense under the scheme.
    """
    scheme, steps = member(Scheme, scheme, "scheme"), whole_steps(steps)
    if steps < 1:
        raise ValueError(f"steps={steps}: a manifestation needs at least 1 step.")
    can = NETWORKS[model.config.network].capability
    if scheme not in can.manifestations:
        possible = ", ".join(choice.value for choice in can.manifestations)
        raise ValueError(
            f"scheme={scheme.value} with model.network={model.config.network.value}: {can.because}; {possible} can be."
        )
    tensors = {id(tensor): tensor for tensor in chain(model.parameters(), model.buffers())}
    other = copy.deepcopy(model, memo=tensors)
    for stage in other.depth_stages():
        stage.depth = replace(stage.depth, course=replace(stage.depth.course, scheme=scheme, steps=steps))
    return other
