"""A loss of power at any write: whatever of what was not synced is gone, torn or zeros, a sweep ends as undisturbed.

The disk is pretended: what a file held when it was last synced is safe, what came later is lost in one of several ways.
Real images of a file system that was stopped are in tests/sweep/faults/test_crash_images.py.
"""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from sweep.cluster.placement import Placement
from sweep.config.search_config import Objective
from sweep.errors import InputError
from sweep.records import files
from sweep.records.outcome import Outcome
from sweep.records.rows import CurveRow, TrialRow
from sweep.records.run_directory import JOURNAL
from sweep.records.tables import read_rows
from sweep.tracking.outbox import OUTBOX
from sweep.tuning.optuna_study import open_study
from sweep.tuning.reconcile import check_known
from sweep.worker.segment import Segment
from tests.sweep.execution.test_trial_log import SWEEPS, names, optuna_of, taken_up, what_came_of_it
from tests.sweep.pretended import Killed, Sweep, begun, configured, curves_of, opened, outcomes, reported
from tests.sweep.sweep_files import session_on

Loss = Callable[[bytes], bytes]  # of what was written since the last sync
LOSSES: dict[str, Loss] = {
    "kept": lambda late: late,
    "dropped": lambda late: b"",
    "torn": lambda late: late[: len(late) // 2],
    "zeros": lambda late: bytes(len(late)),
    "torn and zeros": lambda late: late[: len(late) // 2] + bytes(len(late) - len(late) // 2),
}


@dataclass
class Disk:
    """A disk whose power fails at write number `last`, counted from 0; -1: never."""

    last: int
    written: int = 0
    safe: dict[Path, int] = field(default_factory=dict)  # length when it was synced last

    @contextmanager
    def plugged_in(self) -> Iterator[None]:
        write, sync, replacing = files._write, files._sync, files._replacing

        def counted_write(descriptor: int, content: bytes) -> None:
            if self.written == self.last:
                write(descriptor, content[: len(content) // 2])
            self.count()
            write(descriptor, content)

        def noted_sync(descriptor: int, path: Path, is_new: bool = False) -> None:
            sync(descriptor, path, is_new)
            self.safe[path] = path.stat().st_size

        @contextmanager
        def counted_replacing(path: Path) -> Iterator[Path]:
            self.count()
            with replacing(path) as temporary:
                yield temporary

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(files, "SYNC_SECONDS", 1e9)  # only where it must be
            patch.setattr(files, "_write", counted_write)
            patch.setattr(files, "_sync", noted_sync)
            patch.setattr(files, "_replacing", counted_replacing)
            patch.setattr("os.fsync", lambda _: None)  # nothing here is to outlive this machine
            yield

    def count(self) -> None:
        if self.written == self.last:
            raise Killed
        self.written += 1

    def lose(self, directory: Path, loss_of: Callable[[Path], str]) -> None:
        grown = [*directory.rglob("*.csv"), directory / JOURNAL, directory / OUTBOX]
        for path in grown:
            if path.exists() and path.name != "trials.csv":
                content, safe = path.read_bytes(), self.safe.get(path, 0)
                path.write_bytes(content[:safe] + LOSSES[loss_of(path)](content[safe:]))


def cut_off(runs: Path, kind: str, last: int) -> tuple[Disk, dict[int, str]]:
    """Runs a sweep whose power fails at a write; returns the disk and the ids of the trials that had begun."""
    disk, known = Disk(last), {}
    with disk.plugged_in(), pytest.raises(Killed):
        sweep = taken_up(runs, kind)
        try:
            sweep.drive()
        finally:
            known = names(sweep)
    return disk, known


@pytest.mark.slow
@pytest.mark.parametrize("kind", SWEEPS)
def test_power_lost_at_any_write_leaves_a_sweep_that_ends_as_if_undisturbed(tmp_path, kind):
    disk = Disk(-1)
    with disk.plugged_in():
        undisturbed = taken_up(tmp_path / "undisturbed", kind)
        undisturbed.drive()
        expected = what_came_of_it(undisturbed)
    assert disk.written > 20
    rng = random.Random(kind)
    for last in range(disk.written):
        ways = [lambda _: "dropped", lambda _: rng.choice(list(LOSSES))]
        for way, loss_of in enumerate(ways):
            runs = tmp_path / f"{last}-{way}"
            cut, known = cut_off(runs, kind, last)
            cut.lose(runs / "x", loss_of)
            with Disk(-1).plugged_in():
                sweep = taken_up(runs, kind)
                sweep.drive()
                assert names(sweep).items() >= known.items(), (last, way)
                assert what_came_of_it(sweep) == expected, (last, way)


# --- what is behind, one file at a time -------------------------------------------------------------------------------


def searched(runs: Path) -> tuple[Sweep, Path]:
    """A sweep of two trials, the second of which has trained one epoch of two when its driver dies."""
    sweep = begun(runs, "search.trials=2")
    sweep.drive(legs=1)
    segment = sweep.controller.next_segment()
    assert isinstance(segment, Segment)
    return sweep, runs / "x"


def said(sweep: Sweep) -> str:
    return " ".join(sweep.said().split())


def test_an_empty_table_of_curves_beside_a_checkpoint_is_written_again_from_it(tmp_path):
    sweep, directory = searched(tmp_path)
    whole = read_rows(sweep.log.files.curves, CurveRow)
    (directory / "curves.csv").write_bytes(b"")
    (directory / "ledger.csv").unlink()
    again = begun(tmp_path, "search.trials=2")
    again.drive()
    assert curves_of(again) == {0: [1, 2], 1: [1, 2]}
    assert read_rows(again.log.files.curves, CurveRow)[:2] == whole


def test_the_ledger_goes_back_to_what_the_curves_know_and_says_so(tmp_path):
    _, directory = searched(tmp_path)
    (directory / "curves.csv").unlink()
    again = begun(tmp_path, "search.trials=2")
    assert [one.epochs for one in again.log.in_order()] == [2, 0], "what has ended stays"
    assert "x: curves.csv lacks epochs of trial 0 that ledger.csv knows: what has not" in said(again)
    again.drive()
    assert curves_of(again)[1] == [1, 2]


def test_a_trial_that_has_not_ended_goes_back_to_the_epochs_that_the_curves_know_with_what_they_cost(tmp_path):
    def with_a_gpu() -> Sweep:
        session = session_on(configured("search.trials=1", runs=tmp_path))
        return opened(replace(session, placement=Placement({"GPU": 1.0})))

    sweep = with_a_gpu()
    segment = sweep.controller.next_segment()
    assert isinstance(segment, Segment)
    for epoch in (1, 2):
        sweep.controller.result(segment, reported(epoch, 0.5))
    sweep.controller.finish("stopped")
    curves = tmp_path / "x" / "curves.csv"
    curves.write_text("".join(curves.read_text().splitlines(keepends=True)[:-1]))
    (row,) = with_a_gpu().log.in_order()
    assert (row.outcome, row.epochs, row.seconds, row.gpu_seconds) == (Outcome.interrupted, 1, 1.0, 1.0)
    curves.unlink()
    (row,) = with_a_gpu().log.in_order()
    assert (row.objective, row.epochs, row.gflops, row.gpu_seconds) == (None, 0, 0.0, 0.0)


@pytest.mark.parametrize("left", [0.0, 0.5, 1.0], ids=["empty", "half", "whole and zeros"])
def test_a_study_that_is_behind_is_written_again_from_the_ledger(tmp_path, left):
    sweep, directory = searched(tmp_path)
    expected = names(sweep)
    journal = directory / JOURNAL
    content = journal.read_bytes()
    journal.write_bytes(content[: int(left * len(content))] + bytes(100))
    again = begun(tmp_path, "search.trials=2")
    again.drive()
    assert names(again) == expected
    assert [state for state, *_ in optuna_of(again)] == ["COMPLETE", "COMPLETE"]


def test_a_study_that_is_ahead_of_the_ledger_is_opened_again_and_a_copy_is_kept(tmp_path):
    _, directory = searched(tmp_path)
    (row,) = [one for one in read_rows(directory / "ledger.csv", TrialRow) if one.number == 0][:1]
    lines = (directory / "ledger.csv").read_text().splitlines(keepends=True)
    (directory / "ledger.csv").write_text("".join(lines[:2]))
    before = (directory / JOURNAL).read_bytes()
    again = begun(tmp_path, "search.trials=2")
    assert (directory / f"{JOURNAL}.older").read_bytes() == before
    again.drive()
    assert again.log.rows[0].trial_id == row.trial_id
    assert [outcome.value for outcome in outcomes(again)] == ["done", "done"]
    assert [state for state, *_ in optuna_of(again)] == ["COMPLETE", "COMPLETE"]


def test_mlflow_is_told_the_epochs_of_a_trial_of_which_ledger_and_outbox_know_nothing(tmp_path):
    _, directory = searched(tmp_path)
    (directory / "ledger.csv").unlink()
    (directory / OUTBOX).unlink()
    again = begun(tmp_path, "search.trials=2")
    again.drive()
    told = [(line["key"], line["step"]) for line in again.lines() if line["op"] == "metrics"]
    assert sorted(told) == [(f"x/search-{number}", epoch) for number in (0, 1) for epoch in (1, 2)]


def test_epochs_of_a_trial_that_neither_study_nor_ledger_knows_are_refused(tmp_path):
    sweep, _ = searched(tmp_path)
    curves = read_rows(sweep.log.files.curves, CurveRow)
    known = open_study(sweep.log.files.journal, "x", [Objective.accuracy])
    check_known(known, curves)
    with pytest.raises(InputError, match=r"curves\.csv has epochs of trial 0, which neither ledger\.csv nor other"):
        check_known(open_study(tmp_path / "other", "x", [Objective.accuracy]), curves)


def test_whole_lines_behind_zeros_are_kept_in_a_copy(tmp_path):
    table = tmp_path / "table"
    table.write_bytes(b"one\n" + bytes(10) + b"two\nthree\n")
    content = table.read_bytes()
    assert files.cut_half_line(table, files.whole_lines) == len(content) - 4
    assert table.read_bytes() == b"one\n"
    assert (tmp_path / "table.torn").read_bytes() == content


def test_what_was_cut_off_is_said(tmp_path):
    searched(tmp_path)
    with (tmp_path / "x" / "ledger.csv").open("ab") as file:
        file.write(bytes(4096))
    sweep = begun(tmp_path, "search.trials=2")
    assert "x: ledger.csv ended in 4,096 bytes that a kill or a loss of power had left unfinished" in said(sweep)


def test_a_line_is_synced_at_once_and_those_of_the_next_second_together(tmp_path, monkeypatch):
    synced: list[int] = []
    monkeypatch.setattr(files.os, "fsync", synced.append)
    now = [100.0]
    monkeypatch.setattr(files.time, "monotonic", lambda: now[0])
    path, counts = tmp_path / "lines", []
    for seconds in (0.0, 0.5, 0.4, 0.2, 0.1):
        now[0] += seconds
        files.append_line(path, "line\n")
        counts.append(len(synced))
    assert counts == [2, 2, 2, 3, 3], "the first line also brings the name of the file to the disk"
    files.sync(path, tmp_path / "another")
    files.sync(path)
    assert len(synced) == 4
