"""The sign by which workers stop after their epoch, where they may not see the driver's disk."""

import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sweep.storage.objects import Refused, Unreachable
from sweep.storage.opening import open_store

ASK_SECONDS = 10.0  # between two questions: each is a request


@dataclass(slots=True)
class StopObject:
    """An object that the driver's mirror writes when the sweep is to stop; for workers in place of a file."""

    address: str
    ask_next: float = 0.0
    is_there: bool = False

    def exists(self) -> bool:
        """Tell whether the sweep is to stop, as far as storage has said lately."""
        if not self.is_there and time.monotonic() >= self.ask_next:
            self.ask_next = time.monotonic() + ASK_SECONDS
            place, _, name = self.address.rpartition("/")
            with suppress(Unreachable, Refused):
                self.is_there = bool(open_store(place).objects(name))
        return self.is_there


StopSign = Path | StopObject
