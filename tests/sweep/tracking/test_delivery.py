"""Exactly once, on sqlite and on a server: whatever dies, in the middle of whatever it does, and for however long."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count, cycle, islice
from pathlib import Path
from threading import Thread
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run as MlflowRun
from mlflow.exceptions import MlflowException

from odenet.enums import Device
from odenet.training.config import ExperimentConfig, RuntimeConfig
from odenet.training.loop import Training
from sweep.config.overrides import override
from sweep.errors import WorkError
from sweep.tracking import absence, client, delivery
from sweep.tracking import store as stores
from sweep.tracking.absence import absence_said
from sweep.tracking.lines import OUTBOX
from sweep.tracking.outbox import Described, TrackedRun, Tracker, delivering, store_uri
from sweep.tracking.state import AWAY, lag, read_set_aside
from tests.sweep.store_server import StoreServer

PATIENCE = 120.0
# `make faults` sets a minute.
OUTAGE_SECONDS = float(os.environ.get("OUTAGE_SECONDS", "3"))
LINES_A_SECOND = 20
# Of MLflow's own making: its use of SQLAlchemy, its type hints.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated"),
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType"),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[StoreServer]:
    server = StoreServer(tmp_path_factory.mktemp("server"))
    server.start()
    yield server
    server.kill()
    mlflow.set_tracking_uri("")


@pytest.fixture(scope="module")
def sqlite(tmp_path_factory) -> Iterator[str]:
    uri = store_uri(tmp_path_factory.mktemp("store"), None)
    MlflowClient(uri).create_experiment("made before anyone else opens it")
    yield uri
    mlflow.set_tracking_uri("")


@pytest.fixture(params=["sqlite", "server"])
def uri(request: pytest.FixtureRequest) -> str:
    return request.getfixturevalue("sqlite") if request.param == "sqlite" else request.getfixturevalue("server").uri


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    tiny = {"model.width": 2, "data.per_class": 3, "training.epochs": 1}
    training = Training(override(ExperimentConfig(), tiny), RuntimeConfig(device=Device.cpu))
    next(training)
    path = tmp_path_factory.mktemp("model") / "model.ckpt"
    training.save(path)
    return path


def runs_of(uri: str, experiment: str) -> list[MlflowRun]:
    client = MlflowClient(uri)
    return list(client.search_runs([client.get_experiment_by_name(experiment).experiment_id]))


def run_named(uri: str, experiment: str, name: str) -> MlflowRun:
    (run,) = [run for run in runs_of(uri, experiment) if run.info.run_name == name]
    return run


def history(uri: str, run: MlflowRun, metric: str) -> list[tuple[int, float]]:
    """In order of time."""
    found = MlflowClient(uri).get_metric_history(run.info.run_id, metric)
    return [(one.step, one.value) for one in sorted(found, key=lambda one: (one.timestamp, one.step))]


# --- deliveries that die after what they did and before they could write that down ------------------------------------

CALLS = (
    "create_run", "update_run", "log_batch", "log_artifact", "log_inputs", "set_terminated", "create_registered_model",
    "_create_model_version", "set_registered_model_alias", "update_model_version", "log_model_artifact",
)  # fmt: skip


class Killed(BaseException):
    """As SIGKILL, nothing in the delivery catches it."""


def killed() -> None:
    raise Killed


def answer_lost() -> None:
    raise MlflowException("the server's answer did not arrive")  # an INTERNAL_ERROR, as of a connection that broke


class Fuse:
    """Lets every MLflow call do its work; after the first, then after two more, then after three more, one fails."""

    def __init__(self, fail: Callable[[], None]) -> None:
        self._fail, self._lengths = fail, cycle(range(1, 8))
        self._left = next(self._lengths)
        self.failures = 0

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in CALLS:
            monkeypatch.setattr(MlflowClient, name, self._around(getattr(MlflowClient, name)))

    def _around(self, call: Callable[..., object]) -> Callable[..., object]:
        def burning(*arguments: object, **options: object) -> object:
            answer = call(*arguments, **options)
            self._left -= 1
            if self._left == 0:
                self._left = next(self._lengths)
                self.failures += 1
                self._fail()
            return answer

        return burning


@pytest.mark.parametrize("fail", [killed, answer_lost])
def test_each_line_counts_once_wherever_its_delivery_dies_or_loses_the_answer(
    tmp_path, uri, checkpoint, monkeypatch, fail
):
    name = str(tmp_path)
    (tmp_path / "best.yaml").write_text("schema: 2\n")
    tracker = Tracker(tmp_path / OUTBOX)
    tracker.start(TrackedRun("x", "x"), tags={}, params={f"p{number}": number for number in range(250)})
    for number in range(2):
        key = f"x/search-{number}"
        tracker.start(TrackedRun(key, f"search-{number}", "x"), tags={"family": "smoke"}, params={"lr": 0.1})
        tracker.dataset(key, "digits", "da7a", "train", {"train": 12, "val": 8})
        for step in (1, 2, 3):
            tracker.metrics(key, {"m": step / 4, "l": -step}, step)
        tracker.end(key, "FINISHED", {"outcome": "done"})
    tracker.artifact("x", tmp_path / "best.yaml")
    card = Described(tmp_path / "best.yaml", "said of it", {"data_hash": "da7a"})
    tracker.model("x/search-1", checkpoint, f"{tmp_path.name}-{fail.__name__}", card)
    tracker.end("x", "FINISHED")
    tracker.close()
    monkeypatch.setattr(stores, "RETRY_SECONDS", 0.0)
    (fuse := Fuse(fail)).install(monkeypatch)
    for _ in range(100):
        try:
            delivery.main(tmp_path, uri, name, tracker.token, os.getppid())
            break
        except Killed:
            continue
    monkeypatch.undo()
    assert fuse.failures >= 6
    assert (lag(tmp_path).lines, read_set_aside(tmp_path)) == (0, [])
    assert not (tmp_path / AWAY).exists()
    runs = {run.info.run_name: run for run in runs_of(uri, name)}
    assert len(runs) == len(runs_of(uri, name)) == 3
    assert runs["x"].data.params == {f"p{number}": str(number) for number in range(250)}
    for number in range(2):
        run = runs[f"search-{number}"]
        assert history(uri, run, "m") == [(1, 0.25), (2, 0.5), (3, 0.75)]
        assert history(uri, run, "l") == [(1, -1.0), (2, -2.0), (3, -3.0)]
        assert (len(run.inputs.dataset_inputs), run.info.status) == (1, "FINISHED")
        assert run.data.tags["mlflow.parentRunId"] == runs["x"].info.run_id
    client = MlflowClient(uri)
    assert [file.path for file in client.list_artifacts(runs["x"].info.run_id)] == ["best.yaml"]
    (version,) = client.search_model_versions(f"name = '{tmp_path.name}-{fail.__name__}'")
    assert client.get_model_version_by_alias(version.name, "champion").version == version.version
    assert (version.description, version.tags["data_hash"]) == ("said of it", "da7a")
    assert len(client.search_logged_models([runs["x"].info.experiment_id])) == 1


KILLED = """
    import os, signal, sys
    from pathlib import Path
    from sweep.tracking import calls, delivery

    def and_die(call):
        def dying(*arguments, **options):
            call(*arguments, **options)
            os.kill(os.getpid(), signal.SIGKILL)
        return dying

    calls.MlflowClient.create_run = and_die(calls.MlflowClient.create_run)
    delivery.main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], "no token", 0)
"""


def test_a_delivery_killed_by_the_system_after_it_made_a_run_makes_no_second_one(tmp_path, sqlite):
    tracker = Tracker(tmp_path / OUTBOX)
    tracker.start(TrackedRun("x", "x"), tags={}, params={"lr": 0.1})
    command = [sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path), sqlite, str(tmp_path)]
    assert subprocess.run(command, timeout=PATIENCE, check=False).returncode == -9
    assert len(runs_of(sqlite, str(tmp_path))) == 1
    delivery.main(tmp_path, sqlite, str(tmp_path), "no token", -1)
    assert [run.data.params for run in runs_of(sqlite, str(tmp_path))] == [{"lr": "0.1"}]


def test_a_model_left_half_written_is_replaced(tmp_path, sqlite, checkpoint, monkeypatch):
    tracker = Tracker(tmp_path / OUTBOX)
    tracker.start(TrackedRun("x", "x"), tags={}, params={})
    tracker.model("x", checkpoint, "half")
    tracker.close()
    arguments = (tmp_path, sqlite, str(tmp_path), tracker.token, os.getppid())
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr("mlflow.models.Model.save", lambda *_: killed())
        delivery.main(*arguments)
    delivery.main(*arguments)
    client = MlflowClient(sqlite)
    (model,) = client.search_logged_models([client.get_experiment_by_name(str(tmp_path)).experiment_id])
    (version,) = client.search_model_versions("name = 'half'")
    assert (model.status, int(version.version)) == ("READY", 1)


# --- a trial's run over its life --------------------------------------------------------------------------------------


def test_a_run_waits_runs_again_and_ends_as_its_trial_does(tmp_path, uri):
    tracker = Tracker(tmp_path / OUTBOX)
    run, seen = TrackedRun("x", "x"), []
    for change in (
        lambda: tracker.start(run, tags={}, params={}),
        lambda: tracker.end("x", "SCHEDULED", {"outcome": "paused"}),
        lambda: tracker.start(run, tags={}, params={}),
        lambda: tracker.end("x", "KILLED", {"outcome": "interrupted"}),
        lambda: tracker.start(run, tags={}, params={}),
        lambda: tracker.end("x", "FINISHED", {"outcome": "done"}),
    ):
        change()
        delivery.main(tmp_path, uri, str(tmp_path), "no token", -1)
        found = run_named(uri, str(tmp_path), "x")
        seen.append((found.info.status, found.data.tags.get("outcome")))
    assert [status for status, _ in seen] == ["RUNNING", "SCHEDULED", "RUNNING", "KILLED", "RUNNING", "FINISHED"]
    assert [outcome for _, outcome in seen][1::2] == ["paused", "interrupted", "done"]


def test_a_metric_repeated_with_its_time_and_step_is_kept_once_by_either_store(tmp_path, uri):
    """What exactly once rests on."""
    client = MlflowClient(uri)
    run_id = client.create_run(client.create_experiment(str(tmp_path))).info.run_id
    for value in (0.5, 0.5, float("nan"), float("nan"), 0.5):
        client.log_batch(run_id, metrics=[mlflow.entities.Metric("m", value, 1000, 1)])
    assert {str(one.value) for one in client.get_metric_history(run_id, "m")} == {"0.5", "nan"}
    assert len(client.get_metric_history(run_id, "m")) == 2


# --- several at once --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fresh", ["sqlite", "server"])
def test_three_sweeps_of_one_name_that_start_at_once_on_a_fresh_store_each_have_their_own_run(tmp_path, request, fresh):
    """One sqlite file, or one server; three directories, three deliveries, one experiment that nobody has made yet."""
    name = f"fresh-on-{fresh}"
    uri = f"sqlite:///{tmp_path}/shared.db" if fresh == "sqlite" else request.getfixturevalue("server").uri
    with ExitStack() as stack:
        for number in range(3):
            tracker = stack.enter_context(delivering(tmp_path / str(number) / name, uri, PATIENCE))
            tracker.start(TrackedRun("x", "x"), tags={}, params={"directory": number})
            tracker.metrics("x", {"m": number}, 1)
            tracker.end("x", "FINISHED")
    runs = sorted(runs_of(uri, name), key=lambda run: run.data.params["directory"])
    assert [(run.data.metrics, run.info.status) for run in runs] == [({"m": n}, "FINISHED") for n in (0.0, 1.0, 2.0)]


# --- a server that is away --------------------------------------------------------------------------------------------


def test_while_the_server_is_away_writing_goes_on_and_afterwards_each_metric_is_there_once_in_order(tmp_path, server):
    steps = count(1)

    def write(tracker: Tracker, lines: int) -> None:
        for step in islice(steps, lines):
            tracker.metrics("x", {"m": step / 4}, step)
            time.sleep(1 / LINES_A_SECOND)

    with delivering(tmp_path, server.uri, 10 * PATIENCE) as tracker:
        tracker.start(TrackedRun("x", "x"), tags={}, params={})
        write(tracker, 10)
        until(lambda: lag(tmp_path).lines == 0)
        server.kill()
        write(tracker, away := int(OUTAGE_SECONDS * LINES_A_SECOND))
        assert not server.alive  # so what was written did not wait for it
        until(lambda: lag(tmp_path).away_since is not None)
        behind = lag(tmp_path)
        assert (behind.lines, behind.keys) == (away, {"x"})
        assert "http" in behind.reason.lower()
        server.start()
        write(tracker, 10)
        tracker.end("x", "FINISHED")
    recorded = history(server.uri, run_named(server.uri, tmp_path.name, "x"), "m")
    assert recorded == [(step, step / 4) for step in range(1, away + 21)]
    assert (lag(tmp_path).lines, lag(tmp_path).away_since) == (0, None)


def until(holds: Callable[[], bool]) -> None:
    for _ in range(int(PATIENCE / 0.1)):
        if holds():
            return
        time.sleep(0.1)
    raise AssertionError(f"not within {PATIENCE:.0f} s")


class Guard(BaseHTTPRequestHandler):
    """Passes requests on to a server where they have user and password."""

    behind = ""

    def answer(self) -> None:
        if self.headers["Authorization"] != f"Basic {b64encode(b'me:pass').decode()}":
            self.reply(401, b"You are not authenticated.")
            return
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        kept = {"Content-Type": self.headers["Content-Type"] or "application/json"}
        try:
            with urlopen(Request(self.behind + self.path, body or None, kept, method=self.command)) as found:
                self.reply(found.status, found.read())
        except HTTPError as error:
            self.reply(error.code, error.read())

    do_GET = do_POST = do_PUT = do_PATCH = answer

    def reply(self, code: int, body: bytes) -> None:
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def test_a_server_that_does_not_take_who_asks_is_said_at_once_and_told_all_when_the_credentials_are_there(
    tmp_path, server, monkeypatch
):
    said: list[str] = []
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(absence, "LONG_SECONDS", 0.0)
    monkeypatch.setattr(Guard, "behind", server.uri)
    (directory := tmp_path / "guarded").mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), Guard) as guard:
        Thread(target=guard.serve_forever, daemon=True).start()
        uri = f"http://127.0.0.1:{guard.server_port}"
        with absence_said(directory, said.append), delivering(directory, uri, PATIENCE) as tracker:
            tracker.start(TrackedRun("s", "s"), tags={}, params={"a": 1})
            wait_until(lambda: bool(said))
            (tmp_path / ".mlflow").mkdir()
            credentials = "[mlflow]\nmlflow_tracking_username = me\nmlflow_tracking_password = pass\n"
            (tmp_path / ".mlflow" / "credentials").write_text(credentials)
            tracker.end("s", "FINISHED")
            wait_until(lambda: len(said) == 2)
        guard.shutdown()
    assert "MLflow is told nothing: it does not take who asks (UNAUTHENTICATED): write user and password" in said[0]
    assert said[1:] == ["MLflow is told again."]
    assert [run.info.status for run in runs_of(server.uri, "guarded")] == ["FINISHED"]


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_store_that_cannot_be_read_is_named(monkeypatch):
    for name in ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR"):
        monkeypatch.setenv(name, "0")
    with pytest.raises(WorkError, match=r"MLflow at http://127\.0\.0\.1:9 cannot be read: "):
        client.Records("http://127.0.0.1:9", "x").runs()


@pytest.mark.parametrize("seconds", [0.0, 0.5])
def test_a_process_that_is_killed_while_it_creates_the_store_leaves_none_or_a_whole_one(tmp_path, seconds) -> None:
    """Several seconds of migrations, none of them a transaction."""
    uri = store_uri(tmp_path, None)
    child = os.fork()
    if not child:
        stores.PatientStore(tmp_path, uri, os.getppid()).open("first")
        os._exit(0)
    while not list(tmp_path.rglob("mlflow.db*")):
        time.sleep(0.01)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert stores.PatientStore(tmp_path, uri, os.getppid()).open("second").stored.ids == set()
    assert {one.name for one in MlflowClient(uri).search_experiments()} <= {"Default", "first", "second"}
