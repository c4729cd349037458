"""The user's own modules, which define networks and search spaces.

A module has NETWORKS, rows by their names, or SPACES, or both. It is imported where the user names it, on the command
line or in configuration files of theirs that it chooses, and never because another file says so: those may be a
stranger's. It is looked for behind all that is installed, in the working directory last. The source of its package, or
its file, is kept with the sweep, and workers import that.
"""

import hashlib
import re
import sys
import sysconfig
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from pathlib import Path
from tempfile import mkdtemp
from types import ModuleType
from typing import Any

import search_spaces
from odenet.enums import Network
from odenet.networks import table
from odenet.networks.table import add_networks
from search_spaces import SPACES, Space, add_spaces
from sweep.errors import InputError
from sweep.interpreter import PACKAGES


def check_module_names(names: Iterable[str]) -> None:
    """Raise ValueError where one is no name of a module."""
    for name in names:
        if not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*", name):
            raise ValueError(f"modules has {name!r}: write the names of modules, as in modules=[mine.networks].")


def import_modules(names: Iterable[str]) -> None:
    """Import modules of the user's, and add their networks and spaces to those there are.

    Raises:
        InputError: one is not there, fails while it is imported, defines nothing, or something that cannot be.
    """
    for name in names:
        module = _imported(name)
        networks = _own(module, "NETWORKS", table.NETWORKS)
        spaces = _own(module, "SPACES", SPACES)
        if not networks and not spaces:
            raise InputError(
                f"modules=[{name}]: {module.__file__} defines neither NETWORKS nor SPACES, a dictionary of rows or of "
                "spaces by their names."
            )
        try:
            add_networks(networks, name)
            add_spaces(spaces)
        except ValueError as error:
            raise InputError(f"modules=[{name}]: {error}") from error


def _own(module: ModuleType, name: str, ours: object) -> Mapping[str, Any]:
    """Return what a module defines under a name, and nothing where it has only imported ours."""
    defined = vars(module).get(name, {})
    return defined if isinstance(defined, Mapping) and defined is not ours else {}


def space_in(path: str) -> Space:
    """Return the space MODULE:NAME. InputError: as `import_modules`, or it is none."""
    name, _, attribute = path.partition(":")
    defined = vars(_imported(name))
    space = defined.get(attribute)
    if not isinstance(space, Space):
        there = ", ".join(key for key, value in defined.items() if isinstance(value, Space)) or "none"
        raise InputError(f"space={path}: {name} has no Space of that name; its spaces are: {there}.")
    return space


def look_here() -> None:
    """Let modules be found in the working directory, behind all that is installed or on PYTHONPATH."""
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))


def _imported(name: str) -> ModuleType:
    before = set(sys.modules)
    try:
        module = import_module(name)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # of whatever kind: SystemExit, and the user's own
        if isinstance(error, ModuleNotFoundError) and error.name and f"{name}.".startswith(f"{error.name}."):
            raise InputError(
                f"There is no module {name}: neither is {error.name} installed, nor on PYTHONPATH, nor in {Path.cwd()}."
            ) from error
        raise InputError(f"The module {name} cannot be imported: {_where(error)}.") from error
    _check_whole(name, [sys.modules[other] for other in set(sys.modules) - before])
    return module


def _where(error: BaseException) -> str:
    """Say what went wrong in the user's module, and in which line."""
    if isinstance(error, SyntaxError):  # no line of it ran
        return f"{type(error).__name__}: {error.msg} ({error.filename}:{error.lineno})"
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = f" ({trace.tb_frame.f_code.co_filename}:{trace.tb_lineno})" if trace else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())}{place}"


def _check_whole(name: str, loaded: Iterable[ModuleType]) -> None:
    """Raise InputError where the module has loaded another file beside its package: workers would not have it."""
    top, root = _top(name), _root(name)
    for other in loaded:
        file = Path(getattr(other, "__file__", None) or "")
        others = other.__name__.split(".")[0] not in (top, *PACKAGES) and not _installed(file)
        if root is not None and others and root.parent in file.parents:
            raise InputError(
                f"The module {name} imports {file}, which is not kept with a sweep and does not reach its workers: put "
                "both into one package, a folder with __init__.py, and name modules=[FOLDER.MODULE]."
            )


# --- what is kept ---------------------------------------------------------------------------------------------------


def _top(name: str) -> str:
    return name.partition(".")[0]


def _root(name: str) -> Path | None:
    """Return the file of a module, or the folder of the package it is in; None where it has none."""
    top = sys.modules[_top(name)]
    if top.__file__ is None:
        return next((Path(place) for place in getattr(top, "__path__", [])), None)
    file = Path(top.__file__)
    return file.parent if file.name == "__init__.py" else file


def _installed(file: Path) -> bool:
    places = {Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib")}
    return any(place in file.parents for place in places)


def _texts(root: Path) -> dict[str, bytes]:
    files = sorted(root.rglob("*.py")) if root.is_dir() else [root]
    return {str(file.relative_to(root.parent)): file.read_bytes() for file in files if file.is_file()}


def own_code(network: Network) -> list[Path]:
    """List what a network of the user's own needs besides odenet and what is installed: its package or file, and the
    spaces of this project, which such a module may import."""
    root = _root(table.HOMES[network]) if network in table.HOMES else None
    return [] if root is None or _installed(root) else [root, Path(search_spaces.__file__).parent]


def module_hash(name: str) -> str:
    """Return 16 hex digits of an imported module's source: of its whole package, where it is in one."""
    root = _root(name)
    return "" if root is None else _hash(_texts(root))


def _hash(texts: Mapping[str, bytes]) -> str:
    digest = hashlib.sha256()
    for name, text in texts.items():
        digest.update(name.encode() + b"\0" + text + b"\0")
    return digest.hexdigest()[:16]


def hashes(names: Iterable[str]) -> dict[str, str]:
    return {name: module_hash(name) for name in names}


def kept_texts(names: Iterable[str]) -> dict[str, str]:
    """Return the sources of imported modules by their relative paths, but for those that are installed."""
    roots = [root for root in map(_root, names) if root is not None and not _installed(root)]
    return {path: text.decode() for root in roots for path, text in _texts(root).items()}


def changed_since(names: Iterable[str], directory: Path) -> list[str]:
    """List the imported modules whose source is not the one that is kept in a directory."""
    found = []
    for name in names:
        kept = directory / _top(name)
        kept = kept if kept.is_dir() else kept.with_suffix(".py")
        if kept.exists() and _hash(_texts(kept)) != module_hash(name):
            found.append(name)
    return found


def import_kept(names: Sequence[str], directory: Path, texts: Mapping[str, str] | None = None) -> None:
    """Import modules from where their source is kept, and only what is not kept from elsewhere. InputError: as
    `import_modules`.

    Args:
        texts: their source by file, as `kept_texts` returns it, for a machine that may not see the directory.
    """
    if texts and not directory.is_dir():
        directory = Path(mkdtemp(prefix="sweep-modules-"))
        for path, text in texts.items():
            (directory / path).parent.mkdir(parents=True, exist_ok=True)
            (directory / path).write_text(text, encoding="utf-8")
    for top in dict.fromkeys(_top(name) for name in names):
        spec = None if top in sys.modules else PathFinder.find_spec(top, [str(directory)])
        if spec is not None and spec.loader is not None:
            module = sys.modules[top] = module_from_spec(spec)
            spec.loader.exec_module(module)
    import_modules(names)


def not_named(names: Sequence[str], where: Any) -> InputError:
    """Build the refusal to import what only a file names."""
    return InputError(
        f"{where} was made with the user's own modules {', '.join(names)}, and a file never runs code by itself: if "
        f"you trust them, name them, modules=[{','.join(names)}], and have them in the working directory or on "
        "PYTHONPATH."
    )
