"""From the outbox into a real MLflow store: everything once, in order, also after the driver is gone."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import mlflow.pytorch
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run as MlflowRun
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, TEMPORARILY_UNAVAILABLE

from odenet.data.sets import load_test
from odenet.enums import Device
from odenet.training.checkpoint import load_checkpoint
from odenet.training.config import ExperimentConfig, RuntimeConfig
from odenet.training.loop import Training
from sweep.config.overrides import override
from sweep.errors import StorageError, WorkError
from sweep.records.rows import METRICS
from sweep.tracking import outbox as tracking
from sweep.tracking.calls import LONGEST_PARAM
from sweep.tracking.delivery import Outbox, main
from sweep.tracking.lines import OUTBOX
from sweep.tracking.outbox import DELIVERY_LOCK, Described, TrackedRun, Tracker, delivering, store_uri
from sweep.tracking.state import DELIVERED, Lag, lag
from sweep.tracking.store import RETRY_SECONDS, PatientStore
from tests.sweep.small_disk import make_read_only, mounted

PATIENCE = 120.0
NO_PARENT = -1  # the process id of a driver that is gone
# Of MLflow's own making: its use of SQLAlchemy, its type hints.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated"),
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType"),
]


@pytest.fixture(scope="module")
def uri(tmp_path_factory) -> Iterator[str]:
    """One store for all tests, made once because its first migration takes seconds; experiments keep them apart."""
    uri = store_uri(tmp_path_factory.mktemp("store"), None)
    MlflowClient(uri).create_experiment("made before anyone else opens it")
    yield uri
    mlflow.set_tracking_uri("")


def deliver(directory: Path, uri: str, write: Callable[[Tracker], None]) -> None:
    """What one driver does, delivered in this process after it has closed."""
    tracker = Tracker(directory / OUTBOX)
    write(tracker)
    tracker.close()
    main(directory, uri, str(directory), tracker.token, os.getppid())


def runs_of(uri: str, experiment: str) -> dict[str, MlflowRun]:
    """By name. Every name is there once."""
    client = MlflowClient(uri)
    found = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    runs = {run.info.run_name: run for run in found}
    assert len(runs) == len(found)
    return runs


def history(uri: str, run: MlflowRun, metric: str) -> list[tuple[int, float]]:
    return [(one.step, one.value) for one in MlflowClient(uri).get_metric_history(run.info.run_id, metric)]


# --- what is delivered ------------------------------------------------------------------------------------------------


def a_small_sweep(directory: Path) -> Callable[[Tracker], None]:
    """A parent with one child of three epochs, its data, its end."""
    (directory / "best.yaml").write_text("schema: 1\n")

    def write(tracker: Tracker) -> None:
        tracker.start(TrackedRun("x", "x"), tags={"kind": "sweep"}, params={f"p{n}": n for n in range(250)})
        tracker.artifact("x", directory / "best.yaml")
        tracker.artifact("x", directory / "best.yaml", "final")
        tracker.tags("x", {"mlflow.note.content": "what was found"})
        params = {"lr": 0.1, "long": 9999 * "l"}
        tracker.start(TrackedRun("x/search-0", "search-0", parent="x"), tags={"family": "smoke"}, params=params)
        tracker.dataset("x/search-0", "digits", "da7a", "train", {"train": 12, "val": 8})
        for epoch in (1, 2, 3):
            tracker.metrics("x/search-0", {"val/accuracy": epoch / 10, "train/loss": 1 / epoch}, epoch)
        tracker.end("x/search-0", "KILLED", {"outcome": "pruned", "reason": "stopped [after] epoch 3"})
        tracker.end("x", "FINISHED")

    return write


@pytest.mark.slow
def test_mlflow_holds_exactly_what_was_written(tmp_path, uri):
    deliver(tmp_path, uri, a_small_sweep(tmp_path))
    runs = runs_of(uri, str(tmp_path))
    assert set(runs) == {"x", "search-0"}
    parent, child = runs["x"], runs["search-0"]
    assert parent.data.params == {f"p{n}": str(n) for n in range(250)}
    client = MlflowClient(uri)
    assert [file.path for file in client.list_artifacts(parent.info.run_id)] == ["best.yaml", "final"]
    assert [file.path for file in client.list_artifacts(parent.info.run_id, "final")] == ["final/best.yaml"]
    assert parent.data.tags["mlflow.note.content"] == "what was found"
    experiment = client.get_experiment_by_name(str(tmp_path))
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
    assert (parent.info.status, parent.data.metrics) == ("FINISHED", {})
    tags = {"mlflow.parentRunId": parent.info.run_id, "family": "smoke", "outcome": "pruned"}
    assert child.data.tags.items() >= (tags | {"reason": "stopped [after] epoch 3"}).items()
    assert child.data.params == {"lr": "0.1", "long": LONGEST_PARAM * "l"}
    assert history(uri, child, "val/accuracy") == [(1, 0.1), (2, 0.2), (3, 0.3)]
    assert history(uri, child, "train/loss") == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    (data,) = child.inputs.dataset_inputs
    assert (data.dataset.name, data.dataset.digest, data.tags[0].value) == ("digits", "da7a", "train")
    assert json.loads(data.dataset.profile) == {"num_rows": 20, "train": 12, "val": 8}
    written = [json.loads(line)["time"] for line in (tmp_path / OUTBOX).read_text().splitlines()]
    assert (child.info.status, child.info.end_time) == ("KILLED", written[9])


@pytest.mark.slow
def test_delivering_the_same_outbox_again_delivers_nothing_twice(tmp_path, uri):
    deliver(tmp_path, uri, a_small_sweep(tmp_path))
    first = runs_of(uri, str(tmp_path))
    state = json.loads((tmp_path / DELIVERED).read_text())
    deliver(tmp_path, uri, lambda tracker: None)
    again = runs_of(uri, str(tmp_path))
    assert [again[name].to_dictionary() for name in first] == [run.to_dictionary() for run in first.values()]
    assert history(uri, again["search-0"], "val/accuracy") == [(1, 0.1), (2, 0.2), (3, 0.3)]
    assert json.loads((tmp_path / DELIVERED).read_text())["runs"] == state["runs"]
    assert state["runs"] == {"x": first["x"].info.run_id, "x/search-0": first["search-0"].info.run_id}


@pytest.mark.slow
def test_a_later_stage_goes_on_in_the_same_runs(tmp_path, uri):
    deliver(tmp_path, uri, a_small_sweep(tmp_path))

    deliver(tmp_path, uri, lambda tracker: tracker.metrics("x/search-0", {"test/accuracy": 0.25}, 3))
    child = runs_of(uri, str(tmp_path))["search-0"]
    assert child.data.metrics == {"val/accuracy": 0.3, "train/loss": pytest.approx(1 / 3), "test/accuracy": 0.25}


@pytest.mark.slow
def test_the_registered_champion_is_the_checkpoints_classifier_with_all_that_is_said_of_it(tmp_path, uri, monkeypatch):
    tiny = {"model.width": 2, "data.per_class": 3, "training.epochs": 1, "model.scheme": "heun"}
    training = Training(override(ExperimentConfig(), tiny), RuntimeConfig(device=Device.cpu))
    next(training)
    training.save(tmp_path / "model.ckpt")
    (tmp_path / "card.md").write_text("# before the test")
    name, card = "study.champion-test", Described(tmp_path / "card.md", "Not tested.", {"data_hash": "da7a"})

    def register(tracker: Tracker) -> None:
        tracker.start(TrackedRun("x", "x"), tags={}, params={})
        tracker.model("x", tmp_path / "model.ckpt", name, card)

    def describe(tracker: Tracker) -> None:
        (tmp_path / "card.md").write_text("# tested")
        tracker.describe("x", name, replace(card, summary="Tested.", tags={"test/accuracy": "0.9"}))
        tracker.describe("x", "a model that was removed", card)

    monkeypatch.setattr(sys, "path", [*sys.path])  # loading puts the model's code on it
    deliver(tmp_path, uri, register)
    registered = mlflow.pytorch.load_model(f"models:/{name}@champion")
    ours, pixels = load_checkpoint(tmp_path / "model.ckpt").classifier(), load_test(training.config.data).pixels_BCHW
    assert not any(module.training for module in registered.modules())
    assert (registered.images, registered.about) == (ours.images, ours.about)
    assert (registered.predict(pixels) == ours.predict(pixels)).all()
    served = mlflow.pyfunc.load_model(f"models:/{name}@champion")
    assert (served.predict((pixels / 255).astype("float32")).argmax(1) == ours.predict(pixels)).all()
    for raw in (pixels, 16 * (pixels / 255).astype("float32")):
        with pytest.raises((MlflowException, ValueError), match=r"dtype of input uint8|takes floats in \[0, 1\]"):
            served.predict(raw)
    assert str(served.metadata.signature.inputs) == "[Tensor('float32', (-1, 1, 8, 8))]"
    assert served.metadata.metadata["labels"] == ours.labels

    deliver(tmp_path, uri, describe)
    client = MlflowClient(uri)
    version = client.get_model_version_by_alias(name, "champion")
    assert version.description == "Tested."
    assert {"data_hash": "da7a", "test/accuracy": "0.9"}.items() <= version.tags.items()
    files = Path(mlflow.artifacts.download_artifacts(f"models:/{name}@champion"))
    assert (files / "card.md").read_text() == "# tested"
    assert (files / "code/odenet/inference/classifier.py").is_file() and not [*files.rglob("__pycache__")]
    required = (files / "requirements.txt").read_text().split()
    assert [line.partition("==")[0] for line in required] == ["mlflow", "torch", "numpy"]


# --- how long a delivery goes on --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_only_whole_lines_are_delivered_and_half_a_line_of_a_killed_driver_spoils_nothing(tmp_path, uri):
    def killed(tracker: Tracker) -> None:
        tracker.start(TrackedRun("x", "x"), tags={}, params={})
        tracker.metrics("x", {"m": 1.0}, 1)

    killed(Tracker(tmp_path / OUTBOX))
    with (tmp_path / OUTBOX).open("a") as file:
        file.write('{"op": "half a li')
    main(tmp_path, uri, str(tmp_path), "no token", NO_PARENT)
    assert history(uri, runs_of(uri, str(tmp_path))["x"], "m") == [(1, 1.0)]
    deliver(tmp_path, uri, lambda tracker: tracker.metrics("x", {"m": 2.0}, 2))
    assert history(uri, runs_of(uri, str(tmp_path))["x"], "m") == [(1, 1.0), (2, 2.0)]


@pytest.mark.slow
def test_a_delivery_ends_with_its_own_tracker_and_no_other(tmp_path, uri, monkeypatch):
    """Neither the close of an earlier stage nor that of another one at work on the same study ends it."""
    earlier, mine, other = (Tracker(tmp_path / OUTBOX) for _ in range(3))
    mine.start(TrackedRun("x", "x"), tags={}, params={})
    earlier.close()
    happens = iter([other.close, lambda: mine.metrics("x", {"m": 1.0}, 1), mine.close])
    monkeypatch.setattr(time, "sleep", lambda _: next(happens)())
    main(tmp_path, uri, str(tmp_path), mine.token, os.getppid())
    assert list(happens) == []
    assert history(uri, runs_of(uri, str(tmp_path))["x"], "m") == [(1, 1.0)]


def test_while_a_line_is_delivered_no_other_process_can_deliver(tmp_path):
    Tracker(tmp_path / OUTBOX).metrics("x", {}, 1)

    def deliver_one(line: dict, runs: dict, doubtful: bool) -> None:
        with (tmp_path / DELIVERY_LOCK).open("w") as lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    deliver = Mock(side_effect=deliver_one, stored=Mock(ids=[]), makes=lambda line: False)
    outbox = Outbox(tmp_path, deliver, PatientStore(tmp_path, "http://nowhere", os.getppid()))
    assert [outbox.deliver_next() for _ in range(2)] == [True, False]
    deliver.assert_called_once()


@pytest.mark.slow
def test_two_drivers_on_one_store_deliver_everything_once(tmp_path, uri):
    """Both deliveries are processes of their own; the second driver is done while the first one goes on."""
    with delivering(tmp_path, uri, PATIENCE) as first:
        with delivering(tmp_path, uri, PATIENCE) as second:
            for name, tracker in {"a": first, "b": second}.items():
                tracker.start(TrackedRun(name, name), tags={}, params={})
                for step in range(5):
                    tracker.metrics(name, {"m": step / 4}, step)
                tracker.end(name, "FINISHED")
        first.start(TrackedRun("c", "c"), tags={}, params={})
    runs = runs_of(uri, tmp_path.name)
    assert {name: run.info.status for name, run in runs.items()} == {"a": "FINISHED", "b": "FINISHED", "c": "RUNNING"}
    for name in "ab":
        assert history(uri, runs[name], "m") == [(step, step / 4) for step in range(5)]


DRIVER = """
    import os, signal, sys
    from pathlib import Path
    from sweep.tracking.outbox import TrackedRun, delivering

    with delivering(Path(sys.argv[1]), sys.argv[2]) as tracker:
        tracker.start(TrackedRun("x", "x"), tags={}, params={"lr": 0.1})
        for step in range(20):
            tracker.metrics("x", {"m": step}, step)
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_what_a_killed_driver_wrote_is_delivered_completely_and_the_delivery_ends(tmp_path, uri):
    command = [sys.executable, "-c", textwrap.dedent(DRIVER), str(tmp_path), uri]
    assert subprocess.run(command, timeout=PATIENCE, check=False).returncode == -signal.SIGKILL
    until(lambda: delivered(tmp_path) == (tmp_path / OUTBOX).stat().st_size)
    until(lambda: not deliveries(tmp_path))
    run = runs_of(uri, tmp_path.name)["x"]
    assert (run.data.params, history(uri, run, "m")) == ({"lr": "0.1"}, [(step, step) for step in range(20)])


def delivered(directory: Path) -> int:
    return json.loads((directory / DELIVERED).read_text())["offset"] if (directory / DELIVERED).exists() else 0


def deliveries(directory: Path) -> list[str]:
    """The processes that deliver this outbox."""
    listed = subprocess.run(["ps", "-ewwo", "args"], capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if f"sweep.tracking.delivery {directory} " in line]


def until(holds: Callable[[], bool]) -> None:
    for _ in range(int(PATIENCE / 0.1)):
        if holds():
            return
        time.sleep(0.1)
    raise AssertionError(f"not within {PATIENCE:.0f} s")


# --- what goes wrong --------------------------------------------------------------------------------------------------


def test_a_store_that_is_away_is_asked_again_which_is_said_meanwhile_and_what_it_refuses_is_not(tmp_path, monkeypatch):
    away = MlflowException("it is away\nfor a while", TEMPORARILY_UNAVAILABLE)
    ask = Mock(side_effect=[*3 * [away], "there"])
    refuse = Mock(side_effect=MlflowException("no such parameter", INVALID_PARAMETER_VALUE))
    waited = []
    monkeypatch.setattr(time, "sleep", lambda seconds: waited.append((seconds, lag(tmp_path))))
    before = time.time()
    store = PatientStore(tmp_path, "http://nowhere", os.getppid())
    assert store.ask(ask) == "there"
    assert [told.args for told in ask.call_args_list] == [(False,), (True,), (True,), (True,)]
    assert [seconds for seconds, _ in waited] == [RETRY_SECONDS] * 3
    (state,) = {state for _, state in waited}
    assert before <= state.away_since <= time.time()
    assert state.reason == "it is away"
    assert lag(tmp_path) == Lag(0, frozenset())
    with pytest.raises(MlflowException, match="no such parameter"):
        store.ask(refuse)


@pytest.mark.slow
def test_what_was_not_delivered_is_counted_and_named_without_mlflow(tmp_path, uri):
    assert lag(tmp_path) == Lag(0, frozenset())
    deliver(tmp_path, uri, a_small_sweep(tmp_path))
    assert lag(tmp_path) == Lag(0, frozenset())
    tracker = Tracker(tmp_path / OUTBOX)
    tracker.metrics("x/search-0", {"m": 1.0}, 4)
    tracker.metrics("x/search-0", {"m": 1.0}, 5)
    tracker.end("x", "FINISHED")
    tracker.close()
    assert lag(tmp_path) == Lag(3, frozenset({"x", "x/search-0"}))


def test_a_tracker_knows_what_it_and_earlier_ones_have_told_delivered_or_not(tmp_path):
    earlier = Tracker(tmp_path / OUTBOX)
    earlier.start(TrackedRun("a", "a"), tags={}, params={})
    for step in (1, 2, 3):
        earlier.metrics("a", {"m": 0.0}, step)
    earlier.end("a", "SCHEDULED")
    earlier.start(TrackedRun("b", "b"), tags={}, params={})
    earlier.end("b", "KILLED")
    with (tmp_path / OUTBOX).open("a") as file:
        file.write('{"op": "metrics", "key": "a", "step"')
    later = Tracker(tmp_path / OUTBOX)
    later.start(TrackedRun("b", "b"), tags={}, params={})
    told = later.told()
    assert ("a" in told, "b" in told, "c" in told) == (True, True, False)
    assert (told.step("a"), told.step("b"), told.step("c")) == (3, 0, 0)
    assert (told.status("a"), told.status("b"), told.status("c")) == ("SCHEDULED", "RUNNING", None)


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    with mounted(tmp_path / "disk") as disk:
        yield disk


def test_an_outbox_on_a_full_disk_is_said_ends_the_delivery_and_keeps_its_whole_lines(small_disk, monkeypatch):
    started = stand_in(monkeypatch, small_disk.parent, "exec sleep 1000")
    with pytest.raises(StorageError, match=r"outbox\.jsonl could not be written, .* bytes .* No space left on device"):  # noqa: SIM117
        with delivering(small_disk, None) as tracker:
            tracker.start(TrackedRun("x", "x"), tags={}, params={})
            for step in range(10_000):
                tracker.metrics("x", {"m": 1.0}, step)
    assert started[0].returncode == -signal.SIGKILL
    *_, last = [json.loads(line) for line in (small_disk / OUTBOX).read_text().splitlines()]
    assert Tracker(small_disk / OUTBOX).told().step("x") == last["step"] > 100


def test_a_run_directory_that_is_read_only_is_said_before_anything_is_started(small_disk, monkeypatch):
    make_read_only(small_disk)
    started = stand_in(monkeypatch, small_disk.parent, "exit 0")
    refused = pytest.raises(StorageError, match=r"disk could not be written.* Read-only file system")
    with refused, delivering(small_disk, None):
        pass
    assert started == []


def stand_in(monkeypatch: pytest.MonkeyPatch, directory: Path, script: str) -> list[subprocess.Popen]:
    """A shell script in place of the delivery's Python; the processes started."""
    (directory / "python").write_text(f"#!/bin/sh\n{script}\n")
    (directory / "python").chmod(0o755)
    started, real = [], subprocess.Popen

    def start(*arguments: object, **options: object) -> subprocess.Popen:
        started.append(real(*arguments, **options))
        return started[-1]

    monkeypatch.setattr(sys, "executable", str(directory / "python"))
    monkeypatch.setattr(subprocess, "Popen", start)
    return started


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (
            "echo no such store >&2; exit 3",
            r"Delivery to MLflow ended with code 3: no such store; what .*outbox\.jsonl, and `sweep deliver x`",
        ),
        ("exec sleep 1", r"MLflow did not take everything within 0 s; it goes on in the background; .*outbox\.jsonl"),
    ],
)
def test_a_delivery_that_fails_or_lags_says_where_everything_is_kept(tmp_path, monkeypatch, script, message):
    started = stand_in(monkeypatch, tmp_path, script)
    monkeypatch.setattr(tracking, "PAUSES", 5 * [0.01])
    directory = tmp_path / "x"
    patience = 0.0 if "sleep" in script else PATIENCE
    with pytest.raises(WorkError, match=message), delivering(directory, None, patience) as tracker:
        tracker.metrics("x", {"m": 1.0}, 1)
    assert started[0].wait(PATIENCE) in (0, 3)
    assert [json.loads(line)["op"] for line in (directory / OUTBOX).read_text().splitlines()] == ["metrics", "close"]
    assert len(started) == (6 if "echo" in script else 1)
    assert (directory / tracking.DELIVERY_LOG).read_text() == ("no such store\n" * 6 if "echo" in script else "")
    assert started[0].args[1:4] == ["-P", "-m", "sweep.tracking.delivery"]
    assert started[0].args[4:7] == [str(directory), f"sqlite:///{directory}/mlflow.db", "x"]


def test_a_delivery_whose_store_is_damaged_is_not_started_again(tmp_path, monkeypatch):
    started = stand_in(monkeypatch, tmp_path, "echo it is damaged >&2; exit 2")
    with pytest.raises(WorkError, match=r"^it is damaged; what"), delivering(tmp_path / "x", None):
        pass
    assert len(started) == 1


@pytest.mark.slow
def test_a_delivery_that_is_killed_is_followed_by_another_while_the_driver_writes_on(tmp_path, uri):
    with delivering(tmp_path, uri, PATIENCE) as tracker:
        tracker.start(TrackedRun("x", "x"), tags={}, params={})
        killed = 0
        for step in range(30):
            tracker.metrics("x", {"m": step}, step)
            if step % 10 == 5:
                until(lambda: delivered(tmp_path) > 0)
                began = time.monotonic()
                killed += kill_delivery(tmp_path)
                tracker.metrics("y", {"m": step}, step)  # which nobody began
                assert time.monotonic() - began < 2.0
        tracker.end("x", "FINISHED")
    run = runs_of(uri, tmp_path.name)["x"]
    assert (run.info.status, history(uri, run, "m")) == ("FINISHED", [(step, step) for step in range(30)])
    assert killed >= 1


def kill_delivery(directory: Path) -> int:
    listed = subprocess.run(["ps", "-ewwo", "pid,args"], capture_output=True, text=True, check=True).stdout
    found = [line for line in listed.splitlines() if f"sweep.tracking.delivery {directory} " in line]
    for line in found:
        os.kill(int(line.split()[0]), signal.SIGKILL)
    return len(found)


def test_what_fails_inside_the_block_is_not_hidden_and_closes_the_outbox(tmp_path, monkeypatch):
    stand_in(monkeypatch, tmp_path, "exit 0")
    with pytest.raises(KeyError), delivering(tmp_path, None):
        raise KeyError("x")
    assert json.loads((tmp_path / OUTBOX).read_text())["op"] == "close"


def test_every_metric_that_training_reports_is_recorded():
    keys = {"model.network": "hamiltonian", "model.width": 4, "model.gradient": "reconstructed", "training.epochs": 1}
    runtime = RuntimeConfig(device=Device.cpu, check_drift=True)
    (report,) = Training(override(ExperimentConfig(), keys), runtime)
    assert set(report.metrics) == set(METRICS)
