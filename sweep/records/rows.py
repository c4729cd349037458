"""The files in which stages meet, as typed rows: trials.csv, curves.csv, rows.csv. MLflow mirrors them.

Every row carries the schema version, and reading checks it together with columns and types. Writing is atomic: a reader
sees the old file or the new one.
"""

import csv
import io
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, fields
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from sweep.errors import InputError
from sweep.records.files import append_line, cut_half_line, whole_rows, write_text
from sweep.records.outcome import Outcome

SCHEMA = 2
LONGEST_SHOWN = 100  # characters of a cell that cannot be read


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
    proposed_by: str = ""  # the sampler, or "enqueued"; empty for confirm and final
    ray: str = ""  # Ray's status of the last leg
    legs: int = 0  # stretches of training begun: more than one after a pause, a loss or a restart
    objectives: dict[str, Any] = field(default_factory=dict)  # values by name, where there are several
    constraints: dict[str, Any] = field(default_factory=dict)  # measured values by name, where limits are set
    feasible: bool = True  # within the limits
    schedule: list[Any] = field(default_factory=list)  # of a population's member: epoch, parameters, parent
    gpu_seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestationRow:
    """A trial's network, when it was done, under one scheme and number of steps on the val set: manifestations.csv."""

    number: int
    scheme: str
    steps: int  # integrator steps per stage
    trained: bool  # the manifestation it was trained with
    accuracy: float
    loss: float
    n: int  # images measured
    gflops: float  # of one image's forward pass
    rate_evaluations: int  # of one forward pass


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
    """Trials that may be chosen, best first: done ones within all limits; ties go to the earlier trial."""
    done = [row for row in rows if row.outcome is Outcome.done and row.objective is not None and row.feasible]
    return sorted(done, key=lambda row: (-(row.objective or 0.0), row.number))


Row = TypeVar("Row", TrialRow, CurveRow, ManifestationRow, EvaluationRow)
AnyRow = TrialRow | CurveRow | ManifestationRow | EvaluationRow


def write_rows(path: Path, row_type: type[Row], rows: Iterable[Row]) -> None:
    """Writes a table with its header, also when there are no rows."""
    write_text(path, "".join([_line(_header(row_type)), *(_line(_cells(row)) for row in rows)]))


def append_row(path: Path, row: AnyRow) -> None:
    """Adds one line to a table that grows while a sweep runs.

    Raises:
        StorageError: there is no room, or the table cannot be written; it is as it was.
    """
    append_line(path, _line(_cells(row)), header=_line(_header(type(row))))


def cut_half_row(path: Path) -> int:
    """Makes a table readable whose last row a killed process or a full disk left unfinished; a table without even its
    header is removed. Returns how many bytes were cut off."""
    removed = cut_half_line(path, whole_rows)
    if path.exists() and not path.stat().st_size:
        path.unlink()
    return removed


def read_rows(path: Path, row_type: type[Row], *, growing: bool = False) -> list[Row]:
    """Reads a table back; InputError names file, line and column of what is wrong.

    `growing`: one that is appended to, whose last row may be unfinished and is then left out.
    """
    expected = _header(row_type)
    try:
        content = path.read_bytes()
        if growing:
            content = _whole(path, content, _line(expected).encode())
            if not content:
                return []
        lines = list(csv.reader(io.StringIO(content.decode("utf-8"), newline="")))
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{path} cannot be read: {error}.") from error
    if not lines or lines[0] != expected:
        found = ", ".join(lines[0]) if lines else "nothing"
        raise InputError(f"{path}: the columns must be {', '.join(expected)}; the file has {found}.")
    parsers = _parsers(row_type)
    return [_parse(path, number, line, row_type, parsers) for number, line in enumerate(lines[1:], start=2)]


def _whole(path: Path, content: bytes, header: bytes) -> bytes:
    """Without the last row, where a killed process did not finish it. InputError: what is unfinished is no such row."""
    length = whole_rows(content)
    rest, first = content[length:], f"{SCHEMA},".encode()
    begin = first if length else header
    if rest[: len(begin)] != begin[: len(rest)] or b"\n" + first in rest:  # rows after a quote that is one too many
        line, shown = content[:length].count(b"\n") + 1, _short(rest.decode(errors="replace"))
        raise InputError(f"{path}, line {line}: {shown} is no row, nor the beginning of one.")
    return content[:length]


def _header(row_type: type) -> list[str]:
    return ["schema", *(f.name for f in fields(row_type))]


def _line(cells: list[str]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(cells)
    return buffer.getvalue()


def _cells(row: AnyRow) -> list[str]:
    return [str(SCHEMA), *(_cell(value) for value in asdict(row).values())]


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, Enum):
        return str(value.value)
    return json.dumps(value, sort_keys=True) if isinstance(value, dict | list) else str(value)


def _parse(path: Path, number: int, line: list[str], row_type: type[Row], parsers: dict[str, Callable]) -> Row:
    if len(line) != len(parsers) + 1:
        raise InputError(f"{path}, line {number}: {len(line)} cells where {len(parsers) + 1} are needed.")
    if line[0] != str(SCHEMA):
        raise InputError(f"{path}, line {number}: schema {line[0]!r}; this version reads schema {SCHEMA}.")
    values = {}
    for (name, parse), cell in zip(parsers.items(), line[1:], strict=True):
        try:
            values[name] = parse(cell)
        except (ValueError, RecursionError) as error:
            where = f"{path}, line {number}, column {name}"
            raise InputError(f"{where}: {_short(cell)} cannot be read: {error}.") from error
    return row_type(**values)


def _short(cell: str) -> str:
    return repr(cell) if len(cell) <= LONGEST_SHOWN else f"{cell[:LONGEST_SHOWN]!r}..."


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


def _listing(cell: str) -> list[Any]:
    value = json.loads(cell)
    if not isinstance(value, list):
        raise ValueError("a JSON list is needed")
    return value


def _truth(cell: str) -> bool:
    if cell not in ("True", "False"):
        raise ValueError("True or False is needed")
    return cell == "True"


# What is not its own parser; int, float, str and the enumerations are.
_PARSERS: dict[Any, Callable[[str], Any]] = {
    float | None: _optional(float),
    int | None: _optional(int),
    dict[str, Any]: _mapping,
    list[Any]: _listing,
    bool: _truth,
}
