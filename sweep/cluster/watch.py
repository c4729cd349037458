"""A watch over the processes of a local Ray: a command hears at once that one of them has ended by itself.

Left alone, Ray's client inside the command waits a minute for what cannot come back and then ends the command without
saying what is kept.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

POLL_SECONDS = 0.1
NOTICED_SECONDS = 8.0  # for the main thread to come back from a call into Ray
WATCHED = ("gcs_server", "raylet")  # without which Ray can do nothing more
KEPT = "What is done is kept: go on with `sweep resume`, or with the same command where that has nothing to resume"


class RayEnded(BaseException):
    """A process of the local Ray ended by itself. No Exception: Ray Tune would clean up with what is gone."""


@contextmanager
def watched() -> Iterator[None]:
    """Raise RayEnded in the main thread when a process of the Ray that was started here ends inside the block. In
    another thread, which gets no signals, there is no watch."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    watch = _Watch()
    before = signal.signal(signal.SIGUSR2, watch.hear)
    watch.start()
    try:
        yield
    finally:
        watch.over.set()
        watch.join()
        signal.signal(signal.SIGUSR2, before)


class _Watch(threading.Thread):
    def __init__(self) -> None:
        super().__init__(daemon=True)
        from ray._private import worker

        node: Any = worker._global_node
        processes = node.all_processes
        self._processes = {name: processes[name][0].process for name in WATCHED}
        self._ended = ""
        self.over = threading.Event()

    def run(self) -> None:
        while not self._ended and not self.over.wait(POLL_SECONDS):
            for name, process in self._processes.items():
                if process.poll() is not None:
                    self._ended = f"Ray's process {name} ended by itself, with code {process.returncode}"
        if self._ended and not self.over.is_set():
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR2)
            if not self.over.wait(NOTICED_SECONDS):  # the main thread waits for Ray and cannot be called
                print(f"sweep: {self._ended}. {KEPT}.", file=sys.stderr, flush=True)  # noqa: T201
                os._exit(1)

    def hear(self, _number: int, _frame: FrameType | None) -> None:
        if self._ended:  # else it is somebody else's signal, which is not for us
            self.over.set()
            raise RayEnded(self._ended)
