"""Open storage at an address, and ask it again where it does not answer."""

import time
from collections.abc import Callable
from functools import cache
from typing import TypeVar

from sweep.config.places import is_bucket
from sweep.storage.bucket import Bucket
from sweep.storage.objects import ObjectStore, SharedDirectory, Unreachable

PATIENCE = 300.0  # seconds that a worker waits for storage that does not answer
PAUSES = (0.5, 1.0, 2.0, 5.0)  # seconds between two attempts; then as the last

Asked = TypeVar("Asked")


@cache
def open_store(address: str) -> ObjectStore:
    """Open the storage at an address that `check_storage` accepts; nothing is asked of it yet. Refused: its
    configuration in the environment cannot be."""
    return Bucket(address) if is_bucket(address) else SharedDirectory(address)


def patiently(ask: Callable[[], Asked], seconds: float = PATIENCE) -> Asked:
    """Ask storage until it answers. Unreachable: it did not for so many seconds."""
    end = time.monotonic() + seconds
    pauses = iter(PAUSES)
    while True:
        try:
            return ask()
        except Unreachable:
            if time.monotonic() >= end:
                raise
        time.sleep(next(pauses, PAUSES[-1]))
