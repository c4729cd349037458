"""How a running sweep is stopped: by Ctrl-C once or twice, by a signal to end, or because nothing can be written."""

import signal
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from sweep.storage import write_text


class Interrupted(KeyboardInterrupt):
    """The user stopped the sweep; what was done is on disk."""


class Control:
    """Inside the block SIGINT and SIGTERM stop the sweep: once, running trials end after their present epoch, with a
    checkpoint; twice, at once. Workers see it by a file."""

    def __init__(self, file: Path, say: Callable[[str], None]) -> None:
        self.file, self._say = file, say
        self.stopping = False
        self.reason = ""
        self.storage = ""  # what a worker could not write
        self.failure: BaseException | None = None  # to be raised outside Ray's callbacks, some of which swallow it
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Control":
        self.file.unlink(missing_ok=True)
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self.file.unlink(missing_ok=True)

    def stop(self, reason: str) -> None:
        """No further leg begins, and running trials end after their epoch."""
        self.stopping, self.reason = True, self.reason or reason
        write_text(self.file, reason)

    def fail(self, error: BaseException) -> None:
        self.failure = self.failure or error
        self.stopping, self.reason = True, self.reason or str(error)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        if self.stopping:
            raise KeyboardInterrupt
        self._say("Stopping: running trials finish their epoch and are kept. Once more to stop at once.")
        self.stop("the sweep was stopped")
