"""A whole experiment as one value, the one place that refuses combinations, and its plain form for files."""

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from enum import Enum
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import torch

from odenet.blocks import Depth
from odenet.data import DataConfig
from odenet.integrate import refusal
from odenet.models import MOST_STEPS, ModelConfig, check_widths, stage_depths
from odenet.networks import NETWORKS
from odenet.optim import OptimConfig
from odenet.readout import unread_nodes
from odenet.refinement import RefinementConfig
from odenet.regularization import RegularizationConfig
from odenet.schemes import SCHEMES, TwoStep
from odenet.stepping import TOLERANCE
from odenet.terms import Device, Gradient, Initialisation, Precision, Scheme, Start


@dataclass(kw_only=True, slots=True)
class TrainingConfig:
    """How long, from which seed, in which arithmetic."""

    epochs: int = 30
    seed: int = 0
    precision: Precision = Precision.fp32

    def __post_init__(self) -> None:
        if not 1 <= self.epochs <= 100_000:
            raise ValueError(f"training.epochs={self.epochs}: must be from 1 to 100000.")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"training.seed={self.seed}: must be from 0 to 2^63 - 1.")


@dataclass(kw_only=True, slots=True)
class RuntimeConfig:
    """Where and how it runs; never part of what is learned."""

    device: Device = Device.auto
    deterministic: bool = False  # on a GPU: bit-exact kernels, slower
    compile: bool = False  # torch.compile: pays off after minutes of training, recompiles at refinements
    check_drift: bool = False  # report how far reconstructed states stray from the true ones; keeps one state more
    data_dir: str = "data"  # where the files of the published data sets are

    def torch_device(self) -> torch.device:
        """Raises ValueError where CUDA is asked for and not there."""
        if self.device is Device.cuda and not torch.cuda.is_available():
            raise ValueError("runtime.device=cuda, but torch sees no CUDA device here; auto and cpu are possible.")
        return torch.device("cuda" if self.device is not Device.cpu and torch.cuda.is_available() else "cpu")

    def check(self, model: ModelConfig) -> None:
        """Raises ValueError where a network cannot be run so."""
        if self.compile and model.gradient is not Gradient.direct:
            raise ValueError(
                f"runtime.compile=true with model.gradient={model.gradient.value}: an integration that recomputes runs "
                "outside compiled code, so nothing would be gained; use direct, or compile=false."
            )
        scheme = model.scheme or NETWORKS[model.network].scheme
        if self.compile and scheme is Scheme.dopri5:
            raise ValueError("runtime.compile=true with model.scheme=dopri5: its steps depend on the data; use false.")


@dataclass(kw_only=True, slots=True)
class ExperimentConfig:
    """Everything that decides what is learned: two equal configs train the same network on the same device."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    refinement: RefinementConfig = field(default_factory=RefinementConfig)
    regularization: RegularizationConfig = field(default_factory=RegularizationConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)

    def __post_init__(self) -> None:
        _check_capability(self.model, self.refinement)
        check_widths(self.model)
        _check_integration(self.model)
        _check_no_effect(self.model)
        self.refinement.due(self.training.epochs)
        self.refinement.coarsens(self.training.epochs)
        depths = stage_depths(self.model)
        _check_every_node_is_read(depths)
        for count in range(1, self.refinement.times + 1):
            depths = [depth.refined() for depth in depths]
            _check_depth(self, depths, count)
            _check_every_node_is_read(depths, " after refinement")


def _check_capability(model: ModelConfig, refinement: RefinementConfig) -> None:
    wiring = NETWORKS[model.network]
    can, name = wiring.capability, f"model.network={model.network.value}"
    asked = (
        ("scheme", model.scheme or wiring.scheme, can.schemes),
        ("basis", model.basis or wiring.basis, can.bases),
        ("initialisation", model.initialisation, can.initialisations),
    )
    for key, value, possible in asked:
        if value not in possible:
            choices = ", ".join(choice.value for choice in possible)
            why = "a zero rate has no gradient here" if key == "initialisation" else can.because
            raise ValueError(f"{name} with model.{key}={value.value}: only {choices} is possible, {why}.")
    if (refinement.times or refinement.coarsen is not None) and not can.refines:
        key = refinement.asked if refinement.times else f"coarsen={refinement.coarsen}"
        raise ValueError(f"{name} with refinement.{key}: {can.because}, its depth cannot change.")
    if model.substeps > 1 and not can.substeps:
        raise ValueError(f"{name} with model.substeps={model.substeps}: {can.because}, its block is one step; use 1.")
    if model.depth_time is not None and not can.depth_time:
        raise ValueError(f"{name} with model.depth_time={model.depth_time}: {can.because}; use null.")
    if can.most_nodes is not None and model.nodes > can.most_nodes:
        raise ValueError(f"{name} with model.nodes={model.nodes}: {can.because}; use {can.most_nodes}.")


def _check_integration(model: ModelConfig) -> None:
    scheme = model.scheme or NETWORKS[model.network].scheme
    reason = refusal(scheme, model.gradient)
    if reason:
        raise ValueError(f"model.scheme={scheme.value} with model.gradient={model.gradient.value}: {reason}")


def _check_no_effect(model: ModelConfig) -> None:
    """A key that would be ignored is refused: a search over it would report noise as its effect."""
    scheme = model.scheme or NETWORKS[model.network].scheme
    if model.start is not Start.consistent and not isinstance(SCHEMES[scheme], TwoStep):
        raise ValueError(
            f"model.start={model.start.value} with model.scheme={scheme.value} has no effect: two_step_midpoint and "
            "leapfrog take a start; use consistent."
        )
    if model.tolerance != TOLERANCE and scheme is not Scheme.dopri5:
        raise ValueError(
            f"model.tolerance={model.tolerance} with model.scheme={scheme.value} has no effect: dopri5 takes a "
            f"tolerance; use {TOLERANCE}."
        )
    grouped = [name.value for name, row in NETWORKS.items() if "grouped" in row.rate.layers]
    if model.cardinality > 1 and model.network.value not in grouped:
        raise ValueError(
            f"model.cardinality={model.cardinality} with model.network={model.network.value} has no effect: only "
            f"{', '.join(grouped)} have groups; use 1."
        )
    if model.skip_init and model.initialisation is Initialisation.zero:
        raise ValueError("model.skip_init=true with model.initialisation=zero: either makes the rate zero; use one.")


def _check_depth(config: ExperimentConfig, depths: list[Depth], count: int) -> None:
    deepest = max(depths, key=lambda depth: max(depth.nodes, depth.course.steps))
    if max(deepest.nodes, deepest.course.steps) > MOST_STEPS:
        raise ValueError(
            f"refinement.{config.refinement.asked} from model.nodes={config.model.nodes} ends, after {count}, "
            f"with {deepest.nodes} nodes and {deepest.course.steps} steps per stage: at most {MOST_STEPS} are "
            "possible; refine less often or start with fewer."
        )


def _check_every_node_is_read(depths: list[Depth], when: str = "") -> None:
    for depth in depths:
        scheme, steps = depth.course.scheme, depth.course.steps
        unread = unread_nodes(depth.basis, depth.nodes, scheme, steps)
        if unread:
            raise ValueError(
                f"model.scheme={scheme.value} with model.basis={depth.basis.value}, {depth.nodes} nodes and "
                f"{steps} steps{when} never reads node {unread[0]}, whose weights would stay untrained: "
                "choose a scheme with a stage at the end of the step (heun, rk4, rk4_38), or model.substeps=2."
            )


# --- plain form ---------------------------------------------------------------------------------------------------

Config = TypeVar("Config")


def to_plain(config: Any) -> dict[str, Any]:
    """Nested dictionaries of JSON values; enumerations by their names."""
    return asdict(config, dict_factory=lambda items: {k: v.value if isinstance(v, Enum) else v for k, v in items})


def from_plain(kind: type[Config], plain: Any, where: str = "") -> Config:
    """The typed config of `to_plain`; fields left out keep their defaults.

    Raises:
        ValueError: an unknown key, a value of the wrong type, or a combination that cannot be; names the key.
    """
    if not isinstance(plain, dict):
        raise ValueError(f"{where or 'the config'} must be a mapping, not {plain!r}.")
    known, hints = [f.name for f in fields(kind)], get_type_hints(kind)  # type: ignore[arg-type]
    for key in plain:
        if key not in known:
            raise ValueError(f"{where + '.' if where else ''}{key} is no key; possible are {', '.join(known)}.")
    prefix = f"{where}." if where else ""
    return kind(**{key: _typed(hints[key], value, prefix + key) for key, value in plain.items()})


def _typed(hint: Any, value: Any, where: str) -> Any:
    if is_dataclass(hint):
        return from_plain(hint, value, where)  # type: ignore[arg-type]
    if isinstance(hint, UnionType):
        return None if value is None else _typed(get_args(hint)[0], value, where)
    if get_origin(hint) is list:
        if not isinstance(value, list):
            raise ValueError(f"{where}={value!r}: must be a list.")
        return [_typed(get_args(hint)[0], one, f"{where}[{index}]") for index, one in enumerate(value)]
    if isinstance(hint, type) and issubclass(hint, Enum):
        if not isinstance(value, str) or value not in hint.__members__:
            raise ValueError(f"{where}={value!r}: must be one of {', '.join(hint.__members__)}.")
        return hint[value]
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:
        raise ValueError(f"{where}={value!r}: must be of type {hint.__name__}.")
    return value


def identity(config: ExperimentConfig) -> str:
    """16 hex digits that two configs share exactly if they are equal."""
    typed = to_plain(from_plain(ExperimentConfig, to_plain(config)))  # 1 becomes 1.0 where a float is meant
    return hashlib.sha256(json.dumps(typed, sort_keys=True).encode()).hexdigest()[:16]


def depths_after(config: ExperimentConfig) -> list[Depth]:
    """The depth of each stage after the last refinement."""
    depths = stage_depths(config.model)
    for _ in range(config.refinement.times):
        depths = [depth.refined() for depth in depths]
    return depths
