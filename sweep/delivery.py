"""The process that delivers an outbox to MLflow: `python -m sweep.delivery DIRECTORY URI EXPERIMENT TOKEN PID`.

The only module that imports mlflow, besides `ui` which starts its server. One call per line of the outbox, in order.
How far it got is in delivered.json, so a restart goes on there.
"""

import fcntl
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

os.environ |= {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
}

from mlflow import MlflowClient, set_tracking_uri
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from sweep.export import write_text
from sweep.tracking import DELIVERED, LOCK, OUTBOX

POLL_SECONDS = 0.2
RETRY_SECONDS = 2.0
MOST_PARAMS = 100  # of one request
LONGEST_PARAM = 6000

Line = dict[str, Any]
Runs = dict[str, str]


class Delivery:
    """Outbox lines to MLflow calls. `runs` maps the outbox's keys to MLflow's run ids; new runs are added to it."""

    def __init__(self, client: MlflowClient, experiment_id: str) -> None:
        self._client, self._experiment_id = client, experiment_id
        self._handlers: dict[str, Callable[[Line, Runs], None]] = {
            "start": self._start,
            "metrics": self._metrics,
            "artifact": self._artifact,
            "dataset": self._dataset,
            "model": self._model,
            "end": self._end,
        }

    def __call__(self, line: Line, runs: Runs) -> None:
        self._handlers[line["op"]](line, runs)

    def _start(self, line: Line, runs: Runs) -> None:
        if line["key"] not in runs:
            tags = {"mlflow.runName": line["name"], **line["tags"]}
            if line["parent"]:
                tags["mlflow.parentRunId"] = runs[line["parent"]]
            run = self._client.create_run(self._experiment_id, start_time=line["time"], tags=tags)
            runs[line["key"]] = run.info.run_id
        params = [Param(name, str(value)[:LONGEST_PARAM]) for name, value in line["params"].items()]
        for first in range(0, len(params), MOST_PARAMS):
            self._client.log_batch(runs[line["key"]], params=params[first : first + MOST_PARAMS])

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

    def _model(self, line: Line, runs: Runs) -> None:
        import mlflow.pytorch

        from odenet.checkpoint import load_checkpoint

        model = load_checkpoint(Path(line["path"])).build().eval()
        with mlflow.start_run(run_id=runs[line["key"]]):
            info = mlflow.pytorch.log_model(
                model,
                name="model",
                serialization_format="pickle",
                registered_model_name=line["name"],
                pip_requirements=["torch"],
            )
        self._client.set_registered_model_alias(line["name"], "champion", info.registered_model_version)

    def _end(self, line: Line, runs: Runs) -> None:
        run_id = runs[line["key"]]
        if line["tags"]:
            self._client.log_batch(run_id, tags=[RunTag(name, value) for name, value in line["tags"].items()])
        self._client.set_terminated(run_id, line["status"], end_time=line["time"])


def main(directory: Path, uri: str, experiment: str, token: str, driver: int) -> None:
    """Delivers until all is read and the tracker of this token has closed, or its process `driver`, which started this
    one, is gone. A store that is away is asked again every two seconds."""
    os.nice(19)  # trials come first; a delivery that lags loses nothing
    set_tracking_uri(uri)
    client = MlflowClient(uri)
    here = (directory / "mlartifacts").resolve().as_uri() if uri.startswith("sqlite:") else None  # else the server's
    with _alone(directory):  # two processes that open a fresh sqlite file at once corrupt its migration
        deliver = Delivery(client, _persistently(partial(_experiment_id, client, experiment, here)))
    while True:
        ended = os.getppid() != driver or token in _state(directory)["closed"]
        if deliver_next(directory, deliver):
            continue
        if ended:
            return
        time.sleep(POLL_SECONDS)


def deliver_next(directory: Path, deliver: Delivery) -> bool:
    """Delivers one line, if there is a whole one. Several processes may serve an outbox, as when two sweeps of a study
    are evaluated at once: one does at a time, so that no line is delivered twice."""
    with _alone(directory):
        state = _state(directory)
        with (directory / OUTBOX).open("rb") as outbox:
            outbox.seek(state["offset"])
            text = outbox.readline()
        if not text.endswith(b"\n"):
            return False
        line = json.loads(text)
        if line["op"] == "close":
            state["closed"].append(line["token"])
        else:
            _persistently(partial(deliver, line, state["runs"]))
        write_text(directory / DELIVERED, json.dumps({**state, "offset": state["offset"] + len(text)}))
        return True


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """While the other processes that serve this outbox wait."""
    os.nice(19)  # trials come first; a delivery that lags loses nothing
    with (directory / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _state(directory: Path) -> dict[str, Any]:
    """How far the outbox is delivered, MLflow's run ids by the outbox's keys, and the trackers that have closed."""
    file = directory / DELIVERED
    return json.loads(file.read_text()) if file.exists() else {"offset": 0, "runs": {}, "closed": []}


def _experiment_id(client: MlflowClient, name: str, artifacts: str | None) -> str:
    known = client.get_experiment_by_name(name)
    return known.experiment_id if known else client.create_experiment(name, artifact_location=artifacts)


Answer = TypeVar("Answer")


def _persistently(call: Callable[[], Answer]) -> Answer:
    while True:
        try:
            return call()
        except MlflowException as error:
            if error.error_code not in {"INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED"}:
                raise
            time.sleep(RETRY_SECONDS)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4], int(sys.argv[5]))
