"""A whole experiment as one value, the one place that refuses combinations, and its plain form for files."""

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from enum import Enum
from types import UnionType
from typing import Any, TypeVar, get_args, get_type_hints

import torch

from odenet.bases import unread_nodes
from odenet.data import DataConfig
from odenet.models import MOST_STEPS, NETWORKS, ModelConfig, stage_depth
from odenet.optim import OptimConfig
from odenet.refinement import RefinementConfig
from odenet.terms import Device, Precision


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
    data_dir: str = "data"  # where the files of the published data sets are

    def torch_device(self) -> torch.device:
        """Raises ValueError where CUDA is asked for and not there."""
        if self.device is Device.cuda and not torch.cuda.is_available():
            raise ValueError("runtime.device=cuda, but torch sees no CUDA device here; auto and cpu are possible.")
        return torch.device("cuda" if self.device is not Device.cpu and torch.cuda.is_available() else "cpu")


@dataclass(kw_only=True, slots=True)
class ExperimentConfig:
    """Everything that decides what is learned: two equal configs train the same network on the same device."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    refinement: RefinementConfig = field(default_factory=RefinementConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)

    def __post_init__(self) -> None:
        _check_capability(self.model, self.refinement)
        self.refinement.due(self.training.epochs)
        _check_every_node_is_read(self.model)
        _check_every_node_is_read(model_after(self), " after refinement")


def _check_capability(model: ModelConfig, refinement: RefinementConfig) -> None:
    can, name = NETWORKS[model.network].capability, f"model.network={model.network.value}"
    for key, value, possible in (("scheme", model.scheme, can.schemes), ("basis", model.basis, can.bases)):
        if value not in possible:
            choices = ", ".join(choice.value for choice in possible)
            raise ValueError(f"{name} with model.{key}={value.value}: only {choices} is possible, it is a ResNet.")
    if refinement.count and not can.refines:
        raise ValueError(f"{name} with refinement.count={refinement.count}: a ResNet cannot be refined; use 0.")
    if model.substeps > 1 and not can.substeps:
        raise ValueError(f"{name} with model.substeps={model.substeps}: a ResNet's block is one step; use 1.")
    if model.depth_time is not None and not can.depth_time:
        raise ValueError(
            f"{name} with model.depth_time={model.depth_time}: a ResNet's is the number of its blocks; use null."
        )


def _check_every_node_is_read(model: ModelConfig, when: str = "") -> None:
    unread = unread_nodes(model.basis, model.nodes, model.scheme, model.steps)
    if unread:
        raise ValueError(
            f"model.scheme={model.scheme.value} with model.basis={model.basis.value}, {model.nodes} nodes and "
            f"{model.steps} steps{when} never reads node {unread[0]}, whose weights would stay untrained: "
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


def model_after(config: ExperimentConfig) -> ModelConfig:
    """The network at the end of training: refined as scheduled, depth time fixed at the start.

    Raises:
        ValueError: it would be deeper than `MOST_STEPS`.
    """
    depth = stage_depth(config.model, 0)
    for _ in range(config.refinement.count):
        depth = depth.refined()
    if max(depth.nodes, depth.steps) > MOST_STEPS:
        raise ValueError(
            f"refinement.count={config.refinement.count} from model.nodes={config.model.nodes} and "
            f"{config.model.steps} steps ends with {depth.nodes} nodes and {depth.steps} steps per stage: "
            f"at most {MOST_STEPS} are possible; refine less often or start with fewer."
        )
    depth_time = depth.depth_time if config.refinement.count else config.model.depth_time
    return replace(config.model, nodes=depth.nodes, depth_time=depth_time)
