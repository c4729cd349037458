"""Files that a full disk, read-only storage or a kill leave whole: replaced at once, or grown by whole lines."""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sweep.errors import StorageError


@contextmanager
def storing(path: Path, wanted: int) -> Iterator[None]:
    """Turn an OSError raised inside the block into a StorageError about `path`; `wanted` is the size in bytes."""
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"{path} could not be written, {wanted:,} bytes were wanted: {error.strerror or error}. What was there is "
            "kept: make space, or make it writable, and go on with `sweep resume`, or with the same command where that "
            "has nothing to resume."
        ) from error


def write_text(path: Path, text: str) -> None:
    """Replace a file atomically: a reader sees either the old content or the new one.

    Raises:
        StorageError: it could not be written; the old one is as it was.
    """
    content = text.encode()
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with storing(path, len(content)):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def append_line(path: Path, line: str, header: str = "") -> None:
    """Append a line, which ends in a newline, as a whole or not at all; an empty file gets `header` first. An empty
    `line` only creates the file.

    What a killed process was writing when it died is cut off before. Several processes may append to one file.

    Raises:
        StorageError: there is no room, or the file cannot be written; it is as it was.
    """
    with storing(path, len(line.encode())), path.open("ab+", buffering=0) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        length = os.fstat(file.fileno()).st_size
        if length and os.pread(file.fileno(), 1, length - 1) != b"\n":
            length = whole_lines(path.read_bytes())
            file.truncate(length)
        try:
            _write(file.fileno(), (line if length else header + line).encode())
        except OSError:
            file.truncate(length)
            raise


def _write(descriptor: int, content: bytes) -> None:
    while content:  # a disk that becomes full takes a part first and refuses the rest
        content = content[os.write(descriptor, content) :]


def cut_half_line(path: Path, whole: Callable[[bytes], int]) -> int:
    """Cut off the unfinished end that a killed process left, so that the file can be read, and return its size in
    bytes.

    `whole` finds the length of the part that is whole: `whole_lines` or `whole_rows`.
    """
    if not path.exists():
        return 0
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # not while another process appends
        content = file.read()
        length = whole(content)
        if length < len(content):
            with storing(path, 0):
                os.truncate(path, length)
    return len(content) - length


def whole_lines(content: bytes) -> int:
    return content.rfind(b"\n") + 1


def whole_rows(content: bytes) -> int:
    """Return the length of the part of a CSV file that holds whole rows; a quoted cell may contain line ends."""
    end = len(content)
    pieces = content.split(b'"')
    for place in reversed(range(len(pieces))):
        start = end - len(pieces[place])
        found = pieces[place].rfind(b"\n")
        if place % 2 == 0 and found >= 0:  # an even number of quotes before: outside of them
            return start + found + 1
        end = start - 1
    return 0
