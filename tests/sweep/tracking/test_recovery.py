"""Exactly once without a memory: what a delivery has lost is found in MLflow, what MLflow refuses is set aside."""

import json
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import ViewType
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR

from sweep.errors import InputError, WorkError
from sweep.tracking import store as stores
from sweep.tracking.delivery import Outbox, main
from sweep.tracking.lines import IDENTITY, OUTBOX, lines_from
from sweep.tracking.outbox import TrackedRun, Tracker, check_store, delivering, store_uri
from sweep.tracking.state import DELIVERED, SET_ASIDE, Lag, aside_sentence, lag, read_set_aside
from sweep.tracking.store import PatientStore

GONE = -1  # the process id of a driver that is gone
EPOCHS = 2
# Of MLflow's own making: its use of SQLAlchemy, its type hints.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("outbox"),
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated"),
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType"),
]


@pytest.fixture(scope="module")
def uri(tmp_path_factory) -> Iterator[str]:
    """One store for all tests, whose first migration takes seconds; experiments keep them apart."""
    uri = store_uri(tmp_path_factory.mktemp("store"), None)
    MlflowClient(uri).create_experiment("made before anyone else opens it")
    yield uri
    mlflow.set_tracking_uri("")


@dataclass
class Sweep:
    """A directory with an outbox, and the store that is told it."""

    directory: Path
    uri: str

    @property
    def tracker(self) -> Tracker:
        return Tracker(self.directory / OUTBOX)

    def deliver(self) -> None:
        main(self.directory, self.uri, str(self.directory), "no token", GONE)

    def deliver_lines(self, count: int) -> None:
        """So many, after which the process is killed."""
        store = PatientStore(self.directory, self.uri, GONE)
        outbox = Outbox(self.directory, store.open(str(self.directory)), store)
        assert [outbox.deliver_next() for _ in range(count)] == count * [True]

    def forget(self) -> None:
        (self.directory / DELIVERED).unlink(missing_ok=True)

    def cut(self, keep: int) -> None:
        """Leaves so many lines of the outbox."""
        lines = list(lines_from(self.directory / OUTBOX, 0))
        (self.directory / OUTBOX).write_bytes(b"".join(lines[:keep]))

    def runs(self) -> dict[str, tuple[Any, ...]]:
        """All that MLflow shows of each run, by name; every name is there once."""
        client = MlflowClient(self.uri)
        found = client.search_runs([client.get_experiment_by_name(str(self.directory)).experiment_id])
        names = {run.info.run_id: run.info.run_name for run in found}
        assert len(set(names.values())) == len(found), sorted(names.values())
        return {
            run.info.run_name: (
                run.info.status,
                run.data.params,
                {name: text for name, text in run.data.tags.items() if name in ("outcome", "trial_id", "kind")},
                names.get(run.data.tags.get("mlflow.parentRunId", "")),
                {name: self._history(client, run.info.run_id, name) for name in run.data.metrics},
                len(run.inputs.dataset_inputs),
                [file.path for file in client.list_artifacts(run.info.run_id)],
            )
            for run in found
        }

    def _history(self, client: MlflowClient, run_id: str, metric: str) -> list[tuple[int, float]]:
        return sorted((one.step, one.value) for one in client.get_metric_history(run_id, metric))


@pytest.fixture
def sweep(tmp_path, uri) -> Sweep:
    return Sweep(tmp_path, uri)


OF_THE_SWEEP = {"kind": "sweep", IDENTITY: "1d"}


def trial(tracker: Tracker, number: int, first: int = 1) -> None:
    """A trial's lines from an epoch on, as a resumed driver writes them."""
    key = f"x/search-{number}"
    tags = {"trial_id": f"t{number}", "phase": "search"}
    tracker.start(TrackedRun(key, f"search-{number}", "x"), tags=tags, params={"lr": number})
    if first == 1:
        tracker.dataset(key, "digits", "da7a", "train", {"train": 12, "val": 8})
    for epoch in range(first, EPOCHS + 1):
        tracker.metrics(key, {"objective": number + epoch / 8, "train/loss": 1 / epoch}, epoch)
    tracker.end(key, "FINISHED", {"outcome": "done"})


def write(sweep: Sweep) -> list[bytes]:
    """A sweep of two trials, with a second session; its lines."""
    (sweep.directory / "best.yaml").write_text("schema: 2\n")
    tracker = sweep.tracker
    tracker.start(TrackedRun("x", "x"), tags=OF_THE_SWEEP, params={f"p{number}": number for number in range(150)})
    trial(tracker, 0)
    tracker.metrics("x", {"objective": 0.5}, 0)
    tracker.end("x", "KILLED")
    tracker.close()
    tracker = sweep.tracker
    tracker.start(TrackedRun("x", "x"), tags=OF_THE_SWEEP, params={f"p{number}": number for number in range(150)})
    trial(tracker, 1)
    tracker.artifact("x", sweep.directory / "best.yaml")
    tracker.metrics("x", {"objective": 1.5}, 0)
    tracker.end("x", "FINISHED")
    tracker.close()
    return list(lines_from(sweep.directory / OUTBOX, 0))


def expected() -> dict[str, tuple[Any, ...]]:
    runs: dict[str, tuple[Any, ...]] = {
        f"search-{number}": (
            "FINISHED", {"lr": str(number)}, {"outcome": "done", "trial_id": f"t{number}"}, "x",
            {"objective": [(epoch, number + epoch / 8) for epoch in range(1, EPOCHS + 1)],
             "train/loss": [(epoch, 1 / epoch) for epoch in range(1, EPOCHS + 1)]},
            1, [],
        )
        for number in range(2)
    }  # fmt: skip
    params = {f"p{number}": str(number) for number in range(150)}
    objective = {"objective": [(0, 0.5), (0, 1.5)]}
    return {**runs, "x": ("FINISHED", params, {"kind": "sweep"}, None, objective, 0, ["best.yaml"])}


# --- what is lost -----------------------------------------------------------------------------------------------------


def test_a_delivery_killed_at_any_line_and_without_its_memory_delivers_each_line_once(tmp_path, uri):
    count = len(write(Sweep(tmp_path, uri)))
    for killed_after in range(count + 1):
        sweep = Sweep(Path(shutil.copytree(tmp_path, tmp_path.with_name(f"{tmp_path.name}-{killed_after}"))), uri)
        (sweep.directory / "best.yaml").touch()
        sweep.deliver_lines(killed_after)
        sweep.forget()
        sweep.deliver()
        assert sweep.runs() == expected(), killed_after
        assert lag(sweep.directory).lines == 0


@pytest.mark.parametrize("remembers", [True, False])
def test_an_outbox_cut_at_any_line_after_its_delivery_is_written_and_delivered_on(tmp_path, uri, remembers):
    """What was lost is told again, with other ids and at other times, before or after the delivery sees it."""
    write(Sweep(tmp_path, uri))
    Sweep(tmp_path, uri).deliver()
    for epochs in range(EPOCHS + 1):
        sweep = Sweep(tmp_path, uri)
        sweep.cut(10 + EPOCHS + epochs)  # in the second trial: its start, its data, so many epochs
        if not remembers:
            sweep.forget()
        elif epochs % 2:
            sweep.deliver()
        trial(sweep.tracker, 1, first=epochs + 1)
        tracker = sweep.tracker
        tracker.artifact("x", sweep.directory / "best.yaml")
        tracker.metrics("x", {"objective": 1.5}, 0)
        tracker.end("x", "FINISHED")
        assert lag(sweep.directory).lines >= EPOCHS - epochs
        sweep.deliver()
        assert sweep.runs() == expected(), epochs


def test_lines_that_the_outbox_lost_with_the_runs_that_they_began_begin_no_second_ones(sweep):
    write(sweep)
    sweep.deliver()
    for keep in (7 + EPOCHS, 1, 0):  # without the second trial, without any, and without the sweep's own run
        sweep.cut(keep)
        tracker = sweep.tracker
        tracker.start(TrackedRun("x", "x"), tags=OF_THE_SWEEP, params={"p0": 0})
        for number in range(2):
            trial(tracker, number)
        tracker.end("x", "FINISHED")
        sweep.forget()
        sweep.deliver()
        assert sweep.runs() == expected()


def test_a_bit_flipped_anywhere_in_delivered_json_loses_and_doubles_nothing(sweep):
    write(sweep)
    sweep.deliver()
    content = bytearray((sweep.directory / DELIVERED).read_bytes())
    generator = random.Random(0)
    for _ in range(10):
        flipped = bytearray(content)
        flipped[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
        (sweep.directory / DELIVERED).write_bytes(flipped)
        assert lag(sweep.directory).lines > 0
        assert "delivered.json cannot be relied on" in lag(sweep.directory).doubt
        sweep.deliver()
        assert lag(sweep.directory) == Lag(0, frozenset())
        assert sweep.runs() == expected()


def test_a_bit_flipped_anywhere_in_the_outbox_keeps_no_other_line_back(tmp_path, uri, monkeypatch):
    monkeypatch.setattr(stores, "RETRY_SECONDS", 0.0)
    write(Sweep(tmp_path, uri))
    content, generator, client = (tmp_path / OUTBOX).read_bytes(), random.Random(1), MlflowClient(uri)
    for number in range(10):
        sweep = Sweep(tmp_path.with_name(f"{tmp_path.name}-{number}"), uri)
        sweep.directory.mkdir()
        flipped = bytearray(content)
        flipped[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
        (sweep.directory / OUTBOX).write_bytes(flipped)
        sweep.deliver()
        assert lag(sweep.directory).lines == 0
        sweep.tracker.metrics("x", {"after": 1.0}, 1)
        sweep.deliver()
        experiment = client.get_experiment_by_name(str(sweep.directory)).experiment_id
        after = [run.data.metrics.get("after") for run in client.search_runs([experiment])]
        assert after.count(1.0) == 1, read_set_aside(sweep.directory)


def test_a_store_that_lost_its_runs_is_told_everything_again(sweep):
    write(sweep)
    sweep.deliver()
    client = MlflowClient(sweep.uri)
    experiment = client.get_experiment_by_name(str(sweep.directory)).experiment_id
    client.rename_experiment(experiment, f"{sweep.directory} put away")
    with (sweep.directory / DELIVERED).open() as file:
        state = json.load(file)
    assert state["runs"]
    for run in client.search_runs([experiment], run_view_type=ViewType.ALL):
        client.delete_run(run.info.run_id)
    purge(sweep.uri)
    sweep.deliver()
    assert sweep.runs() == expected()


def purge(uri: str) -> None:
    """As `mlflow gc`: deleted runs are gone for good."""
    store = mlflow.tracking._tracking_service.utils._get_store(uri)
    for run_id in store._get_deleted_runs():
        store._hard_delete_run(run_id)


# --- what MLflow refuses ----------------------------------------------------------------------------------------------


def test_lines_that_cannot_be_delivered_keep_back_none_that_follow_and_are_tried_again_when_asked(sweep):
    tracker, absent = sweep.tracker, sweep.directory / "absent.yaml"
    tracker.start(TrackedRun("x", "x"), tags={}, params={"lr": 0.1})
    tracker.start(TrackedRun("x", "x"), tags={}, params={"lr": 0.2})
    tracker.artifact("x", absent)
    tracker.model("x", sweep.directory / "absent.ckpt", "refused")
    damage(sweep.directory / OUTBOX, lambda: tracker.metrics("x", {"m": 1.0}, 1))
    tracker.metrics("y", {"m": 1.0}, 1)
    tracker.metrics("x", {"m": 2.0}, 2)
    tracker.end("x", "FINISHED")
    sweep.deliver()
    status, params, *_, metrics, _, files = sweep.runs()["x"]
    assert (status, params, metrics, files) == ("FINISHED", {"lr": "0.1"}, {"m": [(2, 2.0)]}, [])
    refused = read_set_aside(sweep.directory)
    for one, reason in zip(refused, ("Changing param", "absent.yaml is missing", "absent.ckpt cannot be read",
                                     "the line is damaged", "begun the run y"), strict=True):  # fmt: skip
        assert reason in one.reason
    assert "Lines that could not be delivered to MLflow: 5, kept in" in aside_sentence(sweep.directory)
    assert f"`sweep deliver {sweep.directory.name}`" in aside_sentence(sweep.directory)
    assert lag(sweep.directory).lines == 0

    absent.write_text("here now")
    tracker.start(TrackedRun("y", "y"), tags={}, params={})
    tracker.end("y", "FINISHED")
    tracker.retry()
    sweep.deliver()
    status, params, *_, metrics, _, files = sweep.runs()["x"]
    assert (status, params, metrics, files) == ("FINISHED", {"lr": "0.1"}, {"m": [(2, 2.0)]}, ["absent.yaml"])
    assert sweep.runs()["y"][4] == {"m": [(1, 1.0)]}
    assert [one.text for one in read_set_aside(sweep.directory)] == [refused[n].text for n in (0, 2, 3)]

    sweep.forget()  # and they are not told out of turn
    sweep.deliver()
    assert sweep.runs()["x"][:2] == ("FINISHED", {"lr": "0.1"})
    assert len(read_set_aside(sweep.directory)) == 3


def test_a_checkpoint_that_was_replaced_is_not_registered_in_the_name_of_the_one_that_was_told(sweep):
    (sweep.directory / "model.ckpt").write_text("the first")
    tracker = sweep.tracker
    tracker.start(TrackedRun("x", "x"), tags={}, params={})
    tracker.model("x", sweep.directory / "model.ckpt", "replaced")
    (sweep.directory / "model.ckpt").write_text("the second")
    sweep.deliver()
    (one,) = read_set_aside(sweep.directory)
    assert one.reason.endswith("model.ckpt is another one by now")


def damage(outbox: Path, append: Callable[[], None]) -> None:
    """Flips a bit of the line that is appended, so that it is no JSON any more."""
    before = outbox.stat().st_size
    append()
    content = bytearray(outbox.read_bytes())
    content[before] ^= 1
    outbox.write_bytes(content)


def test_a_line_set_aside_between_others_counts_once_when_it_is_delivered_late(sweep, monkeypatch):
    refuse = refusing(monkeypatch, "log_batch", lambda arguments: "m" in str(arguments.get("metrics")), "BAD_REQUEST")
    tracker = sweep.tracker
    tracker.start(TrackedRun("x", "x"), tags={}, params={})
    tracker.metrics("x", {"m": 1.0}, 1)
    sweep.deliver()
    refuse.undo()
    tracker.metrics("x", {"m": 2.0}, 2)
    for _ in range(3):
        tracker.retry()
        sweep.deliver()
        sweep.forget()
    assert sweep.runs()["x"][4] == {"m": [(1, 1.0), (2, 2.0)]}
    assert not (sweep.directory / SET_ASIDE).exists()


def test_a_line_that_the_store_always_fails_at_while_it_takes_others_is_set_aside(sweep, monkeypatch):
    monkeypatch.setattr(stores, "RETRY_SECONDS", 0.0)
    refusing(monkeypatch, "log_batch", lambda arguments: "bad" in str(arguments.get("metrics")), "INTERNAL_ERROR")
    tracker = sweep.tracker
    tracker.start(TrackedRun("x", "x"), tags={}, params={})
    tracker.metrics("x", {"bad": 1.0}, 1)
    tracker.metrics("x", {"good": 1.0}, 1)
    sweep.deliver()
    assert sweep.runs()["x"][4] == {"good": [(1, 1.0)]}
    (one,) = read_set_aside(sweep.directory)
    assert one.reason == "MLflow answers, but not to this: it failed"


def refusing(
    monkeypatch: pytest.MonkeyPatch, name: str, meant: Callable[[dict[str, Any]], bool], code: str
) -> pytest.MonkeyPatch:
    """Calls of MLflow that are meant fail as if the store had answered with this code."""
    real = getattr(MlflowClient, name)

    def call(*arguments: Any, **options: Any) -> Any:
        if meant(options):
            error = MlflowException("it failed", INTERNAL_ERROR)
            error.error_code = code
            raise error
        return real(*arguments, **options)

    monkeypatch.setattr(MlflowClient, name, call)
    return monkeypatch


# --- stores that are away for good, or damaged ------------------------------------------------------------------------


def test_a_delivery_whose_driver_is_gone_ends_when_the_store_stays_away(tmp_path, monkeypatch):
    monkeypatch.setattr(stores, "LONELY_SECONDS", 0.1)
    monkeypatch.setattr(stores, "RETRY_SECONDS", 0.1)
    Tracker(tmp_path / OUTBOX).metrics("x", {"m": 1.0}, 1)
    with pytest.raises(WorkError, match="MLflow was away for too long: "):
        main(tmp_path, "http://127.0.0.1:9", "x", "no token", GONE)
    assert (lag(tmp_path).lines, "127.0.0.1" in lag(tmp_path).reason) == (1, True)


def test_a_damaged_store_is_named_at_once_and_not_asked_again(tmp_path, uri, monkeypatch):
    whole = Path(uri.removeprefix("sqlite:///")).read_bytes()
    for name, content in (("text", b"no database"), ("flipped", whole[:5000] + bytes(20000) + whole[25000:])):
        directory = tmp_path / name
        directory.mkdir()
        (directory / "mlflow.db").write_bytes(content)
        with pytest.raises(InputError, match=rf"{name}/mlflow\.db is damaged \(.*\)\. .*`sweep deliver {name}`"):  # noqa: SIM117
            with delivering(directory, None):
                pass
        assert [path.name for path in directory.iterdir()] == ["mlflow.db"]
    (tmp_path / "place" / "mlflow.db").mkdir(parents=True)
    with pytest.raises(InputError, match=r"place/mlflow\.db is damaged \(it is no file\)"):
        check_store(store_uri(tmp_path / "place", None))


def test_a_store_that_is_damaged_while_lines_are_delivered_ends_the_delivery(sweep, tmp_path):
    copy = tmp_path / "copy.db"
    shutil.copyfile(sweep.uri.removeprefix("sqlite:///"), copy)
    damaged = Sweep(sweep.directory, f"sqlite:///{copy}")
    write(damaged)
    damaged.deliver_lines(5)
    copy.write_bytes(b"no database any more")
    with pytest.raises(InputError, match=r"copy\.db is damaged"):
        damaged.deliver()
    assert not (damaged.directory / SET_ASIDE).exists()
    assert lag(damaged.directory).lines > 5


# --- directories with other names than most ---------------------------------------------------------------------------

ODD = "a#b 50% c[1]*{x}&d+e;é"


def test_a_store_in_a_directory_whose_name_is_no_uri_is_where_it_says(tmp_path):
    directory = tmp_path / ODD / "x"
    directory.mkdir(parents=True)
    (directory / "best.yaml").write_text("schema: 2\n")
    sweep = Sweep(directory, store_uri(directory, None))
    tracker = sweep.tracker
    tracker.start(TrackedRun("x", "x"), tags={}, params={})
    tracker.artifact("x", directory / "best.yaml")
    tracker.end("x", "FINISHED")
    sweep.deliver()
    assert sweep.runs()["x"][-1] == ["best.yaml"]
    assert [path.name for path in tmp_path.iterdir()] == [ODD]
    assert {"mlflow.db", "mlflow.db.lock", "mlartifacts"} <= {path.name for path in directory.iterdir()}
    assert [path.name for path in directory.rglob("best*") if "mlartifacts" in path.parts] == ["best.yaml"]


def test_a_store_whose_path_cannot_be_said_to_mlflow_is_refused(tmp_path):
    for name in ("a?b", "a%41"):
        with pytest.raises(InputError, match=r"cannot be .*/mlflow\.db: its path must have no '\?', and no '%' before"):
            store_uri(tmp_path / name, None)
