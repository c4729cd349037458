"""Files on storage that is full, read-only, or cut off by a kill: what was whole stays whole, and it is said."""

import errno
import fcntl
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sweep.errors import StorageError
from sweep.records.files import MARKER, marked, obstacle, write_text
from sweep.records.locks import alone, is_alive
from sweep.records.rows import TrialRow
from sweep.records.tables import append_row, cut_half_row, read_rows, write_rows
from sweep.tracking.store import locked
from tests.sweep.pretended import configured
from tests.sweep.small_disk import make_read_only, mounted
from tests.sweep.sweep_files import trial


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "deep" / "file"
    write_text(path, "old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StorageError, match=r"deep/file could not be written, 3 bytes were wanted: No space left"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert [file.name for file in path.parent.iterdir()] == ["file"]


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    with mounted(tmp_path / "disk") as disk:
        yield disk


def test_files_and_locks_are_opened_as_nfs_wants_to_lock_them(tmp_path, monkeypatch):
    """Linux takes a lock there for reading only where the file could be read, and an exclusive one where it could be
    written."""
    lock = fcntl.flock

    def as_on_nfs(file: Any, kind: int) -> None:
        mode = fcntl.fcntl(file, fcntl.F_GETFL) & os.O_ACCMODE
        refused = os.O_WRONLY if kind & fcntl.LOCK_SH else os.O_RDONLY
        if mode == refused and not kind & fcntl.LOCK_UN:
            raise OSError(errno.EBADF, "Bad file descriptor")
        lock(file, kind)

    monkeypatch.setattr("fcntl.flock", as_on_nfs)
    config = configured(runs=tmp_path)
    for name in ("x", "study/x"):
        with alone(config, name):
            assert is_alive(tmp_path / name)
        assert not is_alive(tmp_path / name)
    table = tmp_path / "trials.csv"
    append_row(table, trial(0))
    with table.open("ab") as file:
        file.write(b"2,half")
    assert cut_half_row(table) == len(b"2,half")
    assert read_rows(table, TrialRow) == [trial(0)]
    with locked(tmp_path / "mlflow.db.lock"):
        pass


def test_a_marker_is_new_in_every_session_and_seen_only_in_its_directory(tmp_path):
    (tmp_path / f"{MARKER}killed").touch()
    with marked(tmp_path) as marker:
        assert (list(tmp_path.iterdir()), obstacle(marker)) == ([marker], "")
    with marked(tmp_path) as other:
        assert (obstacle(marker), obstacle(other)) == ("No such file or directory", "")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_refuses_a_row_whole_names_the_table_and_takes_the_row_after_space_is_made(small_disk):
    table, ballast = small_disk / "trials.csv", small_disk / "ballast"
    ballast.write_bytes(bytes(16384))
    rows = [trial(number, reason=1000 * "r") for number in range(100)]
    with pytest.raises(StorageError, match=r"/trials\.csv could not be written, 1,\d\d\d bytes .* No space left"):
        for row in rows:
            append_row(table, row)
    kept = read_rows(table, TrialRow)
    assert kept == rows[: len(kept)]
    assert 10 < len(kept) < 50
    ballast.unlink()
    append_row(table, rows[len(kept)])
    assert read_rows(table, TrialRow) == rows[: len(kept) + 1]


def test_a_table_that_finds_no_room_for_its_first_row_begins_with_its_header_later(small_disk):
    ballast = small_disk / "ballast"
    with pytest.raises(OSError, match="No space left"):
        ballast.write_bytes(bytes(100_000))
    with pytest.raises(StorageError, match="No space left on device"):
        append_row(small_disk / "trials.csv", trial(0))
    assert cut_half_row(small_disk / "trials.csv") == 0
    assert [file.name for file in small_disk.iterdir()] == ["ballast"]  # or it would be a damaged table to the next one
    with pytest.raises(StorageError, match="No space left on device"):
        append_row(small_disk / "trials.csv", trial(0))
    ballast.unlink()
    append_row(small_disk / "trials.csv", trial(1))
    assert read_rows(small_disk / "trials.csv", TrialRow) == [trial(1)]


def test_a_full_disk_keeps_the_old_table_whole_when_it_is_rewritten(small_disk):
    table = small_disk / "trials.csv"
    rows = [trial(number, reason=1000 * "r") for number in range(25)]
    write_rows(table, TrialRow, rows)
    with pytest.raises(StorageError, match=r"trials\.csv could not be written, \d\d,\d\d\d bytes .* No space"):
        write_rows(table, TrialRow, [*rows, *rows])
    assert read_rows(table, TrialRow) == rows
    assert [file.name for file in small_disk.iterdir()] == ["trials.csv"]


def test_read_only_storage_is_said_and_changes_nothing(small_disk):
    table = small_disk / "trials.csv"
    append_row(table, trial(0))
    make_read_only(small_disk)
    for write in (
        lambda: append_row(table, trial(1)),
        lambda: append_row(small_disk / "other.csv", trial(1)),
        lambda: write_rows(table, TrialRow, [trial(1)]),
        lambda: write_text(small_disk / "new" / "file", "text"),
    ):
        with pytest.raises(
            StorageError, match=r"could not be written.*Read-only file system\. .*go on with `sweep resume`"
        ):
            write()
    assert read_rows(table, TrialRow) == [trial(0)]


ROWS = [trial(0), trial(1, reason='two\nlines, "quoted", π'), trial(2)]


def test_wherever_a_kill_cuts_a_table_its_whole_rows_can_be_read(tmp_path):
    """Also inside of a quoted cell, behind one of its line ends."""
    write_rows(tmp_path / "whole.csv", TrialRow, ROWS)
    content, table = (tmp_path / "whole.csv").read_bytes(), tmp_path / "cut.csv"
    header = len(content.splitlines()[0]) + 1
    ends = []
    for length in range(header, len(content) + 1):
        table.write_bytes(content[:length])
        removed = cut_half_row(table)
        kept = read_rows(table, TrialRow)
        assert kept == ROWS[: len(kept)]
        assert removed == length - table.stat().st_size
        ends += [] if removed else [len(kept)]
    assert ends == [0, 1, 2, 3]


def test_a_row_that_follows_a_half_written_one_replaces_it(tmp_path):
    write_rows(tmp_path / "rows.csv", TrialRow, ROWS)
    content = (tmp_path / "rows.csv").read_bytes()
    (tmp_path / "rows.csv").write_bytes(content[:-10])
    append_row(tmp_path / "rows.csv", ROWS[2])
    assert (tmp_path / "rows.csv").read_bytes() == content


def test_a_table_that_is_not_there_has_no_half_row(tmp_path):
    assert cut_half_row(tmp_path / "rows.csv") == 0
    assert list(tmp_path.iterdir()) == []


WRITER = """
    import sys
    from pathlib import Path
    from sweep.records.files import append_line

    for number in range(300):
        append_line(Path(sys.argv[1]), f"{sys.argv[2]} {number} {number * 'x'}\\n", header="header\\n")
"""


def test_lines_of_processes_that_append_to_one_file_at_once_stay_whole(tmp_path):
    command = [sys.executable, "-c", textwrap.dedent(WRITER), str(tmp_path / "lines")]
    writers = [subprocess.Popen([*command, name]) for name in "ab"]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    header, *lines = (tmp_path / "lines").read_text().splitlines()
    assert header == "header"
    for name in "ab":
        mine = [line for line in lines if line.startswith(name)]
        assert mine == [f"{name} {number} {number * 'x'}" for number in range(300)]
