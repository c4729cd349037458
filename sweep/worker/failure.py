"""What is kept of a failure for people to read: a traceback, and what the worker has printed last.

It leaves the worker, so it is of bounded size and has no secrets and no control characters.
"""

import os
import re
import stat
import sys
import traceback
from pathlib import Path

from sweep.config.credentials import hidden
from sweep.console import printable

MOST = 8000  # characters of a text
OUTPUT_BYTES = 3000  # of each stream
STREAMS = {1: "standard output", 2: "standard error"}
PLACE = Path("/proc/self/fd")  # absent on macOS, where only tracebacks are kept
_SECRET = re.compile(r"TOKEN|PASSW|SECRET|CREDENTIAL|(_|^)KEY", re.IGNORECASE)
_SHORTEST = 6  # characters of a secret: shorter ones stand in many words by chance


class Printed:
    """The output of this process from now on, where it goes to a file, as with Ray's workers; they are reused."""

    def __init__(self) -> None:
        self._begun = {number: _size(number) for number in STREAMS}

    def last(self) -> str:
        """Return the last lines of both streams."""
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        found = {name: last_lines(PLACE / str(number), self._begun[number]) for number, name in STREAMS.items()}
        return "".join(f"\nLast on {name}:\n{text}\n" for name, text in found.items() if text)


def _size(number: int) -> int | None:
    try:
        found = os.fstat(number)
    except OSError:  # closed
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None


def last_lines(file: Path, since: int | None = 0) -> str:
    """Read the end of a file, from byte `since` on; empty where that is None or there is no file."""
    try:
        if since is None:
            return ""
        with file.open("rb") as log:
            log.seek(max(since, log.seek(0, os.SEEK_END) - OUTPUT_BYTES))
            return log.read().decode(errors="replace").strip()
    except OSError:
        return ""


def failure_text(error: Exception, printed: Printed) -> str:
    """Describe, in the worker, the exception that a trial ended with."""
    return presentable("".join(traceback.format_exception(error))) + presentable(printed.last())


def presentable(text: str) -> str:
    """Shorten a text in its middle, and take out secrets and control characters.

    >>> presentable("no answer from http://me:secret@mlflow.example:5000\\x1b[2J")
    'no answer from http://...@mlflow.example:5000\\\\x1b[2J'
    """
    for name, value in os.environ.items():
        if _SECRET.search(name) and len(value) >= _SHORTEST:
            text = text.replace(value, "...")
    text = printable(hidden(text.expandtabs(4)))
    left_out = len(text) - MOST
    if left_out <= 0:
        return text
    return f"{text[: MOST // 4]}\n... {left_out} characters are left out ...\n{text[-3 * MOST // 4 :]}"
