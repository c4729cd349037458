"""The directory of a local Ray: private, gone at the end, and those of dead commands are removed by the next one."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sweep.cluster.session_directory import LONGEST_TEMPORARY, MARK, session_directory, temporary

KILLED = """
import os, signal, sys
from sweep.cluster.session_directory import session_directory
with session_directory() as directory:
    (directory / "session_1").mkdir(parents=True)
    (directory / "session_1" / "log").write_text("x")
    print(directory.parent, flush=True)
    if sys.argv[1:] == ["dies"]:
        os.kill(os.getpid(), signal.SIGKILL)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    return tmp_path


def test_it_is_its_users_alone_and_gone_at_the_end_however_that_comes(place):
    for error in (None, KeyboardInterrupt):
        with pytest.raises(error) if error else session_directory(), session_directory() as directory:
            assert directory.parents[1] == place
            assert directory.parent.stat().st_mode & 0o777 == 0o700
            (directory / "session_1" / "sockets").mkdir(parents=True)
            (directory / "session_latest").symlink_to("session_1")
            if error:
                raise error
    assert list(place.iterdir()) == []


def test_the_next_command_removes_what_a_killed_one_left_and_nothing_else(place):
    alive = subprocess.Popen([sys.executable, "-c", KILLED], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert alive.stdin is not None
    assert alive.stdout is not None
    try:
        living = Path(alive.stdout.readline().strip())
        done = subprocess.run([sys.executable, "-c", KILLED, "dies"], capture_output=True, text=True, check=False)
        assert done.returncode == -signal.SIGKILL
        dead, others = Path(done.stdout.strip()), [place / "swabc", place / "ray" / "session_1"]
        for other in others:
            other.mkdir(parents=True)
        with session_directory():
            assert not dead.exists()
            assert all(other.exists() for other in (living, living / MARK, *others))
        alive.stdin.close()
        assert alive.wait(timeout=60) == 0
        assert not living.exists()
    finally:
        alive.kill()
        alive.wait()
        alive.stdout.close()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a directory to somebody else")
def test_others_directories_and_links_to_them_stay(place):
    theirs = place / "swabc"
    theirs.mkdir()
    (theirs / MARK).touch()
    (place / "swdef").symlink_to(theirs)
    os.chown(theirs, 12345, 12345)
    with session_directory():
        assert (theirs / MARK).exists()


def test_sockets_below_it_have_paths_that_are_short_enough(monkeypatch):
    monkeypatch.delenv("RAY_TMPDIR")
    monkeypatch.setenv("TMPDIR", "/tmp/" + "x" * LONGEST_TEMPORARY)
    assert temporary() == Path("/tmp")
    socket = "sw123/r/session_2026-11-26_11-06-32_123456_4194304/sockets/plasma_store"
    assert LONGEST_TEMPORARY + len(f"/{socket}") <= 103
    if sys.platform == "linux":
        monkeypatch.setenv("TMPDIR", "/var/tmp")
        assert temporary() == Path("/var/tmp")
