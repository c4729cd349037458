"""What the user has of their own: configuration files in Hydra's way, modules, a search space in one or in a file."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from search_spaces import OURS, SPACES, as_written
from sweep.config.modules import check_module_names, import_modules, look_here, space_in
from sweep.config.overrides import flat
from sweep.config.schema import SpaceConfig
from sweep.errors import NO_YAML, InputError

CONFIG_DIR, CONFIG_NAME, MODULES = "--config-dir=", "--config-name=", "modules="
OF_THE_USER = (CONFIG_DIR, CONFIG_NAME, MODULES)
SPACE_FILES = (".yaml", ".yml")
OF_A_SPACE = ("name", "like", "parameters")


@dataclass(frozen=True, slots=True)
class Words:
    """The words of a command line: a configuration file, a space of the user's own, modules, and other overrides."""

    overrides: list[str]
    directory: Path | None = None
    file: Path | None = None  # a configuration file of the user's; None: ours
    space: str = ""  # FILE.yaml or MODULE:NAME
    modules: list[str] = field(default_factory=list)

    @property
    def settings(self) -> dict[str, str]:
        """List the keys that the words, or the user's configuration file itself, set, with how they do."""
        in_file = {} if self.file is None else flat(read_mapping(self.file))
        said = {key: f"{self.file}: {key}={value}" for key, value in in_file.items()}
        return said | {text.lstrip("+").partition("=")[0]: text for text in self.overrides}


def is_of_config_file(word: str) -> bool:
    """Tell whether a word names the user's configuration file, or its directory."""
    return word.startswith((CONFIG_DIR, CONFIG_NAME))


def sort_words(arguments: Sequence[str]) -> Words:
    """Sort words, and import the modules that they name, or else the user's configuration files that they choose.

    Raises:
        InputError: a file is not there, or is none; or as `import_modules`.
    """
    directory = _last(arguments, CONFIG_DIR)
    name = _last(arguments, CONFIG_NAME)
    file = _config_file(directory, name)
    chosen = next((text for text in reversed(arguments) if text.startswith("space=")), "")
    space = _value(chosen) if _is_own_space(chosen) else ""
    others = [text for text in arguments if not is_of_config_file(text) and not _is_own_space(text)]
    named = [text for text in others if text.startswith(MODULES)]
    modules = _listed(named[-1]) if named else _modules_of(_own_files(directory, file, others))
    if modules or ":" in space:
        look_here()
    import_modules(modules)
    others = [f"space.name={_value(text)}" if _is_added_space(text) else text for text in others]
    return Words(others, Path(directory).absolute() if directory else None, file, space, modules)


def named(modules: Sequence[str]) -> list[str]:
    """Write the word that names modules; none where there are none."""
    return [f"{MODULES}[{','.join(modules)}]"] if modules else []


def _last(arguments: Sequence[str], head: str) -> str:
    return next((text.removeprefix(head) for text in reversed(arguments) if text.startswith(head)), "")


def _config_file(directory: str, name: str) -> Path | None:
    if directory and not Path(directory).is_dir():
        raise InputError(f"--config-dir {directory}: there is no such directory.")
    if not name or (name == "config" and not directory):
        return None
    if not directory:
        raise InputError(f"--config-name {name}: say where it is, --config-dir DIR.")
    file = Path(directory).absolute() / (name if name.endswith(SPACE_FILES) else f"{name}.yaml")
    if not file.is_file():
        there = ", ".join(sorted(path.stem for path in Path(directory).glob("*.yaml"))) or "none"
        raise InputError(f"--config-name {name}: there is no {file}; configuration files there: {there}.")
    return file


def _value(text: str) -> str:
    return text.partition("=")[2].strip("'\"")


def _is_own_space(text: str) -> bool:
    """Tell whether a word chooses a space in a file or in a module."""
    return text.startswith("space=") and (_value(text).endswith(SPACE_FILES) or ":" in _value(text))


def _is_added_space(text: str) -> bool:
    return text.startswith("space=") and _value(text) in SPACES.keys() - OURS


def _listed(text: str) -> list[str]:
    value = text.removeprefix(MODULES).strip()
    if not (value.startswith("[") and value.endswith("]")):
        raise InputError(f"{text} must be a list: modules=[{value}].")
    names = [one.strip().strip("'\"") for one in value[1:-1].split(",") if one.strip()]
    return _checked(names)


def _checked(names: list[str]) -> list[str]:
    try:
        check_module_names(names)
    except ValueError as error:
        raise InputError(str(error)) from error
    return names


def _modules_of(files: Sequence[Path]) -> list[str]:
    """Read the modules that the user's configuration files name; they are there before the rest of it is judged."""
    found: list[str] = []
    for file in files:
        names = read_mapping(file).get("modules") or []
        if not isinstance(names, ListConfig | list) or not all(isinstance(name, str) for name in names):
            raise InputError(f"{file}: modules must be a list of names, not {names!r}.")
        found += _checked(list(names))
    return list(dict.fromkeys(found))


def _own_files(directory: str, file: Path | None, words: Sequence[str]) -> list[Path]:
    """List the user's configuration files that are chosen, by the words or by one another's defaults lists."""
    if not directory:
        return []
    root = Path(directory).absolute()
    chosen = dict(word.split("=") for word in words if re.fullmatch(r"\w+=[\w.-]+", word))
    waiting = [root / group / f"{name}.yaml" for group, name in chosen.items()] + ([file] if file else [])
    found: list[Path] = []
    while waiting:
        one = waiting.pop()
        if one not in found and one.is_file():
            found.append(one)
            waiting += [path for group, path in _defaults(one, root) if group not in chosen]
    return found


def _defaults(file: Path, root: Path) -> Iterator[tuple[str, Path]]:
    """Yield the files that a defaults list may choose below the user's directory, each with its group."""
    entries = read_mapping(file).get("defaults") or []
    for entry in entries if isinstance(entries, list) else []:
        named = entry if isinstance(entry, dict) else {"": entry}
        for key, name in named.items():
            group = re.sub(r"^(override|optional)\s+", "", str(key)).partition("@")[0]
            if isinstance(name, str):
                yield group.lstrip("/"), (root if "/" in group else file.parent) / group.lstrip("/") / f"{name}.yaml"


def read_mapping(file: Path) -> dict[str, Any]:
    """Read a YAML file. InputError: it cannot be read, or is no mapping."""
    try:
        content = OmegaConf.load(file)
        plain = OmegaConf.to_container(content, resolve=False)
    except (OSError, YAMLError, OmegaConfBaseException, *NO_YAML) as error:
        raise InputError(f"{file} cannot be read: {' '.join(str(error).split())}.") from error
    if not isinstance(content, DictConfig) or not isinstance(plain, dict) or not all(type(key) is str for key in plain):
        raise InputError(f"{file} is no mapping of names.")
    return {str(key): value for key, value in plain.items()}


def read_space(word: str) -> SpaceConfig:
    """Read the space FILE.yaml or MODULE:NAME, whole. InputError: it is not there, or is none."""
    file = word.endswith(SPACE_FILES)
    content = _written(Path(word)) if file else {"parameters": as_written(space_in(word))}
    name = Path(word).stem if file else word.partition(":")[2].lower()
    try:
        return whole(SpaceConfig(**{"name": name, **content}))
    except (ValueError, TypeError) as error:
        raise InputError(f"space={word}: {error}") from error


def _written(file: Path) -> dict[str, Any]:
    content = read_mapping(file)
    unknown = [key for key in content if key not in OF_A_SPACE]
    if unknown:
        raise InputError(f"{file}: {unknown[0]} is nothing that a space has; possible are {', '.join(OF_A_SPACE)}.")
    parameters = content.get("parameters", {})
    if not isinstance(parameters, dict) or not (parameters or content.get("like")):
        raise InputError(f"{file}: parameters must be a mapping of keys to what each may be.")
    return content


def whole(space: SpaceConfig) -> SpaceConfig:
    """Return the choice of a space with all of the space in it where it is not one of ours: what is saved needs neither
    the file nor the module again. ValueError: as `SpaceConfig.build`."""
    if space.name in OURS and space.like is None and not space.parameters:
        return space
    return replace(space, like=None, parameters=as_written(space.plain()))
