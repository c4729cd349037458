"""The driver's machine is lost at any moment: built again from storage, a sweep ends as if undisturbed, and nothing
that the last manifest knew is lost."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from sweep.records import tables
from sweep.records.checkpoints import checkpoint_files
from sweep.records.files import write_text
from sweep.storage import lease
from sweep.storage.lease import begin_session
from sweep.storage.mirror import RECORD, Mirror
from sweep.storage.objects import SharedDirectory
from sweep.storage.rebuild import rebuild, record_text
from sweep.tracking import outbox
from sweep.tuning import optuna_study
from tests.sweep.execution.test_trial_log import SWEEPS, listed, names, what_came_of_it
from tests.sweep.pretended import Killed, Sweep, configured, opened
from tests.sweep.sweep_files import session_on

OPEN = (1, 5)  # lines that no manifest has when the machine is lost
POINTS = 5  # of a sweep at which the last manifest is written


def taken_up(runs: Path, kind: str, storage: Path) -> tuple[Sweep, Mirror]:
    config = configured(*SWEEPS[kind], f"runtime.storage={storage}", runs=runs)
    store = SharedDirectory(str(storage))
    write_text(runs / "x" / RECORD, record_text(str(storage)))
    mirror = Mirror(store, begin_session(store, "x", "here", lambda _: None), runs / "x")
    session = replace(session_on(config), mirror=mirror)
    return opened(session, listed(session) if kind == "final" else None), mirror


def watched(patch: pytest.MonkeyPatch, what: Callable[[int], None]) -> Callable[[], int]:
    """Do something before the driver writes a line of any of its files, counted from 0. Returns the count of lines."""
    written, whole = 0, tables.append_line

    def append_line(path: Path, text: str, header: str = "") -> None:
        nonlocal written
        what(written)
        written += 1
        whole(path, text, header)

    for module in (tables, optuna_study, outbox):
        patch.setattr(module, "append_line", append_line)
    return lambda: written


def lose(here: Path, kind: str, last: int, behind: int) -> dict[int, str]:
    """Run a sweep whose last manifest is written before line `last`, and whose machine is lost so many lines later.
    Returns the ids of the trials that the manifest knew."""
    known: dict[int, str] = {}

    def what(line: int) -> None:
        if line == last:
            mirror.turn()
            known.update(names(sweep))
        if line == last + behind:
            raise Killed

    sweep, mirror = taken_up(here / "runs", kind, here / "storage")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        watched(patch, what)
        sweep.drive()
    return known


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["asha", "pbt", "final"])
def test_a_machine_lost_at_any_moment_leaves_a_sweep_that_ends_as_if_undisturbed(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(lease, "SILENT_SECONDS", 0.0)
    monkeypatch.setattr("os.fsync", lambda _: None)  # nothing here is to outlive this machine
    undisturbed, _ = taken_up(tmp_path / "runs", kind, tmp_path / "storage")
    with pytest.MonkeyPatch.context() as patch:
        lines = watched(patch, lambda _: None)
        undisturbed.drive()
        expected, count = what_came_of_it(undisturbed), lines()
    for last in range(0, count - max(OPEN), max(1, count // POINTS)):
        for behind in OPEN:
            here = tmp_path / f"{last}-{behind}"
            known = lose(here, kind, last, behind)
            there = here / "elsewhere"
            rebuild(SharedDirectory(str(here / "storage")), "x", there / "x", lambda _: None)
            sweep, mirror = taken_up(there, kind, here / "storage")
            sweep.drive()
            mirror.turn(closed=True)
            assert names(sweep).items() >= known.items(), (last, behind)
            assert what_came_of_it(sweep) == expected, (last, behind)


def test_checkpoints_stay_until_the_ending_that_makes_them_needless_is_in_storage(tmp_path):
    sweep, mirror = taken_up(tmp_path / "runs", "none", tmp_path / "storage")
    (segment,) = sweep.drive(legs=1)
    assert len(checkpoint_files(Path(segment.folder))) == 2
    assert Path(segment.folder).name == f"000000-{segment.trial_id}"
    mirror.turn()
    assert len(checkpoint_files(Path(segment.folder))) == 1
