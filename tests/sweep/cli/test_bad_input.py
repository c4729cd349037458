"""Wrong input of every class, in every place where a user, an editor or a crash can put it, against every stage that
reads it: code 2, one message that names the place, no traceback, no Ray, nothing written and nothing executed.

Words that a stage never gets to see are in test_command_line, single files of a finished sweep in test_bad_files."""

import json
import pickle
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from odenet.data.subsets import load_data
from sweep.config.search_config import Objective
from sweep.records.files import write_text
from sweep.records.provenance import check_origin, origin
from sweep.records.rows import CurveRow, ManifestationRow, TrialRow
from sweep.records.run_directory import JOURNAL, SweepFiles
from sweep.records.tables import write_rows
from sweep.tuning.ask_and_tell import Proposals
from sweep.tuning.optuna_study import open_study
from sweep.tuning.problem import build_problem
from tests.sweep.cli.bad_input import EXTEND, FINAL, MENDED, PICKLE, RESUME, WRONG
from tests.sweep.sweep_command import Command, assert_refused, in_empty_directory, tree
from tests.sweep.sweep_files import trial, write_sweep


def write_all(finished: bool) -> None:
    """A sweep of two trials as `sweep search` leaves it, or as a killed driver does."""
    files = SweepFiles(Path("runs/x"))
    config = write_sweep(Path("runs"), [trial()])
    space = build_problem(config).space
    journal = open_study(files.directory / JOURNAL, "x", config.search.objectives)
    study, rows = Proposals(space, config.search, journal, 0.1), []
    for number in (0, 1):
        asked = study.ask()
        row = trial(number, trial_id=asked.trial_id, parameters=asked.parameters)
        study.tell(number, row.outcome, {Objective.accuracy: 0.5})
        rows.append(replace(row, proposed_by=asked.proposed_by))
    write_rows(files.ledger, TrialRow, rows)
    write_rows(files.trials, TrialRow, rows)
    curve = {"train_loss": 1.0, "val_loss": 1.0, "val_accuracy": 0.5, "objective": 0.5, "cost_train_gflops": 1.0}
    costs = {"cost_seconds": 1.0, "cost_rate_evaluations": 6, "depth_steps": 2, "depth_nodes": 1}
    epochs = [CurveRow(number=number, epoch=epoch, **curve, **costs) for number in (0, 1) for epoch in (1, 2)]
    write_rows(files.curves, CurveRow, epochs)
    write_rows(files.manifestations, ManifestationRow, [])
    write_text(files.progress, json.dumps({"seconds": 5.0, "finished": finished}))
    check_origin(files.origin, origin(space, load_data(config.data, "data")), accept=False)
    known = json.loads(files.origin.read_text())
    del known["place"]  # else what tests copy would be copies of it
    write_text(files.origin, json.dumps(known))


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """Run directories by whether the search has ended."""
    places = {finished: tmp_path_factory.mktemp("left") for finished in (False, True)}
    with pytest.MonkeyPatch.context() as patch:
        for finished, place in places.items():
            patch.chdir(place)
            write_all(finished)
    return places


@pytest.fixture
def sweep(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    return in_empty_directory(monkeypatch, tmp_path, capsys)


# Each change against the first stage that reads it; against the others in the whole suite only.
CASES = [
    pytest.param(
        change,
        line,
        needles,
        id=f"{kind}-{index}-{ascii(line)[1:40]}",
        marks=() if line == lines[0] else pytest.mark.slow,
    )
    for kind, cases in WRONG.items()
    for index, (change, lines, needles) in enumerate(cases)
    for line in lines
]


@pytest.mark.parametrize(("change", "line", "needles"), CASES)
def test_wrong_input_is_refused_with_one_message_that_names_the_place(left, sweep, change, line, needles):
    shutil.copytree(left[not line.startswith("resume")] / "runs", "runs")
    change(Path("runs/x"))
    assert_refused(sweep, line.split(" "), needles)
    assert not Path("hacked").exists()


def test_every_class_of_wrong_input_has_at_least_five_cases_and_all_have_sixty():
    counts = Counter({kind: len(cases) for kind, cases in WRONG.items()})
    assert set(counts) == {
        "type", "range", "typo", "contradiction", "unicode and control characters", "huge values", "path tricks",
        "damaged files", "pickles",
    }  # fmt: skip
    assert min(counts.values()) >= 5
    assert counts.total() >= 60


@pytest.mark.parametrize("line", [RESUME, EXTEND, FINAL])
def test_the_run_directory_that_the_cases_change_is_taken_as_it_is(left, sweep, line):
    shutil.copytree(left[line != RESUME] / "runs", "runs")
    assert "Ray was started" in sweep(*line.split(" ")).err


@pytest.mark.parametrize("change", MENDED.values(), ids=MENDED)
def test_what_a_kill_or_a_loss_of_power_leaves_is_no_damage_and_is_not_touched_before_the_sweep_goes_on(
    left, sweep, change
):
    shutil.copytree(left[False] / "runs", "runs")
    change(Path("runs/x"))
    before = tree(Path("runs/x"))
    answer = sweep(*RESUME.split(" "))
    assert "Ray was started" in answer.err, answer.err
    assert {
        name: content for name, content in tree(Path("runs/x")).items() if Path(name).name != "driver.lock"
    } == before


def test_a_copy_is_read_and_refused_for_writing_while_the_one_that_was_begun_is_there(left, sweep):
    shutil.copytree(left[False] / "runs", "runs")
    origin_file = Path("runs/x/origin.json")
    known = json.loads(origin_file.read_text())
    write_text(origin_file, json.dumps({**known, "place": str(Path("runs/x").resolve())}))
    shutil.copytree("runs/x", "elsewhere/x")
    assert_refused(sweep, ["resume", "x", "runtime.runs_dir=elsewhere"], ("elsewhere/x is a copy of", "runs/x, which"))
    assert sweep("status", "x", "runtime.runs_dir=elsewhere").code == 0
    Path("runs").rename("old")
    assert "Ray was started" in sweep("resume", "x", "runtime.runs_dir=elsewhere").err
    moved = json.loads(Path("elsewhere/x/origin.json").read_text())
    assert moved["place"] == str(Path("elsewhere/x").resolve())
    assert not Path("runs").exists()  # which config.yaml still says


def test_an_unpickled_hack_would_be_seen(sweep):
    pickle.loads(PICKLE)
    assert Path("hacked").exists()
