"""The directory of a local Ray's sockets and logs: one of its own for each command, which goes with it.

A command that was killed leaves its directory behind. The directory is marked by a file on which the command holds a
lock, which the system frees however it dies; the next command removes what is marked and not locked.
"""

import fcntl
import os
import secrets
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LONGEST_TEMPORARY = 31  # characters: Ray's sockets lie 72 below, and a socket's path has at most 103 (macOS)
MARK = "of-a-sweep"
_PREFIX = "sw"
_TRIES = 20  # at removing what a process that is just ending still writes into


def temporary() -> Path:
    """Choose where session directories are made: $RAY_TMPDIR, else on Linux a $TMPDIR that is short enough, else
    /tmp."""
    default = os.environ.get("TMPDIR", "") if sys.platform == "linux" else ""
    if not default or len(default) > LONGEST_TEMPORARY:
        default = "/tmp"
    return Path(os.environ.get("RAY_TMPDIR") or default)


@contextmanager
def session_directory() -> Iterator[Path]:
    """Make a directory for Ray in one that nobody else can look into, and remove that at the end, and those that dead
    commands left. Ray opens what it is given to everybody, so it is given a directory inside.

    Raises:
        OSError: it cannot be made.
    """
    place = temporary().expanduser().absolute()
    place.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(place)
    directory = _made(place)
    try:
        with (directory / f".{MARK}").open("x") as mark:
            mark.write(f"{os.getpid()}\n")
            mark.flush()
            fcntl.flock(mark, fcntl.LOCK_EX)
            (directory / f".{MARK}").rename(directory / MARK)  # another command sees it locked from the beginning
            yield directory / "r"
    finally:
        _remove(directory)


def _made(place: Path) -> Path:
    while True:  # a short name, because of the sockets, may be taken
        directory = place / f"{_PREFIX}{secrets.token_hex(2)[1:]}"
        with suppress(FileExistsError):
            directory.mkdir(mode=0o700)
            return directory


def _remove_abandoned(place: Path) -> None:
    for mark in place.glob(f"{_PREFIX}???/{MARK}"):
        with suppress(OSError), mark.open("r+") as lock:  # another user's, or removed meanwhile
            if mark.parent.stat().st_uid == os.getuid() and not mark.parent.is_symlink():
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(mark.parent)


def _remove(directory: Path) -> None:
    """Remove the directory, its mark last: what could not be removed now, the next command will."""
    for _ in range(_TRIES):
        others = [path for path in directory.iterdir() if path.name != MARK]
        if not others:
            shutil.rmtree(directory, ignore_errors=True)
            return
        for path in others:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        time.sleep(0.05)
