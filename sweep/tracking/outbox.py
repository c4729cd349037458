"""Write what MLflow is to be told to an outbox on disk, which a process of its own delivers.

The driver never waits for MLflow. The outbox is append-only JSON lines; `sweep.tracking.delivery` reads it, remembers
how far it got, and ends when the driver has closed the outbox or is gone, so nothing that was written is lost with
either. A delivery that dies is followed by another one.
"""

import json
import os
import secrets
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote

from sweep.errors import InputError, StorageError, WorkError
from sweep.records.files import append_line, storing
from sweep.tracking.environment import mlflow_environment
from sweep.tracking.lines import OUTBOX, KnownRuns, experiment_of
from sweep.tracking.sqlite_store import SQLITE, deleted_experiment, fault_in, sqlite_file
from sweep.tracking.state import lag

DELIVERY_LOCK = "delivery.lock"  # held while a line is delivered
DELIVERY_LOG = "delivery.log"
LINE_SECONDS = 0.2  # that the delivery of a line takes on a busy machine
MLFLOW_ENVIRONMENT = {  # to be set before mlflow is imported
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # a request whose answer is lost may have made a run: look it up first
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}
PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0)  # seconds, before a delivery that died is started again
HEALTHY_SECONDS = 600.0  # after which a death counts as the first one
HOPELESS = 2  # exit code of a delivery whose store is damaged: another one would fare no better


@dataclass(frozen=True, slots=True)
class TrackedRun:
    """An MLflow run before it has an id there. `key` is unique within the store; equal keys are the same run."""

    key: str
    name: str
    parent: str | None = None


@dataclass(frozen=True, slots=True)
class Described:
    """The description of a registered model. `file` is its model card; tags are texts by name."""

    file: Path
    summary: str
    tags: dict[str, str]


class Tracker:
    """A writer to the outbox. Every call appends one line and returns at once.

    Raises StorageError where the outbox cannot be written; it then ends with the line before.
    """

    def __init__(self, outbox: Path) -> None:
        self._outbox = outbox
        self._epoch = time.time_ns() - time.monotonic_ns()  # a clock that is set back would end runs before they began
        self.token = _new_id()  # by which its delivery knows its `close` from other trackers'
        append_line(outbox, "")  # it is there, and can be written

    def start(self, run: TrackedRun, *, tags: dict[str, str], params: dict[str, Any]) -> None:
        """Begin a run, or take up the run of that key again, which is RUNNING from then on."""
        self._write("start", run.key, id=_new_id(), name=run.name, parent=run.parent, tags=tags, params=params)

    def metrics(self, key: str, metrics: dict[str, float], step: int) -> None:
        self._write("metrics", key, metrics=metrics, step=step)

    def tags(self, key: str, tags: dict[str, str]) -> None:
        self._write("tags", key, tags=tags)

    def artifact(self, key: str, path: Path, folder: str = "") -> None:
        """Attach a file, which must stay as it is until it is delivered; `folder`: among the artifacts."""
        self._write("artifact", key, path=self._place(path), folder=folder)

    def dataset(self, key: str, name: str, digest: str, context: str, images: dict[str, int]) -> None:
        """Log the data that a run has read as its input: what for, and how many images each part of it has."""
        self._write("dataset", key, name=name, digest=digest, context=context, images=images)

    def model(self, key: str, checkpoint: Path, name: str, card: Described | None = None) -> None:
        """Register a checkpoint's network under `name` with the alias champion, unless the file is another one when
        that is delivered."""
        checksum = zlib.crc32(checkpoint.read_bytes()) if checkpoint.is_file() else None
        said = self._said(card) if card else {}
        place = self._place(checkpoint)
        self._write("model", key, id=_new_id(), path=place, name=name, checksum=checksum, **said)

    def describe(self, key: str, name: str, card: Described) -> None:
        """Describe the model anew that was registered under `name` from a run, if there is one."""
        self._write("describe", key, name=name, **self._said(card))

    def _said(self, card: Described) -> dict[str, Any]:
        return {"card": self._place(card.file), "summary": card.summary, "tags": card.tags}

    def end(self, key: str, status: str, tags: dict[str, str] | None = None) -> None:
        """End a run with MLflow's word: FINISHED, FAILED or KILLED; SCHEDULED for a run that only waits."""
        self._write("end", key, status=status, tags=tags or {})

    def told(self) -> KnownRuns:
        """Read what this and all earlier trackers of the outbox have written, delivered or not."""
        return KnownRuns.read(self._outbox)

    def retry(self) -> None:
        """Have the lines delivered that were set aside."""
        self._write("retry", "")

    def close(self) -> None:
        """Say that nothing follows from here; the delivery ends once it has read this."""
        self._write("close", "", token=self.token)

    def _place(self, path: Path) -> str:
        """Write a path relative to the outbox, with which it may be moved, where it is below that."""
        here = self._outbox.parent
        return str(path.relative_to(here) if path.is_relative_to(here) else path)

    def _write(self, op: str, key: str, **fields: Any) -> None:
        line = json.dumps({"op": op, "key": key, "time": (self._epoch + time.monotonic_ns()) // 1_000_000, **fields})
        append_line(self._outbox, line + "\n")


def _new_id() -> str:
    """Draw an id by which a delivery finds in MLflow what a line has made there and must not make twice."""
    return secrets.token_hex(8)


def store_uri(directory: Path, uri: str | None) -> str:
    """Return the configured MLflow store: `uri`, or a sqlite file in the run directory, whose path stands in the URI as
    it is.

    Raises:
        InputError: SQLAlchemy would read the path as another one. Quoted, it would be read well, but MLflow makes the
        directory that it finds before the last slash.
    """
    if uri is not None:
        return uri
    file = (directory / "mlflow.db").resolve()
    if "?" in str(file) or unquote(str(file)) != str(file):
        raise InputError(
            f"MLflow's store cannot be {file}: its path must have no '?', and no '%' before two hexadecimal digits. "
            "Choose another runtime.runs_dir, or the address of an MLflow server as tracking.uri."
        )
    return f"{SQLITE}{file}"


def check_store(uri: str) -> None:
    """Raise InputError where the store is a sqlite file that is damaged or of another MLflow's, or no file at all.

    MLflow itself would ask it again and again.
    """
    file = sqlite_file(uri)
    if file is not None and os.path.lexists(file) and (fault := fault_in(file)):
        raise InputError(f"MLflow's store {file} {fault}")


def deleted(name: str, experiment_id: str, uri: str) -> InputError:
    """Build the error for an experiment that a user has deleted."""
    restore = f"MLFLOW_TRACKING_URI={uri} mlflow experiments restore --experiment-id {experiment_id}"
    return InputError(
        f"MLflow's experiment {name} was deleted in {uri}. Bring it back by `{restore}`; or remove it for good by "
        "`mlflow gc`, and `sweep deliver` tells a new one everything."
    )


@contextmanager
def delivering(
    directory: Path, uri: str | None, patience: float = 300.0, modules: Sequence[str] = ()
) -> Iterator[Tracker]:
    """Open a tracker whose outbox is delivered to the experiment named after `directory`, while work goes on.

    At the end waits up to `patience` seconds for what is left, and longer the more there is. `modules`: the user's own,
    whose networks may be among what is delivered.

    Raises:
        InputError: the store cannot be used, or its experiment was deleted. WorkError: the delivery failed; what is
        undelivered stays in the outbox. StorageError: nothing can be written into the directory.
    """
    store, experiment = store_uri(directory, uri), experiment_of(directory)
    check_store(store)
    if (file := sqlite_file(store)) and (experiment_id := deleted_experiment(file, experiment)):
        raise deleted(experiment, experiment_id, store)
    with storing(directory, 0):
        directory.mkdir(parents=True, exist_ok=True)
        log = (directory / DELIVERY_LOG).open("ab")
    with log:
        tracker = Tracker(directory / OUTBOX)
        arguments = [str(directory), store, experiment, tracker.token, str(os.getpid()), *modules]
        process = SupervisedDelivery(arguments, log)
        try:
            yield tracker
        except BaseException:
            with suppress(WorkError, InputError):  # what went wrong inside is to be said, not what follows from it
                _end(tracker, process, directory, patience)
            raise
        else:
            _end(tracker, process, directory, patience)


class SupervisedDelivery:
    """A delivery process, and a thread that starts another one when it dies: five times, with growing pauses."""

    def __init__(self, arguments: list[str], log: IO[bytes]) -> None:
        self._arguments, self._log = arguments, log
        self._code: int | None = None
        self._left = threading.Event()  # no other one is to follow
        self._process = self._start()
        self._thread = threading.Thread(target=self._supervise, name="delivery", daemon=True)
        self._thread.start()

    def wait(self, seconds: float) -> int | None:
        """Return the exit code of the last delivery; None where it goes on after so many seconds, then by itself."""
        self._thread.join(seconds)
        self._left.set()
        return self._code

    def kill(self) -> None:
        """End it at once: what it was about to write down is delivered again by the next one."""
        self._left.set()
        self._process.kill()
        self._thread.join()

    def _start(self) -> subprocess.Popen[bytes]:
        # Its own session: Ctrl-C is for the driver.
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "sweep.tracking.delivery", *self._arguments], env=mlflow_environment(),
            stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log, start_new_session=True,
        )  # fmt: skip

    def _supervise(self) -> None:
        deaths = 0
        while True:
            started = time.monotonic()
            code = self._process.wait()
            deaths = 1 if time.monotonic() - started > HEALTHY_SECONDS else deaths + 1
            over = code in {0, HOPELESS} or deaths > len(PAUSES)
            if over or self._left.wait(PAUSES[deaths - 1]):
                self._code = code
                return
            self._process = self._start()
            if self._left.is_set():
                self._process.kill()


def _end(tracker: Tracker, process: SupervisedDelivery, directory: Path, patience: float) -> None:
    try:
        tracker.close()
    except StorageError:  # the delivery would wait for what cannot be written; the next one goes on
        process.kill()
        raise
    patience += LINE_SECONDS * lag(directory).lines
    code = process.wait(patience)
    if code == 0:
        return
    kept = (
        f"what MLflow was not told is kept in {directory / OUTBOX}, and `sweep deliver {directory.name}` delivers it; "
        f"see {directory / DELIVERY_LOG}"
    )
    if code is None:
        why = lag(directory).reason
        raise WorkError(
            f"MLflow did not take everything within {patience:.0f} s{f' ({why})' if why else ''}; it goes on in the "
            f"background; {kept}."
        )
    if code == HOPELESS:
        raise WorkError(f"{_last_words(directory).rstrip('.')}; {kept}.")
    raise WorkError(f"Delivery to MLflow ended with code {code}: {_last_words(directory)}; {kept}.")


def _last_words(directory: Path) -> str:
    """Return the last line of the delivery's log."""
    lines = (directory / DELIVERY_LOG).read_text(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
