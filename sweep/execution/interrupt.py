"""Stopping a running sweep: by Ctrl-C once or twice, by a signal to end, or because nothing can be written."""

import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

from sweep.errors import StorageError
from sweep.records.files import storing, write_text


class Interrupted(KeyboardInterrupt):
    """The user stopped the sweep; what was done is on disk."""


class Interrupt:
    """Stop the sweep on SIGINT or SIGTERM while inside the block: the first lets running trials end after their present
    epoch, with a checkpoint; the second ends them at once. Workers see it by a file."""

    def __init__(self, file: Path, say: Callable[[str], None]) -> None:
        self.file, self._say = file, say
        self.stopping = False
        self.reason = ""
        self.storage = ""  # what a worker could not write
        self.failure: BaseException | None = None  # to be raised outside Ray's callbacks, some of which swallow it
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Interrupt":
        with storing(self.file, 0):
            self.file.unlink(missing_ok=True)
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        with suppress(OSError):  # storage that cannot be written was said already; the next session removes it
            self.file.unlink(missing_ok=True)

    def stop(self, reason: str) -> None:
        """Begin no further segment, and let running trials end after their epoch."""
        self.stopping, self.reason = True, self.reason or reason
        try:
            write_text(self.file, reason)
        except StorageError as error:  # workers will not see it: the run ends between two of Ray's steps
            self.fail(error)

    def storage_failed(self, reason: str) -> None:
        """Stop because a worker could not write; the session says so at its end."""
        self.storage = reason
        self.stop(reason)

    def fail(self, error: BaseException) -> None:
        self.failure = self.failure or error
        self.stopping, self.reason = True, self.reason or str(error)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        if self.stopping:
            raise KeyboardInterrupt
        self._say("Stopping: running trials finish their epoch and are kept. Once more to stop at once.")
        self.stop("the sweep was stopped")
