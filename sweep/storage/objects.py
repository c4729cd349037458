"""Objects in storage: whole bytes under a key, in a bucket or in a directory that all machines see.

An object appears at once and whole or not at all. There is no append and no lock; `create` alone can tell that nobody
else has written the key before.
"""

import errno
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sweep.errors import StorageError
from sweep.records.files import read_bytes, write_bytes


class Unreachable(OSError):
    """Storage does not answer now; the same may be asked again."""

    def __init__(self, message: str) -> None:
        super().__init__(errno.EIO, message)


class Refused(OSError):
    """Storage answers that this cannot be: there is no such bucket, or these credentials may not."""

    def __init__(self, message: str) -> None:
        super().__init__(errno.EACCES, message)


@dataclass(frozen=True, slots=True)
class Stored:
    """An object in storage. `modified`: when it was written, in seconds by the clock of the storage."""

    key: str
    modified: float


class ObjectStore(ABC):
    """Objects by key. All methods raise `Unreachable` or `Refused`."""

    def __init__(self, address: str) -> None:
        self.address = address

    @abstractmethod
    def put(self, key: str, content: bytes) -> None:
        """Write an object, or replace it."""

    @abstractmethod
    def create(self, key: str, content: bytes) -> bool:
        """Write an object unless there is one of this key; tell whether it was written."""

    @abstractmethod
    def get(self, key: str) -> bytes:
        """Read an object. FileNotFoundError: there is none."""

    @abstractmethod
    def objects(self, prefix: str, after: str = "") -> list[Stored]:
        """List the objects whose keys begin so, in the order of their keys. `after`: only those behind this key."""

    @abstractmethod
    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects; those that are not there count as deleted."""

    @abstractmethod
    def now(self) -> float:
        """Return the time by the clock of the storage, as it was when it last answered."""


class SharedDirectory(ObjectStore):
    """Objects as files below a directory that all machines see."""

    def put(self, key: str, content: bytes) -> None:
        try:
            write_bytes(self._path(key), content)
        except StorageError as error:
            raise Unreachable(str(error)) from error

    def create(self, key: str, content: bytes) -> bool:
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with path.open("xb") as file:
                file.write(content)
                os.fsync(file.fileno())
        except FileExistsError:
            return False
        return True

    def get(self, key: str) -> bytes:
        return read_bytes(self._path(key))

    def objects(self, prefix: str, after: str = "") -> list[Stored]:
        root, folder = Path(self.address), self._path(prefix.rpartition("/")[0])
        found = {path: path.relative_to(root).as_posix() for path in folder.rglob("*")}
        keys = {path: key for path, key in found.items() if not path.name.startswith(".") and path.is_file()}
        wanted = [(key, path) for path, key in keys.items() if key.startswith(prefix) and key > after]
        return [Stored(key, path.stat().st_mtime) for key, path in sorted(wanted)]

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._path(key).unlink(missing_ok=True)

    def now(self) -> float:
        probe = self._path(f".clock-{os.getpid()}")
        write_bytes(probe, b"")
        found = probe.stat().st_mtime  # of the server, where it is another machine
        probe.unlink()
        return found

    def _path(self, key: str) -> Path:
        return Path(self.address) / key
