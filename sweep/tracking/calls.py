"""What a line of the outbox is in calls to MLflow, and what MLflow has of an experiment already.

Delivered again, a line changes nothing. MLflow itself takes most of them for the same (metrics by run, name, step and
time; parameters; tags; inputs; files); what would be made twice, runs and models, carries the line's id in the tag
`sweep.id` and is looked up first.
"""

import json
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from sweep.tracking.lines import ID, IDENTITY, PARENT, Line, RefusedError
from sweep.tracking.outbox import MLFLOW_ENVIRONMENT

os.environ |= MLFLOW_ENVIRONMENT

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunTag, ViewType
from mlflow.exceptions import MlflowException

from sweep.tracking.registry import Registry, made_by

MOST_PARAMS = 100  # of one request
LONGEST_PARAM = 6000
TRIAL = (PARENT, "trial_id", "phase")  # tags by which a trial's run is known
SWEEP = (IDENTITY, "kind")  # tags by which that of a sweep or study is

Runs = dict[str, str]


class UnknownRunError(Exception):
    """MLflow has no such run, although it was made there."""


class StoredRuns:
    """The runs of an experiment as MLflow has them, by which a delivery that has lost its memory tells it only the
    rest."""

    def __init__(self, runs: Iterable[Run] = ()) -> None:
        self.ids: set[str] = set()
        self._made: Runs = {}  # by the id of the line that began it
        self._known: dict[tuple[str, ...], str] = {}  # by the tags TRIAL or SWEEP
        self._latest: dict[tuple[str, str], tuple[int, float]] = {}  # step and value by run and metric
        for run in runs:
            if ID in run.data.tags:
                self._add(run)

    def _add(self, run: Run) -> None:
        run_id, tags = run.info.run_id, run.data.tags
        self.ids.add(run_id)
        self._made.setdefault(tags[ID], run_id)
        for key in _keys(tags):
            self._known.setdefault(key, run_id)
        for one in run.data._metric_objs:  # the public mapping has no steps
            self._latest[run_id, one.key] = one.step, one.value

    def made_by(self, line: Line, runs: Runs) -> str | None:
        """Find the run that a line began, or that of the same trial or sweep by a line before it, which the outbox has
        lost."""
        tags = {PARENT: runs.get(line["parent"] or "", ""), **line["tags"]}
        before = [self._known[key] for key in _keys(tags) if key in self._known]
        return self._made.get(line["id"]) or next(iter(before), None)

    def has(self, run_id: str, metric: Metric) -> bool:
        """Tell whether a metric was told, at whatever time. A run is told its steps in turn; of several values of one
        step the latest is known, and MLflow takes another one that it has for the same."""
        if (run_id, metric.key) not in self._latest:
            return False
        step, value = self._latest[run_id, metric.key]
        same = value == metric.value or (math.isnan(value) and math.isnan(metric.value))
        return metric.step < step or (metric.step == step and same)


def _keys(tags: Mapping[str, str]) -> list[tuple[str, ...]]:
    """Return by what a run can be known again: the values of all of some tags."""
    found = [tuple(tags.get(name, "") for name in names) for names in (TRIAL, SWEEP)]
    return [key for key in found if all(key)]


def _pages(client: MlflowClient, experiment_id: str) -> Iterator[Run]:
    page = client.search_runs([experiment_id], run_view_type=ViewType.ALL)
    yield from page
    while page.token:
        page = client.search_runs([experiment_id], run_view_type=ViewType.ALL, page_token=page.token)
        yield from page


class Delivery:
    """The translation of outbox lines to MLflow calls. `runs` maps the outbox's keys to MLflow's run ids; new runs are
    added to it.

    A `doubtful` line may have been delivered before.
    """

    def __init__(self, client: MlflowClient, experiment_id: str) -> None:
        self.client, self.experiment_id = client, experiment_id
        self.stored, self._registry = StoredRuns(), Registry(client, experiment_id)
        self._handlers: dict[str, Callable[[Line, Runs], None]] = {
            "metrics": self._metrics,
            "tags": self._tags,
            "artifact": self._artifact,
            "dataset": self._dataset,
            "describe": self._describe,
            "end": self._end,
        }
        self._makers: dict[str, Callable[[Line, Runs, bool], None]] = {"start": self._start, "model": self._model}

    def __call__(self, line: Line, runs: Runs, doubtful: bool) -> None:
        """Deliver a line.

        Raises:
            RefusedError: its file is missing or damaged, or no line has begun its run. UnknownRunError: MLflow has lost
            its run. MlflowException, OSError: as MLflow.
        """
        with _knowing_runs():
            if line["op"] in self._makers:
                self._makers[line["op"]](line, runs, doubtful)
            else:
                self._handlers[line["op"]](line, runs)

    def makes(self, line: Line) -> bool:
        """Tell whether the line would leave two of a thing where it is delivered twice."""
        return line["op"] in self._makers

    def recall(self) -> None:
        """Look up what MLflow has."""
        self.stored = StoredRuns(_pages(self.client, self.experiment_id))

    def knows(self, run_id: str) -> bool:
        """Tell whether MLflow has this run."""
        try:
            with _knowing_runs():
                self.client.get_run(run_id)
        except UnknownRunError:
            return False
        return True

    def again(self, line: Line, runs: Runs) -> None:
        """Deliver a line that was set aside, after others that followed it. Raises as a call."""
        if line["op"] != "metrics":
            self(line, runs, True)
            return
        with _knowing_runs():
            run_id = _run(line["key"], runs)
            self._log(run_id, [one for one in _metrics(line) if one.step not in self._steps(run_id, one.key)])

    def stand(self, line: Line, runs: Runs) -> None:
        """Let a run be as the line says that began or ended it, as far as that is known."""
        with _knowing_runs():
            if line["op"] == "end":
                self._end(line, runs)
            else:
                self.client.update_run(_run(line["key"], runs), status="RUNNING")

    def _steps(self, run_id: str, metric: str) -> set[int]:
        return {one.step for one in self.client.get_metric_history(run_id, metric)}

    def _start(self, line: Line, runs: Runs, doubtful: bool) -> None:
        if line["key"] in runs:
            self.client.update_run(runs[line["key"]], status="RUNNING")
        else:
            known = self.stored.made_by(line, runs) or (self._made_run(line) if doubtful else None)
            runs[line["key"]] = known or self._new_run(line, runs)
        params = [Param(name, str(value)[:LONGEST_PARAM]) for name, value in line["params"].items()]
        for first in range(0, len(params), MOST_PARAMS):
            self.client.log_batch(runs[line["key"]], params=params[first : first + MOST_PARAMS])

    def _made_run(self, line: Line) -> str | None:
        found = self.client.search_runs([self.experiment_id], made_by(line), ViewType.ALL)
        return found[0].info.run_id if found else None

    def _new_run(self, line: Line, runs: Runs) -> str:
        tags = {"mlflow.runName": line["name"], ID: line["id"], **line["tags"]}
        if line["parent"]:
            tags[PARENT] = _run(line["parent"], runs)
        return self.client.create_run(self.experiment_id, start_time=line["time"], tags=tags).info.run_id

    def _metrics(self, line: Line, runs: Runs) -> None:
        run_id = _run(line["key"], runs)
        self._log(run_id, [one for one in _metrics(line) if not self.stored.has(run_id, one)])

    def _log(self, run_id: str, metrics: list[Metric]) -> None:
        if metrics:
            self.client.log_batch(run_id, metrics=metrics)

    def _artifact(self, line: Line, runs: Runs) -> None:
        run_id, path = _run(line["key"], runs), Path(line["path"])
        folder = line.get("folder") or None  # not in lines of version 0.1.0
        if path.is_file():
            self.client.log_artifact(run_id, str(path), folder)
        elif path.name not in {Path(file.path).name for file in self.client.list_artifacts(run_id, folder)}:
            raise RefusedError(f"the file {path} is missing")

    def _dataset(self, line: Line, runs: Runs) -> None:
        source = json.dumps({"name": line["name"]})
        images = line.get("images") or {}  # as above
        profile = json.dumps({"num_rows": sum(images.values()), **images}) if images else None
        dataset = Dataset(line["name"], line["digest"], source_type="code", source=source, profile=profile)
        context = InputTag("mlflow.data.context", line["context"])
        self.client.log_inputs(_run(line["key"], runs), datasets=[DatasetInput(dataset, [context])])

    def _model(self, line: Line, runs: Runs, doubtful: bool) -> None:
        self._registry.register(line, _run(line["key"], runs), doubtful)

    def _describe(self, line: Line, runs: Runs) -> None:
        self._registry.describe(line, _run(line["key"], runs))

    def _tags(self, line: Line, runs: Runs) -> None:
        tags = [RunTag(name, value) for name, value in line["tags"].items()]
        self.client.log_batch(_run(line["key"], runs), tags=tags)

    def _end(self, line: Line, runs: Runs) -> None:
        run_id = _run(line["key"], runs)
        if line["tags"]:
            self._tags(line, runs)
        if line["status"] == "SCHEDULED":
            self.client.update_run(run_id, status=line["status"])
        else:
            self.client.set_terminated(run_id, line["status"], end_time=line["time"])


@contextmanager
def _knowing_runs() -> Iterator[None]:
    """Turn MLflow's word for a run that it does not have into an UnknownRunError, and for one that a user has deleted
    into a RefusedError."""
    try:
        yield
    except MlflowException as error:
        if found := re.search(r"[Rr]un '?(\w+)'? must be in the 'active' state", str(error)):
            raise RefusedError(
                f"its run was deleted in MLflow: `mlflow runs restore --run-id {found[1]}` brings it back"
            ) from error
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise UnknownRunError(str(error)) from error


def _metrics(line: Line) -> list[Metric]:
    return [Metric(name, value, line["time"], line["step"]) for name, value in line["metrics"].items()]


def _run(key: str, runs: Runs) -> str:
    if key not in runs:
        raise RefusedError(f"no line that can be read has begun the run {key}")
    return runs[key]
