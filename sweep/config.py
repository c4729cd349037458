"""The command line's configuration: a typed schema over Hydra, and the one place where flat names meet types.

The experiment's parts stand at the top level, so that `model.scheme` is the same name on the command line, in a search
space, in best.yaml and in MLflow.
"""

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_module
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from odenet.config import ExperimentConfig, RuntimeConfig, from_plain, to_plain
from odenet.terms import Scheme
from search_spaces import SPACES, Space
from sweep.cluster import ClusterConfig, Resources
from sweep.errors import InputError


class SamplerKind(Enum):
    """Who proposes configurations."""

    tpe = "tpe"
    random = "random"


class SchedulerKind(Enum):
    """Who stops trials early."""

    none = "none"
    asha = "asha"


@dataclass(kw_only=True, slots=True)
class SweepRuntime(RuntimeConfig):
    """Where results go and what one trial gets of the cluster."""

    runs_dir: str = "runs"
    resources: Resources = field(default_factory=Resources)

    def for_training(self) -> RuntimeConfig:
        """What odenet knows of it."""
        return RuntimeConfig(**{f.name: getattr(self, f.name) for f in fields(RuntimeConfig)})


@dataclass(kw_only=True, slots=True)
class SpaceConfig:
    """What is searched: a space by name, with parameters fixed (space.fix.KEY=value) or narrowed (space.range.KEY=[a,b])."""

    name: str = "continuous"
    fix: dict[str, Any] = field(default_factory=dict)
    range: dict[str, Any] = field(default_factory=dict)

    def build(self) -> Space:
        """Raises ValueError: unknown space or parameter, value or range outside the space's."""
        if self.name not in SPACES:
            raise ValueError(f"space.name={self.name} is no search space; possible are {', '.join(SPACES)}.")
        return SPACES[self.name].fix(_flat(self.fix)).narrow(_flat(self.range))


@dataclass(kw_only=True, slots=True)
class SearchConfig:
    """One sweep: how many trials, proposed and stopped by whom."""

    trials: int = 12
    seed: int = 0
    sampler: SamplerKind = SamplerKind.tpe
    scheduler: SchedulerKind = SchedulerKind.none
    grace: float = 0.2  # asha: fraction of the epochs that every trial gets
    reduction: int = 3  # asha: one in so many goes on at a rung
    concurrency: int | None = None  # trials at once; None: as many as fit
    retries: int = 2  # after a lost worker or node; nothing else is retried
    checkpoint_every: int = 5  # epochs

    def __post_init__(self) -> None:
        for name, low, high in (
            ("trials", 1, 1_000_000), ("seed", 0, 2**31 - 1), ("reduction", 2, 100), ("retries", 0, 100),
            ("checkpoint_every", 1, 100_000), ("concurrency", 1, 100_000),
        ):  # fmt: skip
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise ValueError(f"search.{name}={value}: must be from {low} to {high}.")
        if not 0 < self.grace <= 1:
            raise ValueError(f"search.grace={self.grace}: a fraction of the epochs, above 0 and at most 1.")


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
        if self.batch_size < 1 or (self.manifestation_images or 1) < 1:
            raise ValueError("evaluate.batch_size and evaluate.manifestation_images must be at least 1.")


@dataclass(kw_only=True, slots=True)
class StudyConfig:
    """Sweeps compared on equal terms: every family on every draw of the data."""

    families: list[str] = field(default_factory=lambda: ["resnet", "continuous"])
    draws: list[int] = field(default_factory=lambda: [0, 1, 2])

    def __post_init__(self) -> None:
        for name, values in (("families", self.families), ("draws", self.draws)):
            if not values or len(set(values)) != len(values):
                raise ValueError(f"study.{name}={list(values)}: at least one, each once.")
        unknown = [family for family in self.families if family not in SPACES]
        if unknown:
            raise ValueError(f"study.families has {unknown[0]}; possible are {', '.join(SPACES)}.")


@dataclass(kw_only=True, slots=True)
class TrackingConfig:
    """MLflow. `uri` None: a sqlite file in the run directory; else an MLflow server's http address."""

    uri: str | None = None
    port: int = 5000  # of `sweep ui`, on loopback

    def __post_init__(self) -> None:
        if not 1 <= self.port <= 65535:
            raise ValueError(f"tracking.port={self.port}: must be from 1 to 65535.")


@dataclass(kw_only=True, slots=True)
class AppConfig(ExperimentConfig):
    """Everything a stage can be told."""

    runtime: SweepRuntime = field(default_factory=SweepRuntime)
    space: SpaceConfig = field(default_factory=SpaceConfig)
    search: SearchConfig = field(default_factory=SearchConfig)
    final: FinalConfig = field(default_factory=FinalConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    study: StudyConfig = field(default_factory=StudyConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)

    @property
    def experiment(self) -> ExperimentConfig:
        """What is learned, without where and how it is searched."""
        return ExperimentConfig(**{f.name: getattr(self, f.name) for f in fields(ExperimentConfig)})

    def with_experiment(self, experiment: ExperimentConfig) -> "AppConfig":
        return replace(self, **{f.name: getattr(experiment, f.name) for f in fields(ExperimentConfig)})


def override(experiment: ExperimentConfig, params: dict[str, Any]) -> ExperimentConfig:
    """The experiment with dotted names set, e.g. {"model.scheme": "rk4"}: the one place where names meet types.

    Raises:
        ValueError: an unknown name, a wrong type, or a combination that cannot be.
    """
    plain = to_plain(experiment)
    for name, value in params.items():
        *parents, last = name.split(".")
        node = plain
        for parent in parents:
            node = node.get(parent, {})
        if last not in node:
            raise ValueError(
                f"{name} is no key of an experiment{suggestion(name, list(_leaves(to_plain(experiment))))}"
            )
        node[last] = value
    return from_plain(ExperimentConfig, plain)


# --- the command line ---------------------------------------------------------------------------------------------

CONF = "sweep.conf"
OPEN_KEYS = ("space.fix.", "space.range.")  # take any name of the space below them


def load(arguments: list[str], saved: Path | None = None) -> AppConfig:
    """The typed configuration of Hydra overrides, or of a sweep's config.yaml with overrides of how it is run.

    Raises:
        InputError: what the user wrote is wrong; the message names it and what is possible.
    """
    composed = compose_config(arguments) if saved is None else _with_saved(arguments, saved)
    try:
        config = OmegaConf.to_object(composed)
        assert isinstance(config, AppConfig)
        config.space.build()
    except OmegaConfBaseException as error:
        cause = error.__cause__ or error
        raise InputError(_first_line(str(cause))) from error
    except (ValueError, TypeError) as error:
        raise InputError(str(error)) from error
    return config


def compose_config(arguments: list[str]) -> DictConfig:
    """Hydra's composition of config.yaml with the overrides."""
    overrides = _parse(arguments)
    for parsed, text in zip(overrides, arguments, strict=True):
        _check_key(parsed, text)
    try:
        with initialize_config_module(CONF, version_base="1.3"):
            return compose("config", overrides=hydra_arguments(arguments))
    except (HydraException, OmegaConfBaseException) as error:
        raise InputError(_explain(error, arguments)) from error


def save(config: AppConfig) -> str:
    """The text of config.yaml."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))


HOW_IT_RUNS = ("runtime", "final", "evaluate", "cluster", "tracking", "search")


def _with_saved(arguments: list[str], saved: Path) -> DictConfig:
    for text in arguments:
        if text.lstrip("+~").split(".")[0] not in HOW_IT_RUNS or text.lstrip("+").startswith("cluster="):
            raise InputError(
                f"{text}: what is learned was fixed when the sweep was searched ({saved}); only keys below "
                f"{', '.join(HOW_IT_RUNS)} can be set now."
            )
    overrides = _parse(arguments)
    for parsed, text in zip(overrides, arguments, strict=True):
        _check_key(parsed, text)
    try:
        merged = OmegaConf.merge(OmegaConf.structured(AppConfig), OmegaConf.load(saved))
        for parsed in overrides:
            OmegaConf.update(merged, parsed.key_or_group, parsed.value())
    except (OSError, UnicodeDecodeError, YAMLError) as error:
        raise InputError(f"{saved} cannot be read: {' '.join(str(error).split())}.") from error
    except OmegaConfBaseException as error:
        raise InputError(f"{error.full_key or saved}: {_first_line(str(error))}") from error
    assert isinstance(merged, DictConfig)
    return merged


def hydra_arguments(arguments: list[str]) -> list[str]:
    """space.fix.X= and space.range.X= as the additions that they are to Hydra."""
    return [f"+{text}" if text.startswith(OPEN_KEYS) else text for text in arguments]


def _parse(arguments: list[str]) -> list[Override]:
    try:
        return [OverridesParser.create().parse_override(text) for text in arguments]
    except HydraException as error:
        bad = next((text for text in arguments if not re.match(r"^[+~]*[\w.@/-]+=", text)), " ".join(arguments))
        raise InputError(f"{bad!r} cannot be read: write KEY=VALUE. {_first_line(str(error))}") from error


def _check_key(parsed: Override, text: str) -> None:
    key = parsed.key_or_group
    if parsed.is_delete():
        raise InputError(f"{text}: keys cannot be removed, only set: write {key}=VALUE.")
    if parsed.is_sweep_override():
        raise InputError(
            f"{text}: one value is needed; what is searched is chosen by space=NAME and space.range.KEY=[a,b]."
        )
    if key.startswith(OPEN_KEYS) or key in known_keys():
        return
    raise InputError(f"{text}: {key} is no key{suggestion(key, known_keys())}")


@cache
def known_keys() -> list[str]:
    """Every key of the configuration and every config group."""
    plain = OmegaConf.to_container(OmegaConf.structured(AppConfig), enum_to_str=True)
    assert isinstance(plain, dict)
    return [*_leaves(plain, inner=True)]


def suggestion(key: str, known: list[str]) -> str:
    """What was probably meant, by spelling of the whole name or of its last part."""
    near = difflib.get_close_matches(key, known, n=3, cutoff=0.6)
    tail = key.rsplit(".", 1)[-1]
    near += [name for name in known if name.rsplit(".", 1)[-1] == tail and name not in near]
    if near:
        return f"; did you mean {', '.join(near[:3])}?"
    heads = list(dict.fromkeys(name.split(".")[0] for name in known))
    return f"; keys begin with {', '.join(heads)}."


def _explain(error: Exception, arguments: list[str]) -> str:
    message = _first_line(str(error))
    if "Could not find" in message and (match := re.search(r"'(\w+)/(\S+)'", message)):
        from importlib.resources import files

        group, asked = match.groups()
        there = sorted(
            p.name.removesuffix(".yaml") for p in files(CONF).joinpath(group).iterdir() if p.name.endswith(".yaml")
        )
        return f"{group}={asked} is not possible; {group} can be {', '.join(there)}."
    cause = error.__cause__
    if isinstance(cause, OmegaConfBaseException):
        key = cause.full_key or ""
        given = next((text for text in arguments if text.lstrip("+").startswith(f"{key}=")), key)
        return f"{given}: {_first_line(str(cause))}"
    return message


def _first_line(message: str) -> str:
    return message.strip().splitlines()[0].strip() if message.strip() else "The configuration is not valid."


def _leaves(plain: dict[str, Any], prefix: str = "", *, inner: bool = False) -> Iterator[str]:
    for key, value in plain.items():
        if isinstance(value, dict):
            if inner:
                yield prefix + key
            yield from _leaves(value, f"{prefix}{key}.", inner=inner)
        else:
            yield prefix + key


def _flat(nested: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


ConfigStore.instance().store(name="schema", node=AppConfig)
