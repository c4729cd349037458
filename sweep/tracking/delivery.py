"""The process that delivers an outbox: `python -m sweep.tracking.delivery DIRECTORY URI EXPERIMENT TOKEN PID`.

One line of the outbox after the other, each exactly once: how far it got is in
delivered.json, so a restart goes on there. A line whose process was killed before it could write that down, or whose
answer was lost, is delivered again. MLflow itself takes most of them for the same (metrics by run, name, step and time;
parameters; tags; inputs; files); what would be made twice, runs and models, carries the line's id in the tag `sweep.id`
and is looked up first.
"""

import fcntl
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from sweep.tracking.outbox import MLFLOW_ENVIRONMENT

if __name__ == "__main__":
    os.nice(19)  # trials come first, already while MLflow is imported; a delivery that lags loses nothing
os.environ |= MLFLOW_ENVIRONMENT

import mlflow
from mlflow import MlflowClient, set_tracking_uri
from mlflow.entities import Dataset, DatasetInput, InputTag, LoggedModelStatus, Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from sweep.records.files import write_text
from sweep.tracking.outbox import AWAY, DELIVERED, DELIVERY_LOCK, OUTBOX, delivered, sqlite_file

POLL_SECONDS = 0.2
RETRY_SECONDS = 2.0
MOST_PARAMS = 100  # of one request
LONGEST_PARAM = 6000
ID = "sweep.id"  # tag: of the line that made this
MAKERS = {"start", "model"}  # delivered twice they would leave two of a thing

Line = dict[str, Any]
Runs = dict[str, str]
Deliver = Callable[[Line, Runs, bool], None]


class Delivery:
    """The translation of outbox lines to MLflow calls. `runs` maps the outbox's keys to MLflow's run ids; new runs are
    added to it.

    A `doubtful` line may have been delivered before.
    """

    def __init__(self, client: MlflowClient, experiment_id: str) -> None:
        self._client, self._experiment_id = client, experiment_id
        self._handlers: dict[str, Callable[[Line, Runs], None]] = {
            "metrics": self._metrics,
            "artifact": self._artifact,
            "dataset": self._dataset,
            "end": self._end,
        }
        self._makers: dict[str, Callable[[Line, Runs, bool], None]] = {"start": self._start, "model": self._model}

    def __call__(self, line: Line, runs: Runs, doubtful: bool) -> None:
        if line["op"] in MAKERS:
            self._makers[line["op"]](line, runs, doubtful)
        else:
            self._handlers[line["op"]](line, runs)

    def _start(self, line: Line, runs: Runs, doubtful: bool) -> None:
        if line["key"] in runs:
            self._client.update_run(runs[line["key"]], status="RUNNING")
        else:
            known = self._made_run(line) if doubtful else None
            runs[line["key"]] = known or self._new_run(line, runs)
        params = [Param(name, str(value)[:LONGEST_PARAM]) for name, value in line["params"].items()]
        for first in range(0, len(params), MOST_PARAMS):
            self._client.log_batch(runs[line["key"]], params=params[first : first + MOST_PARAMS])

    def _made_run(self, line: Line) -> str | None:
        found = self._client.search_runs([self._experiment_id], filter_string=_made_by(line))
        return found[0].info.run_id if found else None

    def _new_run(self, line: Line, runs: Runs) -> str:
        tags = {"mlflow.runName": line["name"], ID: line["id"], **line["tags"]}
        if line["parent"]:
            tags["mlflow.parentRunId"] = runs[line["parent"]]
        return self._client.create_run(self._experiment_id, start_time=line["time"], tags=tags).info.run_id

    def _metrics(self, line: Line, runs: Runs) -> None:
        metrics = [Metric(name, value, line["time"], line["step"]) for name, value in line["metrics"].items()]
        self._client.log_batch(runs[line["key"]], metrics=metrics)

    def _artifact(self, line: Line, runs: Runs) -> None:
        self._client.log_artifact(runs[line["key"]], line["path"])

    def _dataset(self, line: Line, runs: Runs) -> None:
        source = json.dumps({"name": line["name"]})
        dataset = Dataset(name=line["name"], digest=line["digest"], source_type="code", source=source)
        context = InputTag("mlflow.data.context", line["context"])
        self._client.log_inputs(runs[line["key"]], datasets=[DatasetInput(dataset, [context])])

    def _model(self, line: Line, runs: Runs, doubtful: bool) -> None:
        known = self._made_model(line) if doubtful else None
        uri = known or self._new_model(line, runs)
        versions = self._client.search_model_versions(f"name = '{line['name']}'") if doubtful else []
        version = next((one.version for one in versions if one.tags.get(ID) == line["id"]), None)
        if version is None:
            version = mlflow.register_model(uri, line["name"], tags={ID: line["id"]}).version
        self._client.set_registered_model_alias(line["name"], "champion", str(version))

    def _made_model(self, line: Line) -> str | None:
        """Find the whole model that the line has made; remove what it has left unfinished."""
        found = self._client.search_logged_models([self._experiment_id], filter_string=_made_by(line))
        uri = None
        for model in found:
            if model.status is not LoggedModelStatus.READY:
                self._client.delete_logged_model(model.model_id)
            elif uri is None:
                uri = model.model_uri
        return uri

    def _new_model(self, line: Line, runs: Runs) -> str:
        import mlflow.pytorch

        from odenet.training.checkpoint import load_checkpoint

        model = load_checkpoint(Path(line["path"])).build().eval()
        with mlflow.start_run(run_id=runs[line["key"]]):
            return mlflow.pytorch.log_model(
                model, name="model", serialization_format="pickle", pip_requirements=["torch"], tags={ID: line["id"]}
            ).model_uri

    def _end(self, line: Line, runs: Runs) -> None:
        run_id = runs[line["key"]]
        if line["tags"]:
            self._client.log_batch(run_id, tags=[RunTag(name, value) for name, value in line["tags"].items()])
        if line["status"] == "SCHEDULED":
            self._client.update_run(run_id, status=line["status"])
        else:
            self._client.set_terminated(run_id, line["status"], end_time=line["time"])


def _made_by(line: Line) -> str:
    return f"tags.`{ID}` = '{line['id']}'"


def main(directory: Path, uri: str, experiment: str, token: str, driver: int) -> None:
    """Deliver until all is read and the tracker of this token has closed, or its process `driver`, which started this
    one, is gone. Ask a store that is away again every two seconds."""
    deliver = _open(directory, uri, experiment)
    while True:
        ended = os.getppid() != driver or token in delivered(directory)["closed"]
        if deliver_next(directory, deliver):
            continue
        if ended:
            return
        time.sleep(POLL_SECONDS)


def _open(directory: Path, uri: str, experiment: str) -> Delivery:
    """Open the store under a lock: two processes that open a fresh sqlite file at once corrupt its migration."""
    set_tracking_uri(uri)
    file = sqlite_file(uri)
    with _alone(directory / DELIVERY_LOCK if file is None else file.with_name(f"{file.name}.lock")):
        client = MlflowClient(uri)
        here = None if file is None else (directory / "mlartifacts").resolve().as_uri()  # else the server's
        return Delivery(client, _persistently(directory, lambda _: _experiment_id(client, experiment, here)))


def deliver_next(directory: Path, deliver: Deliver) -> bool:
    """Deliver one line, if there is a whole one. Several processes may serve an outbox, as when two sweeps of a study
    are evaluated at once: a lock lets one do so at a time, and no line is delivered twice."""
    with _alone(directory / DELIVERY_LOCK):
        state = delivered(directory)
        with (directory / OUTBOX).open("rb") as outbox:
            outbox.seek(state["offset"])
            text = outbox.readline()
        if not text.endswith(b"\n"):
            return False
        line = json.loads(text)
        if line["op"] == "close":
            state["closed"].append(line["token"])
        else:
            _deliver(directory, deliver, line, state)
        _write_state(directory, {**state, "offset": state["offset"] + len(text), "doubtful": False})
        return True


def _deliver(directory: Path, deliver: Deliver, line: Line, state: dict[str, Any]) -> None:
    before = state["doubtful"]
    if line["op"] in MAKERS and not before:
        _write_state(directory, {**state, "doubtful": True})
    _persistently(directory, lambda again: deliver(line, state["runs"], before or again))


def _write_state(directory: Path, state: dict[str, Any]) -> None:
    write_text(directory / DELIVERED, json.dumps(state))


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Keep other processes waiting while inside the block."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _experiment_id(client: MlflowClient, name: str, artifacts: str | None) -> str:
    known = client.get_experiment_by_name(name)
    if known:
        return known.experiment_id
    try:
        return client.create_experiment(name, artifact_location=artifacts)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        return _experiment_id(client, name, artifacts)  # another process was faster


Answer = TypeVar("Answer")


def _persistently(directory: Path, call: Callable[[bool], Answer]) -> Answer:
    """Call until the store answers, for ever; meanwhile away.json says so. `call` is told whether it is called
    again."""
    since, again = time.time(), False
    while True:
        try:
            answer = call(again)
        except MlflowException as error:
            if error.error_code not in {"INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED"}:
                raise
            reason = str(error).strip().splitlines()[0]
            write_text(directory / AWAY, json.dumps({"away_since": since, "reason": reason}))
            again = True
            time.sleep(RETRY_SECONDS)
        else:
            (directory / AWAY).unlink(missing_ok=True)
            return answer


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4], int(sys.argv[5]))
