"""Bring what a run directory holds to storage, so that a sweep outlives the machine of its driver.

The files stay the truth, written as without storage. Every few seconds what has changed goes to the session's folder as
new objects, and then a manifest that names all objects of that moment with their checksums: a manifest is true or not
there. What grows is cut into segments of whole lines; a segment that is large enough is sealed and not sent again.
docs/storage.md says what a lost machine can lose.
"""

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from sweep.records.files import open_regular, whole_lines, whole_rows
from sweep.storage.lease import is_followed, manifest_key, sessions_of
from sweep.storage.objects import ObjectStore

RECORD = "storage.json"  # of the run directory, not mirrored
STOP = "stop"  # the file by which workers see that the sweep is to stop
SEGMENT_BYTES = 2**20
KEPT_MANIFESTS = 2
KEPT_SESSIONS = 2
# In the order in which they are read, each before those that are believed after it: none is then ahead of another.
GROWING = (
    "deviations.jsonl", "curves.csv", "manifestations.csv", "ledger.csv", "study.journal", "test_use.jsonl",
    "outbox.jsonl",
)  # fmt: skip
# What belongs to this machine, is made again from the rest, or is in storage already.
LEFT_OUT = {
    "ray", "ray-search", "ray-final", STOP, "checkpoints", "mlartifacts", "delivered.json", "away.json",
    "set_aside.jsonl", "delivery.log", RECORD,
}  # fmt: skip
LEFT_OUT_HEADS, LEFT_OUT_ENDS = (".", "mlflow.db"), (".lock", ".torn")


class Followed(Exception):
    """Another driver has begun a later session."""


@dataclass(frozen=True, slots=True)
class ObjectPart:
    """A part of a file as an object."""

    key: str
    size: int
    sha256: str


@dataclass(slots=True)
class Mirrored:
    """A file as it is in storage. `sealed`: the first pieces, whose bytes in the file never change."""

    inode: int
    seen: tuple[int, int] = (-1, -1)  # size and time of change when it was read
    pieces: list[ObjectPart] = field(default_factory=list)
    sealed: int = 0

    @property
    def sealed_bytes(self) -> int:
        return sum(piece.size for piece in self.pieces[: self.sealed])


def checksum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def manifest_text(files: dict[str, list[ObjectPart]]) -> bytes:
    """Write a manifest: a line with the checksum of the rest, then JSON."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    pieces = {path: [asdict(piece) for piece in found] for path, found in sorted(files.items())}
    content = json.dumps({"schema": 1, "written": now, "files": pieces}, indent=1).encode()
    return f"{checksum(content)}\n".encode() + content


def mirrored_paths(directory: Path) -> list[Path]:
    """List the files that are mirrored, in the order in which they are to be read."""
    found = []
    for place, folders, files in os.walk(directory):
        folders[:] = [folder for folder in folders if _is_mirrored(folder)]
        found += [Path(place, file) for file in files if _is_mirrored(file)]
    return sorted(found, key=lambda path: (_turn(path), path.as_posix()), reverse=True)


def _is_mirrored(name: str) -> bool:
    return not (name in LEFT_OUT or name.startswith(LEFT_OUT_HEADS) or name.endswith(LEFT_OUT_ENDS))


def _turn(path: Path) -> int:
    """Return how late a file is read: what is replaced first, as it follows what grows, the outbox last."""
    return -GROWING.index(path.name) if path.name in GROWING else 1


class Mirror:
    """The copy of a run directory in one session."""

    def __init__(self, store: ObjectStore, folder: str, directory: Path) -> None:
        self._store, self._folder, self._directory = store, folder, directory
        self._stops = False
        self._files: dict[str, Mirrored] = {}
        self._count = self._turn = 0
        self._live: list[set[str]] = []  # the objects of the newest manifests, and these themselves
        self._later: list[Callable[[], None]] = []

    @property
    def stop_address(self) -> str:
        """The address of the object that tells workers to stop."""
        return f"{self._store.address}/{self._folder}/{STOP}"

    def after_next(self, action: Callable[[], None]) -> None:
        """Do this when what is on disk now is in storage, too, such as deleting what only older records need."""
        self._later.append(action)

    def turn(self, closed: bool = False) -> None:
        """Bring what has changed to storage, and name it in a manifest.

        Raises:
            Followed: another driver has taken over; nothing was written. Unreachable, Refused: not all is there; the
                manifest before is whole.
        """
        if is_followed(self._store, self._folder):
            raise Followed
        self._pass_on_stop()
        later = list(self._later)
        paths = mirrored_paths(self._directory)
        names = {path.relative_to(self._directory).as_posix() for path in paths}
        self._files = {name: known for name, known in self._files.items() if name in names}
        for path in paths:
            self._bring(path)
        self._write_manifest(closed)
        self._clean()
        for action in later:
            action()
            self._later.remove(action)

    def _pass_on_stop(self) -> None:
        if not self._stops and any(any(self._directory.glob(f"{above}{STOP}")) for above in ("", "*/", "*/*/")):
            self._store.put(f"{self._folder}/{STOP}", b"")
            self._stops = True

    def _bring(self, path: Path) -> None:
        """Send what is new of a file."""
        name = path.relative_to(self._directory).as_posix()
        known = self._files.get(name)
        try:
            with open_regular(path) as file:
                found = os.fstat(file.fileno())
                if known is None or known.inode != found.st_ino or found.st_size < known.sealed_bytes:
                    known = Mirrored(found.st_ino)
                if known.seen == (found.st_size, found.st_mtime_ns):
                    return
                file.seek(known.sealed_bytes)
                content = file.read()
        except FileNotFoundError:  # it was removed meanwhile
            self._files.pop(name, None)
            return
        sealed = Mirrored(known.inode, (found.st_size, found.st_mtime_ns), known.pieces[: known.sealed], known.sealed)
        self._files[name] = self._sent(name, sealed, content)

    def _sent(self, name: str, known: Mirrored, content: bytes) -> Mirrored:
        """Put the content behind the sealed pieces of a file into an object."""
        grows = Path(name).name in GROWING
        if grows:
            content = content[: (whole_rows if name.endswith(".csv") else whole_lines)(content)]
        if content or not known.pieces:
            self._count += 1
            key = f"{self._folder}/{self._count:08d}-{name.replace('/', '_')}"
            self._store.put(key, content)
            known.pieces.append(ObjectPart(key, len(content), checksum(content)))
        if grows and len(content) >= SEGMENT_BYTES:
            known.sealed = len(known.pieces)
        return known

    def _write_manifest(self, closed: bool) -> None:
        self._turn += 1
        key = manifest_key(self._folder, self._turn, closed)
        files = {name: known.pieces for name, known in self._files.items()}
        self._store.put(key, manifest_text(files))
        self._live.append({key, *(piece.key for pieces in files.values() for piece in pieces)})

    def _clean(self) -> None:
        """Delete what no kept manifest names, and with the first manifest what no kept session has."""
        if self._turn == 1:
            self._delete_sessions()
        if len(self._live) > KEPT_MANIFESTS:
            oldest = self._live.pop(0)
            self._store.delete(sorted(oldest - set().union(*self._live)))

    def _delete_sessions(self) -> None:
        head, _, number = self._folder.rpartition("/")
        name = head.rpartition("/")[0]
        former = [one for one in sessions_of(self._store, name) if one.number < int(number)]
        whole = [one for one in former if one.manifests]
        kept = {one.number for one in whole[1 - KEPT_SESSIONS :]}
        for one in former:
            if one.number not in kept:
                self._store.delete(one.keys)
