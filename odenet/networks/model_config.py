"""A network as a value: what may be asked of it, the depth of its stages and their widths."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

from odenet.depth.bases import BASES
from odenet.depth.discretisation import Depth, unread_nodes
from odenet.enums import Basis, Gradient, Initialisation, Network, Scheme, Start, Stem
from odenet.integrators.scheme import TOLERANCE, Course
from odenet.integrators.schemes import ADAPTIVE, SCHEMES, TWO_STEP, refusal
from odenet.networks.orders import STEMS, StemOrder
from odenet.networks.table import NETWORKS, RUNGE_KUTTA, Wiring
from odenet.networks.widths import Change, Widths, zero_channels

MOST_STEPS = 4096  # per stage; also the bound of what a width, a number of nodes or of substeps can be


@dataclass(kw_only=True, slots=True)
class ModelConfig:
    """A network. Null stands for what was published with it. Stages have widths `width` * `widen` * (1, 2, 4, ...)."""

    network: Network = Network.continuous
    width: int = 16  # of the stem
    widen: int = 1  # stages over stem; 4 with the bottlenecks of ResNet-164 and ResNeXt-29
    final_width: int | None = None  # of the last stage
    cardinality: int = 1  # groups of a bottleneck, each `width` wide in the first stage
    nodes: int | str | None = None  # depth coefficients per stage at first: 2, or of each stage: 3-4-6-3; null: 2
    stem: Stem | None = None  # null: the network's own
    basis: Basis | None = None  # of weights over depth; null: the network's own
    scheme: Scheme | None = None  # of integration; null: the network's own
    substeps: int = 1  # integrator steps per cell
    depth_time: float | None = None  # T of dx/dt = T R; null: mostly the nodes, so that a step of Euler is a ResNet's
    gradient: Gradient = Gradient.direct  # stored activations, recomputed ones, or reconstructed from the last state
    start: Start = Start.consistent  # of two-step schemes
    initialisation: Initialisation = Initialisation.independent  # of the nodes of a weight
    skip_init: bool = False  # a learned factor of each residual function that starts at 0
    tolerance: float = TOLERANCE  # of adaptive schemes
    initial: str | None = field(default=None, compare=False)  # a file of weights to begin with; where, not what
    initial_sha256: str | None = None  # of that file; null: as it is when the sweep begins

    def __post_init__(self) -> None:
        for name in ("width", "widen", "cardinality", "substeps"):
            if not 1 <= getattr(self, name) <= MOST_STEPS:
                raise ValueError(f"model.{name}={getattr(self, name)}: must be from 1 to {MOST_STEPS}.")
        _check_nodes(self.nodes)
        if self.initial_sha256 is not None and not re.fullmatch("[0-9a-f]{64}", self.initial_sha256):
            raise ValueError(f"model.initial_sha256={self.initial_sha256}: must be 64 hex digits, or null.")
        if self.final_width is not None and not 1 <= self.final_width <= 4 * MOST_STEPS:
            raise ValueError(f"model.final_width={self.final_width}: must be from 1 to {4 * MOST_STEPS}, or null.")
        if self.depth_time is not None and not 0 < self.depth_time < float("inf"):
            raise ValueError(
                f"model.depth_time={self.depth_time}: must be positive and finite, or null for what was published."
            )
        if not 0 < self.tolerance < 1:
            raise ValueError(f"model.tolerance={self.tolerance}: must be above 0 and below 1.")


def _check_nodes(nodes: int | str | None) -> None:
    if isinstance(nodes, str):
        if not re.fullmatch(r"\d{1,5}(-\d{1,5}){0,7}", nodes):
            raise ValueError(
                f"model.nodes={nodes}: write a number for all stages, such as 2, or one for each of up to 8 stages, "
                "such as 3-4-6-3."
            )
        if not all(1 <= each <= MOST_STEPS for each in _numbers(nodes)):
            raise ValueError(f"model.nodes={nodes}: each must be from 1 to {MOST_STEPS}.")
    elif nodes is not None and not 1 <= nodes <= MOST_STEPS:
        raise ValueError(f"model.nodes={nodes}: must be from 1 to {MOST_STEPS}.")


def _numbers(nodes: str) -> list[int]:
    return [int(each) for each in nodes.split("-")]


def stage_nodes(config: ModelConfig) -> list[int]:
    """Return the nodes of each stage, but for an opening one, at the start of training.

    Where `model.nodes` has a number for each stage, there are as many stages, and each has just so many nodes. Of one
    number the last stage of some networks has fewer, as published.
    """
    wiring = NETWORKS[config.network]
    if isinstance(config.nodes, str) and "-" in config.nodes:
        return _numbers(config.nodes)
    if config.nodes is None and len(wiring.nodes) > 1:
        return list(wiring.nodes)
    nodes = wiring.nodes[0] if config.nodes is None else int(config.nodes)
    return [nodes] * (len(wiring.strides) - 1) + [nodes + wiring.last_extra]


def asked_nodes(config: ModelConfig) -> str:
    """Write `model.nodes`, or what null stands for."""
    return "-".join(map(str, NETWORKS[config.network].nodes)) if config.nodes is None else str(config.nodes)


def stage_strides(config: ModelConfig) -> list[int]:
    """Return the stride with which each stage begins: further ones than published halve the sides, too."""
    strides, stages = NETWORKS[config.network].strides, len(stage_nodes(config))
    return [*strides[:stages], *[2] * (stages - len(strides))]


def stem_order(config: ModelConfig) -> StemOrder:
    """Return the layers of the stem; a network whose own has no norm has none in another, either."""
    own = NETWORKS[config.network].stem
    return own if config.stem is None else replace(STEMS[config.stem], norm=own.norm)


def stage_depths(config: ModelConfig) -> list[Depth]:
    """Return the depth of each stage that integrates, in order, at the start of training.

    Raises:
        ValueError: a stage has no node, more than the network can have, a number of them that its basis cannot have, no
            depth time, or too many steps.
    """
    wiring, each = NETWORKS[config.network], stage_nodes(config)
    most = wiring.capability.most_nodes
    if most is not None and max(each) > most:
        raise ValueError(
            f"{_name(config)} with model.nodes={asked_nodes(config)}: {wiring.capability.because}; use {most}."
        )
    opening = [1] if wiring.opening else []
    return [_depth(config, wiring, nodes) for nodes in (*opening, *each)]


def _depth(config: ModelConfig, wiring: Wiring, nodes: int) -> Depth:
    basis = config.basis or wiring.basis
    if nodes < 1:
        raise ValueError(
            f"{_name(config)} with model.nodes={asked_nodes(config)}: its last stage has "
            f"{-wiring.last_extra} fewer, so at least {1 - wiring.last_extra} are needed."
        )
    BASES[basis].check(nodes)
    steps = BASES[basis].cells(nodes) * config.substeps
    if steps > MOST_STEPS:
        raise ValueError(
            f"model.nodes={asked_nodes(config)} with model.substeps={config.substeps} takes {steps} steps per stage: "
            f"at most {MOST_STEPS} are possible."
        )
    # The same depth time to a node in every stage.
    first = stage_nodes(config)[0]
    depth_time = wiring.depth_time(nodes) if config.depth_time is None else config.depth_time * nodes / first
    if not depth_time:
        raise ValueError(
            f"{_name(config)} with model.nodes={asked_nodes(config)}: as published its depth time T is 0 then, so its "
            "weights would have no effect; use at least 2, or set model.depth_time."
        )
    course = Course(config.scheme or wiring.scheme, steps, depth_time, config.start, config.gradient, config.tolerance)
    return Depth(basis, nodes, course, initial_nodes=nodes)


def stage_changes(config: ModelConfig) -> list[Change]:
    """Return widths and resolution of each stage, and of the one before it."""
    wiring, changes = NETWORKS[config.network], list[Change]()
    inputs = config.width * (1 if wiring.first_transition else config.widen)
    strides = stage_strides(config)
    for index, stride in enumerate(strides):
        outputs = config.width * config.widen * 2**index
        if index == len(strides) - 1 and config.final_width is not None:
            outputs = config.final_width
        inner = config.width * config.cardinality * 2**index
        changes.append(Change(inputs, Widths(outputs, inner, config.cardinality), stride))
        inputs = outputs
    return changes


# --- what cannot be -----------------------------------------------------------------------------------------------


def check_model(config: ModelConfig) -> None:
    """Refuse what a network cannot be: a scheme, basis, number of nodes or width that it cannot have.

    Whatever passes can be built, run and differentiated; to be trained it must also read all its nodes, see
    `check_every_node_is_read`. Keys that would be ignored are refused, too: a search over them would report noise as
    their effect.

    Raises:
        ValueError: says what was asked, why it cannot be, and what can.
    """
    _check_capability(config)
    _check_widths(config)
    _check_integration(config)
    _check_no_effect(config)
    stage_depths(config)


def _name(config: ModelConfig) -> str:
    return f"model.network={config.network.value}"


def _names(choices: Iterable[Enum]) -> str:
    return ", ".join(choice.value for choice in choices)


def _check_capability(model: ModelConfig) -> None:
    wiring = NETWORKS[model.network]
    can, name = wiring.capability, _name(model)
    asked = (
        ("scheme", model.scheme or wiring.scheme, can.schemes),
        ("basis", model.basis or wiring.basis, can.bases),
        ("initialisation", model.initialisation, can.initialisations),
        ("gradient", model.gradient, can.gradients),
    )
    for key, value, possible in asked:
        if value not in possible:
            choices = _names(possible)
            why = "a zero rate has no gradient here" if key == "initialisation" else can.because
            raise ValueError(f"{name} with model.{key}={value.value}: only {choices} is possible, {why}.")
    if model.substeps > 1 and not can.substeps:
        raise ValueError(f"{name} with model.substeps={model.substeps}: {can.because}, its block is one step; use 1.")
    if model.depth_time is not None and not can.depth_time:
        raise ValueError(f"{name} with model.depth_time={model.depth_time}: {can.because}; use null.")


def _check_integration(model: ModelConfig) -> None:
    scheme = model.scheme or NETWORKS[model.network].scheme
    reason = refusal(scheme, model.gradient)
    if reason:
        raise ValueError(f"model.scheme={scheme.value} with model.gradient={model.gradient.value}: {reason}")


def _check_no_effect(model: ModelConfig) -> None:
    scheme = model.scheme or NETWORKS[model.network].scheme
    if model.start is not Start.consistent and scheme not in TWO_STEP:
        raise ValueError(
            f"model.start={model.start.value} with model.scheme={scheme.value} has no effect: a start is for "
            f"{_names(TWO_STEP)}; use consistent."
        )
    if model.tolerance != TOLERANCE and scheme not in ADAPTIVE:
        raise ValueError(
            f"model.tolerance={model.tolerance} with model.scheme={scheme.value} has no effect: a tolerance is "
            f"for {_names(ADAPTIVE)}; use {TOLERANCE}."
        )
    grouped = [name.value for name, row in NETWORKS.items() if "grouped" in (*row.rate.layers, *row.rate.inner)]
    if model.cardinality > 1 and model.network.value not in grouped:
        raise ValueError(
            f"model.cardinality={model.cardinality} with model.network={model.network.value} has no effect: only "
            f"{', '.join(grouped)} have groups; use 1."
        )
    if model.skip_init and model.initialisation is Initialisation.zero:
        raise ValueError("model.skip_init=true with model.initialisation=zero: either makes the rate zero; use one.")


def _check_widths(config: ModelConfig) -> None:
    wiring = NETWORKS[config.network]
    try:
        for index, change in enumerate(stage_changes(config)):
            if wiring.rate.second:
                change.widths.halved()
            if index and wiring.transition.pool_pad_halves:
                zero_channels(change, wiring.transition.pool_pad_halves)
    except ValueError as error:
        widths = f"model.width={config.width}, widen={config.widen}, final_width={config.final_width}"
        raise ValueError(f"{_name(config)} with {widths}: {error}") from error


def check_every_node_is_read(depths: Sequence[Depth], when: str = "") -> None:
    """Raise ValueError where no stage of the integration reads some node; `when` tells in the message at what time."""
    for depth in depths:
        scheme, steps = depth.course.scheme, depth.course.steps
        unread = unread_nodes(depth.basis, depth.nodes, scheme, steps)
        if unread:
            at_end = _names(choice for choice in RUNGE_KUTTA if SCHEMES[choice].stages(1)[-1].abscissa == 1)
            raise ValueError(
                f"model.scheme={scheme.value} with model.basis={depth.basis.value}, {depth.nodes} nodes and "
                f"{steps} steps{when} never reads node {unread[0]}, whose weights would stay untrained: "
                f"choose a scheme with a stage at the end of the step ({at_end}), or model.substeps=2."
            )
