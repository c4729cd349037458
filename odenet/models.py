"""Networks as rows: (rate, wiring, what may vary). Adding a network adds a row.

Shapes: `B` batch, `C` channels, `H W` space, `K` classes.
"""

import copy
from dataclasses import dataclass, replace
from itertools import chain

from torch import Tensor, nn

from odenet.bases import BASES
from odenet.blocks import Depth, DepthStage, Head, ProjectionBlock, Stitch, convolution
from odenet.rates import POST_ACTIVATION, PRE_ACTIVATION, LayerOrder
from odenet.seeding import global_seed
from odenet.terms import Basis, Network, Scheme

STRIDES = (1, 2, 2)
MOST_STEPS = 4096  # per stage; also the bound of what a width, a number of nodes or of substeps can be


@dataclass(kw_only=True, slots=True)
class ModelConfig:
    """A network. Stages have widths `width`, 2 `width`, 4 `width`; training takes cells * `substeps` steps in each."""

    network: Network = Network.continuous
    width: int = 16
    nodes: int = 2  # depth coefficients per stage at the start of training
    basis: Basis = Basis.piecewise_constant
    scheme: Scheme = Scheme.euler
    substeps: int = 1  # integrator steps per cell
    depth_time: float | None = None  # T of dx/dt = T R; None: the initial number of nodes, so that Euler is the ResNet

    def __post_init__(self) -> None:
        for name in ("width", "nodes", "substeps"):
            if not 1 <= getattr(self, name) <= MOST_STEPS:
                raise ValueError(f"model.{name}={getattr(self, name)}: must be from 1 to {MOST_STEPS}.")
        if self.steps > MOST_STEPS:
            raise ValueError(
                f"model.nodes={self.nodes} with model.substeps={self.substeps} takes {self.steps} steps per stage: "
                f"at most {MOST_STEPS} are possible."
            )
        if self.depth_time is not None and not 0 < self.depth_time < float("inf"):
            raise ValueError(
                f"model.depth_time={self.depth_time}: must be positive and finite, or null for {self.nodes}."
            )

    @property
    def steps(self) -> int:
        """Integrator steps per stage in training."""
        return BASES[self.basis].cells(self.nodes) * self.substeps


@dataclass(frozen=True, slots=True)
class Capability:
    """What a network can be asked for."""

    schemes: tuple[Scheme, ...] = tuple(Scheme)
    bases: tuple[Basis, ...] = tuple(Basis)
    refines: bool = True
    substeps: bool = True  # more than one integrator step per cell
    depth_time: bool = True  # a T other than the number of nodes


_DISCRETE = Capability((Scheme.euler,), (Basis.piecewise_constant,), refines=False, substeps=False, depth_time=False)


@dataclass(frozen=True, slots=True)
class Wiring:
    """One row of the table of networks.

    A stem (convolution[, BN, ReLU]), three stages of a transition and an integration over depth, and a head.
    """

    rate: LayerOrder
    transition: type[Stitch] | type[ProjectionBlock]
    first_transition: bool  # also before the first stage, where neither width nor resolution change
    stem_norm: bool
    head_norm: bool
    extra_nodes: tuple[int, int, int]
    capability: Capability
    source: str


_STITCHED = Wiring(
    rate=POST_ACTIVATION,
    transition=Stitch,
    first_transition=True,
    stem_norm=True,
    head_norm=False,
    extra_nodes=(0, 0, 0),
    capability=Capability(),
    source="Queiruga et al. 2020, arXiv 2008.02389",
)

NETWORKS: dict[Network, Wiring] = {
    Network.continuous: _STITCHED,
    # The twin: same stem, transitions, head and parameter count; its blocks x + R(x) are the Euler steps at T = nodes.
    Network.resnet: replace(_STITCHED, capability=_DISCRETE, source="the ResNet of arXiv 2008.02389"),
    # ResNet-20 is nodes=2, ResNet-56 nodes=8: a transition is the first block of stages 2 and 3.
    Network.preact_resnet: Wiring(
        rate=PRE_ACTIVATION,
        transition=ProjectionBlock,
        first_transition=False,
        stem_norm=False,
        head_norm=True,
        extra_nodes=(1, 0, 0),
        capability=_DISCRETE,
        source="He et al. 2016, arXiv 1603.05027",
    ),
}


class DepthNet(nn.Module):
    """Images (B, C, H, W) to logits (B, K). `config` is the present one: refinement replaces it."""

    def __init__(self, config: ModelConfig, *, channels: int, classes: int) -> None:
        super().__init__()
        wiring, width = NETWORKS[config.network], config.width
        stem = convolution(channels, width)
        self.stem = nn.Sequential(stem, nn.BatchNorm2d(width), nn.ReLU()) if wiring.stem_norm else stem
        self.transitions = nn.ModuleList()
        self.stages = nn.ModuleList()
        inputs = width
        for index, stride in enumerate(STRIDES):
            outputs = width * 2**index
            changes = index > 0 or wiring.first_transition
            self.transitions.append(wiring.transition(inputs, outputs, stride) if changes else nn.Identity())
            self.stages.append(DepthStage(wiring.rate, outputs, stage_depth(config, wiring.extra_nodes[index])))
            inputs = outputs
        self.head = Head(inputs, classes, norm=wiring.head_norm)
        self.config = config

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x = self.stem(x_BCHW)
        for transition, stage in zip(self.transitions, self.stages, strict=True):
            x = stage(transition(x))
        return self.head(x)

    def depth_stages(self) -> list[DepthStage]:
        """The stages that integrate over depth, in order."""
        return [stage for stage in self.stages if isinstance(stage, DepthStage)]

    @property
    def rate_evaluations(self) -> int:
        """Rate evaluations of one forward pass, all stages together."""
        return sum(stage.depth.evaluations for stage in self.depth_stages())

    @property
    def parameter_count(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())


def stage_depth(config: ModelConfig, extra_nodes: int) -> Depth:
    """The depth of a stage with `extra_nodes` more than `config.nodes`."""
    config = replace(config, nodes=config.nodes + extra_nodes)
    depth_time = float(config.nodes) if config.depth_time is None else config.depth_time
    return Depth(config.basis, config.nodes, config.scheme, config.steps, depth_time)


def build_model(config: ModelConfig, *, channels: int, classes: int, seed: int = 0) -> DepthNet:
    """A network with weights drawn from `seed`, on the CPU, its kernels channels_last.

    Args:
        channels: of the images.
        classes: length of the logits.
    """
    with global_seed(seed, "init"):
        return DepthNet(config, channels=channels, classes=classes)


def manifest(model: DepthNet, *, scheme: Scheme, steps: int) -> DepthNet:
    """The same weights (shared, not copied) under another scheme and number of steps per stage.

    Raises:
        ValueError: `steps` is less than 1.
    """
    if steps < 1:
        raise ValueError(f"steps={steps}: a manifestation needs at least 1 step.")
    tensors = {id(tensor): tensor for tensor in chain(model.parameters(), model.buffers())}
    other = copy.deepcopy(model, memo=tensors)
    for stage in other.depth_stages():
        stage.depth = replace(stage.depth, scheme=scheme, steps=steps)
    return other
