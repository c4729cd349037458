"""origin.json: the space, code and data that a sweep began with, and its id. Going on under others would mix two
experiments.

The id is drawn when the sweep begins and never changes, and nor does the name under which study, ledger and MLflow know
it, whatever its directory is called later. `place` is where it was last worked on: a directory with the same id
elsewhere is a copy while that one is there, else it was moved. A directory of version 0.1.0 has none of these; it is
given them when it is next gone on with.
"""

import hashlib
import json
import uuid
from collections.abc import Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from odenet.data.subsets import Splits
from search_spaces import Space
from sweep.config.modules import hashes
from sweep.errors import InputError
from sweep.records.files import read_bytes, write_text
from sweep.records.run_directory import ORIGIN

LEARNED_BY = ("odenet", "search_spaces")  # packages whose code decides what a trial's result is
IDENTITY = ("id", "name", "place")
VERSIONS = ("torch", "numpy", "optuna")


def origin(space: Space, splits: Splits, modules: Sequence[str] = ()) -> dict[str, Any]:
    """Describe what must be equal for two sessions to belong to one sweep. `modules`: the user's own."""
    return {
        "space": space.to_dict(),
        "data": splits.hash,
        "code": {name: _hash_of(name) for name in LEARNED_BY} | hashes(modules),
        "versions": {name: version(name) for name in VERSIONS},
    }


def _hash_of(package: str) -> str:
    spec = find_spec(package)
    assert spec is not None and spec.submodule_search_locations is not None
    root, digest = Path(spec.submodule_search_locations[0]), hashlib.sha256()
    for file in sorted(root.rglob("*.py")):
        digest.update(str(file.relative_to(root)).encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def check_origin(file: Path, now: dict[str, Any], accept: bool, name: str = "") -> None:
    """Write origin.json where there is none, else compare it with `now` and rewrite it. `name`: of a sweep whose name
    is not recorded yet.

    Raises:
        InputError: something differs and `accept` is False; names it. Or the file is damaged.
    """
    compare_origin(file, now, accept)
    begun = identity(name or file.parent.name, file.parent)
    known = {key: value for key in IDENTITY if (value := _recorded(file, key))}
    _write(file, {**begun, **known, "place": begun["place"], **now})


def identity(name: str, directory: Path) -> dict[str, str]:
    """Draw the id of what begins now."""
    return {"id": uuid.uuid4().hex, "name": name, "place": str(directory.resolve())}


def identity_text(name: str, directory: Path) -> str:
    """Return the origin.json of what begins now, before its space and data are known."""
    return _text(identity(name, directory))


def sweep_id(file: Path) -> str:
    """Read the id of a sweep from its origin.json; empty where there is none, or the file is damaged."""
    return _recorded(file, "id")


def name_begun_with(file: Path) -> str:
    """Read the name under which a sweep was begun from its origin.json; empty as for `sweep_id`."""
    return _recorded(file, "name")


def check_no_copy(directory: Path) -> None:
    """Raise InputError where this run directory, or one of a sweep within it, is the copy of one that is there, too: to
    go on with both would mix them in MLflow and in what is reported."""
    for file in _origins(directory):
        place = Path(_recorded(file, "place") or file.parent.resolve())
        if place == file.parent.resolve():
            continue
        # Beside it as well: what was moved and then copied has the place of before.
        for other in (place / file.name, *directory.resolve().parent.glob(f"*/{file.name}")):
            if sweep_id(other) == sweep_id(file) != "" and not _same_file(file, other):
                raise InputError(
                    f"{file.parent} is a copy of {other.parent}, which has the same id: it can be read, and cannot be "
                    "gone on with while both are there. A new sweep can try its configurations first: "
                    f"search.enqueue=[{file.parent / 'trials.csv'}]."
                )


def settle(directory: Path) -> None:
    """Record that this run directory, and those of sweeps within it, are now here: they may have been moved."""
    for file in _origins(directory):
        place = str(file.parent.resolve())
        if _recorded(file, "place") not in ("", place):
            _write(file, {**_read(file), "place": place})


def _origins(directory: Path) -> list[Path]:
    return [file for pattern in (ORIGIN, f"*/{ORIGIN}") for file in directory.glob(pattern)]


def _same_file(one: Path, other: Path) -> bool:
    """Tell whether two paths lead to one file, also where its file system is mounted twice."""
    first, second = one.stat(), other.stat()
    return (first.st_ino, first.st_mtime_ns) == (second.st_ino, second.st_mtime_ns)


def _recorded(file: Path, key: str) -> str:
    try:
        found = _read(file).get(key) if file.exists() else None
    except (InputError, OSError):  # OSError: somebody else's directory
        return ""
    return found if isinstance(found, str) else ""


def _write(file: Path, content: dict[str, Any]) -> None:
    write_text(file, _text(content))


def _text(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=2) + "\n"


def compare_origin(file: Path, now: dict[str, Any], accept: bool) -> None:
    """Compare origin.json with `now` without writing. InputError as `check_origin`."""
    if not file.exists() or accept:
        return
    before = _read(file)
    if before.keys() <= set(IDENTITY):  # it was cut short before its space and data were recorded
        return
    changed = list(_differences(before, now))
    if changed:
        raise InputError(
            f"{file.parent.name} began with something else: {'; '.join(changed)}. Go back to that, or go on with "
            "search.accept_changes=true, and say so where you report it."
        )


def _read(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(read_bytes(file))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{file} is damaged: {error}. search.accept_changes=true writes it anew.") from error
    if not isinstance(content, dict):
        raise InputError(f"{file} is damaged: it must be a mapping. search.accept_changes=true writes it anew.")
    return content


def _differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    found = []
    old, new = _entries(before.get("space")), _entries(now["space"])
    for key in {**old, **new}:
        if old.get(key) != new.get(key):
            found.append(f"space {key} was {old.get(key, 'absent')}, is {new.get(key, 'absent')}")
    if before.get("data") != now["data"]:
        found.append(f"the data's hash was {before.get('data')}, is {now['data']}")
    for part in ("code", "versions"):
        was = before.get(part)
        for name, value in now[part].items():
            old_value = was.get(name, "absent") if isinstance(was, dict) else "absent"
            if old_value != value:
                found.append(f"{part} of {name} was {old_value}, is {value}")
    return found


def _entries(space: Any) -> dict[str, str]:
    entries = space.get("entries", []) if isinstance(space, dict) else []
    return {str(entry.get("key")): json.dumps(entry, sort_keys=True) for entry in entries if isinstance(entry, dict)}
