"""origin.json: the space, code and data that a sweep began with, and its id. Going on under others would mix two
experiments.

The id is drawn when the sweep begins and never changes, whatever its directory is called. A directory of version 0.1.0
has none; it is given one when it is next gone on with.
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
from sweep.records.files import write_text

LEARNED_BY = ("odenet", "search_spaces")  # packages whose code decides what a trial's result is
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


def check_origin(file: Path, now: dict[str, Any], accept: bool) -> None:
    """Write origin.json where there is none, else compare it with `now` and rewrite it.

    Raises:
        InputError: something differs and `accept` is False; names it. Or the file is damaged.
    """
    compare_origin(file, now, accept)
    write_text(file, json.dumps({"id": sweep_id(file) or uuid.uuid4().hex, **now}, indent=2) + "\n")


def sweep_id(file: Path) -> str:
    """Read the id of a sweep from its origin.json; empty where there is none, or the file is damaged."""
    try:
        found = _read(file).get("id") if file.exists() else None
    except InputError:
        return ""
    return found if isinstance(found, str) else ""


def compare_origin(file: Path, now: dict[str, Any], accept: bool) -> None:
    """Compare origin.json with `now` without writing. InputError as `check_origin`."""
    if not file.exists() or accept:
        return
    changed = list(_differences(_read(file), now))
    if changed:
        raise InputError(
            f"{file.parent.name} began with something else: {'; '.join(changed)}. Go back to that, or go on with "
            "search.accept_changes=true, and say so where you report it."
        )


def _read(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text())
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
