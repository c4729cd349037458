"""Build the typed configuration from the words of a command line, through Hydra; check each word before it gets
there."""

import re
from dataclasses import is_dataclass
from enum import EnumType
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args, get_type_hints

from hydra import compose, initialize_config_module
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from odenet.training.config import to_plain
from search_spaces import SPACES
from sweep.config.credentials import take_credentials
from sweep.config.overrides import leaves, suggestion
from sweep.config.schema import AppConfig, SpaceConfig
from sweep.errors import InputError

CONF = "sweep.config.conf"
OPEN_KEYS = ("space.fix.", "space.range.")  # take any name of the space below them
# What can be set of work that was begun: how it goes on; and of a finished search, or a best.yaml, what follows it.
GOES_ON = (
    "runtime.", "cluster.", "tracking.", "search.concurrency", "search.retries", "search.checkpoint_every",
    "search.timeout_minutes", "search.budget.", "search.accept_changes", "search.more",
)  # fmt: skip
FOLLOWS = (*GOES_ON, "final.", "evaluate.", "export.", "search.seed")
# What of a finished search can be asked otherwise when it is replayed: how it was searched, not what.
REPLAYED = (
    "replay.", "runtime.runs_dir", "search.sampler", "search.scheduler", "search.seed", "search.trials",
    "search.random_share", "search.grace", "search.reduction", "search.budget.",
)  # fmt: skip

# Of config.yaml in version 0.1.0. A section that came later has its defaults where a directory does not have it.
FIRST_SECTIONS = (
    "model", "data", "optim", "refinement", "regularization", "training", "runtime", "space", "search", "final",
    "evaluate", "study", "replay", "cluster", "tracking",
)  # fmt: skip


def load(arguments: list[str], saved: Path | None = None, possible: tuple[str, ...] = FOLLOWS) -> AppConfig:
    """Build the typed configuration from overrides, or from a saved config.yaml and overrides of what is `possible`.

    Raises:
        InputError: what the user wrote is wrong; the message names it and what is possible.
    """
    composed = compose_config(arguments) if saved is None else _with_saved(arguments, saved, possible)
    try:
        if saved is None:
            _apply_space(composed, arguments)
        if isinstance(uri := composed.tracking.uri, str):  # of an older config.yaml, or of a notebook
            composed.tracking.uri = take_credentials(uri, replace=False)
        config = OmegaConf.to_object(composed)
        assert isinstance(config, AppConfig)
        if saved is not None:
            config.space.build()  # that of a command line was built to apply it
    except OmegaConfBaseException as error:
        raise InputError(_said(error.__cause__ or error)) from error
    except (ValueError, TypeError) as error:
        raise InputError(str(error)) from error
    return config


def _apply_space(composed: DictConfig, arguments: list[str]) -> None:
    """Set what the space fixes, so that other keys are judged with it. InputError for a key that the space decides."""
    chosen = OmegaConf.to_object(composed.space)
    assert isinstance(chosen, SpaceConfig)
    space = chosen.build()
    for text in arguments:
        key = text.split("=")[0]
        if key in space.entries:
            how = f"fixes it: {space.fixed[key]}" if key in space.fixed else "searches it"
            raise InputError(
                f"{text} would have no effect, space={chosen.name} {how}. A searched key takes one value by "
                f"space.fix.{key}=VALUE; space=NAME chooses another family."
            )
    for key, value in space.fixed.items():
        if key not in space.conditions:
            OmegaConf.update(composed, key, value)


def compose_config(arguments: list[str]) -> DictConfig:
    """Let Hydra compose config.yaml with the overrides. InputError as `load`."""
    _parse(arguments)
    try:
        with initialize_config_module(CONF, version_base="1.3"):
            return compose("config", overrides=hydra_arguments(arguments))
    except (HydraException, OmegaConfBaseException, OverflowError) as error:
        raise InputError(_explain(error.__cause__ or error, arguments)) from error


def composed_text(arguments: list[str]) -> str:
    """Return the composed configuration as YAML. InputError as `load`."""
    return OmegaConf.to_yaml(compose_config(arguments))


def hydra_arguments(arguments: list[str]) -> list[str]:
    """Write space.fix.X= and space.range.X= as Hydra's additions (++); the last of two counts."""
    return [f"++{text}" if text.startswith(OPEN_KEYS) else text for text in arguments]


def check_possible(arguments: list[str], origin: Path, possible: tuple[str, ...] = FOLLOWS) -> None:
    """Raise InputError for an override of a key that `origin` has fixed."""
    for text in arguments:
        if not text.lstrip("+~").startswith(possible):
            raise InputError(
                f"{text}: what is learned is fixed by {origin}; only {', '.join(possible).replace('.,', '.*,')} "
                "can be set now."
            )


def _with_saved(arguments: list[str], saved: Path, possible: tuple[str, ...]) -> DictConfig:
    check_possible(arguments, saved, possible)
    overrides = _parse(arguments)
    schema = OmegaConf.structured(AppConfig)
    try:
        content = OmegaConf.load(saved)
        if not isinstance(content, DictConfig) or not set(FIRST_SECTIONS) <= set(content):
            raise InputError(f"{saved} is damaged: it needs the keys {', '.join(FIRST_SECTIONS)}.")
        newer = set(content) - set(schema)
        if newer:
            raise InputError(
                f"{saved}: {min(newer)} is unknown to this version, a newer one wrote it: update this one."
            )
        merged = OmegaConf.merge(schema, content)
        for parsed in overrides:
            OmegaConf.update(merged, parsed.key_or_group, parsed.value())
    except (OSError, UnicodeDecodeError, YAMLError, RecursionError) as error:
        raise InputError(f"{saved} cannot be read: {' '.join(str(error).split())}.") from error
    except (OmegaConfBaseException, OverflowError) as error:
        raise InputError(_explain(error, arguments)) from error
    assert isinstance(merged, DictConfig)
    return merged


def _parse(arguments: list[str]) -> list[Override]:
    return [_parse_one(text) for text in arguments]


def _parse_one(text: str) -> Override:
    try:
        parsed = OverridesParser.create().parse_override(text)
    except HydraException as error:
        raise InputError(f"{text!r} cannot be read: write KEY=VALUE. {_first_line(str(error))}") from error
    _check(parsed, text)
    return parsed


def _check(parsed: Override, text: str) -> None:
    key = parsed.key_or_group
    if parsed.is_delete():
        raise InputError(f"{text}: keys cannot be removed, only set: write {key}=VALUE.")
    if parsed.is_sweep_override():
        raise InputError(
            f"{text}: one value is needed; what is searched is chosen by space=NAME and space.range.KEY=[a,b]."
        )
    if key.startswith(OPEN_KEYS):
        return
    if key not in known_keys():
        raise InputError(f"{text}: {key or 'nothing'} is no key{suggestion(key, known_keys())}")
    if parsed.is_add() or parsed.package is not None:
        raise InputError(f"{text}: {key} is there already, so neither + nor @ are possible: write {key}=VALUE.")
    if key in groups() and parsed.value() not in groups()[key]:
        raise InputError(f"{text} is not possible; {key} can be {', '.join(groups()[key])}.")


@cache
def groups() -> dict[str, list[str]]:
    """List the choices of each config group (data, space, cluster): the YAML files below sweep/config/conf."""
    folders = [folder for folder in files(CONF).iterdir() if folder.is_dir() and not folder.name.startswith("_")]
    return {folder.name: sorted(file.name.removesuffix(".yaml") for file in folder.iterdir()) for folder in folders}


@cache
def known_keys() -> list[str]:
    """List every key of the configuration, inner ones and groups included."""
    return list(leaves(to_plain(AppConfig()), inner=True))


def completions(word: str) -> list[str]:
    """Complete a half-written KEY=VALUE: a key up to its next dot, or the values of a closed choice."""
    key, equals, value = word.partition("=")
    if equals:
        return [f"{key}={choice}" for choice in _choices(key) if choice.startswith(value)]
    searched = dict.fromkeys(key for space in SPACES.values() for key in space.parameters)
    names = [*leaves(to_plain(AppConfig())), *groups(), *(opened + key for opened in OPEN_KEYS for key in searched)]
    return sorted({_up_to_dot(f"{name}=", len(word)) for name in names if name.startswith(word)})


def _choices(key: str) -> list[str]:
    if key in groups():
        return groups()[key]
    hint: Any = AppConfig
    for part in key.removeprefix("space.fix.").split("."):
        hint = get_type_hints(hint).get(part) if is_dataclass(hint) else None
    kind, *_ = get_args(hint) or (hint,)  # what may be null is a union
    if isinstance(kind, EnumType):
        return list(kind.__members__)
    return ["false", "true"] if kind is bool else []


def _up_to_dot(name: str, start: int) -> str:
    dot = name.find(".", start)
    return name if dot < 0 else name[: dot + 1]


def _explain(error: BaseException, arguments: list[str]) -> str:
    """Phrase an error of Hydra or OmegaConf, beginning with the word of the command line that caused it."""
    key = _key_of(error)
    given = next((text for text in arguments if text.lstrip("+").startswith(f"{key}=")), None)
    return f"{given}: {_first_line(str(error))}" if given else _said(error)


def _said(error: BaseException) -> str:
    """Phrase an error of OmegaConf, beginning with its key."""
    key, message = _key_of(error), _first_line(str(error))
    return message if not key or message.startswith(key) else f"{key}: {message}"


def _key_of(error: BaseException) -> str:
    found = re.search(r"full_key: (\S+)", str(error))  # the only place where all of OmegaConf's errors have it
    return found[1] if found else ""


def _first_line(message: str) -> str:
    return message.strip().splitlines()[0].strip() if message.strip() else "The configuration is not valid."
