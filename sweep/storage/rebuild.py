"""Build a run directory again from storage, on a machine that has nothing of it but the address."""

import json
import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

from sweep.errors import InputError
from sweep.records.files import make_directory, sync_entry, write_bytes, write_text
from sweep.storage.lease import KnownSession, newest_manifest, sessions_of
from sweep.storage.mirror import RECORD, checksum
from sweep.storage.objects import ObjectStore


class _Damaged(Exception):
    """An object is not what was written."""


def record_text(address: str, manifest: str = "") -> str:
    """Write storage.json: where the run directory is mirrored, an id that no other directory has, and the newest
    manifest of when it was built from there."""
    return json.dumps({"storage": address, "copy": uuid.uuid4().hex, "manifest": manifest}) + "\n"


def names_in(store: ObjectStore) -> list[str]:
    """List the sweeps and studies in storage."""
    return sorted({one.key.partition("/")[0] for one in store.objects("")})


def rebuild(store: ObjectStore, name: str, directory: Path, say: Callable[[str], None]) -> None:
    """Write the run directory as the newest whole manifest has it.

    Raises:
        InputError: storage has no such sweep, or nothing of it is whole. Unreachable, Refused: it cannot be asked.
            StorageError: the directory cannot be written.
    """
    sessions = sessions_of(store, name)
    if not any(session.manifests for session in sessions):
        known = ", ".join(names_in(store)) or "none"
        raise InputError(f"There is no sweep {name} in {store.address}: those there are {known}.")
    temporary = directory.with_name(f".{directory.name}.{os.getpid()}")
    make_directory(temporary)
    temporary.chmod(0o700)
    try:
        written = _newest_whole(store, sessions, temporary, say)
        write_text(temporary / RECORD, record_text(store.address, newest_manifest(sessions)))
        temporary.rename(directory)
        sync_entry(directory)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    say(f"{directory} was built again from {store.address}, as {name} was at {written}.")


def _newest_whole(store: ObjectStore, sessions: list[KnownSession], directory: Path, say: Callable[[str], None]) -> str:
    """Write the files of the newest manifest that is whole with all its objects, and return when it was written."""
    damaged = ""
    for session in reversed(sessions):
        for manifest in reversed(session.manifests):
            try:
                content = _manifest(store, manifest)
                for path, pieces in content["files"].items():
                    write_bytes(_inside(directory, path), b"".join(_piece(store, piece) for piece in pieces))
                return str(content["written"])
            except (_Damaged, LookupError, TypeError, AttributeError) as error:
                damaged = str(error)
                say(f"{damaged}: the record before it is used.")
                _empty(directory)
    raise InputError(
        f"Nothing of {sessions[0].folder.partition('/')[0]} in {store.address} is whole: {damaged}. A bucket that "
        "keeps versions may have an older one."
    )


def _manifest(store: ObjectStore, key: str) -> dict[str, dict[str, list[dict[str, str]]]]:
    head, _, content = _get(store, key).partition(b"\n")
    if head.decode(errors="replace") != checksum(content):
        raise _Damaged(f"{key} is damaged")
    return json.loads(content)  # we wrote it, as its checksum says


def _piece(store: ObjectStore, piece: dict[str, str]) -> bytes:
    content = _get(store, piece["key"])
    if checksum(content) != piece["sha256"]:
        raise _Damaged(f"{piece['key']} is damaged")
    return content


def _get(store: ObjectStore, key: str) -> bytes:
    try:
        return store.get(key)
    except FileNotFoundError as error:
        raise _Damaged(f"{key} is missing") from error


def _inside(directory: Path, path: str) -> Path:
    """Return the place of a file. _Damaged: it would be outside; what stands in storage may be a stranger's."""
    if Path(path).is_absolute() or ".." in Path(path).parts:
        raise _Damaged(f"{path!r} is no place in a run directory")
    return directory / path


def _empty(directory: Path) -> None:
    for path in directory.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
