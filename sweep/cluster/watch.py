"""A watch over the processes of a local Ray, or over the head of a cluster: a command hears soon that one of them is
gone.

Left alone, Ray's client inside the command waits a minute for what cannot come back and then ends the command with a
dump of its own, and without saying what is kept.
"""

import atexit
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

POLL_SECONDS = 0.1
NOTICED_SECONDS = 8.0  # for the main thread to come back from a call into Ray
ASK_SECONDS = 2.0  # between two questions to a cluster, and for its answer
GONE_SECONDS = 20.0  # without an answer, after which it is gone: Ray's client itself gives up after 47
WATCHED = ("gcs_server", "raylet")  # without which Ray can do nothing more
KEPT = "What is done is kept: go on with `sweep resume`, or with the same command where that has nothing to resume"


@contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM end what is inside as Ctrl-C does: Ray would end the process with a dump, and `ray job stop` sends
    it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@contextmanager
def watched() -> Iterator[None]:
    """Interrupt the main thread when a process of the Ray that was started here ends inside the block: `ended` tells
    this from Ctrl-C. A KeyboardInterrupt is all that gets through Ray and Ray Tune, which would else clean up with what
    is gone. In another thread, which gets no signals, there is no watch."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    watch = _LocalWatch()
    reaper = _reaper(watch.agents)
    try:
        with _watching(watch):
            yield
    finally:
        reaper.kill()
        reaper.communicate()


@contextmanager
def watched_cluster(head: str, raylet: str, patience: float = GONE_SECONDS) -> Iterator[None]:
    """Interrupt the main thread, as `watched` does, when the head of the cluster at HOST:PORT, or this machine's own
    part of it, whose socket is `raylet`, has not answered for `patience` seconds."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with _watching(_ClusterWatch(head, raylet, patience)):
        yield


@contextmanager
def _watching(watch: "_RayWatch") -> Iterator[None]:
    before = signal.signal(signal.SIGUSR2, watch.hear)
    watch.start()
    try:
        yield
    finally:
        watch.over.set()
        watch.join()
        signal.signal(signal.SIGUSR2, before)


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
    return _RayWatch.ended


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


class _RayWatch(threading.Thread, ABC):
    ended = ""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.over = threading.Event()
        _RayWatch.ended = ""

    @abstractmethod
    def gone(self) -> str:
        """Say what is gone; empty where nothing is."""

    @abstractmethod
    def end(self) -> None:
        """End what is left here and would wait for what is gone."""

    def run(self) -> None:
        while not self.over.wait(POLL_SECONDS):
            if why := self.gone():
                self._end(why)
                return

    def _end(self, why: str) -> None:
        """End what is left, and interrupt the main thread."""
        _RayWatch.ended = why
        self.end()
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR2)
        if not self.over.wait(NOTICED_SECONDS):  # the main thread waits for Ray and cannot be called
            print(f"sweep: {why}. {KEPT}.", file=sys.stderr)  # noqa: T201
            _leave()

    def hear(self, _number: int, _frame: FrameType | None) -> None:
        if ended():  # else it is somebody else's signal, which is not for us
            self.over.set()
            raise KeyboardInterrupt


class _LocalWatch(_RayWatch):
    """The watch over processes that this one has started."""

    def __init__(self) -> None:
        super().__init__()
        from ray._private import worker

        node: Any = worker._global_node
        self._processes = {name: found.process for name, kind in node.all_processes.items() for found in kind}
        self.agents = _children(self._processes["raylet"].pid)

    def gone(self) -> str:
        for name in WATCHED:
            if self._processes[name].poll() is not None:
                return f"Ray's process {name} ended by itself, with code {self._processes[name].returncode}"
        return ""

    def end(self) -> None:
        for pid in {*self.agents, *_children(self._processes["raylet"].pid)}:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for process in self._processes.values():
            process.kill()


class _ClusterWatch(_RayWatch):
    """The watch over a cluster that was joined: by connecting to what listens there, which says nothing of how busy it
    is."""

    def __init__(self, head: str, raylet: str, patience: float) -> None:
        super().__init__()
        host, _, port = head.rpartition(":")
        self._places: dict[str, tuple[int, Any]] = {
            f"the head of the cluster, {head},": (socket.AF_UNSPEC, (host.strip("[]"), int(port))),
            "this machine's own part of the cluster": (socket.AF_UNIX, raylet),
        }
        self._patience = patience
        self._heard = dict.fromkeys(self._places, time.monotonic())
        self._asked = 0.0

    def gone(self) -> str:
        now = time.monotonic()
        if now - self._asked < min(ASK_SECONDS, self._patience):
            return ""
        self._asked = now
        for name, place in self._places.items():
            if _answers(*place):
                self._heard[name] = time.monotonic()
            elif now - self._heard[name] > self._patience:
                return f"For {self._patience:.0f} s {name} has not answered"
        return ""

    def end(self) -> None:
        """End nothing: the cluster is not ours."""


def _answers(family: int, place: Any) -> bool:
    try:
        if family == socket.AF_UNIX:
            with socket.socket(family) as probe:
                probe.settimeout(ASK_SECONDS)
                probe.connect(place)
        else:
            socket.create_connection(place, timeout=ASK_SECONDS).close()
    except OSError:
        return False
    return True
