"""A whole experiment as one value, the one place that refuses combinations, and its plain form for files."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from enum import Enum
from functools import cache
from types import UnionType
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_origin, get_type_hints

from odenet.data.config import DataConfig
from odenet.depth.discretisation import Depth
from odenet.enums import CudaGraphs, Device, Gradient, Network, Precision
from odenet.integrators.schemes import ADAPTIVE
from odenet.networks.model_config import (
    MOST_STEPS,
    ModelConfig,
    asked_nodes,
    check_every_node_is_read,
    check_model,
    stage_depths,
)
from odenet.networks.table import NETWORKS
from odenet.training.optim_config import OptimConfig
from odenet.training.refinement_config import RefinementConfig
from odenet.training.regularization_config import RegularizationConfig

if TYPE_CHECKING:
    import torch


# Keys that came later, and their values without effect: with these a config has the identity that it had before.
LATER: dict[str, dict[str, Any]] = {
    "model": {"stem": None, "initial_sha256": None},
    "optim": {"frozen": 0, "body_lr": 1.0},
}
OBJECTIVE_EPOCHS = 5  # the last ones, whose mean val/accuracy is what a trial is judged by


@dataclass(kw_only=True, slots=True)
class TrainingConfig:
    """The length of training, its seed and its arithmetic."""

    epochs: int = 30
    seed: int = 0
    precision: Precision = Precision.fp32  # tf32 and bf16 round what is multiplied; tf32 only on a GPU

    def __post_init__(self) -> None:
        if not 1 <= self.epochs <= 100_000:
            raise ValueError(f"training.epochs={self.epochs}: must be from 1 to 100000.")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"training.seed={self.seed}: must be from 0 to 2^63 - 1.")


@dataclass(kw_only=True, slots=True)
class RuntimeConfig:
    """The place and manner of a run; never part of what is learned."""

    device: Device = Device.auto
    deterministic: bool = False  # on a GPU: bit-exact kernels, slower
    cuda_graphs: CudaGraphs = CudaGraphs.auto  # an iteration as one graph: on a GPU several times as fast
    compile: bool = False  # torch.compile: pays off after minutes of training, recompiles at refinements
    check_drift: bool = False  # report how far reconstructed states stray from the true ones; keeps one state more
    data_dir: str = "data"  # where the files of the published data sets are

    def torch_device(self) -> torch.device:
        """Return the device; raise ValueError where CUDA is asked for and not there."""
        import torch

        if self.device is Device.cuda and not torch.cuda.is_available():
            raise ValueError("runtime.device=cuda, but torch sees no CUDA device here; auto and cpu are possible.")
        return torch.device("cuda" if self.device is not Device.cpu and torch.cuda.is_available() else "cpu")

    def check(self, model: ModelConfig) -> None:
        """Raise ValueError where a network cannot be run so."""
        if self.compile and model.gradient is not Gradient.direct:
            raise ValueError(
                f"runtime.compile=true with model.gradient={model.gradient.value}: an integration that recomputes runs "
                "outside compiled code, so nothing would be gained; use direct, or compile=false."
            )
        scheme = model.scheme or NETWORKS[model.network].scheme
        if self.compile and scheme in ADAPTIVE:
            raise ValueError(
                f"runtime.compile=true with model.scheme={scheme.value}: its steps depend on the data; use false."
            )


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
        check_model(self.model)
        _check_refines(self.model, self.refinement)
        self.refinement.due(self.training.epochs)
        self.refinement.coarsens(self.training.epochs)
        depths = stage_depths(self.model)
        if self.optim.frozen > len(depths) + 1:
            raise ValueError(
                f"optim.frozen={self.optim.frozen}: this network has {len(depths) + 2} parts, {len(depths) + 1} of them"
                " can be: the stem, and the stages."
            )
        check_every_node_is_read(depths)
        for count in range(1, self.refinement.times + 1):
            depths = [depth.refined() for depth in depths]
            _check_depth(self, depths, count)
            check_every_node_is_read(depths, " after refinement")


def _check_refines(model: ModelConfig, refinement: RefinementConfig) -> None:
    can = NETWORKS[model.network].capability
    if (refinement.times or refinement.coarsen is not None) and not can.refines:
        key = refinement.asked if refinement.times else f"coarsen={refinement.coarsen}"
        raise ValueError(
            f"model.network={model.network.value} with refinement.{key}: {can.because}, its depth cannot change."
        )


def _check_depth(config: ExperimentConfig, depths: list[Depth], count: int) -> None:
    deepest = max(depths, key=lambda depth: max(depth.nodes, depth.course.steps))
    if max(deepest.nodes, deepest.course.steps) > MOST_STEPS:
        raise ValueError(
            f"refinement.{config.refinement.asked} from model.nodes={asked_nodes(config.model)} ends, after {count}, "
            f"with {deepest.nodes} nodes and {deepest.course.steps} steps per stage: at most {MOST_STEPS} are "
            "possible; refine less often or start with fewer."
        )


# --- plain form ---------------------------------------------------------------------------------------------------

Config = TypeVar("Config")


def to_plain(config: Any) -> dict[str, Any]:
    """Return nested dictionaries of JSON values; enumerations by their names."""
    return asdict(config, dict_factory=lambda items: {k: v.value if isinstance(v, Enum) else v for k, v in items})


def from_plain(kind: type[Config], plain: Any, where: str = "") -> Config:
    """Return the typed config of `to_plain`; fields left out keep their defaults.

    Raises:
        ValueError: an unknown key, a value of the wrong type, or a combination that cannot be; names the key.
    """
    if not isinstance(plain, dict):
        raise ValueError(f"{where or 'the config'} must be a mapping, not {plain!r}.")
    known, hints = [f.name for f in fields(kind)], _hints(kind)  # type: ignore[arg-type]
    for key in plain:
        if key not in known:
            raise ValueError(f"{where + '.' if where else ''}{key} is no key; possible are {', '.join(known)}.")
    prefix = f"{where}." if where else ""
    return kind(**{key: _typed(hints[key], value, prefix + key) for key, value in plain.items()})


_hints = cache(get_type_hints)  # which compiles every annotation again


def _typed(hint: Any, value: Any, where: str) -> Any:
    if is_dataclass(hint):
        return from_plain(hint, value, where)  # type: ignore[arg-type]
    if isinstance(hint, UnionType):
        return None if value is None else _typed_of(get_args(hint), value, where)
    if get_origin(hint) is list:
        if not isinstance(value, list):
            raise ValueError(f"{where}={value!r}: must be a list.")
        return [_typed(get_args(hint)[0], one, f"{where}[{index}]") for index, one in enumerate(value)]
    if isinstance(hint, type) and issubclass(hint, Enum):
        if not isinstance(value, str) or value not in hint.__members__:
            own = "; one of your own is known once odenet.add_networks has added it" if hint is Network else ""
            raise ValueError(f"{where}={value!r}: must be one of {', '.join(hint.__members__)}{own}.")
        return hint[value]
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:
        raise ValueError(f"{where}={value!r}: must be of type {hint.__name__}.")
    return value


def _typed_of(hints: tuple[Any, ...], value: Any, where: str) -> Any:
    """Return a value of one of these types; where there are several, it must have one of them as it was read."""
    first, *others = [hint for hint in hints if hint is not type(None)]
    return value if type(value) in others else _typed(first, value, where)


def identity(config: ExperimentConfig) -> str:
    """Return 16 hex digits that two configs share exactly if they are equal."""
    typed = to_plain(from_plain(ExperimentConfig, to_plain(config)))  # 1 becomes 1.0 where a float is meant
    del typed["data"]["path"], typed["model"]["initial"]  # places; what is there has hashes of its own
    for part, defaults in LATER.items():
        typed[part] = {key: value for key, value in typed[part].items() if value != defaults.get(key, ...)}
    model = typed["model"]
    if model["nodes"] is None and len(published := NETWORKS[config.model.network].nodes) == 1:
        model["nodes"] = published[0]
    return hashlib.sha256(json.dumps(typed, sort_keys=True).encode()).hexdigest()[:16]


def depths_after(config: ExperimentConfig) -> list[Depth]:
    """Return the depth of each stage after the last refinement."""
    depths = stage_depths(config.model)
    for _ in range(config.refinement.times):
        depths = [depth.refined() for depth in depths]
    return depths
