"""Locks that let only one command at a time work on a sweep."""

import fcntl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from sweep.config.schema import AppConfig
from sweep.errors import InputError
from sweep.records.run_directory import run_directory, store_directory

LOCK = "driver.lock"


@contextmanager
def alone(config: AppConfig, name: str) -> Iterator[None]:
    """Keep other commands away from this sweep while inside the block, and for a study also from its sweeps. The system
    frees the lock however the process dies.

    Raises:
        InputError: another one does.
    """
    directory, store = run_directory(config, name), store_directory(config, name)
    with ExitStack() as held:
        for place in dict.fromkeys((store, directory)):
            place.mkdir(parents=True, exist_ok=True)
            lock = held.enter_context((place / LOCK).open("a"))
            shared = place == store and store != directory  # sweeps of one study may be worked on side by side
            if not _locked(lock.fileno(), fcntl.LOCK_SH if shared else fcntl.LOCK_EX):
                raise InputError(f"Another command is at work on {place.name}; wait for it, or stop it first.")
        yield


def is_alive(directory: Path) -> bool:
    """Tell whether a command is at work on the sweep or study in this run directory."""
    for place in (directory, directory.parent):
        if (place / LOCK).exists():
            with (place / LOCK).open("a") as lock:
                if not _locked(lock.fileno(), fcntl.LOCK_SH):
                    return True
    return False


def _locked(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
