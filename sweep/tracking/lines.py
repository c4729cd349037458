"""Read an outbox line by line, and find from it what MLflow was told, or will be."""

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from sweep.errors import InputError
from sweep.records.files import open_regular

OUTBOX = "outbox.jsonl"
ID = "sweep.id"  # MLflow's tag: the line that made this
IDENTITY = "sweep.identity"  # MLflow's tag: the id of the sweep or study in its origin.json
ACTIVE = "active"  # MLflow's word for what was not deleted
CHAMPION = "champion"  # the alias of the network to use, in the registry
PARENT = "mlflow.parentRunId"  # MLflow's own: the run that this one is shown below
Line = dict[str, Any]
_TEXT, _NUMBER, _MAPPING = (str,), (int,), (dict,)
# The types of what a line has besides op and key, by its op. `id` is drawn for each line that makes something.
FIELDS: dict[str, dict[str, tuple[type, ...]]] = {
    "start": {"id": _TEXT, "time": _NUMBER, "name": _TEXT, "parent": (str, type(None)), "tags": _MAPPING}
    | {"params": _MAPPING},
    "metrics": {"time": _NUMBER, "metrics": _MAPPING, "step": _NUMBER},
    "tags": {"tags": _MAPPING},
    "artifact": {"path": _TEXT},
    "dataset": {"name": _TEXT, "digest": _TEXT, "context": _TEXT},
    "model": {"id": _TEXT, "path": _TEXT, "name": _TEXT},
    "describe": {"name": _TEXT, "card": _TEXT, "summary": _TEXT, "tags": _MAPPING},
    "end": {"time": _NUMBER, "status": _TEXT, "tags": _MAPPING},
    "close": {"token": _TEXT},
    "retry": {},  # of the lines that were set aside
}


class RefusedError(Exception):
    """A line cannot be delivered, whoever tries: the message says why."""


def lines_from(outbox: Path, offset: int) -> Iterator[bytes]:
    """Yield the whole lines from `offset` on; none where there is no outbox. InputError: it cannot be read."""
    try:
        with open_regular(outbox) as file:
            file.seek(offset)
            yield from (line for line in file if line.endswith(b"\n"))
    except FileNotFoundError:
        return
    except OSError as error:
        raise InputError(f"{outbox} cannot be read: {error.strerror}. Bring back a copy, or move it away.") from error


def parse_line(text: bytes) -> Line:
    """Read a line of an outbox. ValueError: bits of it were flipped, or it was never one."""
    try:
        line: Line = json.loads(text)
        types = {"key": _TEXT, **FIELDS[line["op"]]}
        wrong = [name for name, kinds in types.items() if not isinstance(line[name], kinds)]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise ValueError(f"the line is damaged: {error!r}") from error
    if wrong:
        raise ValueError(f"the line is damaged: {', '.join(wrong)} cannot be read")
    return line


def experiment_of(directory: Path) -> str:
    """Return the MLflow experiment of a directory's outbox: the name that it had when its first run was begun."""
    for text in lines_from(directory / OUTBOX, 0):
        with suppress(ValueError):
            line = parse_line(text)
            if line["op"] == "start":
                return str(line["key"]).split("/")[0]
    return directory.name


def standing(text: bytes) -> str | None:
    """Return the key of the run that a line begins or ends; None for any other line."""
    try:
        line = parse_line(text)
    except ValueError:
        return None
    return line["key"] if line["op"] in {"start", "end"} else None


class KnownRuns:
    """The runs that MLflow knows, or will know, so that a resumed sweep tells it only the rest."""

    def __init__(self) -> None:
        self._trials: dict[str, str] = {}  # ids by key; empty for the run of a sweep
        self._status: dict[str, str] = {}
        self._step: dict[str, int] = {}
        self.ids: set[str] = set()  # of the lines that began runs
        self.models: dict[str, str] = {}  # keys of the runs of registered models, by their names

    @classmethod
    def read(cls, outbox: Path) -> "KnownRuns":
        """Take in all lines of an outbox but damaged ones, which its delivery sets aside."""
        known = cls()
        for text in lines_from(outbox, 0):
            try:
                line = parse_line(text)
            except ValueError:
                continue
            known.add(line)
        return known

    def add(self, line: Line) -> None:
        """Take in a line of the outbox."""
        key = line["key"]
        if line["op"] == "metrics":
            self._step[key] = max(line["step"], self._step.get(key, 0))
        elif line["op"] in {"start", "end"}:
            self._status[key] = line.get("status", "RUNNING")
        elif line["op"] == "model":
            self.models[line["name"]] = key
        if line["op"] == "start":
            self._trials.setdefault(key, line["tags"].get("trial_id", ""))
            self.ids.add(line["id"])

    def __contains__(self, key: str) -> bool:
        return key in self._trials

    def step(self, key: str) -> int:
        """Return the run's last step with metrics; 0 where there is none, or the run was never begun."""
        return self._step.get(key, 0) if key in self else 0

    def status(self, key: str) -> str | None:
        """Return MLflow's word for the run's state; None for a run that was never begun."""
        return self._status.get(key) if key in self else None

    def attempt(self, key: str, trial_id: str) -> str:
        """Return the key of a trial's run, with an attempt number where `key` is the run of another, earlier trial."""
        found = key
        while self._trials.get(found, "") not in ("", trial_id):
            found = _next_attempt(found)
        return found

    def replaced(self) -> set[str]:
        """Return the ids of the trials that were followed by another attempt."""
        return {trial for key, trial in self._trials.items() if trial and _next_attempt(key) in self}


def _next_attempt(key: str) -> str:
    first, _, attempt = key.partition("#")  # no name has one
    return f"{first}#{int(attempt) + 1 if attempt.isdecimal() else 2}"
