"""The command as a user types it, on real Ray, Optuna and MLflow: what files, study and store say afterwards."""

import gc
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import weakref
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from mlflow import MlflowClient
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from odenet.data.config import Portion
from odenet.training.checkpoint import load_checkpoint
from odenet.training.config import identity
from search_spaces import SPACES, Choice, Space, fixed
from sweep.__main__ import run as sweep_here
from sweep.cluster.connect import connected
from sweep.config.schema import ClusterConfig
from sweep.execution import ray_adapter
from sweep.records.best import read_best
from sweep.records.outcome import STATES, Outcome
from sweep.records.protocol import departures, deviations, read_protocol
from sweep.records.rows import CurveRow, EvaluationRow, Phase, TrialRow, ranked
from sweep.records.run_directory import JOURNAL, SweepFiles
from sweep.records.summary import sift
from sweep.records.tables import read_rows

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # a busy machine takes minutes to start Ray

ROOT = Path(__file__).parents[2]
MEMBERS = ("resnet-d0", "continuous-d0")
QUICK = ["training.epochs=3", "model.width=4", "cluster.cpus=2"]
STUDY = [
    *QUICK,
    "study.draws=[0]",
    "search.trials=3",
    "search.sampler=random",
    "final.top=2",
    "final.confirm_seeds=2",
    "final.seeds=2",
    "evaluate.step_factors=[1,2]",
]


@pytest.fixture(scope="module", autouse=True)
def short_home() -> "pytest.FixtureRequest":
    """Ray's sockets need a short path, and nothing may be left in the user's home."""
    with tempfile.TemporaryDirectory(prefix="r") as home, pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", home)
        patch.setenv("RAY_TMPDIR", home)
        patch.setenv("RAY_raylet_start_wait_time_s", "120")  # half a minute is too short on a busy machine
        yield


def sweep(directory: Path, *arguments: str, timeout: float = 800) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sweep", *arguments]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=timeout, check=False)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory in which `sweep study tiny` has run."""
    directory = tmp_path_factory.mktemp("study")
    result = sweep(directory, "study", "tiny", *STUDY)
    assert result.returncode == 0, result.stderr
    assert "runs/tiny/report.html" in result.stdout
    said = [line for line in result.stdout.splitlines() if line.startswith(("study", "Starting", "Ray"))]
    assert [line.split(" (")[0] for line in said[1:]] == [
        "study tiny: loading PyTorch",
        "Starting Ray",
        "Ray runs: 2 at once, each with 1 CPU",
    ]
    return directory


@pytest.fixture(params=["resnet-d0", "continuous-d0"])
def member(study: Path, request: pytest.FixtureRequest) -> SweepFiles:
    return SweepFiles(study / "runs" / "tiny" / request.param)


def test_every_trial_has_one_row_one_study_trial_and_one_mlflow_run_that_agree(member: SweepFiles) -> None:
    rows = read_rows(member.trials, TrialRow)
    assert {row.host for row in rows} == {socket.gethostname()}
    trials = study_trials(member.directory)
    runs = mlflow_runs(member.directory.parent, "tags.phase = 'search'", family=member.directory.name.split("-")[0])
    assert [row.number for row in rows] == [trial.number for trial in trials] == [0, 1, 2]
    assert Counter(row.trial_id for row in rows) == Counter(run.data.tags["trial_id"] for run in runs)
    by_id = {run.data.tags["trial_id"]: run for run in runs}
    for row, trial in zip(rows, trials, strict=True):
        states = STATES[row.outcome]
        assert (trial.state.name, by_id[row.trial_id].info.status) == (states.optuna, states.mlflow)
        assert trial.value == row.objective == by_id[row.trial_id].data.metrics["objective"]
        assert trial.user_attrs["trial_id"] == row.trial_id
        assert trial.params.items() <= row.parameters.items()


def test_every_epoch_is_one_line_of_the_curves_and_one_step_in_mlflow(member: SweepFiles) -> None:
    curves = read_rows(member.curves, CurveRow)
    assert Counter((curve.number, curve.epoch) for curve in curves) == Counter(
        (n, e) for n in range(3) for e in (1, 2, 3)
    )
    client = client_of(member.directory.parent)
    for run in mlflow_runs(
        member.directory.parent, "tags.phase = 'search'", family=member.directory.name.split("-")[0]
    ):
        assert [m.step for m in client.get_metric_history(run.info.run_id, "val/accuracy")] == [1, 2, 3]


def test_trial_runs_are_children_of_their_sweeps_run_and_carry_data_and_parameters(member: SweepFiles) -> None:
    store = member.directory.parent
    parents = {run.info.run_id: run for run in mlflow_runs(store, "tags.kind = 'sweep'")}
    assert {run.info.status for run in parents.values()} == {"FINISHED"}
    rows = {row.trial_id: row for row in read_rows(member.trials, TrialRow)}
    for run in mlflow_runs(store, "tags.phase = 'search'", family=member.directory.name.split("-")[0]):
        row = rows[run.data.tags["trial_id"]]
        assert parents[run.data.tags["mlflow.parentRunId"]].data.tags["mlflow.runName"] == row.sweep
        assert run.inputs.dataset_inputs[0].dataset.digest == row.data_hash
        assert run.data.params["optim.lr"] == str(row.parameters["optim.lr"])


def test_the_run_of_a_sweep_shows_what_was_searched_what_came_of_it_and_its_files(member: SweepFiles) -> None:
    store, name = member.directory.parent, f"tiny/{member.directory.name}"
    (run,) = (one for one in mlflow_runs(store, "tags.kind = 'sweep'") if one.info.run_name == name)
    assert {"searched.optim.lr", "fixed.model.width", "fixed.training.epochs"} <= run.data.params.keys()
    assert "optim.lr" not in run.data.params, "the default that was not used"
    best = ranked(read_rows(member.trials, TrialRow))[0]
    clean = [
        one.value
        for one in read_rows(member.rows, EvaluationRow)
        if (one.condition, one.metric) == ("clean", "accuracy")
    ]
    assert run.data.metrics["best/objective"] == best.objective
    assert run.data.metrics["test/accuracy_mean"] == pytest.approx(sum(clean) / 2)
    assert (run.data.metrics["confirmed/seeds"], run.data.metrics["trials/done"]) == (2, 3)
    assert {data.tags[0].value for data in run.inputs.dataset_inputs} == {"train", "trainval"}
    assert run.data.tags["mlflow.source.name"] == f"sweep search {name}" and run.data.tags["mlflow.user"]
    assert "| test accuracy |" in run.data.tags["mlflow.note.content"]
    attached = {file.path for file in client_of(store).list_artifacts(run.info.run_id)}
    assert attached == {"best.yaml", "config.yaml", "crowned.yaml", "final", "rows.csv", "space.json", "trials.csv"}


def test_final_runs_have_their_checkpoint_and_what_the_test_set_said(member: SweepFiles) -> None:
    store, family = member.directory.parent, member.directory.name.split("-")[0]
    clean = [
        one for one in read_rows(member.rows, EvaluationRow) if (one.condition, one.metric) == ("clean", "accuracy")
    ]
    seeds = {str(one.seed): one.value for one in clean}
    runs = mlflow_runs(store, "tags.phase = 'final'", family=family)
    assert {run.data.params["training.seed"]: run.data.metrics["test/accuracy"] for run in runs} == seeds
    crowned = read_best(member.crowned).provenance["trial"]
    assert {run.info.run_name for run in runs} == {f"final {crowned} seed {n}" for n in (1, 2)}
    attached = [client_of(store).list_artifacts(run.info.run_id, "checkpoint") for run in runs]
    assert {Path(files[0].path).name for files in attached} == {"model-4.ckpt", "model-5.ckpt"}


def test_a_study_has_a_run_with_its_report(study: Path) -> None:
    store = study / "runs" / "tiny"
    (run,) = mlflow_runs(store, "tags.kind = 'study'")
    assert (run.info.run_name, run.info.status) == ("tiny", "FINISHED")
    assert {file.path for file in client_of(store).list_artifacts(run.info.run_id)} == {"report.html", "study.yaml"}


def test_a_study_has_done_what_its_protocol_says_it_would(study: Path) -> None:
    protocol = read_protocol(study / "runs/tiny")
    assert protocol is not None
    assert list(protocol.members) == ["resnet-d0", "continuous-d0"]
    for member in protocol.members:
        files = SweepFiles(study / "runs/tiny" / member)
        rows, asked = read_rows(files.trials, TrialRow), protocol.asked_of(member)
        assert [row.proposed_by for row in rows] == asked["search.trials"] * ["random"]
        assert ({row.data_hash for row in rows}, {row.epochs for row in rows}) == ({asked["data"]}, {3})
        assert list(departures(protocol, member, yaml.safe_load(files.config.read_text()))) == []
    assert deviations(study / "runs/tiny") == []


def test_best_yaml_is_the_best_trial_as_a_complete_experiment_with_its_provenance(member: SweepFiles) -> None:
    row, best = ranked(read_rows(member.trials, TrialRow))[0], read_best(member.best)
    assert identity(best.experiment) == row.config_hash
    assert {"sweep", "space", "versions", "data_hash", "git_commit"} <= best.provenance.keys()
    assert (best.provenance["trial"], best.provenance["objective"]) == (row.number, row.objective)


def test_confirm_retrains_the_top_trials_and_final_the_crowned_one_on_train_and_val(member: SweepFiles) -> None:
    rows = read_rows(member.final.trials, TrialRow)
    confirm = [row for row in rows if row.phase is Phase.confirm]
    final = [row for row in rows if row.phase is Phase.final]
    top = [row.number for row in ranked(read_rows(member.trials, TrialRow))[:2]]
    assert Counter(row.candidate for row in confirm) == dict.fromkeys(top, 2)
    means = {number: sum(row.objective or 0 for row in confirm if row.candidate == number) for number in top}
    assert {row.candidate for row in final} == {max(top, key=lambda number: means[number])}
    assert len({row.seed for row in rows}) == 4, "final seeds are fresh, confirm seeds the same for every candidate"
    for row in final:
        checkpoint = load_checkpoint(member.checkpoint(row.number))
        assert checkpoint.experiment.data.portion is Portion.trainval
        assert (checkpoint.epoch, identity(checkpoint.experiment)) == (3, row.config_hash)
        assert row.objective is None, "nothing is chosen in the final phase"


def test_families_are_retrained_on_the_same_seeds_and_data(study: Path) -> None:
    seeds, hashes = set(), set()
    for name in ("resnet-d0", "continuous-d0"):
        rows = read_rows(SweepFiles(study / "runs" / "tiny" / name).final.trials, TrialRow)
        seeds.add(tuple(row.seed for row in rows if row.phase is Phase.final))
        hashes.add(tuple({row.data_hash for row in rows if row.phase is Phase.final}))
    assert (len(seeds), len(hashes)) == (1, 1)


def test_rows_hold_the_clean_test_and_the_manifestation_table_with_unique_keys(member: SweepFiles) -> None:
    rows = read_rows(member.rows, EvaluationRow)
    assert len({row.key for row in rows}) == len(rows)
    assert sift(rows, read_rows(member.final.trials, TrialRow)).whole == rows
    clean = [row for row in rows if row.condition == "clean" and row.metric == "accuracy"]
    assert [row.n for row in clean] == [596, 596]
    table = {(row.scheme, row.steps) for row in rows if row.condition == "manifestation"}
    steps = clean[0].trained_steps
    assert {("euler", steps), ("rk4", 2 * steps), (clean[0].trained_scheme, steps)} <= table
    same = [
        row.value for row in rows if row.metric == "accuracy" and (row.scheme, row.steps) == (row.trained_scheme, steps)
    ]
    assert same[0] == same[1], "the trained manifestation measured twice on the same images"


USED = """
import json, sys
import numpy as np
import odenet
test = odenet.load_test(odenet.DataConfig())
score = lambda classes: float((np.asarray(classes) == test.labels_B).mean())
unit = (test.pixels_BCHW / 255).astype("float32")
print(json.dumps({
    "raw": score(classes[test.indices_B]), "uint8": score(model.predict(test.pixels_BCHW)),
    "unit": score(model.predict(unit)), "served": score(logits[test.indices_B].argmax(1)), "all": len(logits),
    "training": model.training, "odenet": odenet.__file__,
    "loaded": [name for name in ("sweep", "hydra", "ray", "search_spaces") if name in sys.modules],
}))
"""


def test_the_readmes_example_scores_as_evaluate_did_on_raw_images_in_a_process_that_knows_no_sweep(study: Path) -> None:
    example = re.search(r"start:use.*?```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert example is not None
    code = example[1].replace("runs/first/", "runs/tiny/").replace("models:/first@", "models:/tiny.continuous-d0@")
    run = [sys.executable, "-W", "ignore", "-P", "-c", code + USED]
    done = subprocess.run(run, cwd=study, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    rows = read_rows(SweepFiles(study / "runs/tiny/continuous-d0").rows, EvaluationRow)
    evaluated = next(row.value for row in rows if row.condition == "clean" and row.metric == "accuracy")
    assert [found[given] for given in ("raw", "uint8", "unit", "served")] == 4 * [evaluated]
    assert (found["all"], found["training"], found["loaded"]) == (1797, False, [])
    assert "/mlartifacts/" in found["odenet"], "the code that the model brings, not the one that is installed"


def test_the_champion_is_the_first_final_seed_and_says_what_it_is(member: SweepFiles) -> None:
    client, name = client_of(member.directory.parent), f"tiny.{member.directory.name}"
    version = client.get_model_version_by_alias(name, "champion")
    row = next(row for row in read_rows(member.final.trials, TrialRow) if row.number == 4)
    tags, crowned = version.tags, read_best(member.crowned).provenance
    assert (tags["trial_id"], tags["data_hash"], tags["config_hash"]) == (row.trial_id, row.data_hash, row.config_hash)
    assert (tags["confirm/objective"], tags["confirm/objective.n"]) == (f"{crowned['objective']:.4f}", "2 seeds")
    assert (tags["test/accuracy.n"], tags["test/accuracy_mean.n"]) == ("596 images", "2 seeds")
    assert "test accuracy" in version.description and name in client.get_registered_model(name).description
    card = member.model_card.read_text()
    for title in ("## Use", "## Data", "## How it was chosen", "## Results", "## Limits", "## Configuration"):
        assert title in card
    assert "model_card.md" in [file.path for file in client.list_artifacts(version.run_id)]


def test_a_crowned_configuration_has_its_confirmed_mean_and_not_what_the_search_said(member: SweepFiles) -> None:
    origin, rows = read_best(member.crowned).provenance, read_rows(member.final.trials, TrialRow)
    values = [row.objective or 0.0 for row in rows if row.phase is Phase.confirm and row.candidate == origin["trial"]]
    assert (origin["phase"], origin["seeds"], origin["objective"]) == ("confirm", 2, pytest.approx(sum(values) / 2))
    searched = {row.number: row.objective for row in read_rows(member.trials, TrialRow)}
    assert origin["search"] == {"objective": searched[origin["trial"]], "seeds": 1}


def test_ctrl_c_keeps_what_is_done_and_says_so(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sweep", "search", "cut", "space=smoke", "search.trials=400", *QUICK]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    trials = tmp_path / "runs/cut/trials.csv"
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and process.poll() is None:
        if trials.exists() and sum(row.outcome is Outcome.done for row in read_rows(trials, TrialRow)) >= 2:
            break
        time.sleep(0.2)
    os.kill(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 130, errors
    assert "`sweep resume cut` goes on" in errors
    rows = read_rows(trials, TrialRow)
    outcomes = Counter(row.outcome for row in rows)
    assert outcomes[Outcome.done] >= 2
    assert outcomes.keys() <= {Outcome.done, Outcome.interrupted}
    states = {trial.state.name for trial in study_trials(tmp_path / "runs/cut")}
    assert "RUNNING" not in states
    assert {run.info.status for run in mlflow_runs(tmp_path / "runs/cut", "")} <= {"FINISHED", "KILLED"}
    assert read_best(tmp_path / "runs/cut/best.yaml").provenance["objective"] == ranked(rows)[0].objective


# --- in this process, on one Ray ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ray_runs(short_home: None) -> Iterator[None]:
    """Ray, started once for all that follows: a start costs more than what is then done."""
    with connected(ClusterConfig(cpus=4, gpus=1), Path.cwd()):
        yield


TWO_AT_ONCE = ["runtime.device=cpu", "runtime.resources.gpus=0.5"]


def test_a_best_yaml_alone_is_retrained_elsewhere(
    study: Path, ray_runs: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text((study / "runs/tiny/continuous-d0/best.yaml").read_text())
    assert sweep_here(["final", "mine.yaml", "final.seeds=1", *TWO_AT_ONCE]) == 0
    files = SweepFiles(tmp_path / "runs" / "tiny-continuous-d0-retrained")
    (row,) = read_rows(files.final.trials, TrialRow)
    assert (row.phase, row.outcome, row.family) == (Phase.final, Outcome.done, "continuous")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["search", "tiny"], "exists already"),
        (["final", "tiny/resnet-d0"], "has final trials already"),
        (["evaluate", "tiny/resnet-d0"], "test data is used once"),
        (["evaluate", "tiny"], "No final network of tiny is left to be measured (clean, manifestation)"),
        (["search", "greedy", "runtime.resources.gpus=3"], "asks for 1 CPUs and 3 GPUs on one node"),
    ],
)
@pytest.mark.usefixtures("ray_runs")
def test_what_is_done_is_not_overwritten_and_what_cannot_be_is_not_started(
    study: Path, arguments: list[str], says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(study)
    before = {path: path.stat().st_mtime_ns for path in (study / "runs").rglob("*") if path.is_file()}
    assert sweep_here(arguments) == 2
    assert says in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in (study / "runs").rglob("*") if path.is_file()} == before
    assert not (study / "runs" / "greedy").exists()


FURTHER = [
    "evaluate.conditions=[corruption,attack]",
    *("evaluate.corruptions=[fog,saturate]", "evaluate.severities=[5]", "evaluate.corruption_images=50"),
    *("evaluate.attack.images=10", "evaluate.attack.check_images=5", "evaluate.attack.linf_255=[8]"),
    *("evaluate.attack.l2=[]", "evaluate.attack.attacks=[apgd_ce,transfer]", "evaluate.attack.apgd_steps=5"),
    "evaluate.attack.pgd_steps=5",
]


@pytest.mark.usefixtures("ray_runs")
def test_conditions_are_added_to_all_sweeps_of_a_study_later_and_the_protocol_says_so(
    study: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The last test of this study, whose files it changes."""
    monkeypatch.chdir(study)
    before = {name: read_rows(SweepFiles(study / f"runs/tiny/{name}").rows, EvaluationRow) for name in MEMBERS}
    cache = study / "corrupted"
    assert sweep_here(["evaluate", "tiny", *FURTHER, f"evaluate.cache_dir={cache}", *TWO_AT_ONCE]) == 0
    assert "Left out: corruption=saturate needs colour" in capsys.readouterr().out
    for name in MEMBERS:
        rows = read_rows(SweepFiles(study / f"runs/tiny/{name}").rows, EvaluationRow)
        assert [row for row in rows if row.condition.startswith(("clean", "manifestation"))] == before[name]
        fog = [row for row in rows if row.condition == "corruption/fog" and row.metric == "accuracy"]
        assert [(row.severity, row.n, row.source) for row in fog] == 2 * [(5.0, 50, "regenerated")]
        taken_over = {row.condition for row in rows if row.condition.startswith("attack/linf/transfer_")}
        assert "attack/linf/transfer_sibling" in taken_over
        assert ("attack/linf/transfer_tiny.resnet-d0" in taken_over) == (name != "resnet-d0")
    assert [file.name.split("-")[0] for file in cache.iterdir()] == ["fog"]
    assert "corruption" in (study / "runs/tiny/deviations.jsonl").read_text()


def alive_in_ray(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """After each ended segment, how many ended ones Ray Tune still keeps."""
    ended: list[weakref.ref[Any]] = []
    counts: list[int] = []
    forget = ray_adapter._forget

    def forgetting(controller: Any, trial: Any) -> None:
        forget(controller, trial)
        ended.append(weakref.ref(trial))
        del trial
        gc.collect()
        counts.append(sum(one() is not None for one in ended))

    monkeypatch.setattr(ray_adapter, "_forget", forgetting)
    return counts


@pytest.mark.usefixtures("ray_runs")
def test_diverged_trials_end_as_such_and_the_sweep_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    volatile = Space({"model.network": fixed("continuous"), "optim.lr": Choice((0.1, 1e30))})
    monkeypatch.setitem(SPACES, "smoke", volatile)
    monkeypatch.chdir(tmp_path)
    alive = alive_in_ray(monkeypatch)
    words = ["space=smoke", "search.trials=8", "search.sampler=random", *QUICK, *TWO_AT_ONCE]
    assert sweep_here(["search", "wild", *words]) == 0
    assert len(alive) >= 6
    assert max(alive) <= 3, "a driver's memory must not grow with its trials"
    rows = read_rows(tmp_path / "runs/wild/trials.csv", TrialRow)
    assert len(rows) == 8
    for row, trial in zip(rows, study_trials(tmp_path / "runs/wild"), strict=True):
        diverged = row.parameters["optim.lr"] == 1e30
        assert row.outcome is (Outcome.diverged if diverged else Outcome.done)
        assert (trial.state.name, trial.value) == ("COMPLETE", 0.1 if diverged else row.objective)
        assert ("not finite" in row.reason or "loss is" in row.reason) is diverged
    assert {row.outcome for row in rows} == {Outcome.diverged, Outcome.done}
    assert read_best(tmp_path / "runs/wild/best.yaml").experiment.optim.lr == 0.1


@pytest.mark.usefixtures("ray_runs")
def test_asha_prunes_and_pruned_trials_keep_their_intermediate_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options = [
        "search.scheduler=asha",
        "search.grace=0.1",
        "search.trials=8",
        "search.reduction=2",
        "training.epochs=8",
    ]
    assert sweep_here(["search", "short", "space=smoke", "model.width=4", *TWO_AT_ONCE, *options]) == 0
    rows = read_rows(tmp_path / "runs/short/trials.csv", TrialRow)
    trials = study_trials(tmp_path / "runs/short")
    pruned = [number for number, row in enumerate(rows) if row.outcome is Outcome.pruned]
    assert 0 < len(pruned) < 8
    for number in pruned:
        assert trials[number].state is optuna.trial.TrialState.PRUNED
        assert list(trials[number].intermediate_values) == list(range(1, rows[number].epochs + 1))
        assert trials[number].intermediate_values[rows[number].epochs] == rows[number].objective
    assert {run.info.status for run in mlflow_runs(tmp_path / "runs/short", "tags.outcome = 'pruned'")} == {"KILLED"}


@pytest.mark.usefixtures("ray_runs")
def test_a_defect_ends_trials_with_its_reason_unretried_and_the_command_with_code_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import sweep.stages.search as stage

    def mislabelled(*arguments: object) -> object:
        splits = load_data(*arguments)
        splits.train.labels_B[:] = 99
        return splits

    load_data = stage.load_data
    monkeypatch.setattr(stage, "load_data", mislabelled)
    monkeypatch.chdir(tmp_path)
    assert sweep_here(["search", "broken", "space=smoke", "search.trials=2", *QUICK, *TWO_AT_ONCE]) == 1
    assert "None of the 2 trials" in capsys.readouterr().err
    for row in read_rows(tmp_path / "runs/broken/trials.csv", TrialRow):
        assert (row.outcome, row.epochs) == (Outcome.code, 0)
        assert "IndexError" in row.reason
        assert sweep_here(["status", "broken", "--trial", str(row.number)]) == 0
        shown = capsys.readouterr().out
        assert "Traceback (most recent call last):" in shown and "segment_training.py" in shown and row.reason in shown
    assert {run.info.status for run in mlflow_runs(tmp_path / "runs/broken", "tags.phase = 'search'")} == {"FAILED"}
    attached = {file.name for file in (tmp_path / "runs/broken/mlartifacts").rglob("trial-*.txt")}
    assert attached == {"trial-0.txt", "trial-1.txt"}
    assert not (tmp_path / "runs/broken/best.yaml").exists()


@pytest.mark.usefixtures("ray_runs")
def test_shares_of_logical_gpus_let_that_many_trials_run_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options = ["runtime.resources.gpus=0.34", "search.trials=4", "training.epochs=10"]
    assert sweep_here(["search", "shared", "space=smoke", "model.width=4", "runtime.device=cpu", *options]) == 0
    running, most = set(), 0
    for line in map(json.loads, (tmp_path / "runs/shared/outbox.jsonl").read_text().splitlines()):
        if "/search-" in line["key"]:
            running.add(line["key"]) if line["op"] != "end" else running.discard(line["key"])
            most = max(most, len(running))
    assert most == 2, "0.34 of one GPU fits twice, although four CPUs are there"


def study_trials(directory: Path) -> list[optuna.trial.FrozenTrial]:
    """As Optuna alone reads the sweep's journal."""
    storage = JournalStorage(JournalFileBackend(str(directory / JOURNAL)))
    return optuna.load_study(study_name=None, storage=storage).trials


def client_of(store: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{store / 'mlflow.db'}")


def mlflow_runs(store: Path, query: str, family: str = "") -> list:
    client = client_of(store)
    experiment = client.get_experiment_by_name(store.name)
    runs = client.search_runs([experiment.experiment_id], query)
    return [run for run in runs if not family or run.data.tags.get("family") == family]
