"""Locks that let only one command at a time work on a sweep."""

import fcntl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from sweep.config.schema import AppConfig
from sweep.errors import InputError
from sweep.records.files import make_directory, open_regular, storing
from sweep.records.provenance import check_no_copy, settle
from sweep.records.run_directory import run_directory, store_directory

LOCK = "driver.lock"


@contextmanager
def alone(config: AppConfig, name: str) -> Iterator[None]:
    """Keep other commands away from this sweep while inside the block, and for a study also from its sweeps. The system
    frees the lock however the process dies.

    Raises:
        InputError: another one does, or the directory is a copy of one that is there, too. StorageError: the lock
            cannot be made, as on a read-only disk.
    """
    directory, store = run_directory(config, name), store_directory(config, name)
    check_no_copy(store)
    with ExitStack() as held:
        for place in dict.fromkeys((store, directory)):
            with storing(place / LOCK, 0):
                make_directory(place)
                lock = held.enter_context((place / LOCK).open("a+"))  # NFS locks only what could be read
            shared = place == store and store != directory  # sweeps of one study may be worked on side by side
            if not _locked(lock.fileno(), fcntl.LOCK_SH if shared else fcntl.LOCK_EX):
                raise InputError(
                    f"Another command is at work on {place.name}; wait for it, or stop it first. A sweep or study has "
                    "one driver; what makes it faster is more nodes, which it uses as soon as they have come."
                )
        settle(store)
        yield


def is_alive(directory: Path) -> bool:
    """Tell whether a command is at work on the sweep or study in this run directory, or may be: that of another user is
    not for us to know."""
    return any(_is_held(place / LOCK) for place in (directory, directory.parent))


def _is_held(lock: Path) -> bool:
    try:
        with open_regular(lock) as file:  # for reading: the disk may be read-only
            return not _locked(file.fileno(), fcntl.LOCK_SH)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True


def _locked(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
