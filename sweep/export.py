"""The files in which stages meet, as typed rows: trials.csv, curves.csv, rows.csv. MLflow mirrors them.

Every row carries the schema version, and reading checks it together with columns and types. Writing is atomic: a reader
sees the old file or the new one.
"""

import csv
import io
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from sweep.errors import InputError
from sweep.outcome import Outcome

SCHEMA = 1


class Phase(Enum):
    """What a trial was run for. `confirm` retrains the best of a search, `final` the crowned one on train+val."""

    search = "search"
    confirm = "confirm"
    final = "final"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRow:
    """One trial: runs/NAME/trials.csv (phase search) and runs/NAME/final/trials.csv (phases confirm and final)."""

    sweep: str
    family: str
    phase: Phase
    number: int  # of this trial within its file, from 0
    trial_id: str
    candidate: int  # number of the search trial whose configuration this is
    outcome: Outcome
    reason: str  # empty for done
    parameters: dict[str, Any]  # what was varied: dotted names of the experiment's configuration
    objective: float | None  # mean val/accuracy of the last 5 epochs; None where nothing was reported
    epochs: int
    gflops: float
    seconds: float
    rate_evaluations: int
    model_parameters: int
    dataset: str
    per_class: int | None  # images per class in train and val together; None: all
    draw: int
    seed: int
    config_hash: str
    data_hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CurveRow:
    """One epoch of one trial: curves.csv beside each trials.csv. Field names are metric names with _ for /."""

    number: int
    epoch: int  # epochs completed, from 1
    train_loss: float
    val_loss: float | None  # None in the final phase, which trains on train+val
    val_accuracy: float | None
    objective: float | None
    cost_train_gflops: float
    cost_seconds: float
    cost_rate_evaluations: int
    depth_steps: int
    depth_nodes: int
    gradient_drift: float | None = None  # with runtime.check_drift, where states are reconstructed


# Conditions of an evaluation:
CLEAN = "clean"  # the whole test set, as trained
MANIFESTATION = "manifestation"  # a class-balanced part of it, under every scheme and number of steps


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationRow:
    """One measured value of one final model: rows.csv. All fields before `value` together are the key."""

    family: str
    dataset: str
    per_class: int | None
    draw: int
    seed: int
    scheme: str
    steps: int  # integrator steps per stage
    condition: str  # CLEAN, MANIFESTATION; corruptions and attacks by name
    severity: float
    split: str
    metric: str  # "accuracy", "loss"
    value: float
    n: int  # images measured
    trained_scheme: str
    trained_steps: int
    config_hash: str
    data_hash: str

    @property
    def key(self) -> tuple[Any, ...]:
        names = [f.name for f in fields(self)]
        return tuple(getattr(self, name) for name in names[: names.index("value")])


def ranked(rows: list[TrialRow]) -> list[TrialRow]:
    """Trials that may be chosen, best first: done ones only; ties go to the earlier trial."""
    done = [row for row in rows if row.outcome is Outcome.done and row.objective is not None]
    return sorted(done, key=lambda row: (-(row.objective or 0.0), row.number))


Row = TypeVar("Row", TrialRow, CurveRow, EvaluationRow)


def write_text(path: Path, text: str) -> None:
    """Replaces a file atomically: a full disk or a kill leaves the old one whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_rows(path: Path, row_type: type[Row], rows: Iterable[Row]) -> None:
    """Writes a table with its header, also when there are no rows."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(_header(row_type))
    writer.writerows(_cells(row) for row in rows)
    write_text(path, buffer.getvalue())


def append_row(path: Path, row: TrialRow | CurveRow | EvaluationRow) -> None:
    """Adds one line to a table that grows while a sweep runs."""
    new = not path.exists()
    with path.open("a", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if new:
            writer.writerow(_header(type(row)))
        writer.writerow(_cells(row))


def read_rows(path: Path, row_type: type[Row]) -> list[Row]:
    """Reads a table back; InputError names file, line and column of what is wrong."""
    try:
        text = path.read_bytes().decode("utf-8")
        lines = list(csv.reader(io.StringIO(text, newline="")))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read: {error}.") from error
    expected = _header(row_type)
    if not lines or lines[0] != expected:
        found = ", ".join(lines[0]) if lines else "nothing"
        raise InputError(f"{path}: the columns must be {', '.join(expected)}; the file has {found}.")
    parsers = _parsers(row_type)
    return [_parse(path, number, line, row_type, parsers) for number, line in enumerate(lines[1:], start=2)]


def _header(row_type: type) -> list[str]:
    return ["schema", *(f.name for f in fields(row_type))]


def _cells(row: TrialRow | CurveRow | EvaluationRow) -> list[str]:
    return [str(SCHEMA), *(_cell(value) for value in asdict(row).values())]


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, Enum):
        return str(value.value)
    return json.dumps(value, sort_keys=True) if isinstance(value, dict) else str(value)


def _parse(path: Path, number: int, line: list[str], row_type: type[Row], parsers: dict[str, Callable]) -> Row:
    if len(line) != len(parsers) + 1:
        raise InputError(f"{path}, line {number}: {len(line)} cells where {len(parsers) + 1} are needed.")
    if line[0] != str(SCHEMA):
        raise InputError(f"{path}, line {number}: schema {line[0]!r}; this version reads schema {SCHEMA}.")
    values = {}
    for (name, parse), cell in zip(parsers.items(), line[1:], strict=True):
        try:
            values[name] = parse(cell)
        except ValueError as error:
            raise InputError(f"{path}, line {number}, column {name}: {cell!r} cannot be read: {error}.") from error
    return row_type(**values)


def _parsers(row_type: type) -> dict[str, Callable[[str], Any]]:
    hints = get_type_hints(row_type)
    return {f.name: _PARSERS.get(hints[f.name], hints[f.name]) for f in fields(row_type)}


def _optional(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    return lambda cell: None if cell == "" else parse(cell)


def _mapping(cell: str) -> dict[str, Any]:
    value = json.loads(cell)
    if not isinstance(value, dict):
        raise ValueError("a JSON object is needed")
    return value


# What is not its own parser; int, float, str and the enumerations are.
_PARSERS: dict[Any, Callable[[str], Any]] = {
    float | None: _optional(float),
    int | None: _optional(int),
    dict[str, Any]: _mapping,
}
