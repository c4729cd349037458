"""A disk whose power can be cut: ext4 in a file, stopped without writing its log, checked and mounted again."""

import fcntl
import gc
import os
import signal
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

SHUTDOWN = 0x8004587D  # EXT4_IOC_SHUTDOWN, _IOR('X', 125, __u32)
WITHOUT_LOG = struct.pack("I", 2)  # EXT4_GOING_FLAGS_NOLOGFLUSH: what was not synced is lost
FIXED = (0, 1)  # exit codes of e2fsck: nothing to do, errors corrected


@dataclass(frozen=True)
class CrashDisk:
    """The file that holds the file system, and where it is mounted."""

    image: Path
    place: Path

    def make(self, mib: int = 192) -> None:
        self.place.mkdir()
        with self.image.open("wb") as file:
            file.truncate(mib * 2**20)
        _call("mkfs.ext4", "-q", "-F", str(self.image))
        self.mount()

    def mount(self) -> None:
        _call("mount", "-o", "loop", str(self.image), str(self.place))

    def cut_power(self) -> None:
        """Everything that is written from now on fails, and what was not synced is gone."""
        descriptor = os.open(self.place, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, SHUTDOWN, WITHOUT_LOG)
        finally:
            os.close(descriptor)

    def recover(self) -> None:
        """As a machine that boots again: no process that used the disk is left, and this one has closed its files."""
        gc.collect()  # a journal that was half read
        for _ in range(200):
            for pid in _holders(self.place):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if subprocess.run(["umount", str(self.place)], capture_output=True, check=False).returncode == 0:
                break
            time.sleep(0.1)
        else:
            raise AssertionError(
                f"{self.place} cannot be unmounted; in use by this process: {_used(Path('/proc/self'), self.place)}"
            )
        done = subprocess.run(["e2fsck", "-fy", str(self.image)], capture_output=True, text=True, check=False)
        assert done.returncode in FIXED, done.stdout + done.stderr
        self.mount()

    def end(self) -> None:
        subprocess.run(["umount", "--lazy", str(self.place)], capture_output=True, check=False)


def _holders(place: Path) -> list[int]:
    """Find the other processes that have a file of this disk open, or are in one of its directories."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended meanwhile
            if int(process.name) != os.getpid() and _used(process, place):
                found.append(int(process.name))
    return found


def _used(process: Path, place: Path) -> list[Path]:
    """List what a process has open of this disk, and its working directory if it is there."""
    links = (process / "cwd", *(process / "fd").iterdir(), *(process / "map_files").iterdir())
    return [link.readlink() for link in links if _is_below(link, place)]


def _is_below(link: Path, place: Path) -> bool:
    with suppress(OSError):
        return link.readlink().is_relative_to(place)
    return False


def _call(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@contextmanager
def crash_disk(directory: Path) -> Iterator[CrashDisk]:
    """A disk below `directory`; a test that may not mount one is skipped."""
    disk = CrashDisk(directory / "image", directory / "disk")
    try:
        disk.make()
    except (AssertionError, OSError) as error:
        pytest.skip(f"an ext4 file system in a file can be mounted by root only: {error}")
    try:
        yield disk
    finally:
        disk.end()
