"""The configuration: a typed schema over Hydra, and the one place where flat names meet types.

The experiment's parts stand at the top level, so that `model.scheme` is the same name on the command line, in a search
space, in best.yaml and in MLflow.
"""

import difflib
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from typing import Any
from urllib.parse import urlsplit

from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from odenet.config import ExperimentConfig, RuntimeConfig, from_plain, to_plain
from odenet.terms import Device, Scheme
from search_spaces import SPACES, Space
from sweep.cluster.connect import ClusterConfig, ClusterKind, Resources
from sweep.config.search_config import SearchConfig, check_path


@dataclass(kw_only=True, slots=True)
class SweepRuntime(RuntimeConfig):
    """Where results go and what one trial gets of the cluster."""

    runs_dir: str = "runs"
    resources: Resources = field(default_factory=Resources)

    def __post_init__(self) -> None:
        if not self.runs_dir:
            raise ValueError("runtime.runs_dir is empty: name the directory for results, such as runs.")
        for name in ("runs_dir", "data_dir"):
            check_path(f"runtime.{name}", getattr(self, name))
        if self.device is Device.cuda and self.resources.gpus == 0:
            raise ValueError(
                "runtime.device=cuda with runtime.resources.gpus=0: trials see no GPU; give them a share, or use cpu."
            )

    def for_training(self) -> RuntimeConfig:
        """What odenet knows of it."""
        return RuntimeConfig(**{f.name: getattr(self, f.name) for f in fields(RuntimeConfig)})


@dataclass(kw_only=True, slots=True)
class SpaceConfig:
    """What is searched: a space by name; space.fix.KEY=x fixes a parameter of it, space.range.KEY=[a,b] narrows one."""

    name: str = "continuous"
    fix: dict[str, Any] = field(default_factory=dict)
    range: dict[str, Any] = field(default_factory=dict)

    def build(self) -> Space:
        """Raises ValueError: unknown space or parameter, value or range outside the space's."""
        if self.name not in SPACES:
            raise ValueError(f"space.name={self.name} is no search space; possible are {', '.join(SPACES)}.")
        return SPACES[self.name].fix(flat(self.fix)).narrow(flat(self.range))


@dataclass(kw_only=True, slots=True)
class FinalConfig:
    """Confirm: the `top` trials are retrained over `confirm_seeds`. Final: the crowned one over `seeds` fresh seeds."""

    top: int = 3
    confirm_seeds: int = 3
    seeds: int = 3

    def __post_init__(self) -> None:
        for f in fields(self):
            if not 1 <= getattr(self, f.name) <= 1000:
                raise ValueError(f"final.{f.name}={getattr(self, f.name)}: must be from 1 to 1000.")


@dataclass(kw_only=True, slots=True)
class EvaluateConfig:
    """What the final checkpoints are tested on."""

    schemes: list[Scheme] = field(default_factory=lambda: [Scheme.euler, Scheme.midpoint, Scheme.heun, Scheme.rk4])
    step_factors: list[float] = field(default_factory=lambda: [0.5, 1.0, 2.0, 4.0])  # of the trained steps
    manifestation_images: int | None = 1000  # of the test set, class-balanced, for the table of schemes and steps
    batch_size: int = 500

    def __post_init__(self) -> None:
        if not self.schemes or not self.step_factors or not all(0 < f <= 1024 for f in self.step_factors):
            raise ValueError("evaluate needs schemes, and step_factors above 0 and at most 1024.")
        if not all(1 <= size <= 1_000_000 for size in (self.batch_size, self.manifestation_images or 1)):
            raise ValueError("evaluate.batch_size and evaluate.manifestation_images must be at least 1, at most 1e6.")


@dataclass(kw_only=True, slots=True)
class StudyConfig:
    """Sweeps compared on equal terms: every family on every draw of the data."""

    families: list[str] = field(default_factory=lambda: ["resnet", "continuous"])
    draws: list[int] = field(default_factory=lambda: [0, 1, 2])

    def __post_init__(self) -> None:
        for name, values in (("families", self.families), ("draws", self.draws)):
            if not values or len(set(values)) != len(values):
                raise ValueError(f"study.{name}={list(values)}: at least one, each once.")
        if not all(0 <= draw < 2**31 for draw in self.draws):
            raise ValueError(f"study.draws={list(self.draws)}: each must be from 0 to {2**31 - 1}.")
        unknown = [family for family in self.families if family not in SPACES]
        if unknown:
            raise ValueError(f"study.families has {unknown[0]}; possible are {', '.join(SPACES)}.")


@dataclass(kw_only=True, slots=True)
class ReplayConfig:
    """A recorded search simulated: on so many workers at once, and so often, each time from another seed."""

    workers: int = 4
    repeats: int = 5

    def __post_init__(self) -> None:
        for name, high in (("workers", 100_000), ("repeats", 1000)):
            if not 1 <= getattr(self, name) <= high:
                raise ValueError(f"replay.{name}={getattr(self, name)}: must be from 1 to {high}.")


def _is_address(uri: str) -> bool:
    """Whether it is http, with a host, a possible port and no blanks or control characters."""
    try:
        parts = urlsplit(uri)
        return (
            parts.scheme in ("http", "https")
            and bool(parts.hostname)
            and (parts.port is None or parts.port > 0)
            and uri.isprintable()
            and " " not in uri
        )
    except ValueError:  # a port that is no number, or half an IPv6 address
        return False


@dataclass(kw_only=True, slots=True)
class TrackingConfig:
    """MLflow. `uri` None: a sqlite file in the run directory; else an MLflow server's http address."""

    uri: str | None = None
    port: int = 5000  # of `sweep ui`, on loopback; the next one is Optuna's dashboard

    def __post_init__(self) -> None:
        if self.uri is not None and not _is_address(self.uri):
            raise ValueError(
                f"tracking.uri={self.uri}: must be the address of an MLflow server, such as http://127.0.0.1:5000, or "
                "null for a file in the run directory."
            )
        if not 1 <= self.port <= 65534:
            raise ValueError(f"tracking.port={self.port}: must be from 1 to 65534.")


@dataclass(kw_only=True, slots=True)
class AppConfig(ExperimentConfig):
    """Everything a stage can be told."""

    runtime: SweepRuntime = field(default_factory=SweepRuntime)
    space: SpaceConfig = field(default_factory=SpaceConfig)
    search: SearchConfig = field(default_factory=SearchConfig)
    final: FinalConfig = field(default_factory=FinalConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    study: StudyConfig = field(default_factory=StudyConfig)
    replay: ReplayConfig = field(default_factory=ReplayConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)

    @property
    def experiment(self) -> ExperimentConfig:
        """What is learned, without where and how it is searched."""
        return ExperimentConfig(**{f.name: getattr(self, f.name) for f in fields(ExperimentConfig)})

    def with_experiment(self, experiment: ExperimentConfig) -> "AppConfig":
        return replace(self, **{f.name: getattr(experiment, f.name) for f in fields(ExperimentConfig)})

    def check_device(self) -> None:
        """Raises ValueError where trials run on this machine and runtime.device is not here."""
        if self.cluster.kind is ClusterKind.local:
            self.runtime.torch_device()


def save(config: AppConfig) -> str:
    """The text of config.yaml. Changes are accepted once: the next session asks again."""
    kept = replace(config, search=replace(config.search, accept_changes=False))
    return OmegaConf.to_yaml(OmegaConf.structured(kept))


def override(experiment: ExperimentConfig, params: dict[str, Any]) -> ExperimentConfig:
    """The experiment with dotted names set, e.g. {"model.scheme": "rk4"}: the one place where names meet types.

    Raises:
        ValueError: an unknown name, a wrong type, or a combination that cannot be.
    """
    plain = to_plain(experiment)
    known = list(leaves(plain))
    for name, value in params.items():
        if name not in known:
            raise ValueError(f"{name} is no key of an experiment{suggestion(name, known)}")
        *parents, last = name.split(".")
        node = plain
        for parent in parents:
            node = node[parent]
        node[last] = value
    return from_plain(ExperimentConfig, plain)


def suggestion(key: str, known: list[str]) -> str:
    """What was probably meant, by spelling of the whole name or of its last part."""
    near = difflib.get_close_matches(key, known, n=3, cutoff=0.6)
    tail = key.rsplit(".", 1)[-1]
    near += [name for name in known if name.rsplit(".", 1)[-1] == tail and name not in near]
    if near:
        return f"; did you mean {', '.join(near[:3])}?"
    heads = list(dict.fromkeys(name.split(".")[0] for name in known))
    return f"; keys begin with {', '.join(heads)}."


def leaves(plain: dict[str, Any], prefix: str = "", *, inner: bool = False) -> Iterator[str]:
    """The dotted names of all values of a nested dictionary; `inner`: those of its dictionaries, too."""
    for key, value in plain.items():
        if isinstance(value, dict):
            if inner:
                yield prefix + key
            yield from leaves(value, f"{prefix}{key}.", inner=inner)
        else:
            yield prefix + key


def flat(nested: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one with dotted keys."""
    entries: dict[str, Any] = {}
    for key, value in nested.items():
        entries |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return entries


ConfigStore.instance().store(name="schema", node=AppConfig)
