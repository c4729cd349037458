"""What MLflow is told of a sweep: what was searched and fixed, by whom and on what, and what came of it."""

import getpass
import json
from pathlib import Path
from typing import Any

import pytest

from odenet.data.config import Portion
from sweep.config.compose import load
from sweep.errors import StorageError, WorkError
from sweep.execution.interrupt import Interrupted
from sweep.execution.mlflow_runs import SweepRun, study_run
from sweep.records.best import git_commit
from sweep.records.rows import Phase, TrialRow
from sweep.records.run_directory import SweepFiles
from sweep.records.tables import write_rows
from sweep.tracking.description import NOTE, searched_params, source_tags
from sweep.tracking.lines import OUTBOX
from tests.sweep.pretended import configured, data
from tests.sweep.sweep_files import session_on, trial, write_sweep


def told(runs: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (runs / "x" / OUTBOX).read_text().splitlines()]


def test_what_was_searched_and_what_was_fixed_is_shown_and_no_default_that_reads_like_a_result():
    words = ["space=continuous", "space.fix.model.nodes=2", "space.range.optim.lr=[0.01,0.1]", "optim.momentum=0.8"]
    config = load(words)
    params = searched_params(config, config.space.build())
    assert params["searched.optim.lr"] == "0.01 to 0.1, logarithmic"
    assert params["searched.model.scheme"] == "euler, midpoint, heun, rk4"
    assert {name: text for name, text in params.items() if name.startswith("fixed.")} == {
        "fixed.model.network": "continuous", "fixed.model.nodes": "2", "fixed.model.width": "8",
        "fixed.optim.momentum": "0.8", "fixed.data.dataset": "digits", "fixed.data.per_class": "20",
        "fixed.data.draw": "0", "fixed.training.epochs": "16",
    }  # fmt: skip
    assert {"search.sampler": "tpe", "search.scheduler": "none", "search.seed": "0"}.items() <= params.items()
    assert not [name for name in params if name.partition(".")[0] not in ("searched", "fixed", "search")]


def test_a_run_says_who_began_it_and_on_what_code():
    tags = source_tags("search", "x")
    assert (tags["mlflow.source.name"], tags["mlflow.source.type"]) == ("sweep search x", "LOCAL")
    assert tags["mlflow.user"] == getpass.getuser()
    assert tags.get("mlflow.source.git.commit", "") == git_commit().removesuffix("-dirty")


def test_a_user_without_an_entry_of_its_own_is_named_by_number(monkeypatch):
    def no_entry() -> str:
        raise KeyError("getpwuid(): uid not found: 4711")

    monkeypatch.setattr(getpass, "getuser", no_entry)
    assert source_tags("search", "x")["mlflow.user"].isdecimal()


def test_a_search_that_goes_on_keeps_the_parameters_and_says_its_results_anew(tmp_path):
    config = configured(runs=tmp_path)
    session, splits = session_on(config), data()[Portion.train]
    for objective in (0.5, 0.75):
        run = SweepRun(session)
        run.searches(config.space.build(), splits)
        write_rows(session.files.trials, TrialRow, [trial(0, objective=objective)])
        run.end("FINISHED")
    lines = told(tmp_path)
    first, second = (line for line in lines if line["op"] == "start")
    assert first["params"]["fixed.data.per_class"] == "5" and second["params"] == {}
    (dataset, _) = (line for line in lines if line["op"] == "dataset")
    assert (dataset["name"], dataset["digest"], dataset["images"]) == ("digits", splits.hash, {"train": 30, "val": 20})
    results = [(line["step"], line["metrics"]["best/objective"]) for line in lines if line["op"] == "metrics"]
    assert results == [(1, 0.5), (2, 0.75)], "the latest step is the latest word, whatever the clock says"
    notes = [line["tags"][NOTE] for line in lines if line["op"] in ("start", "end")]
    assert "Space `smoke` on digits, 5 images per class, draw 0: 4 trials of 2 epochs, sampler random" in notes[0]
    assert ["| best objective |" in note for note in notes] == [False, True, False, True]
    assert "| best objective | 75.0% | search trial 0, one seed" in notes[-1]
    attached = [Path(line["path"]).name for line in lines if line["op"] == "artifact"]
    assert attached == 2 * ["config.yaml", "space.json", "trials.csv"]


def test_test_metrics_of_final_runs_and_the_results_of_the_sweep_follow_its_evaluation(tmp_path):
    config = write_sweep(tmp_path, [trial(0)])
    session = session_on(config)
    row = trial(4, phase=Phase.final, candidate=0)
    write_rows(session.files.final.trials, TrialRow, [row])
    SweepRun(session).evaluated([(row, {"test/accuracy": 0.9})])
    lines = told(tmp_path)
    assert next((line["key"], line["metrics"]) for line in lines if line["op"] == "metrics") == (
        "x/final-4", {"test/accuracy": 0.9},
    )  # fmt: skip
    assert (lines[-1]["op"], lines[-1]["key"]) == ("tags", "x")


@pytest.mark.parametrize(
    ("error", "status"), [(None, "FINISHED"), (Interrupted("stopped"), "KILLED"), (WorkError("it failed"), "FAILED")]
)
def test_a_study_has_a_run_with_its_report_that_ends_as_the_study_does(tmp_path, error, status):
    session = session_on(configured(runs=tmp_path))
    try:
        with study_run(session):
            if error:
                raise error
    except (Interrupted, WorkError) as raised:
        assert raised is error
    start, study, *report, end = told(tmp_path)
    assert (start["key"], start["tags"]["kind"], study["path"]) == ("x", "study", session.files.study.name)
    assert [line["path"] for line in report] == ([] if error else [SweepFiles(tmp_path / "x").report.name])
    assert (end["op"], end["status"]) == ("end", status)


def test_what_stopped_a_study_is_said_where_its_end_cannot_be_written(tmp_path, monkeypatch):
    session = session_on(configured(runs=tmp_path))

    def full(*_: object) -> None:
        raise StorageError("outbox.jsonl could not be written")

    with pytest.raises(StorageError, match=r"trials\.csv could not be written"), study_run(session):
        monkeypatch.setattr(type(session.tracker), "end", full)
        raise StorageError("trials.csv could not be written")
