"""Build the typed configuration from the words of a command line, through Hydra; check each word before it gets
there."""

import re
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from enum import EnumType
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args, get_type_hints

from hydra import compose, initialize_config_dir, initialize_config_module
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from odenet.training.config import to_plain
from search_spaces import SPACES
from sweep.config.credentials import hidden, take_credentials
from sweep.config.decided import apply_space, check_spaces, with_hash
from sweep.config.modules import not_named
from sweep.config.overrides import leaves, suggestion
from sweep.config.own import OF_THE_USER, Words, is_of_config_file, read_space, sort_words
from sweep.config.schema import AppConfig
from sweep.errors import NO_YAML, InputError

CONF = "sweep.config.conf"
OPEN_KEYS = ("space.fix.", "space.range.")  # take any name of the space below them
# What can be set of work that was begun: how it goes on; and of a finished search, or a best.yaml, what follows it.
GOES_ON = (
    "runtime.", "cluster.", "tracking.", "search.concurrency", "search.retries", "search.checkpoint_every",
    "search.timeout_minutes", "search.budget.", "search.accept_changes", "search.more", "data.path", "modules",
)  # fmt: skip
FOLLOWS = (*GOES_ON, "final.", "evaluate.", "sensitivity.", "export.", "search.seed")
# What of a finished search can be asked otherwise when it is replayed: how it was searched, not what.
REPLAYED = (
    "replay.", "runtime.runs_dir", "search.sampler", "search.scheduler", "search.seed", "search.trials",
    "search.random_share", "search.grace", "search.reduction", "search.budget.", "modules",
)  # fmt: skip

DEFAULT = "default"  # the preset of a study that chooses none
COPY = "Bring back a copy, such as that in MLflow among the artifacts of the sweep's run."
# Of config.yaml in version 0.1.0. A section that came later has its defaults where a directory does not have it.
FIRST_SECTIONS = (
    "model", "data", "optim", "refinement", "regularization", "training", "runtime", "space", "search", "final",
    "evaluate", "study", "replay", "cluster", "tracking",
)  # fmt: skip


def load(
    arguments: list[str], saved: Path | None = None, possible: tuple[str, ...] = FOLLOWS, *, study: bool = False
) -> AppConfig:
    """Build the typed configuration from overrides, or from a saved config.yaml and overrides of what is `possible`.

    `study`: that of a study, whose preset is `default` where none is chosen.

    Raises:
        InputError: what the user wrote is wrong; the message names it and what is possible.
    """
    words = sort_words(arguments)
    if saved is None:
        composed, chosen = _composed(words, study)
    else:
        composed, chosen = _with_saved(words, saved, possible), study
    try:
        if saved is None and chosen:
            check_spaces(composed, words)
        elif saved is None:
            apply_space(composed, words)
        if isinstance(uri := composed.tracking.uri, str):  # of an older config.yaml, or of a notebook
            composed.tracking.uri = take_credentials(uri, replace=False)
        config = OmegaConf.to_object(composed)
        assert isinstance(config, AppConfig)
        if saved is not None and not study:
            config.space.build()  # that of a command line was built to apply it
        if saved is None:
            config.model = with_hash(config.model)
    except OmegaConfBaseException as error:
        raise InputError(_said(error.__cause__ or error)) from error
    except (ValueError, TypeError) as error:
        raise InputError(str(error)) from error
    return config


def compose_config(arguments: list[str], study: bool = False) -> DictConfig:
    """Let Hydra compose config.yaml, or the user's configuration file, with the overrides. InputError, `study`: as
    `load`."""
    return _composed(sort_words(arguments), study)[0]


def is_study(arguments: list[str]) -> bool:
    """Tell whether the words, or the configuration file that they name, set a key of a study or choose a preset.
    InputError as `load`."""
    return _composed(sort_words(arguments))[1]


def _hydra(words: Words, *more: str) -> tuple[DictConfig, str | None]:
    """Let Hydra compose, and return the preset of a study that was chosen, too."""
    overrides = [*hydra_arguments(words.overrides), *more]
    if words.file is not None:
        with initialize_config_dir(str(words.file.parent), version_base="1.3"):
            overrides.append(f"hydra.searchpath=[pkg://{CONF}]")
            composed = compose(words.file.stem, overrides=overrides, return_hydra_config=True)
    else:
        overrides += [] if words.directory is None else [f"hydra.searchpath=['file://{words.directory}']"]
        with initialize_config_module(CONF, version_base="1.3"):
            composed = compose("config", overrides=overrides, return_hydra_config=True)
    preset = composed.hydra.runtime.choices.get("study")
    with open_dict(composed):
        del composed["hydra"]
    return composed, preset


def _composed(words: Words, study: bool = False) -> tuple[DictConfig, bool]:
    """Compose what was said, and tell whether that is a study."""
    for text in words.overrides:
        _parse_one(text, words.directory)
    try:
        composed, preset = _hydra(words)
        if study and preset is None:
            composed, _ = _hydra(words, f"study={DEFAULT}")
        if {f.name for f in fields(AppConfig)} - set(composed):
            raise InputError(f"{words.file}: begin it with `defaults: [config, _self_]`: it lacks what others have.")
        if words.modules:
            composed.modules = words.modules  # of several files, the last of which would else count alone
        if words.space:
            own = read_space(words.space)
            with open_dict(composed.space):
                composed.space.name, composed.space.parameters = own.name, own.parameters
    except (HydraException, OmegaConfBaseException, OverflowError) as error:
        raise InputError(_explain(error.__cause__ or error, words.overrides)) from error
    return composed, study or preset is not None or any(key.startswith("study.") for key in words.settings)


def composed_text(arguments: list[str], study: bool = False) -> str:
    """Return the composed configuration as YAML, to be shown. InputError, `study`: as `load`."""
    return hidden(OmegaConf.to_yaml(compose_config(arguments, study)))


def hydra_arguments(arguments: list[str]) -> list[str]:
    """Write space.fix.X= and space.range.X= as Hydra's additions (++); the last of two counts."""
    return [f"++{text}" if text.startswith(OPEN_KEYS) else text for text in arguments]


def check_possible(arguments: list[str], origin: Path, possible: tuple[str, ...] = FOLLOWS) -> None:
    """Raise InputError for an override of a key that `origin` has fixed."""
    for text in arguments:
        if not is_of_config_file(text) and not text.lstrip("+~").startswith(possible):
            raise InputError(
                f"{text}: what is learned is fixed by {origin}; only {', '.join(possible).replace('.,', '.*,')} "
                "can be set now."
            )


def _with_saved(words: Words, saved: Path, possible: tuple[str, ...]) -> DictConfig:
    check_possible([*words.overrides, *([f"space={words.space}"] if words.space else [])], saved, possible)
    overrides = [_parse_one(text, None) for text in words.overrides]
    schema = OmegaConf.structured(AppConfig)
    try:
        content = OmegaConf.load(saved)
        if not isinstance(content, DictConfig) or not set(FIRST_SECTIONS) <= set(content):
            raise InputError(f"{saved} is damaged: it needs the keys {', '.join(FIRST_SECTIONS)}. {COPY}")
        newer = set(content) - set(schema)
        if newer:
            raise InputError(
                f"{saved}: {min(newer)} is unknown to this version, a newer one wrote it: update this one."
            )
        if missing := [str(name) for name in content.get("modules") or [] if name not in words.modules]:
            raise not_named(missing, saved)
        merged = OmegaConf.merge(schema, content)
        merged.modules = words.modules
        for parsed in overrides:
            OmegaConf.update(merged, parsed.key_or_group, parsed.value())
    except (OmegaConfBaseException, OverflowError) as error:
        raise InputError(_explain(error, words.overrides)) from error
    except (OSError, YAMLError, *NO_YAML) as error:
        raise InputError(f"{saved} cannot be read: {' '.join(str(error).split())}. {COPY}") from error
    assert isinstance(merged, DictConfig)
    return merged


def value_of(text: str) -> Any:
    """Return the value of KEY=VALUE as Hydra reads it. InputError: it cannot be read, or is of no key."""
    return _parse_one(text, None).value()


def _parse_one(text: str, directory: Path | None) -> Override:
    try:
        parsed = OverridesParser.create().parse_override(text)
    except HydraException as error:
        raise InputError(f"{text!r} cannot be read: write KEY=VALUE. {_first_line(str(error))}") from error
    _check(parsed, text, directory)
    return parsed


def _check(parsed: Override, text: str, directory: Path | None) -> None:
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
    if key in groups() and parsed.value() not in choices(key, directory):
        own = ", and a space of your own FILE.yaml or MODULE:NAME" if key == "space" else ""
        raise InputError(f"{text} is not possible; {key} can be {', '.join(choices(key, directory))}{own}.")


@cache
def groups() -> dict[str, list[str]]:
    """List the choices of each config group (data, space, cluster): the YAML files below sweep/config/conf."""
    folders = [folder for folder in files(CONF).iterdir() if folder.is_dir() and not folder.name.startswith("_")]
    return {folder.name: sorted(file.name.removesuffix(".yaml") for file in folder.iterdir()) for folder in folders}


def choices(group: str, directory: Path | None) -> list[str]:
    """List the choices of a config group, with those in the user's own directory and of the user's modules."""
    own = () if directory is None else (directory / group).glob("*.yaml")
    added = SPACES if group == "space" else ()
    return sorted({*groups()[group], *(file.stem for file in own), *added})


@cache
def known_keys() -> list[str]:
    """List every key of the configuration, inner ones and groups included."""
    return list(leaves(to_plain(AppConfig()), inner=True))


def completions(word: str, typed: Sequence[str] = ()) -> list[str]:
    """Complete a half-written KEY=VALUE: a key up to its next dot, or the values of a closed choice. `typed`: the words
    before it, of which those that name a configuration file and modules say what else there is."""
    key, equals, value = word.partition("=")
    if equals:
        return [f"{key}={choice}" for choice in _choices(key, typed) if choice.startswith(value)]
    searched = dict.fromkeys(key for space in SPACES.values() for key in space.parameters)
    names = [*leaves(to_plain(AppConfig())), *groups(), *(opened + key for opened in OPEN_KEYS for key in searched)]
    return sorted({_up_to_dot(f"{name}=", len(word)) for name in names if name.startswith(word)})


def _choices(key: str, typed: Sequence[str]) -> list[str]:
    try:
        directory = sort_words([text for text in typed if text.startswith(OF_THE_USER)]).directory
    except InputError:  # it is said when the command is given
        directory = None
    if key in groups():
        return choices(key, directory)
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
    lines = [line.strip() for line in message.strip().splitlines()] or ["The configuration is not valid."]
    return " ".join(lines[:2]) if lines[0].endswith("raised while composing config:") else lines[0]
