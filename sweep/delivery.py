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


class Delivery:
    """Outbox lines to MLflow calls. `runs` maps the outbox's keys to MLflow's run ids."""

    def __init__(self, client: MlflowClient, experiment_id: str, runs: dict[str, str]) -> None:
        self._client, self._experiment_id, self.runs = client, experiment_id, runs
        self._handlers: dict[str, Callable[[Line], None]] = {
            "start": self._start,
            "metrics": self._metrics,
            "artifact": self._artifact,
            "dataset": self._dataset,
            "model": self._model,
            "end": self._end,
        }

    def __call__(self, line: Line) -> None:
        self._handlers[line["op"]](line)

    def _start(self, line: Line) -> None:
        if line["key"] not in self.runs:
            tags = {"mlflow.runName": line["name"], **line["tags"]}
            if line["parent"]:
                tags["mlflow.parentRunId"] = self.runs[line["parent"]]
            run = self._client.create_run(self._experiment_id, start_time=line["time"], tags=tags)
            self.runs[line["key"]] = run.info.run_id
        params = [Param(name, str(value)[:LONGEST_PARAM]) for name, value in line["params"].items()]
        for first in range(0, len(params), MOST_PARAMS):
            self._client.log_batch(self.runs[line["key"]], params=params[first : first + MOST_PARAMS])

    def _metrics(self, line: Line) -> None:
        metrics = [Metric(name, value, line["time"], line["step"]) for name, value in line["metrics"].items()]
        self._client.log_batch(self.runs[line["key"]], metrics=metrics)

    def _artifact(self, line: Line) -> None:
        self._client.log_artifact(self.runs[line["key"]], line["path"])

    def _dataset(self, line: Line) -> None:
        source = json.dumps({"name": line["name"]})
        dataset = Dataset(name=line["name"], digest=line["digest"], source_type="code", source=source)
        context = InputTag("mlflow.data.context", line["context"])
        self._client.log_inputs(self.runs[line["key"]], datasets=[DatasetInput(dataset, [context])])

    def _model(self, line: Line) -> None:
        import mlflow.pytorch

        from odenet.checkpoint import load_checkpoint

        model = load_checkpoint(Path(line["path"])).build().eval()
        with mlflow.start_run(run_id=self.runs[line["key"]]):
            info = mlflow.pytorch.log_model(
                model,
                name="model",
                serialization_format="pickle",
                registered_model_name=line["name"],
                pip_requirements=["torch"],
            )
        self._client.set_registered_model_alias(line["name"], "champion", info.registered_model_version)

    def _end(self, line: Line) -> None:
        run_id = self.runs[line["key"]]
        if line["tags"]:
            self._client.log_batch(run_id, tags=[RunTag(name, value) for name, value in line["tags"].items()])
        self._client.set_terminated(run_id, line["status"], end_time=line["time"])


def lines_from(outbox: Path, offset: int, token: str, driver: int) -> Iterator[tuple[Line, int]]:
    """Whole lines from `offset` on with the offset after each. Ends when all is read and the tracker of this token has
    closed, or the process `driver` is no longer the parent of this one: it is gone."""
    with outbox.open("rb") as file:
        file.seek(offset)
        ended = False
        while True:
            ended = ended or os.getppid() != driver
            text = file.readline()
            if text.endswith(b"\n"):
                line = json.loads(text)
                offset += len(text)
                if line["op"] == "close":
                    ended = ended or line.get("token") == token
                else:
                    yield line, offset
                continue
            file.seek(offset)
            if ended:
                return
            time.sleep(POLL_SECONDS)


def main(directory: Path, uri: str, experiment: str, token: str, driver: int) -> None:
    """Delivers until the driver, which started this process, is done. A store that is away is asked again every two
    seconds; a delivery that is still at the outbox is waited for, so that nothing is delivered twice."""
    with (directory / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _deliver_all(directory, uri, experiment, (token, driver))


def _deliver_all(directory: Path, uri: str, experiment: str, until: tuple[str, int]) -> None:
    set_tracking_uri(uri)
    client = MlflowClient(uri)
    state_file = directory / DELIVERED
    state: Line = json.loads(state_file.read_text()) if state_file.exists() else {"offset": 0, "runs": {}}
    artifacts = (
        (directory / "mlartifacts").resolve().as_uri() if uri.startswith("sqlite:") else None
    )  # else the server's
    experiment_id = _persistently(lambda: _experiment_id(client, experiment, artifacts))
    deliver = Delivery(client, experiment_id, state["runs"])
    for line, offset in lines_from(directory / OUTBOX, state["offset"], *until):
        _persistently(partial(deliver, line))
        write_text(state_file, json.dumps({"offset": offset, "runs": deliver.runs}))


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
