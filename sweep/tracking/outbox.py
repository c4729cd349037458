"""Write what MLflow is to be told to an outbox on disk, which a process of its own delivers.

The driver never waits for MLflow. The outbox is append-only JSON lines; `sweep.tracking.delivery` reads it, remembers
how far it got, and ends when the driver has closed the outbox or is gone, so nothing that was written is lost with
either.
"""

import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from sweep.errors import InputError, StorageError, WorkError
from sweep.records.files import append_line, storing

OUTBOX = "outbox.jsonl"
DELIVERED = "delivered.json"
DELIVERY_LOCK = "delivery.lock"  # held while a line is delivered
DELIVERY_LOG = "delivery.log"
LINE_SECONDS = 0.2  # that the delivery of a line takes on a busy machine
MLFLOW_ENVIRONMENT = {  # to be set before mlflow is imported
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # a request whose answer is lost may have made a run: look it up first
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}
AWAY = "away.json"  # since when the store does not answer, and why


@dataclass(frozen=True, slots=True)
class TrackedRun:
    """An MLflow run before it has an id there. `key` is unique within the store; equal keys are the same run."""

    key: str
    name: str
    parent: str | None = None


class Tracker:
    """A writer to the outbox. Every call appends one line and returns at once.

    Raises StorageError where the outbox cannot be written; it then ends with the line before.
    """

    def __init__(self, outbox: Path) -> None:
        self._outbox = outbox
        self.token = _new_id()  # by which its delivery knows its `close` from other trackers'
        append_line(outbox, "")  # it is there, and can be written

    def start(self, run: TrackedRun, *, tags: dict[str, str], params: dict[str, Any]) -> None:
        """Begin a run, or take up the run of that key again, which is RUNNING from then on."""
        self._write("start", run.key, id=_new_id(), name=run.name, parent=run.parent, tags=tags, params=params)

    def metrics(self, key: str, metrics: dict[str, float], step: int) -> None:
        self._write("metrics", key, metrics=metrics, step=step)

    def artifact(self, key: str, path: Path) -> None:
        """Attach a file, which must stay as it is until it is delivered."""
        self._write("artifact", key, path=str(path))

    def dataset(self, key: str, name: str, digest: str, context: str) -> None:
        """Log the data that a run has read as its input."""
        self._write("dataset", key, name=name, digest=digest, context=context)

    def model(self, key: str, checkpoint: Path, name: str) -> None:
        """Register a checkpoint's network under `name` with the alias champion."""
        self._write("model", key, id=_new_id(), path=str(checkpoint), name=name)

    def end(self, key: str, status: str, tags: dict[str, str] | None = None) -> None:
        """End a run with MLflow's word: FINISHED, FAILED or KILLED; SCHEDULED for a run that only waits."""
        self._write("end", key, status=status, tags=tags or {})

    def told(self) -> "KnownRuns":
        """Read what this and all earlier trackers of the outbox have written, delivered or not."""
        told = KnownRuns()
        with _reading(self._outbox):
            for line in _lines(self._outbox, 0):
                told.add(line)
        return told

    def close(self) -> None:
        """Say that nothing follows from here; the delivery ends once it has read this."""
        self._write("close", "", token=self.token)

    def _write(self, op: str, key: str, **fields: Any) -> None:
        line = json.dumps({"op": op, "key": key, "time": time.time_ns() // 1_000_000, **fields})
        append_line(self._outbox, line + "\n")


def _new_id() -> str:
    """Draw an id by which a delivery finds in MLflow what a line has made there and must not make twice."""
    return secrets.token_hex(8)


class KnownRuns:
    """The runs that MLflow knows, or will know, so that a resumed sweep tells it only the rest."""

    def __init__(self) -> None:
        self._status: dict[str, str] = {}
        self._step: dict[str, int] = {}

    def add(self, line: dict[str, Any]) -> None:
        """Take in a line of the outbox."""
        key = line["key"]
        if line["op"] == "metrics":
            self._step[key] = max(line["step"], self.step(key))
        elif line["op"] in {"start", "end"}:
            self._status[key] = line.get("status", "RUNNING")

    def __contains__(self, key: str) -> bool:
        return key in self._status

    def step(self, key: str) -> int:
        """Return the run's last step with metrics; 0 where there is none."""
        return self._step.get(key, 0)

    def status(self, key: str) -> str | None:
        """Return MLflow's word for the run's state; None for a run that was never begun."""
        return self._status.get(key)


@dataclass(frozen=True, slots=True)
class Lag:
    """The part of the outbox that MLflow was not told yet."""

    lines: int
    keys: frozenset[str]  # of the runs that they are about
    away_since: float | None = None  # seconds since 1970; None: the store answers, or was not asked
    reason: str = ""


def lag(directory: Path) -> Lag:
    """Find how far the delivery of this directory's outbox is behind, from files alone. InputError: one is damaged."""
    offset = delivered(directory)["offset"]
    with _reading(directory / OUTBOX):
        waiting = [line["key"] for line in _lines(directory / OUTBOX, offset) if line["key"]]
    try:
        away = json.loads((directory / AWAY).read_text())
    except FileNotFoundError:  # as it is most of the time
        away = {}
    return Lag(len(waiting), frozenset(waiting), **away)


def delivered(directory: Path) -> dict[str, Any]:
    """Read the state of the delivery: how far it is, MLflow's run ids by the outbox's keys, the trackers that have
    closed, and whether the next line may have been delivered by a process that was killed before it could say so.

    Raises:
        InputError: the file that says so is damaged.
    """
    file, state = directory / DELIVERED, {"offset": 0, "runs": {}, "closed": [], "doubtful": False}
    if file.exists():
        with _reading(file):
            state |= json.loads(file.read_text())
    return state


@contextmanager
def _reading(file: Path) -> Iterator[None]:
    try:
        yield
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise InputError(f"{file} is damaged ({error!r}): bring back a copy, or choose another name.") from error


def _lines(outbox: Path, offset: int) -> Iterator[dict[str, Any]]:
    """Yield the whole lines from `offset` on."""
    if outbox.exists():
        with outbox.open("rb") as file:
            file.seek(offset)
            yield from (json.loads(line) for line in file if line.endswith(b"\n"))


def store_uri(directory: Path, uri: str | None) -> str:
    """Return the configured MLflow store: `uri`, or a sqlite file in the run directory."""
    return uri or f"sqlite:///{(directory / 'mlflow.db').resolve()}"


def sqlite_file(uri: str) -> Path | None:
    """Return the file of a sqlite store; None for a store of another kind."""
    parts = urlsplit(uri)
    return Path(unquote(parts.path)[1:]) if parts.scheme == "sqlite" else None


@contextmanager
def delivering(directory: Path, uri: str | None, patience: float = 300.0) -> Iterator[Tracker]:
    """Open a tracker whose outbox is delivered to the experiment named after `directory`, while work goes on.

    At the end waits up to `patience` seconds for what is left, and longer the more there is.

    Raises:
        WorkError: the delivery failed; what is undelivered stays in the outbox. StorageError: nothing can be written
        into the directory.
    """
    with storing(directory, 0):
        directory.mkdir(parents=True, exist_ok=True)
        log = (directory / DELIVERY_LOG).open("ab")
    tracker = Tracker(directory / OUTBOX)
    arguments = [str(directory), store_uri(directory, uri), directory.name, tracker.token, str(os.getpid())]
    # -P: not what the working directory may have of that name. Its own session: Ctrl-C is for the driver.
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "sweep.tracking.delivery", *arguments],
        stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
    )  # fmt: skip
    try:
        yield tracker
    except BaseException:
        with suppress(WorkError):  # what went wrong inside is to be said, not what follows from it
            _end(tracker, process, directory, patience)
        raise
    else:
        _end(tracker, process, directory, patience)
    finally:
        log.close()


def _end(tracker: Tracker, process: subprocess.Popen[bytes], directory: Path, patience: float) -> None:
    _close(tracker, process)
    _await(process, directory, patience + LINE_SECONDS * lag(directory).lines)


def _close(tracker: Tracker, process: subprocess.Popen[bytes]) -> None:
    try:
        tracker.close()
    except StorageError:  # the delivery would wait for what cannot be written; the next one goes on
        process.terminate()
        process.wait()
        raise


def _await(process: subprocess.Popen[bytes], directory: Path, patience: float) -> None:
    kept = f"what MLflow was not told is kept in {directory / OUTBOX}; see {directory / DELIVERY_LOG}"
    try:
        code = process.wait(timeout=patience)
    except subprocess.TimeoutExpired:
        raise WorkError(
            f"MLflow did not take everything within {patience:.0f} s; it goes on in the background; {kept}."
        ) from None
    if code:
        raise WorkError(f"Delivery to MLflow ended with code {code}; {kept}.")
