"""What MLflow is to be told: written to an outbox on disk by the driver, delivered by a process of its own.

The driver never waits for MLflow. The outbox is append-only JSON lines; `sweep.delivery` reads it, remembers how far it
got, and ends when the driver has closed the outbox or is gone, so nothing that was written is lost with either.
"""

import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweep.errors import WorkError

OUTBOX = "outbox.jsonl"
DELIVERED = "delivered.json"
LOCK = "delivery.lock"  # held while a line is delivered
DELIVERY_LOG = "delivery.log"


@dataclass(frozen=True, slots=True)
class Run:
    """An MLflow run before it has an id there. `key` is unique within the store; equal keys are the same run."""

    key: str
    name: str
    parent: str | None = None


class Tracker:
    """Appends to the outbox. Every call is one line and returns at once."""

    def __init__(self, outbox: Path) -> None:
        self._outbox = outbox
        self.token = secrets.token_hex(8)  # by which its delivery knows its `close` from other trackers'
        outbox.touch()
        _drop_half_line(outbox)

    def start(self, run: Run, *, tags: dict[str, str], params: dict[str, Any]) -> None:
        """Begins a run, or takes up the run of that key again."""
        self._write("start", run.key, name=run.name, parent=run.parent, tags=tags, params=params)

    def metrics(self, key: str, metrics: dict[str, float], step: int) -> None:
        self._write("metrics", key, metrics=metrics, step=step)

    def artifact(self, key: str, path: Path) -> None:
        """A file that must stay as it is until it is delivered."""
        self._write("artifact", key, path=str(path))

    def dataset(self, key: str, name: str, digest: str, context: str) -> None:
        """The data a run has read, logged as its input."""
        self._write("dataset", key, name=name, digest=digest, context=context)

    def model(self, key: str, checkpoint: Path, name: str) -> None:
        """Registers a checkpoint's network under `name` with the alias champion."""
        self._write("model", key, path=str(checkpoint), name=name)

    def end(self, key: str, status: str, tags: dict[str, str] | None = None) -> None:
        """`status` is MLflow's word: FINISHED, FAILED or KILLED."""
        self._write("end", key, status=status, tags=tags or {})

    def close(self) -> None:
        """Says that nothing follows from here; the delivery ends once it has read this."""
        self._write("close", "", token=self.token)

    def _write(self, op: str, key: str, **fields: Any) -> None:
        line = json.dumps({"op": op, "key": key, "time": time.time_ns() // 1_000_000, **fields})
        with self._outbox.open("a", encoding="utf-8") as file:
            file.write(line + "\n")


def _drop_half_line(outbox: Path) -> None:
    """What a driver was writing when it was killed would spoil the first line of the next one."""
    content = outbox.read_bytes()
    if not content.endswith(b"\n"):
        os.truncate(outbox, content.rfind(b"\n") + 1)


def store_uri(directory: Path, uri: str | None) -> str:
    """The configured MLflow store: `uri`, or a sqlite file in the run directory."""
    return uri or f"sqlite:///{(directory / 'mlflow.db').resolve()}"


@contextmanager
def delivering(directory: Path, uri: str | None, patience: float = 300.0) -> Iterator[Tracker]:
    """A tracker whose outbox is delivered to the experiment named after `directory`, also while work goes on.

    At the end waits up to `patience` seconds for what is left.

    Raises:
        WorkError: the delivery failed; what is undelivered stays in the outbox.
    """
    directory.mkdir(parents=True, exist_ok=True)
    log = (directory / DELIVERY_LOG).open("ab")
    tracker = Tracker(directory / OUTBOX)
    arguments = [str(directory), store_uri(directory, uri), directory.name, tracker.token, str(os.getpid())]
    # -P: not what the working directory may have of that name. Its own session: Ctrl-C is for the driver.
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "sweep.delivery", *arguments],
        stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
    )  # fmt: skip
    try:
        yield tracker
    finally:
        tracker.close()
        log.close()
        _await(process, directory, patience)


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
