"""Processes side by side on one GPU, each with its part of the memory, which call what they are told to; and MPS."""

import contextlib
import multiprocessing
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch

from sweep.worker.cuda import limit_memory

MPS_CONTROL = "nvidia-cuda-mps-control"
ELSEWHERE = ("/usr/local/nvidia/bin", "/usr/local/cuda/bin")  # where a driver's programs may be besides PATH
START_SECONDS = 90  # until all have imported torch and have a CUDA context
LAST_SECONDS = 20  # for processes to end by themselves: each takes its CUDA context down


class Failed(RuntimeError):
    """A process, or what it called, did not end well; `index` is its own, where its call failed and it goes on."""

    def __init__(self, text: str, index: int | None = None) -> None:
        super().__init__(text)
        self.index = index


@dataclass(frozen=True, slots=True)
class _Failure:
    """What a process answers instead of raising."""

    text: str


class Workers:
    """Started when the first one is called. Those that fail to start fail again without being waited for."""

    def __init__(self, count: int, environment: Callable[[], Mapping[str, str]] = dict) -> None:
        """`environment` is called when they start; what it gives is added to this process's."""
        self._count, self._environment = count, environment
        self._processes: list[multiprocessing.process.BaseProcess] = []
        self._links: list[Connection] = []
        self._broken = ""

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_: object) -> None:
        for link in self._links:
            link.close()  # ends what waits for a call
        ends = time.monotonic() + LAST_SECONDS
        for process in self._processes:
            process.join(max(0.0, ends - time.monotonic()))
            if process.is_alive():
                process.kill()
                process.join()

    def call(self, index: int, function: Callable[..., Any], *arguments: Any) -> None:
        """Has one process call a function of a module; `answer` is to follow."""
        if not self._links and not self._broken:
            try:
                self._start()
            except (OSError, subprocess.SubprocessError, Failed) as error:
                raise self._failed(f"the processes did not start: {error}") from None
        self._send(index, function, *arguments)

    def answer(self, indices: Sequence[int], seconds: float) -> tuple[int, Any]:
        """Which of these processes has answered first, and what.

        Raises:
            Failed: its call failed, or none answers in time.
        """
        ready = wait([self._links[index] for index in indices], timeout=seconds)
        if not ready:
            raise self._failed(f"no answer within {seconds:.0f} s")
        index = next(index for index in indices if self._links[index] is ready[0])
        try:
            found = self._links[index].recv()
        except EOFError:
            raise self._failed(f"process {index} ended") from None
        if isinstance(found, _Failure):
            raise Failed(found.text, index)
        return index, found

    def answers(self, indices: Sequence[int], seconds: float) -> list[Any]:
        """What each of these processes answers, in their order.

        Raises:
            Failed: as `answer`, once all have answered, so that nothing stays in a pipe.
        """
        ends, found, failed = time.monotonic() + seconds, list[Any](), list[Failed]()
        for index in indices:
            try:
                found.append(self.answer([index], max(0.1, ends - time.monotonic()))[1])
            except Failed as error:
                failed.append(error)
        if failed:
            raise failed[0]
        return found

    def _failed(self, text: str) -> Failed:
        self._broken = text
        return Failed(text)

    def _send(self, index: int, function: Callable[..., Any], *arguments: Any) -> None:
        if self._broken:
            raise Failed(f"not tried, because {self._broken}")
        self._links[index].send((function, arguments))

    def _start(self) -> None:
        spawn = multiprocessing.get_context("spawn")  # a CUDA context does not survive a fork
        with _added(self._environment()):
            for _ in range(self._count):
                here, there = spawn.Pipe()
                process = spawn.Process(target=_serve, args=(there,), daemon=True)
                process.start()
                there.close()  # so that a process that ends is noticed
                self._links.append(here)
                self._processes.append(process)
        for index in range(self._count):
            self._send(index, limit_memory, 1 / self._count)
        self.answers(range(self._count), START_SECONDS)


def _serve(link: Connection) -> None:
    torch.set_num_threads(1)
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            function, arguments = link.recv()
            try:
                found = function(*arguments)
            except Exception as error:  # noqa: BLE001
                found = _Failure(f"{type(error).__name__}: {error}")
            link.send(found)


@contextlib.contextmanager
def _added(environment: Mapping[str, str]) -> Iterator[None]:
    former = dict(os.environ)
    os.environ.update(environment)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(former)


# --- MPS -------------------------------------------------------------------------------------------------------------


def mps_control() -> str | None:
    """Where the program is that starts and ends the daemon; None: not here."""
    return shutil.which(MPS_CONTROL, path=os.pathsep.join([os.environ.get("PATH", ""), *ELSEWHERE]))


class Mps:
    """A daemon of CUDA MPS of its own: other programs do not find it, and the card's compute mode stays as it is."""

    def __init__(self, control: str) -> None:
        self._control = control
        self._place: tempfile.TemporaryDirectory[str] | None = None

    def start(self) -> Mapping[str, str]:
        """The variables by which a process finds the daemon."""
        if self._place is None:
            self._place = tempfile.TemporaryDirectory(prefix="mps")  # a short path: sockets are in it
            for name in ("pipe", "log"):
                (Path(self._place.name) / name).mkdir()
            self._run([self._control, "-d"])
        return self._environment()

    def servers(self) -> int:
        """How many servers the daemon has started: one, if a process is its client."""
        return len(self._run([self._control], "get_server_list\n").split())

    def end(self) -> None:
        """Once its clients have ended. A daemon that does not answer is ended by its number."""
        if self._place is None:
            return
        try:
            self._run([self._control], "quit\n")
        except subprocess.SubprocessError:
            number = Path(self._place.name, "pipe", f"{MPS_CONTROL}.pid")
            with contextlib.suppress(OSError, ValueError):
                os.kill(int(number.read_text()), signal.SIGTERM)
        self._place.cleanup()
        self._place = None

    def _environment(self) -> dict[str, str]:
        assert self._place is not None
        place = self._place.name
        return {"CUDA_MPS_PIPE_DIRECTORY": f"{place}/pipe", "CUDA_MPS_LOG_DIRECTORY": f"{place}/log"}

    def _run(self, command: list[str], text: str = "") -> str:
        """What the program prints, by way of a file: a daemon would keep a pipe open."""
        with tempfile.TemporaryFile("w+") as printed:
            environment = os.environ | self._environment()
            subprocess.run(
                command, input=text, text=True, env=environment, stdout=printed, stderr=subprocess.STDOUT,
                timeout=30, check=True,
            )  # fmt: skip
            printed.seek(0)
            return printed.read()
