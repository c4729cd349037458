"""A search as one piece of work: what it leaves behind when it ends, is stopped, or goes on later."""

import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from odenet import Network, build_model
from odenet.seeding import derive
from sweep.config.overrides import override
from sweep.errors import InputError, WorkError
from sweep.execution.trial_source import trial_seed
from sweep.records.best import read_best, read_candidates
from sweep.records.outcome import Outcome
from sweep.records.rows import TrialRow, ranked
from sweep.records.run_directory import SweepFiles, claim_directory
from sweep.records.tables import write_rows
from sweep.stages.resume import prepare_resume
from sweep.stages.search import Search, extended, prepare_search, search_anew
from sweep.tracking.lines import OUTBOX
from sweep.tuning.problem import copies_of_enqueued
from tests.sweep.pretended import Worker, configured, opened
from tests.sweep.sweep_files import PARAMETERS, session_on, trial


def work(runs: Path, *words: str) -> Search:
    config = configured(*words, runs=runs)
    return Search(session_on(config), prepare_search(config))


def drive(one: Search, legs: int = 1_000_000) -> None:
    session, batch = one.batch.session, one.batch
    sweep = opened(session, batch.source, batch.splits)
    sweep.drive(Worker(), legs)
    batch.log.rows = sweep.log.rows


def last_line(runs: Path) -> dict:
    line: dict = json.loads((runs / "x" / OUTBOX).read_text().splitlines()[-1])
    assert (line["op"], line["key"]) == ("end", "x")
    return line


def test_the_best_trial_is_left_as_a_complete_experiment(tmp_path):
    one = work(tmp_path)
    drive(one)
    one.conclude()
    best, row = read_best(tmp_path / "x" / "best.yaml"), one.batch.log.rows[3]  # 3 * 7 % 11 is the most of four
    seed = trial_seed(0, 3)
    assert best.experiment == override(configured().experiment, {**row.parameters, "training.seed": seed})
    assert (best.provenance["trial"], best.provenance["objective"], best.schedule) == (3, row.objective, [])
    assert last_line(tmp_path)["status"] == "FINISHED"
    candidates = read_candidates(tmp_path / "x" / "candidates.yaml")
    assert [each.provenance["trial"] for each in candidates] == [row.number for row in ranked(one.batch.log.in_order())]
    assert candidates[0] == replace(best, provenance=candidates[0].provenance)


@pytest.mark.parametrize("status", ["KILLED", "FAILED"])
def test_a_sweep_that_breaks_off_keeps_its_best_and_says_so_to_mlflow(tmp_path, status):
    one = work(tmp_path)
    drive(one, legs=1)
    one.stopped(status)
    assert read_best(tmp_path / "x" / "best.yaml").provenance["trial"] == 0
    assert last_line(tmp_path)["status"] == status


@pytest.mark.parametrize(
    ("words", "said"), [((), ""), (("search.constraints.latency_ms=1",), r" within \{'latency_ms': 1\.0\}")]
)
def test_a_sweep_without_a_trial_to_choose_failed_and_says_where_the_reasons_are(tmp_path, words, said):
    one = work(tmp_path, *words)
    drive(one)
    for number, row in one.batch.log.rows.items():
        outcome = Outcome.done if words else Outcome.diverged
        one.batch.log.rows[number] = replace(row, outcome=outcome)
    with pytest.raises(WorkError, match=f"None of the 4 trials of x ended done{said}; `sweep status x` says why"):
        one.conclude()
    assert not (tmp_path / "x" / "best.yaml").exists()
    assert last_line(tmp_path)["status"] == "FAILED"


@pytest.mark.parametrize(("words", "failed"), [((), True), (("search.tolerated=0.25",), False)])
def test_defects_and_losses_are_named_last_and_more_than_are_tolerated_fail_the_command(tmp_path, words, failed):
    one = work(tmp_path, *words)
    drive(one)
    rows, console = one.batch.log.rows, one.batch.session.console
    rows[1] = replace(rows[1], outcome=Outcome.node_lost, reason="its node was lost (host3)")
    with pytest.raises(WorkError, match="1 of the 4 trials of x ended by") if failed else nullcontext():
        one.conclude()
    assert console.file.getvalue().endswith("x trial 1: its node was lost (host3)\n")  # type: ignore[attr-defined]
    assert read_best(tmp_path / "x" / "best.yaml").provenance["trial"] == 3
    assert last_line(tmp_path)["status"] == "FINISHED"


def test_the_best_of_a_population_has_the_schedule_of_its_weights(tmp_path):
    words = ("search.scheduler=pbt", "search.pbt.interval=0.5", "search.trials=2", "training.epochs=2")
    one = work(tmp_path, *words)
    session, batch = one.batch.session, one.batch
    sweep = opened(session, batch.source, batch.splits)
    sweep.drive(
        Worker(lambda segment, epoch: float(segment.number == epoch % 2))
    )  # 1 leads when they meet, 0 at the end
    batch.log.rows = sweep.log.rows
    one.conclude()
    best = read_best(tmp_path / "x" / "best.yaml")
    assert [(entry["epoch"], entry["parent"]) for entry in best.schedule] == [(0, 1), (1, 1)]
    assert best.schedule == sweep.log.rows[0].schedule
    assert best.experiment.optim.lr == best.schedule[0]["parameters"]["optim.lr"]


def test_a_search_that_began_with_something_else_is_refused_before_anything_is_written(tmp_path):
    work(tmp_path)
    before = (tmp_path / "x" / "config.yaml").read_text()
    with pytest.raises(InputError, match=r"x began with something else: space optim\.lr was"):
        work(tmp_path, "space.fix.optim.lr=0.1")
    assert (tmp_path / "x" / "config.yaml").read_text() == before
    work(tmp_path, "space.fix.optim.lr=0.1", "search.accept_changes=true")


def test_files_to_enqueue_are_read_when_a_sweep_begins_and_never_again(tmp_path):
    file, lr = tmp_path / "t.csv", {**PARAMETERS, "optim.lr": 0.07}
    write_rows(file, TrialRow, [trial(0, parameters=lr)])
    config = configured(f"search.enqueue=[{file}]", runs=tmp_path)
    began = work(tmp_path, f"search.enqueue=[{file}]")
    for name, text in copies_of_enqueued(config).items():
        (tmp_path / "x" / name).write_text(text)
    drive(began, legs=1)
    write_rows(file, TrialRow, [trial(0, parameters={**PARAMETERS, "optim.lr": 0.2})])
    assert prepare_resume(config, "x").enqueued == [lr]
    file.unlink()
    assert prepare_resume(config, "x").enqueued == [lr]
    with pytest.raises(InputError, match=r"t\.csv cannot be read"):
        prepare_search(config)


def test_a_renamed_sweep_goes_on_under_the_name_that_it_was_begun_with(tmp_path):
    drive(work(tmp_path), legs=1)
    (tmp_path / "x").rename(tmp_path / "y")
    config = configured(runs=tmp_path)
    again = Search(session_on(config, "y"), prepare_resume(config, "y"))
    drive(again)
    assert [row.sweep for row in again.batch.log.in_order()] == 4 * ["x"]
    lines = [json.loads(line) for line in (tmp_path / "y" / OUTBOX).read_text().splitlines()]
    assert {line["key"].split("/")[0] for line in lines} == {"x"}
    assert {Path(line["path"]).is_absolute() for line in lines if "path" in line} == {False}


def test_a_sweep_that_could_not_be_started_leaves_nothing_whatever_the_reason(tmp_path, monkeypatch):
    file = tmp_path / "t.csv"
    write_rows(file, TrialRow, [trial(0)])
    for reason in (WorkError("Ray failed to start"), InputError("no"), KeyboardInterrupt(), OSError("full")):

        def fail(*_: object, reason: BaseException = reason) -> None:
            raise reason

        monkeypatch.setattr("sweep.execution.session.connected", fail)
        with pytest.raises(type(reason)):
            search_anew(configured(f"search.enqueue=[{file}]", runs=tmp_path / "runs"), "x")
        assert list((tmp_path / "runs").iterdir()) == []


def test_a_sweep_is_extended_by_as_many_trials_as_asked_for(tmp_path):
    files = SweepFiles(tmp_path)
    config = extended(configured("search.trials=4", "search.more=3"), "x", files)
    assert (config.search.trials, config.search.more) == (7, 0)
    with pytest.raises(InputError, match="How many trials more"):
        extended(configured(), "x", files)
    with pytest.raises(InputError, match="a population cannot be extended once it has trained"):
        extended(configured("search.scheduler=pbt", "search.more=3"), "x", files)
    files.final.directory.mkdir()
    with pytest.raises(InputError, match=r"retrained already\. `sweep extend x search\.more=3 --again` goes on"):
        extended(configured("search.more=3"), "x", files)
    assert extended(configured("search.trials=4", "search.more=3"), "x", files, again=True).search.trials == 7


def test_weights_of_another_network_and_too_many_frozen_parts_are_refused_before_anything_is_started(tmp_path):
    config = configured("space=resnet", "space.fix.model.nodes=2", "model.width=2")
    for nodes, name in ((2, "fit"), (4, "unfit")):
        model = replace(config.model, network=Network.resnet, nodes=nodes)
        torch.save(build_model(model, channels=1, classes=10).state_dict(), tmp_path / f"{name}.pth")
    words = ("space=resnet", "space.fix.model.nodes=2", "model.width=2")
    prepare_search(configured(*words, f"model.initial={tmp_path}/fit.pth", "optim.frozen=4"))
    with pytest.raises(InputError, match=r"unfit\.pth is of another network: it has other shapes: stages\.0\.rate\."):
        prepare_search(configured(*words, f"model.initial={tmp_path}/unfit.pth"))
    with pytest.raises(InputError, match=r"optim\.frozen=5: this network has 5 parts, 4 of them can be"):
        configured(*words, "optim.frozen=5")


def test_a_run_directory_is_claimed_once(tmp_path):
    claim_directory(tmp_path / "runs" / "x")
    with pytest.raises(
        InputError, match=r"x exists already in .*: choose another name, go on with it by `sweep resume"
    ):
        claim_directory(tmp_path / "runs" / "x")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cannot be made: Not a directory; choose another by runtime\.runs_dir"):
        claim_directory(tmp_path / "file" / "x")


def test_seeds_of_trials_are_those_of_their_number_in_the_sweep():
    assert trial_seed(5, 3) == derive(5, "trial", 3) % 2**31
