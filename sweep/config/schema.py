"""The configuration: a typed schema over Hydra.

The experiment's parts stand at the top level, so that `model.scheme` is the same name on the command line, in a search
space, in best.yaml and in MLflow.
"""

from dataclasses import dataclass, field, fields, replace
from enum import Enum
from typing import Any
from urllib.parse import urlsplit

from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from odenet.enums import Device, ExportFormat
from odenet.training.config import ExperimentConfig, RuntimeConfig
from search_spaces import SHARED, SPACES, Space, check_name, from_written, shared
from sweep.config.credentials import PASSWORD, USER, without_secrets
from sweep.config.evaluate_config import EvaluateConfig
from sweep.config.overrides import flat
from sweep.config.places import check_storage
from sweep.config.search_config import SearchConfig, check_path
from sweep.config.sensitivity_config import SensitivityConfig
from sweep.config.study_config import StudyConfig

MOST = 100_000  # CPUs or GPUs of anything
SHARE_UNITS = 10_000  # Ray counts a GPU in ten-thousandths
AUTO = "auto"  # the share of a GPU that is measured to be enough


class ClusterKind(Enum):
    """The place where trials run: a Ray that lives as long as the command, or one that runs already."""

    local = "local"
    address = "address"


@dataclass(kw_only=True, slots=True)
class ClusterConfig:
    """The choice of a Ray cluster.

    Raises:
        ValueError: an option that belongs to the other kind, or a number that cannot be.
    """

    kind: ClusterKind = ClusterKind.local
    address: str | None = None  # HOST:PORT, or auto: $RAY_ADDRESS, else the cluster found on this machine
    autoscaling: bool = False  # the cluster adds nodes on demand, so what is present is no limit
    leave_out: list[str] = field(default_factory=list)  # hosts that get no trials, by name or address
    cpus: int | None = None  # local: how many Ray is told; None: what is here
    gpus: int | None = None
    share: float | None = None  # of the trials at once, the most while other sweeps wait; None: equal parts
    # Of `sweep submit` and what follows it: the cluster's job server, such as http://127.0.0.1:8265
    job_server: str | None = None
    unauthenticated: bool = False  # submit also to a remote job server that takes anybody

    def __post_init__(self) -> None:
        if self.job_server is not None and not _is_address(self.job_server):
            raise ValueError(
                f"cluster.job_server={without_secrets(self.job_server)}: must be the address of the cluster's job "
                "server, such as http://127.0.0.1:8265. Its token is said by RAY_AUTH_TOKEN_PATH."
            )
        local = self.kind is ClusterKind.local
        if self.share is not None and not 0 < self.share <= 1:
            raise ValueError(f"cluster.share={self.share}: a part of the cluster, above 0 and at most 1.")
        if local and self.share is not None:
            raise ValueError("cluster.share needs cluster=address; a Ray of cluster=local is for one command alone.")
        if local and (self.address is not None or self.autoscaling or self.leave_out):
            raise ValueError(
                "cluster.address, cluster.autoscaling and cluster.leave_out need cluster=address; cluster=local starts "
                "Ray here."
            )
        if not local and self.address is None:
            raise ValueError("cluster=address needs cluster.address=HOST:PORT, or auto.")
        if not local and (self.cpus, self.gpus) != (None, None):
            raise ValueError("cluster.cpus and cluster.gpus are for cluster=local; a running cluster knows its own.")
        for name, value, least in (("cpus", self.cpus, 1), ("gpus", self.gpus, 0)):
            if value is not None and not least <= value <= MOST:
                raise ValueError(
                    f"cluster.{name}={value}: at least {least}, or null for what this machine has; at most {MOST}."
                )


@dataclass(kw_only=True, slots=True)
class Resources:
    """The CPUs and GPUs that one trial gets.

    Raises:
        ValueError: a number that Ray cannot give.
    """

    cpus: int = 1
    # Below 1 a share of one GPU; None: one where Ray has GPUs, else none; auto: the share that is measured to be enough
    gpus: float | int | str | None = None  # OmegaConf knows no int that is a float

    def __post_init__(self) -> None:
        if not 1 <= self.cpus <= MOST:
            raise ValueError(f"runtime.resources.cpus={self.cpus}: a trial needs at least 1, at most {MOST}.")
        gpus = self.gpus or 0.0
        if gpus != AUTO and (isinstance(gpus, str) or not (gpus == 0 or _can_be_given(gpus))):
            raise ValueError(
                f"runtime.resources.gpus={gpus}: possible are 0, a share of one GPU such as 0.25, whole numbers, and "
                f"{AUTO}."
            )


def _can_be_given(gpus: float) -> bool:
    return 1 / SHARE_UNITS <= gpus <= 1 or (1 < gpus <= MOST and float(gpus).is_integer())


@dataclass(kw_only=True, slots=True)
class SweepRuntime(RuntimeConfig):
    """The directory of the results, and the resources of a trial."""

    runs_dir: str = "runs"
    # s3://BUCKET/PREFIX, or a directory that all machines see: for checkpoints and a mirror of the run directory
    storage: str | None = None
    resources: Resources = field(default_factory=Resources)

    def __post_init__(self) -> None:
        if not self.runs_dir:
            raise ValueError("runtime.runs_dir is empty: name the directory for results, such as runs.")
        for name in ("runs_dir", "data_dir"):
            check_path(f"runtime.{name}", getattr(self, name))
        if self.storage is not None:
            check_storage(self.storage)
        if self.device is Device.cuda and self.resources.gpus == 0:
            raise ValueError(
                "runtime.device=cuda with runtime.resources.gpus=0: trials see no GPU; give them a share, or use cpu."
            )

    def for_training(self) -> RuntimeConfig:
        """Return the part of this configuration that odenet uses."""
        return RuntimeConfig(**{f.name: getattr(self, f.name) for f in fields(RuntimeConfig)})


@dataclass(kw_only=True, slots=True)
class SpaceConfig:
    """The choice of a search space by name; space.fix.KEY=x fixes one of its parameters, space.range.KEY=[a,b] narrows
    it. A space of the user's own is here as it was written: `parameters`, and for all others those of `like`."""

    name: str = "continuous"
    like: str | None = None
    parameters: dict[str, Any] = field(default_factory=dict)
    fix: dict[str, Any] = field(default_factory=dict)
    range: dict[str, Any] = field(default_factory=dict)
    shared: bool = False  # search what all families search, and leave the family's own dimensions at their defaults

    def build(self) -> Space:
        """Build the space. ValueError: unknown space or parameter, a value or range outside the space's, or nothing of
        it is shared."""
        space = self.plain().fix(flat(self.fix)).narrow(flat(self.range))
        return shared(space) if self.shared else space

    @property
    def label(self) -> str:
        """The name of the family in tables and names of sweeps, which says where its own dimensions are left out."""
        return f"{self.name}{SHARED if self.shared else ''}"

    def plain(self) -> Space:
        """Build the space as it is before anything is fixed or narrowed. ValueError: there is none such."""
        if self.like is None and not self.parameters:
            return _named("name", self.name)
        check_name(self.name)
        return from_written(self.parameters, None if self.like is None else _named("like", self.like))


def _named(key: str, name: str) -> Space:
    if name not in SPACES:
        raise ValueError(
            f"space.{key}={name} is no search space; possible are {', '.join(SPACES)}, and for one of your own "
            "space=FILE.yaml or space=MODULE:NAME."
        )
    return SPACES[name]


@dataclass(kw_only=True, slots=True)
class FinalConfig:
    """The numbers of retrained networks: the `top` trials over `confirm_seeds`, then the crowned one over `seeds` fresh
    seeds."""

    top: int = 3
    confirm_seeds: int = 3
    seeds: int = 3

    def __post_init__(self) -> None:
        for f in fields(self):
            if not 1 <= getattr(self, f.name) <= 1000:
                raise ValueError(f"final.{f.name}={getattr(self, f.name)}: must be from 1 to 1000.")


@dataclass(kw_only=True, slots=True)
class ExportConfig:
    """The file in which a network leaves; on the command line of `sweep export` the key is `format`."""

    format: ExportFormat = ExportFormat.safetensors


@dataclass(kw_only=True, slots=True)
class ReplayConfig:
    """The simulation of a recorded search: the number of workers, and of repeats, each from another seed."""

    workers: int = 4
    repeats: int = 5

    def __post_init__(self) -> None:
        for name, high in (("workers", 100_000), ("repeats", 1000)):
            if not 1 <= getattr(self, name) <= high:
                raise ValueError(f"replay.{name}={getattr(self, name)}: must be from 1 to {high}.")


def _is_address(uri: str) -> bool:
    """Tell whether it is http, with a host, a possible port, nothing secret, and no blanks or control characters."""
    try:
        parts = urlsplit(uri)
        return (
            parts.scheme in ("http", "https")
            and bool(parts.hostname)
            and not (parts.username or parts.password or parts.query or parts.fragment)
            and (parts.port is None or parts.port > 0)
            and uri.isprintable()
            and " " not in uri
        )
    except ValueError:  # a port that is no number, or half an IPv6 address
        return False


@dataclass(kw_only=True, slots=True)
class TrackingConfig:
    """The MLflow store. `uri` None: a sqlite file in the run directory; else an MLflow server's http address."""

    uri: str | None = None
    port: int = 5000  # of `sweep ui`, on loopback; the next one is Optuna's dashboard

    def __post_init__(self) -> None:
        if self.uri is not None and not _is_address(self.uri):
            raise ValueError(
                f"tracking.uri={without_secrets(self.uri)}: must be the address of an MLflow server, such as "
                "http://127.0.0.1:5000, or null for a file in the run directory. A user and password are said in the "
                f"environment, by {USER} and {PASSWORD}, a token by MLFLOW_TRACKING_TOKEN."
            )
        if not 1 <= self.port <= 65534:
            raise ValueError(f"tracking.port={self.port}: must be from 1 to 65534.")


@dataclass(kw_only=True, slots=True)
class AppConfig(ExperimentConfig):
    """The whole configuration of the command `sweep`. `modules`: the user's own, with networks and spaces."""

    runtime: SweepRuntime = field(default_factory=SweepRuntime)
    space: SpaceConfig = field(default_factory=SpaceConfig)
    search: SearchConfig = field(default_factory=SearchConfig)
    final: FinalConfig = field(default_factory=FinalConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    sensitivity: SensitivityConfig = field(default_factory=SensitivityConfig)
    export: ExportConfig = field(default_factory=ExportConfig)
    study: StudyConfig = field(default_factory=StudyConfig)
    replay: ReplayConfig = field(default_factory=ReplayConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    modules: list[str] = field(default_factory=list)

    @property
    def checkpoint_every(self) -> int:
        """Epochs between two checkpoints of a trial: where nodes come and go at most one is to be lost."""
        return self.search.checkpoint_every or (5 if self.cluster.kind is ClusterKind.local else 1)

    @property
    def experiment(self) -> ExperimentConfig:
        """The experiment alone, without where and how it is searched."""
        return ExperimentConfig(**{f.name: getattr(self, f.name) for f in fields(ExperimentConfig)})

    def with_experiment(self, experiment: ExperimentConfig) -> "AppConfig":
        return replace(self, **{f.name: getattr(experiment, f.name) for f in fields(ExperimentConfig)})

    def check_device(self) -> None:
        """Raise ValueError where trials run on this machine and runtime.device is not here."""
        if self.cluster.kind is ClusterKind.local and self.runtime.device is Device.cuda:
            self.runtime.torch_device()


def save(config: AppConfig) -> str:
    """Return the text of config.yaml. `accept_changes` is not kept: the next session asks again."""
    kept = replace(config, search=replace(config.search, accept_changes=False))
    return OmegaConf.to_yaml(OmegaConf.structured(kept))


ConfigStore.instance().store(name="schema", node=AppConfig)
