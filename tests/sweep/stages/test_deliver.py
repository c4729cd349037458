"""`sweep deliver` and `sweep resume` tell MLflow what it was not told, by a delivery process of their own."""

from pathlib import Path

import pytest

from sweep.records.progress import SweepProgress
from sweep.records.run_directory import SweepFiles
from sweep.records.stage_record import BegunStage, record_stage
from sweep.tracking.lines import OUTBOX
from sweep.tracking.outbox import TrackedRun, Tracker
from sweep.tracking.state import lag, read_set_aside
from tests.sweep.sweep_command import Command, in_empty_directory
from tests.sweep.sweep_files import trial, write_sweep

RUNS = Path("runs")
pytestmark = pytest.mark.slow


@pytest.fixture
def sweep(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    return in_empty_directory(monkeypatch, tmp_path, capsys)


def test_a_finished_sweep_is_delivered_by_resume_and_what_was_refused_by_deliver(sweep):
    write_sweep(RUNS, [trial(0)])
    files = SweepFiles(RUNS / "x")
    record_stage(files.stage, BegunStage.search)
    SweepProgress(1.0, finished=True).write(files.progress)
    refused = sweep("resume", "x")
    assert (refused.code, "Nothing of x was cut short. `sweep extend" in refused.err) == (2, True)

    tracker = Tracker(files.directory / OUTBOX)
    tracker.start(TrackedRun("x", "x"), tags={}, params={"lr": 1})
    tracker.artifact("x", Path("absent.yaml").resolve())
    tracker.end("x", "FINISHED")
    answer = sweep("resume", "x")
    assert answer.out.startswith("Nothing of x was cut short but its delivery to MLflow.\n")
    assert answer.code == 1
    assert (
        "Lines that could not be delivered to MLflow: 1, kept in" in answer.err
        and "absent.yaml is missing" in answer.err
    )
    assert (lag(files.directory).lines, len(read_set_aside(files.directory))) == (0, 1)

    Path("absent.yaml").write_text("here now")
    answer = sweep("deliver", "x")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out == "MLflow has been told everything about x; lines just now: 1.\n"
    assert read_set_aside(files.directory) == []
    assert len(list(files.directory.glob("mlartifacts/**/absent.yaml"))) == 1

    answer = sweep("report", "x")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out == "Open the report: runs/x/report.html\nAttaching it to its run in MLflow.\n"
    assert len(list(files.directory.glob("mlartifacts/**/report.html"))) == 1
