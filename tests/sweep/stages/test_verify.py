"""`verify` finds nothing in a sweep whose records agree, whatever became of its trials, and names each disagreement."""

import re
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient

from search_spaces import SPACES
from sweep.config.search_config import Objective, SamplerKind, SearchConfig
from sweep.errors import InputError
from sweep.execution.mlflow_runs import trial_key
from sweep.records.outcome import STATES, Outcome
from sweep.records.rows import Phase, TrialRow
from sweep.records.run_directory import JOURNAL, SweepFiles
from sweep.records.tables import read_rows, write_rows
from sweep.stages.verify import Store, verify
from sweep.tracking.delivery import main
from sweep.tracking.lines import OUTBOX, experiment_of
from sweep.tracking.outbox import TrackedRun, Tracker, delivering, store_uri
from sweep.tracking.state import read_set_aside
from sweep.tuning.ask_and_tell import Proposals
from sweep.tuning.optuna_study import open_study
from tests.sweep.sweep_files import trial

EPOCHS = 3
# Of MLflow's own making: its use of SQLAlchemy.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")


def propose(directory: Path) -> Proposals:
    config = SearchConfig(trials=20, sampler=SamplerKind.random)
    return Proposals(SPACES["smoke"], config, open_study(directory / JOURNAL, "x", [Objective.accuracy]), 0.1)


def write_search(directory: Path) -> list[TrialRow]:
    """One trial of each outcome, in the study and as rows."""
    proposals, rows = propose(directory), []
    for outcome in Outcome:
        asked = proposals.ask()
        objective = 0.125 * asked.number / len(Outcome)
        for epoch in range(1, EPOCHS + 1):
            proposals.report(asked.number, epoch, objective)
        proposals.tell(asked.number, outcome, {Objective.accuracy: objective})
        names = {"trial_id": asked.trial_id, "parameters": asked.parameters, "objective": objective}
        rows.append(trial(asked.number, outcome=outcome, ray=STATES[outcome].ray, epochs=EPOCHS, **names))
    return rows


def track(tracker: Tracker, row: TrialRow, key: str = "") -> None:
    key = key or trial_key(row)
    tags = {"trial_id": row.trial_id, "phase": row.phase.value}
    tracker.start(TrackedRun(key, f"{row.phase.value}-{row.number}", "x"), tags=tags, params={})
    for epoch in range(1, row.epochs + 1):
        values = {"train/loss": 1.0, "objective": row.objective}
        tracker.metrics(key, {name: value for name, value in values.items() if value is not None}, epoch)
    if row.outcome is not Outcome.running:
        tracker.end(key, STATES[row.outcome].mlflow, {"outcome": row.outcome.value})


def deliver(directory: Path) -> None:
    main(directory, store_uri(directory, None), directory.name, "no token", -1)


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """A sweep whose records agree."""
    directory = tmp_path_factory.mktemp("runs") / "x"
    directory.mkdir()
    search = write_search(directory)
    ray = STATES[Outcome.done].ray
    final = [
        trial(0, phase=Phase.confirm, trial_id="confirm0", ray=ray, epochs=EPOCHS),
        trial(1, phase=Phase.final, trial_id="final1", ray=ray, epochs=EPOCHS, objective=None),
    ]
    write_rows(SweepFiles(directory).trials, TrialRow, search)
    write_rows(SweepFiles(directory).final.trials, TrialRow, final)
    tracker = Tracker(directory / OUTBOX)
    tracker.start(TrackedRun("x", "x"), tags={"kind": "sweep"}, params={})
    for row in [*search, *final]:
        track(tracker, row)
    tracker.end("x", "FINISHED")
    deliver(directory)
    yield directory
    mlflow.set_tracking_uri("")


@pytest.fixture
def sweep(written, tmp_path) -> Path:
    """A copy to be spoiled."""
    return Path(shutil.copytree(written, tmp_path / "x"))


def differences(directory: Path, *, alive: bool = True) -> list[str]:
    return verify(directory, Store(directory), alive=alive)


def test_records_that_agree_on_every_outcome_show_no_difference(written):
    assert differences(written) == []


def test_verifying_changes_no_file(sweep):
    def contents() -> dict[str, bytes]:
        return {str(path.relative_to(sweep)): path.read_bytes() for path in sweep.rglob("*") if path.is_file()}

    with (sweep / JOURNAL).open("a") as file:
        file.write('{"op_code": 4, "half a li')  # as while a driver writes
    before = contents()
    assert differences(sweep) == []
    assert contents() == before


def test_a_run_directory_may_be_moved_renamed_and_linked_to_and_its_artifacts_move_with_it(written, tmp_path):
    shutil.copytree(written, tmp_path / "y")
    (tmp_path / "y" / "best.yaml").write_text("a: 1")
    Tracker(tmp_path / "y" / OUTBOX).artifact("x", tmp_path / "y" / "best.yaml")
    (tmp_path / "y").rename(tmp_path / "z")
    (tmp_path / "link").symlink_to(tmp_path / "z")
    link = tmp_path / "link"
    main(link, store_uri(link, None), experiment_of(link), "no token", -1)
    assert differences(link) == differences(tmp_path / "z") == []
    assert len(list((tmp_path / "z").glob("mlartifacts/**/best.yaml"))) == 1
    assert not list(written.rglob("best.yaml")) and not (tmp_path / "y").exists()
    client = MlflowClient(store_uri(link, None))
    assert {one.name for one in client.search_experiments()} <= {"x", "Default"}


def test_final_training_that_was_put_away_or_removed_as_a_message_advises_is_no_difference(sweep):
    (sweep / "final").rename(sweep / "final~1")
    assert differences(sweep) == []
    assert not [text for text in differences(sweep, alive=False) if "MLflow's run" in text]
    shutil.rmtree(sweep / "final~1")
    assert not [text for text in differences(sweep, alive=False) if "MLflow's run" in text]


def test_a_deleted_experiment_is_said_with_what_brings_it_back_before_anything_is_begun(sweep):
    client = MlflowClient(store_uri(sweep, None))
    known = client.get_experiment_by_name("x").experiment_id
    client.delete_experiment(known)
    restore = rf"MLFLOW_TRACKING_URI={store_uri(sweep, None)} mlflow experiments restore --experiment-id {known}"
    for ask in (lambda: differences(sweep), lambda: deliver(sweep), lambda: delivering(sweep, None).__enter__()):
        with pytest.raises(InputError, match=rf"experiment x was deleted in .*Bring it back by `{restore}`"):
            ask()
    client.restore_experiment(known)
    assert differences(sweep) == []


def test_lines_about_a_run_that_was_deleted_wait_with_what_brings_it_back(sweep):
    in_mlflow(lambda client, _, run: client.delete_run(run))(sweep)
    Tracker(sweep / OUTBOX).metrics("x/search-2", {"late": 1.0}, 9)
    deliver(sweep)
    (aside,) = read_set_aside(sweep)
    assert re.search(r"its run was deleted in MLflow: `mlflow runs restore --run-id \w+` brings it back", aside.reason)


@pytest.mark.parametrize(
    ("revision", "says"),
    [
        (
            "0584bdc529eb",
            r"is of an older MLflow \(schema 0584bdc529eb, .*run `mlflow db upgrade sqlite:///.*/x/mlflow",
        ),
        ("f00f00f00f00", r"is of a newer MLflow \(schema f00f00f00f00, .*use the version of MLflow that wrote it, or"),
    ],
)
def test_a_store_of_another_mlflow_is_said_at_once(sweep, revision, says):
    with closing(sqlite3.connect(sweep / "mlflow.db")) as store, store:
        store.execute("UPDATE alembic_version SET version_num = ?", (revision,))
    for ask in (lambda: differences(sweep), lambda: delivering(sweep, None).__enter__()):
        with pytest.raises(InputError, match=says):
            ask()


def test_a_clock_that_was_set_back_while_a_sweep_ran_makes_no_difference(sweep):
    with closing(sqlite3.connect(sweep / "mlflow.db")) as store, store:
        store.execute("UPDATE metrics SET timestamp = 4000000000000 - timestamp")
    assert differences(sweep) == []


# --- what is found ----------------------------------------------------------------------------------------------------


def change_row(number: int, **changes: object) -> Callable[[Path], None]:
    def change(sweep: Path) -> None:
        rows = read_rows(SweepFiles(sweep).trials, TrialRow)
        rows[number] = replace(rows[number], **changes)
        write_rows(SweepFiles(sweep).trials, TrialRow, rows)

    return change


def drop_row(number: int) -> Callable[[Path], None]:
    def drop(sweep: Path) -> None:
        rows = read_rows(SweepFiles(sweep).trials, TrialRow)
        write_rows(SweepFiles(sweep).trials, TrialRow, [row for row in rows if row.number != number])

    return drop


def repeat_row(sweep: Path) -> None:
    rows = read_rows(SweepFiles(sweep).trials, TrialRow)
    write_rows(SweepFiles(sweep).trials, TrialRow, [*rows, rows[DONE]])


def in_mlflow(change: Callable[[MlflowClient, str, str], object], name: str = "search-2") -> Callable[[Path], None]:
    """What `change` does with client, experiment id and id of the run of this name."""

    def apply(sweep: Path) -> None:
        client = MlflowClient(store_uri(sweep, None))
        experiment = client.get_experiment_by_name("x").experiment_id
        (run,) = client.search_runs([experiment], filter_string=f"tags.mlflow.runName = '{name}'")
        change(client, experiment, run.info.run_id)

    return apply


def second_run(client: MlflowClient, experiment: str, run_id: str) -> None:
    client.create_run(experiment, tags=client.get_run(run_id).data.tags)


def strange_run(client: MlflowClient, experiment: str, run_id: str) -> None:
    client.create_run(experiment, tags={**client.get_run(run_id).data.tags, "trial_id": "strange"})


def ask_and_end(sweep: Path) -> None:
    proposals = propose(sweep)
    proposals.tell(proposals.ask().number, Outcome.code)


DONE = list(Outcome).index(Outcome.done)
DIFFERENCES = {
    "a row with another outcome": (
        change_row(DONE, outcome=Outcome.code),
        [
            r"search trial 2 \(\w+\), code: Ray TERMINATED, not ERROR",
            "Optuna COMPLETE, not FAIL",
            "MLflow FINISHED, not FAILED",
            "MLflow has the outcome done",
        ],
    ),
    "a row with another outcome of the same states": (
        change_row(list(Outcome).index(Outcome.diverged), outcome=Outcome.cuda_oom),
        ["cuda_oom: the study has the outcome diverged", "MLflow has the outcome diverged"],
    ),
    "a row that Ray was not asked about": (change_row(DONE, ray=""), ["done: Ray nothing, not TERMINATED"]),
    "a row with another objective": (
        change_row(DONE, objective=0.9),
        [r"the study has the values \[0\.0\d+\], not \[0\.9\]", r"MLflow has the objective 0\.0\d+, not 0\.9"],
    ),
    "a row with other parameters": (
        change_row(DONE, parameters={"optim.lr": 1}),
        [r"the study has the parameters \{.*\}, not \{'optim\.lr': 1\}"],
    ),
    "a row with another id": (
        change_row(DONE, trial_id="other"),
        [r"the study has the trial id \w{8}, not other", "MLflow has 0 runs of it, not one"],
    ),
    "a row twice": (repeat_row, [
        r"trials\.csv: 2 rows have the number 2", r"trials\.csv: 2 rows have the trial id \w{8}", "not in the study",
        "MLflow has 0 runs of it, not one",
    ]),
    "a row missing": (drop_row(DONE), [r"the study's trial 2, COMPLETE: not in trials\.csv"]),
    "fewer epochs in MLflow": (
        change_row(DONE, epochs=5),
        [r"MLflow has 3 epochs of 5; missing: 4, 5"],
    ),
    "an epoch twice in MLflow": (
        in_mlflow(lambda client, _, run: client.log_metric(run, "train/loss", 1.0, step=2)),
        [r"MLflow has 4 epochs of 3; twice: 2"],
    ),
    "a zombie in MLflow": (
        in_mlflow(lambda client, _, run: client.update_run(run, "RUNNING")),
        [r"search trial 2 \(\w+\), done: MLflow RUNNING, not FINISHED"],
    ),
    "a second run in MLflow": (in_mlflow(second_run), ["done: MLflow has 2 runs of it, not one"]),
    "a final trial without its run": (
        in_mlflow(lambda client, _, run: client.delete_run(run), "final-1"),
        [r"final trial 1 \(final1\), done: its run was deleted in MLflow; `mlflow runs restore --run-id \w+` brings"],
    ),
    "a sweep without its run": (
        in_mlflow(lambda client, _, run: client.set_tag(run, "mlflow.runName", "y"), "x"),
        ["MLflow has 0 runs of the sweep x, not one"] + (len(Outcome) + 2) * ["MLflow has 0 runs of it, not one"],
    ),
    "a trial that only the study has": (ask_and_end, [rf"the study's trial {len(Outcome)}, FAIL: not in trials\.csv"]),
    "no study": (lambda sweep: (sweep / JOURNAL).unlink(), len(Outcome) * ["not in the study"]),
    "no store": (lambda sweep: (sweep / "mlflow.db").unlink(), [r"MLflow: there is no store .*mlflow\.db"]),
}  # fmt: skip


@pytest.mark.parametrize(("spoil", "expected"), DIFFERENCES.values(), ids=DIFFERENCES)
def test_what_differs_is_said_and_nothing_else(sweep, spoil, expected):
    spoil(sweep)
    found = differences(sweep)
    assert len(found) == len(expected), found
    for sentence, pattern in zip(found, expected, strict=True):
        assert re.search(pattern, sentence), (sentence, pattern)


# --- sweeps at work and sweeps that were killed -----------------------------------------------------------------------


def test_a_trial_that_runs_with_no_driver_at_work_is_a_zombie(written):
    (zombie,) = differences(written, alive=False)
    assert re.fullmatch(r"search trial 0 \(\w+\), running: no driver is at work", zombie)


def test_of_a_trial_that_runs_only_its_existence_is_asked(sweep):
    """Its epochs and its end may be anywhere ahead of trials.csv."""
    track(tracker := Tracker(sweep / OUTBOX), replace(read_rows(SweepFiles(sweep).trials, TrialRow)[0], epochs=9))
    tracker.end("x/search-0", "FINISHED")
    deliver(sweep)
    propose(sweep).tell(0, Outcome.pruned)
    assert differences(sweep) == []


def test_what_a_driver_asked_for_a_moment_ago_need_not_have_a_row_and_what_it_left_must(sweep):
    asked = propose(sweep).ask()
    track(Tracker(sweep / OUTBOX), trial(asked.number, trial_id=asked.trial_id, outcome=Outcome.running, epochs=0))
    deliver(sweep)
    assert differences(sweep) == []
    assert differences(sweep, alive=False)[1:] == [
        f"the study's trial {asked.number}, RUNNING: not in trials.csv",
        f"MLflow's run of search trial {asked.trial_id}: not in trials.csv",
    ]


def test_mlflow_is_not_asked_about_what_it_was_not_told_yet(sweep):
    change_row(DONE, epochs=4)(sweep)
    Tracker(sweep / OUTBOX).metrics(f"x/search-{DONE}", {"train/loss": 1.0}, 4)
    assert differences(sweep) == []
    assert differences(sweep, alive=False)[1:] == [
        f"MLflow: lines of {sweep / OUTBOX} that were not delivered: 1; `sweep deliver x` delivers them"
    ]


def test_a_sweep_of_the_same_name_in_the_same_store_is_another_one(tmp_path):
    """Two directories of one name, of which each has its own trials, outbox and study."""
    uri, found = f"sqlite:///{tmp_path}/shared.db", []
    for number in range(2):
        directory = tmp_path / str(number) / "x"
        directory.mkdir(parents=True)
        write_rows(SweepFiles(directory).trials, TrialRow, write_search(directory))
        tracker = Tracker(directory / OUTBOX)
        tracker.start(TrackedRun("x", "x"), tags={"kind": "sweep"}, params={"directory": number})
        for row in read_rows(SweepFiles(directory).trials, TrialRow):
            track(tracker, row)
        main(directory, uri, "x", "no token", -1)
    for number in range(2):
        directory = tmp_path / str(number) / "x"
        found += verify(directory, Store(directory, uri), alive=True)
    assert found == []


def test_an_outbox_that_was_lost_and_written_again_makes_no_difference(sweep):
    (sweep / OUTBOX).unlink()
    tracker, files = Tracker(sweep / OUTBOX), SweepFiles(sweep)
    tracker.start(TrackedRun("x", "x"), tags={"kind": "sweep"}, params={})
    for row in [*read_rows(files.trials, TrialRow), *read_rows(files.final.trials, TrialRow)]:
        track(tracker, row)
    tracker.end("x", "FINISHED")
    deliver(sweep)
    assert differences(sweep) == []


def test_the_run_of_a_trial_that_was_trained_again_need_not_have_a_row(sweep):
    """The directory was removed, and the same number trained again, as another trial."""
    row = read_rows(SweepFiles(sweep).final.trials, TrialRow)[1]
    again = replace(row, trial_id="again")
    write_rows(SweepFiles(sweep).final.trials, TrialRow, [again])
    tracker = Tracker(sweep / OUTBOX)
    key = tracker.told().attempt(trial_key(again), again.trial_id)
    assert key == "x/final-1#2"
    track(tracker, again, key)
    deliver(sweep)
    confirm = "MLflow's run of confirm trial confirm0: not in trials.csv"
    assert [text for text in differences(sweep, alive=False) if "running" not in text] == [confirm]


def test_a_directory_without_trials_cannot_be_verified(tmp_path):
    with pytest.raises(InputError, match=r"There is nothing to verify in .*: it has no trials\."):
        verify(tmp_path, Store(tmp_path), alive=False)


def test_the_objectives_of_a_trial_with_several_are_compared_as_well(sweep):
    both = {"accuracy": 0.5, "gflops": 0.25}
    (sweep / JOURNAL).unlink()
    config = SearchConfig(sampler=SamplerKind.random, objectives=[Objective.accuracy, Objective.gflops])
    proposals = Proposals(SPACES["smoke"], config, open_study(sweep / JOURNAL, "x", [Objective.accuracy]), 0.1)
    asked = proposals.ask()
    proposals.tell(0, Outcome.done, {Objective[name]: value for name, value in both.items()})
    names = {"trial_id": asked.trial_id, "parameters": asked.parameters, "ray": STATES[Outcome.done].ray}
    for objectives, agree in ((both, True), ({**both, "gflops": 0.5}, False)):
        write_rows(SweepFiles(sweep).trials, TrialRow, [trial(0, objectives=objectives, **names)])
        found = [one for one in differences(sweep) if "the study" in one]
        assert len(found) == (0 if agree else 1), found
