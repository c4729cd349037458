"""An MLflow store that is asked until it answers, however long it is away, and no longer where that is of no use."""

import fcntl
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from sweep.tracking.environment import CREDENTIALS
from sweep.tracking.lines import ACTIVE
from sweep.tracking.outbox import DELIVERY_LOCK, MLFLOW_ENVIRONMENT, check_store, deleted
from sweep.tracking.sqlite_store import SQLITE, artifacts_beside, move_artifacts, sqlite_file

os.environ |= MLFLOW_ENVIRONMENT

from mlflow import MlflowClient, set_tracking_uri
from mlflow.exceptions import MlflowException
from mlflow.store.tracking import DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from sqlalchemy.exc import OperationalError

from sweep.errors import WorkError
from sweep.records.files import sync_entry
from sweep.tracking.calls import Delivery, RefusedError
from sweep.tracking.state import AWAY, write_away

RETRY_SECONDS = 2.0
LONELY_SECONDS = 300.0  # that a delivery whose driver is gone waits for a store that is away
REFUSALS = 10  # of a call, in a row, by a store that takes others: it is the call
# Anything else that MLflow answers is about the line.
AWAY_CODES = {
    "INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED",
    "CANCELLED", "ABORTED", "ENDPOINT_NOT_FOUND", "UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED", "PERMISSION_DENIED",
}  # fmt: skip
NOT_ALLOWED = ("UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED", "PERMISSION_DENIED")
KIND, TRAINING = "mlflow.experimentKind", "custom_model_development"  # as MLflow's list of experiments links it
AnswerT = TypeVar("AnswerT")


@contextmanager
def locked(lock: Path) -> Iterator[None]:
    """Keep other processes waiting while inside the block."""
    with lock.open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class PatientStore:
    """An MLflow store that is asked until it answers; meanwhile away.json says since when it does not.

    `driver`: process id of the driver that started this process; -1 for one that is gone.
    """

    def __init__(self, directory: Path, uri: str, driver: int) -> None:
        self._directory, self._uri, self._driver = directory, uri, driver
        self._probe: Callable[[], None] | None = None

    @property
    def left(self) -> bool:
        """Tell whether the driver is gone."""
        return os.getppid() != self._driver

    def open(self, experiment: str) -> Delivery:
        """Open the store under a lock: two processes that open a fresh sqlite file at once corrupt its migration."""
        set_tracking_uri(self._uri)
        file = sqlite_file(self._uri)
        with locked(self._directory / DELIVERY_LOCK if file is None else file.with_name(f"{file.name}.lock")):
            if file is not None:
                if not os.path.lexists(file):
                    self.ask(lambda _: _create(file))
                self.ask(lambda _: move_artifacts(file))
            here = None if file is None else artifacts_beside(file)  # else the server's
            delivery = self.ask(lambda _: _delivery(MlflowClient(self._uri), experiment, here))
        self._probe = lambda: delivery.client.set_experiment_tag(
            delivery.experiment_id, "sweep.asked", str(time.time())
        )
        return delivery

    def ask(self, call: Callable[[bool], AnswerT]) -> AnswerT:
        """Call until the store answers. `call` is told whether it is called again.

        Raises:
            InputError: the store is damaged. WorkError: nobody waits any longer. RefusedError: the store answers, but
            never to this call. And what else `call` raises that is not the store's being away.
        """
        since, begun, again, refusals = time.time(), time.monotonic(), False, 0
        while True:
            try:
                answer = call(again)
            except Exception as error:
                check_store(self._uri)
                if not _is_away(error):
                    raise
                refusals = refusals + 1 if self._answers() else 0
                if refusals == REFUSALS:
                    raise RefusedError(f"MLflow answers, but not to this: {first_line(error)}") from error
                write_away(self._directory, since, _why(error))
                if self.left and time.monotonic() - begun > LONELY_SECONDS:
                    raise WorkError(f"MLflow was away for too long: {_why(error)}") from error
                again = True
                time.sleep(RETRY_SECONDS)
            else:
                (self._directory / AWAY).unlink(missing_ok=True)
                return answer

    def _answers(self) -> bool:
        """Tell whether the store takes something else, written as the lines are."""
        if self._probe is None:
            return False
        try:
            self._probe()
        except Exception:  # noqa: BLE001 - whatever it is, it is no answer
            return False
        return True


def _create(file: Path) -> None:
    """Make a store beside its place and put it there once it is whole: MLflow's migrations are no transaction, and one
    that was killed among them is of no use."""
    new = file.with_name(f"{file.name}.new")
    new.unlink(missing_ok=True)
    SqlAlchemyStore(f"{SQLITE}{new}", DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH).engine.dispose()
    new.replace(file)
    sync_entry(file)


def _is_away(error: Exception) -> bool:
    if isinstance(error, MlflowException):
        return error.error_code in AWAY_CODES
    if isinstance(error, OperationalError | sqlite3.OperationalError):  # while it is opened; later MLflow wraps it
        return any(words in str(error) for words in ("locked", "disk I/O error", "unable to open", "connection"))
    return isinstance(error, OSError)  # of the network, or of the disk that files go to; theirs are looked at first


def first_line(error: Exception) -> str:
    return (str(error).strip() or repr(error)).splitlines()[0]


def _why(error: Exception) -> str:
    """Say why the store does not answer, and what to do where that is known."""
    if isinstance(error, MlflowException) and error.error_code in NOT_ALLOWED:
        return f"it does not take who asks ({error.error_code}): {CREDENTIALS}"
    return first_line(error)


def _delivery(client: MlflowClient, name: str, artifacts: str | None) -> Delivery:
    """Find the experiment of this name, or create it."""
    known = client.get_experiment_by_name(name)
    if known and known.lifecycle_stage != ACTIVE:
        raise deleted(name, known.experiment_id, client.tracking_uri)
    if known:
        if KIND not in known.tags:  # else its user has chosen another one
            client.set_experiment_tag(known.experiment_id, KIND, TRAINING)
        return Delivery(client, known.experiment_id)
    try:
        made = client.create_experiment(name, artifact_location=artifacts, tags={KIND: TRAINING})
        return Delivery(client, made)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        return _delivery(client, name, artifacts)  # another process was faster
