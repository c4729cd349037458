"""Files that a full disk, read-only storage, a kill or a loss of power leave whole: replaced at once, or grown by whole
lines.

A line is synced at once, or with the next one where the file was synced less than `SYNC_SECONDS` ago, and in any case
when `sync` returns. A loss of power takes what was not: the file is then shorter, or ends in half a line or in zeros,
and is true up to there. Which file is believed where two of them differ is written in docs/files.md.
"""

import errno
import fcntl
import json
import os
import shutil
import stat
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from sweep.errors import InputError, StorageError

SYNC_SECONDS = 1.0  # a sync costs milliseconds, and an epoch may take less


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


# --- replaced at once -------------------------------------------------------------------------------------------------


def write_text(path: Path, text: str) -> None:
    """Replace a file atomically: a reader sees either the old content or the new one, also after a loss of power.

    Raises:
        StorageError: it could not be written; the old one is as it was.
    """
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Replace a file atomically, as `write_text`."""
    with storing(path, len(content)), _replacing(path) as temporary, temporary.open("wb") as file:
        file.write(content)


def copy_file(source: Path, target: Path) -> None:
    """Copy a file so that the target is whole or not there. StorageError as `write_text`."""
    with storing(target, 0), _replacing(target) as temporary:
        shutil.copyfile(source, temporary)


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """Yield the file to be written, which replaces `path` after the block unless that raises."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    make_directory(path.parent)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_entry(path)
    finally:
        temporary.unlink(missing_ok=True)


def make_directory(directory: Path) -> None:
    """Create a directory, and those above it, where there is none. FileExistsError: a file has its name."""
    if not directory.is_dir():
        make_directory(directory.parent)
        directory.mkdir(exist_ok=True)
        sync_entry(directory)


def sync_entry(path: Path) -> None:
    """Bring the name of a new file or directory to the disk: syncing the file itself does not."""
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# --- grown by whole lines ---------------------------------------------------------------------------------------------

_synced: dict[Path, float] = {}  # when this process has last synced a file that it appends to
_behind: set[Path] = set()  # to which of them it has appended since


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
            _behind.add(path)
            if not length or time.monotonic() - _synced.get(path, 0.0) > SYNC_SECONDS:
                _sync(file.fileno(), path, is_new=not length)
        except OSError:
            file.truncate(length)
            raise


def append_record(path: Path, record: Mapping[str, Any]) -> None:
    """Append a record to a file of JSON lines, and return when it is on the disk. StorageError as `append_line`."""
    append_line(path, json.dumps(record, sort_keys=True) + "\n")
    sync(path)


def read_records(path: Path) -> list[dict[str, Any]]:
    """Read the records of a file of JSON lines; none where there is no file, and an unfinished last line is left out.

    Raises:
        InputError: the file cannot be read, or a line is no JSON object.
    """
    records = []
    try:
        content = path.read_bytes() if path.exists() else b""
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error}.") from error
    for number, line in enumerate(content[: whole_lines(content)].splitlines(), start=1):
        try:
            record = json.loads(line)
            if not isinstance(record, dict):
                raise ValueError("a JSON object is needed")
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path}, line {number}, is damaged: {error}.") from error
        records.append(record)
    return records


def sync(*paths: Path) -> None:
    """Return when all that this process has appended to these files is on the disk. StorageError: it cannot be."""
    for path in paths:
        if path in _behind:
            with storing(path, 0), path.open("rb") as file:
                _sync(file.fileno(), path)


def _write(descriptor: int, content: bytes) -> None:
    while content:  # a disk that becomes full takes a part first and refuses the rest
        content = content[os.write(descriptor, content) :]


def _sync(descriptor: int, path: Path, is_new: bool = False) -> None:
    os.fsync(descriptor)
    if is_new:
        sync_entry(path)
    _synced[path] = time.monotonic()
    _behind.discard(path)


# --- read after a kill or a loss of power -----------------------------------------------------------------------------


def open_regular(path: Path, mode: int = os.O_RDONLY) -> BinaryIO:
    """Open a file for reading. OSError: it cannot be opened, or is none: a named pipe would be waited for."""
    descriptor = os.open(path, mode | os.O_NONBLOCK)
    kind = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(kind):
        os.close(descriptor)
        if stat.S_ISDIR(kind):
            raise IsADirectoryError(errno.EISDIR, "it is a directory", str(path))
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    return os.fdopen(descriptor, "rb")


def read_bytes(path: Path) -> bytes:
    """Read a whole file. OSError: as `open_regular`."""
    with open_regular(path) as file:
        return file.read()


def cut_half_line(path: Path, whole: Callable[[bytes], int]) -> int:
    """Cut off the unfinished end that a kill or a loss of power left, so that the file can be read, and return its size
    in bytes. Whole lines behind zeros, which no kill leaves, are kept in a copy of the file.

    `whole` finds the length of the part that is whole: `whole_lines` or `whole_rows`.
    """
    if not path.exists():
        return 0
    with open_regular(path, os.O_RDWR) as file:  # NFS locks exclusively only what could be written
        fcntl.flock(file, fcntl.LOCK_EX)  # not while another process appends
        content = file.read()
        length = whole(content)
        with storing(path, 0):
            if b"\n" in content[length:] and b"\0" in content[length:]:
                copy_file(path, path.with_name(f"{path.name}.torn"))
            if length < len(content):
                os.truncate(path, length)
            os.fsync(file.fileno())  # what follows depends on what is read now
    return len(content) - length


def cut_sentence(path: Path, removed: int) -> str:
    return (
        f"{path.name} ended in {removed:,} bytes that a kill or a loss of power had left unfinished; they were cut off."
    )


def whole_lines(content: bytes) -> int:
    """Return the length of the part that holds whole lines; a zero byte, which no line has, ends it."""
    return _before_zeros(content).rfind(b"\n") + 1


def whole_rows(content: bytes) -> int:
    """Return the length of the part of a CSV file that holds whole rows; a quoted cell may contain line ends."""
    content = _before_zeros(content)
    end = len(content)
    pieces = content.split(b'"')
    for place in reversed(range(len(pieces))):
        start = end - len(pieces[place])
        found = pieces[place].rfind(b"\n")
        if place % 2 == 0 and found >= 0:  # an even number of quotes before: outside of them
            return start + found + 1
        end = start - 1
    return 0


def _before_zeros(content: bytes) -> bytes:
    return content.partition(b"\0")[0]


# --- seen from other machines -----------------------------------------------------------------------------------------

MARKER = ".session-"


@contextmanager
def marked(directory: Path) -> Iterator[Path]:
    """Keep a marker in a run directory while inside the block, in place of that of a killed session: a worker that sees
    it sees this directory, and no other one at the same path. StorageError: it cannot be written.

    Its name is new in every session: a copy on a node's own disk has everything but that, and a network file system may
    remember for a while that a name was not there.
    """
    marker = directory / f"{MARKER}{uuid.uuid4().hex}"
    with storing(marker, 0):
        for former in directory.glob(f"{MARKER}*"):
            former.unlink(missing_ok=True)
        marker.touch()
    try:
        yield marker
    finally:
        with suppress(OSError):  # the next session removes it
            marker.unlink()


def obstacle(marker: Path | None) -> str:
    """Find what keeps this process from using the directory of the marker; empty where nothing does, or it needs
    none."""
    if marker is None:
        return ""
    try:
        marker.read_bytes()
        with tempfile.TemporaryFile(dir=marker.parent):
            return ""
    except OSError as error:
        return error.strerror or str(error)
