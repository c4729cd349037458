"""The folder with the checkpoints of one trial: a directory, or keys in a bucket. Names and rules are the same."""

import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from sweep.config.places import BUCKET, is_bucket
from sweep.records.checkpoints import checkpoint_files
from sweep.records.files import copy_file, write_bytes
from sweep.storage.objects import ObjectStore
from sweep.storage.opening import PATIENCE, Asked, open_store, patiently

if TYPE_CHECKING:
    from odenet.training.checkpoint import Checkpoint
    from odenet.training.loop import Training


class Folder(ABC):
    """The checkpoints of one trial, by the names of their files. OSError: they cannot be read or written."""

    @abstractmethod
    def names(self) -> list[str]:
        """List the trial's own checkpoints, the newest first."""

    @abstractmethod
    def has(self, name: str) -> bool:
        """Tell whether there is a file of this name."""

    @abstractmethod
    def is_there(self) -> bool:
        """Tell whether anything is in the folder, or below it."""

    @abstractmethod
    def load(self, name: str) -> "Checkpoint":
        """Read a checkpoint. DamagedCheckpoint: it is not what was written."""

    @abstractmethod
    def save(self, name: str, training: "Training") -> None:
        """Write a checkpoint of the present state, at once and whole."""

    @abstractmethod
    def copy_to(self, name: str, target: Path) -> None:
        """Copy a checkpoint to a file of the run directory."""

    @abstractmethod
    def take(self, name: str, folder: str, source: str) -> None:
        """Copy under this name what is called `source` in another trial's folder, unless there is none."""

    @abstractmethod
    def delete(self, names: Iterable[str]) -> None:
        """Delete these files."""

    @abstractmethod
    def remove(self) -> None:
        """Delete all of the folder."""

    @abstractmethod
    def path(self, name: str) -> str:
        """Write where a checkpoint is, as `load_from` reads it."""


class DirectoryFolder(Folder):
    """A directory of this machine, or one that all machines see."""

    def __init__(self, directory: str) -> None:
        self._directory = Path(directory)

    def names(self) -> list[str]:
        return [file.name for file in checkpoint_files(self._directory)]

    def has(self, name: str) -> bool:
        return (self._directory / name).exists()

    def is_there(self) -> bool:
        return self._directory.exists()

    def load(self, name: str) -> "Checkpoint":
        from odenet.training.checkpoint import load_checkpoint

        return load_checkpoint(self._directory / name)

    def save(self, name: str, training: "Training") -> None:
        self._directory.mkdir(exist_ok=True)  # not those above it: where they are missing this is another disk
        training.save(self._directory / name)

    def copy_to(self, name: str, target: Path) -> None:
        copy_file(self._directory / name, target)

    def take(self, name: str, folder: str, source: str) -> None:
        if (Path(folder) / source).exists():
            copy_file(Path(folder) / source, self._directory / name)

    def delete(self, names: Iterable[str]) -> None:
        for name in names:
            (self._directory / name).unlink(missing_ok=True)

    def remove(self) -> None:
        shutil.rmtree(self._directory, ignore_errors=True)

    def path(self, name: str) -> str:
        return str(self._directory / name)


class BucketFolder(Folder):
    """Keys in a bucket. What is asked of it is asked again for `patience` seconds where it does not answer."""

    def __init__(self, address: str, patience: float) -> None:
        # One client for a bucket, whatever the trial: opening one takes a third of a second.
        self._bucket, _, self._prefix = address.removeprefix(BUCKET).partition("/")
        self._prefix = f"{self._prefix.rstrip('/')}/"
        self._patience = patience

    @property
    def _store(self) -> ObjectStore:
        return open_store(f"{BUCKET}{self._bucket}")

    def names(self) -> list[str]:
        found = self._ask(lambda: self._store.objects(f"{self._prefix}epoch-"))
        return [one.key.removeprefix(self._prefix) for one in reversed(found)]

    def has(self, name: str) -> bool:
        return bool(self._ask(lambda: self._store.objects(self._prefix + name)))

    def is_there(self) -> bool:
        return self.has("")

    def load(self, name: str) -> "Checkpoint":
        from odenet.training.checkpoint import unpacked

        return unpacked(self._content(self._prefix + name), self.path(name))

    def save(self, name: str, training: "Training") -> None:
        from odenet.training.checkpoint import packed

        content = packed(training.checkpoint())
        self._ask(lambda: self._store.put(self._prefix + name, content))

    def copy_to(self, name: str, target: Path) -> None:
        write_bytes(target, self._content(self._prefix + name))

    def take(self, name: str, folder: str, source: str) -> None:
        other = BucketFolder(folder, self._patience)
        if other.has(source):
            content = self._content(other._prefix + source)
            self._ask(lambda: self._store.put(self._prefix + name, content))

    def delete(self, names: Iterable[str]) -> None:
        keys = [self._prefix + name for name in names]
        if keys:
            self._ask(lambda: self._store.delete(keys))

    def remove(self) -> None:
        found = self._ask(lambda: self._store.objects(self._prefix))
        self.delete([one.key.removeprefix(self._prefix) for one in found])

    def path(self, name: str) -> str:
        return f"{BUCKET}{self._bucket}/{self._prefix}{name}"

    def _ask(self, ask: Callable[[], Asked]) -> Asked:
        return patiently(ask, self._patience)

    def _content(self, key: str) -> bytes:
        return self._ask(lambda: self._store.get(key))


def open_folder(folder: str, patience: float = PATIENCE) -> Folder:
    """Open the folder at a path, or at an address in a bucket, which need not be there yet."""
    return BucketFolder(folder, patience) if is_bucket(folder) else DirectoryFolder(folder)


def load_from(path: str) -> "Checkpoint":
    """Read the checkpoint at a path or an address. DamagedCheckpoint, OSError: it cannot be read."""
    folder, _, name = path.rpartition("/")
    return open_folder(folder).load(name)
