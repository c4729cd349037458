"""A terminal of some size in which a command runs, and what stands on its screen, as a user reads it."""

import fcntl
import os
import pty
import select
import signal
import struct
import sys
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType

import pyte


class Terminal:
    """A command with a pseudo-terminal for its input and output, drawn by an emulator."""

    def __init__(self, command: Sequence[str], columns: int, lines: int, environment: Mapping[str, str]) -> None:
        self.screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self.screen)
        self.written = b""
        self._pid, self._master = pty.fork()
        if not self._pid:
            os.execvpe(command[0], list(command), {**environment, "TERM": environment.get("TERM", "xterm-256color")})
        self.resize(columns, lines)

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        os.close(self._master)

    def resize(self, columns: int, lines: int) -> None:
        """Give the window another size, which is empty then."""
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.screen.reset()
        self.screen.resize(lines, columns)

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def read(self) -> bool:
        """Draw what comes within a tenth of a second; False once the command has ended."""
        if select.select([self._master], [], [], 0.1)[0]:
            try:
                data = os.read(self._master, 65536)
            except OSError:  # Linux says so that nobody writes any more
                return False
            self.written += data
            self._stream.feed(data)
        return True

    def until(self, text: str, seconds: float = 120) -> list[str]:
        """Wait for a text on the screen and return its lines."""
        return self._wait(lambda: any(text in line for line in self.screen.display), text, seconds)

    def until_title(self, title: str, seconds: float = 120) -> list[str]:
        """Wait for this title of the window and return the screen's lines."""
        return self._wait(lambda: self.screen.title == title, title, seconds)

    def _wait(self, there: Callable[[], bool], what: str, seconds: float) -> list[str]:
        end = time.monotonic() + seconds
        while not there():
            alive = self.read()
            assert alive and time.monotonic() < end, "\n".join([f"no {what!r} on the screen:", *self.lines()])
        return self.lines()

    def lines(self) -> list[str]:
        """Return the lines that are not empty."""
        return [line.rstrip() for line in self.screen.display if line.strip()]


def python(*arguments: str) -> list[str]:
    return [sys.executable, *arguments]
