"""Run directories on read-only storage, of other users, and behind links that lead nowhere: one message."""

import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import pytest

from sweep.__main__ import run
from tests.sweep.records.test_kept_run import ARCHIVE
from tests.sweep.small_disk import make_read_only, mounted
from tests.sweep.sweep_command import Answer, Command, in_empty_directory

RESUME = ("resume", "cut", "search.accept_changes=true")  # its code is of another version
NOBODY = 65534


def unpack(directory: Path) -> None:
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(directory, filter="data")


@pytest.fixture
def sweep(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Command]:
    with mounted(tmp_path / "disk", kib=16384) as disk:
        unpack(disk)
        command = in_empty_directory(monkeypatch, disk, capsys)
        yield command
        monkeypatch.chdir(tmp_path)


def test_a_read_only_disk_is_read_and_what_would_write_is_refused_with_the_file(sweep):
    make_read_only(Path.cwd())
    answer = sweep("status", "cut")
    assert (answer.code, answer.err) == (0, "")
    assert "`sweep resume cut` goes on" in answer.out
    for words in (RESUME, ("extend", "kept", "search.more=2"), ("final", "cut"), ("report", "kept")):
        answer = sweep(*words)
        assert answer.code in (1, 2), answer
        assert answer.err.startswith("sweep: ") and "Traceback" not in answer.err
        assert words[0] == "extend" or "Read-only file system" in answer.err, answer.err


def test_links_in_a_circle_are_no_sweep(sweep):
    Path("runs/round").symlink_to("round")
    for words in (("status",), ("status", "kept")):
        assert sweep(*words).code == 0
    for stage in ("status", "resume", "final", "evaluate", "report", "replay", "ui"):
        answer = sweep(stage, "round")
        assert answer.code == 2, answer
        assert answer.err.startswith("sweep: ") and "round" in answer.err
    answer = sweep("search", "round", "space=smoke")
    assert answer.code == 2


@pytest.fixture
def shared() -> Iterator[Path]:
    """Runs of root that everybody can read; pytest's own directories cannot be entered by others."""
    if os.geteuid() != 0:
        pytest.skip("only root can be another user")
    place = Path(tempfile.mkdtemp(prefix="u", dir="/tmp"))
    place.chmod(0o755)
    unpack(place)
    yield place
    shutil.rmtree(place)


def as_nobody(directory: Path, *words: str) -> Answer:
    """Runs a command line as another user, in a process of its own."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.chdir(directory)
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
            try:
                code = run(list(words))
            except BaseException as error:  # noqa: BLE001 - for the parent to see
                code, _ = 99, err.write(repr(error))
        os.write(writing, json.dumps([code, out.getvalue(), err.getvalue()]).encode()[:60_000])
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        answer = pipe.read()
    os.waitpid(pid, 0)
    return Answer(*json.loads(answer))


def test_another_user_can_read_what_is_readable_and_is_told_what_is_not(shared, monkeypatch, capsys):
    command = in_empty_directory(monkeypatch, shared, capsys)
    command(*RESUME)  # what it imports is there for the other user, too
    for path in shared.rglob("*"):  # as a user would open them: what a command writes is for its user only
        path.chmod(0o755 if path.is_dir() else 0o644)
    answer = as_nobody(shared, "status", "cut")
    assert (answer.code, answer.err) == (0, "")
    for words in (RESUME, ("report", "kept")):
        answer = as_nobody(shared, *words)
        assert answer.code in (1, 2), answer
        assert "Permission denied" in answer.err, answer.err
    Path("runs/cut/driver.lock").chmod(0o600)
    answer = as_nobody(shared, "status", "cut")
    assert answer.code == 0 and "Nothing is at work" not in answer.out, "that is not for another user to know"
    for file in ("trials.csv", "progress.json"):
        Path("runs/cut", file).chmod(0o600)
        answer = as_nobody(shared, "status", "cut")
        assert answer.code == 2 and file in answer.err and "Permission denied" in answer.err, answer.err
        Path("runs/cut", file).chmod(0o644)
    Path("runs/cut").chmod(0o700)
    for words in (("status",), ("status", "cut"), RESUME, ("report", "cut")):
        answer = as_nobody(shared, *words)
        assert answer.code in (0, 1, 2), answer.err
