"""Read an MLflow experiment."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sweep.tracking.lines import ACTIVE, CHAMPION
from sweep.tracking.outbox import MLFLOW_ENVIRONMENT, check_store, deleted

os.environ |= MLFLOW_ENVIRONMENT

from mlflow import MlflowClient
from mlflow.entities import Run, ViewType
from mlflow.exceptions import MlflowException
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request

from sweep.errors import WorkError


@dataclass(frozen=True, slots=True)
class RecordedRun:
    """A run as MLflow has it."""

    run_id: str
    status: str
    tags: dict[str, str]
    deleted: bool = False  # by a user, who can restore it


def server_version(uri: str, seconds: float) -> str:
    """Ask an MLflow server which version it is, as a delivery would: with the same credentials and certificates.

    Raises:
        PermissionError: it does not take who asks. OSError: it does not answer.
    """
    try:
        answer = http_request(get_default_host_creds(uri), "/version", "GET", max_retries=0, timeout=seconds)
    except MlflowException as error:
        raise OSError(str(error).splitlines()[0]) from error
    if answer.status_code in (401, 403):
        raise PermissionError(f"{answer.status_code} {answer.reason}")
    if answer.status_code != 200:
        raise OSError(f"{answer.status_code} {answer.reason}")
    return str(answer.text)[:100].strip()


class Records:
    """A reader of an MLflow experiment. Its methods raise WorkError where the store does not answer, and InputError
    where it is damaged."""

    def __init__(self, uri: str, experiment: str) -> None:
        self._uri, self._experiment = uri, experiment
        check_store(uri)
        with self._answering():
            self._client = MlflowClient(uri)

    def runs(self) -> list[RecordedRun]:
        """Read all runs; none where there is no such experiment."""
        with self._answering():
            known = self._client.get_experiment_by_name(self._experiment)
            if known and known.lifecycle_stage != ACTIVE:
                raise deleted(self._experiment, known.experiment_id, self._uri)
            runs = self._pages(known.experiment_id) if known else ()
            return [_recorded(run) for run in runs]

    def experiment_id(self) -> str | None:
        """Find the id of the experiment; None where there is none."""
        with self._answering():
            known = self._client.get_experiment_by_name(self._experiment)
        return known.experiment_id if known else None

    def history(self, run: RecordedRun, metric: str) -> list[tuple[int, float]]:
        """Read a metric of a run as pairs of step and value, in order of steps: clocks may be set back."""
        with self._answering():
            found = self._client.get_metric_history(run.run_id, metric)
        return [(one.step, one.value) for one in sorted(found, key=lambda one: (one.step, one.timestamp))]

    def has_champion(self, model: str) -> bool:
        """Tell whether a model of this name is registered, and one of its versions is the champion."""
        with self._answering():
            try:
                self._client.get_model_version_by_alias(model, CHAMPION)
            except MlflowException as error:
                if error.error_code not in {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}:
                    raise
                return False
        return True

    def _pages(self, experiment_id: str) -> Iterator[Run]:
        page = self._client.search_runs([experiment_id], run_view_type=ViewType.ALL)
        yield from page
        while page.token:
            page = self._client.search_runs([experiment_id], run_view_type=ViewType.ALL, page_token=page.token)
            yield from page

    @contextmanager
    def _answering(self) -> Iterator[None]:
        try:
            yield
        except MlflowException as error:
            check_store(self._uri)
            said = str(error).strip().splitlines()[0]
            lock = "; wait for the process that works on it, or end it" if "is locked" in said else ""
            raise WorkError(f"MLflow at {self._uri} cannot be read: {said}{lock}.") from error


def _recorded(run: Run) -> RecordedRun:
    return RecordedRun(run.info.run_id, run.info.status, run.data.tags, run.info.lifecycle_stage != ACTIVE)
