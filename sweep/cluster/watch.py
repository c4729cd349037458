"""A watch over the processes of a local Ray: a command hears at once that one of them has ended by itself.

Left alone, Ray's client inside the command waits a minute for what cannot come back and then ends the command without
saying what is kept.
"""

import atexit
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

POLL_SECONDS = 0.1
NOTICED_SECONDS = 8.0  # for the main thread to come back from a call into Ray
WATCHED = ("gcs_server", "raylet")  # without which Ray can do nothing more
KEPT = "What is done is kept: go on with `sweep resume`, or with the same command where that has nothing to resume"


@contextmanager
def watched() -> Iterator[None]:
    """Interrupt the main thread when a process of the Ray that was started here ends inside the block: `ended` tells
    this from Ctrl-C. A KeyboardInterrupt is all that gets through Ray and Ray Tune, which would else clean up with what
    is gone. In another thread, which gets no signals, there is no watch."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    watch = _DriverWatch()
    reaper = _reaper(watch.agents)
    before = signal.signal(signal.SIGUSR2, watch.hear)
    watch.start()
    try:
        yield
    finally:
        watch.over.set()
        watch.join()
        signal.signal(signal.SIGUSR2, before)
        reaper.kill()
        reaper.communicate()


@contextmanager
def ends_as_ctrl_c() -> Iterator[None]:
    """Let SIGTERM interrupt the main thread inside the block, as Ctrl-C does. Ray's own handler would end the process
    without a word of what is kept."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def shut_down() -> None:
    """Shut Ray down; or, if it has ended by itself, let this process end without a further call into Ray, which would
    wait for what is gone."""
    import ray

    if ended():
        atexit.register(_leave)
    else:
        ray.shutdown()


def ended() -> str:
    """Say which process of the Ray that is watched has ended by itself; empty where none has."""
    return _DriverWatch.ended


def _leave() -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(1)


def _children(pid: int) -> list[int]:
    """Find the processes that this one has started; none where the system does not tell."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it ends meanwhile
            if int(stat.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(stat.parent.name))
    return found


def end_processes_of(directory: Path) -> None:
    """End Ray's processes of this session directory, which stay where Ray has failed halfway; none where the system
    does not tell their command lines."""
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it ends meanwhile, or is another user's
            if str(directory).encode() in command.read_bytes() and int(command.parent.name) != os.getpid():
                os.kill(int(command.parent.name), signal.SIGKILL)


# Waits until its standard input ends, with the command that holds the other end, however that dies.
_REAPER = """
import os, sys
sys.stdin.read()
for pid in sys.argv[1:]:
    try:
        os.kill(int(pid), 9)
    except ProcessLookupError:
        pass
"""


def _reaper(agents: list[int]) -> subprocess.Popen[bytes]:
    """Start a process that ends Ray's agents when this one was killed; they would stay for a minute."""
    command = [sys.executable, "-I", "-S", "-c", _REAPER, *map(str, agents)]
    loader = {name: value for name, value in os.environ.items() if name.startswith(("LD_", "DYLD_"))}  # and no secret
    return subprocess.Popen(command, stdin=subprocess.PIPE, env=loader, start_new_session=True)


class _DriverWatch(threading.Thread):
    ended = ""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        from ray._private import worker

        node: Any = worker._global_node
        self._processes = {name: found.process for name, kind in node.all_processes.items() for found in kind}
        self.agents = _children(self._processes["raylet"].pid)
        self.over = threading.Event()
        _DriverWatch.ended = ""

    def run(self) -> None:
        while not ended():
            if self.over.wait(POLL_SECONDS):
                return
            for name in WATCHED:
                if self._processes[name].poll() is not None:
                    self._end(f"Ray's process {name} ended by itself, with code {self._processes[name].returncode}")
                    break

    def _end(self, why: str) -> None:
        """End the other processes, which would wait for each other, and interrupt the main thread."""
        _DriverWatch.ended = why
        for pid in {*self.agents, *_children(self._processes["raylet"].pid)}:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for process in self._processes.values():
            process.kill()
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR2)
        if not self.over.wait(NOTICED_SECONDS):  # the main thread waits for Ray and cannot be called
            print(f"sweep: {why}. {KEPT}.", file=sys.stderr)  # noqa: T201
            _leave()

    def hear(self, _number: int, _frame: FrameType | None) -> None:
        if ended():  # else it is somebody else's signal, which is not for us
            self.over.set()
            raise KeyboardInterrupt
