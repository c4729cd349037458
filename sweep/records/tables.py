"""Tables of typed rows as CSV files: trials.csv, curves.csv, rows.csv. MLflow mirrors them.

Every row carries the schema version, and reading checks it together with columns and types. Columns are found by their
names: one that an older version did not write has the default of its field, one that this version does not know was
written by a newer one, which is refused.
"""

import csv
import io
import json
import math
from collections.abc import Callable, Iterable
from dataclasses import MISSING, Field, asdict, fields
from enum import Enum
from pathlib import Path
from typing import Any, get_type_hints

from sweep.errors import InputError
from sweep.records.files import append_line, copy_file, cut_half_line, read_bytes, whole_rows, write_text
from sweep.records.rows import SCHEMA, AnyRow, RowT

UNBOUNDED = {"loss", "value", "gradient_drift"}  # of a network under a scheme that it was not trained with, say
LONGEST_SHOWN = 100  # characters of a cell that cannot be read
LONGEST_HEADER = 600


def write_rows(path: Path, row_type: type[RowT], rows: Iterable[RowT]) -> None:
    """Write a table with its header, even when there are no rows."""
    write_text(path, "".join([_line(_header(row_type)), *(_line(_cells(row)) for row in rows)]))


def append_row(path: Path, row: AnyRow) -> None:
    """Append one row to a table that grows while a sweep runs.

    Raises:
        StorageError: there is no room, or the table cannot be written; it is as it was.
    """
    append_line(path, _line(_cells(row)), header=_line(_header(type(row))))


def cut_half_row(path: Path) -> int:
    """Cut off the last row where a kill, a loss of power or a full disk left it unfinished, and remove a table without
    even a header. Return how many bytes were cut off."""
    removed = cut_half_line(path, whole_rows)
    if path.exists() and not path.stat().st_size:
        path.unlink()
    return removed


def read_rows(path: Path, row_type: type[RowT], *, growing: bool = False) -> list[RowT]:
    """Read a table; InputError names file, line and column of what is wrong.

    `growing`: one that is appended to, whose last row may be unfinished and is then left out.
    """
    try:
        content = read_bytes(path)
        if growing:
            content = _whole(path, content)
            if not content:
                return []
        lines = list(csv.reader(io.StringIO(content.decode("utf-8"), newline="")))
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{path} cannot be read: {error}.") from error
    columns = _columns(path, lines[0] if lines else [], row_type)
    hints = get_type_hints(row_type)
    parsers = {name: _parser(name, hints[name]) for name in columns}
    return [_parse(path, number, line, row_type, parsers) for number, line in enumerate(lines[1:], start=2)]


def take_up_rows(path: Path, row_type: type[RowT]) -> list[RowT]:
    """Read a table to which rows of this version will be appended; one with the columns of an older version is written
    anew, and kept as it was in a copy. InputError as `read_rows`."""
    rows = read_rows(path, row_type)
    with path.open(encoding="utf-8", newline="") as file:
        if next(csv.reader(file)) != _header(row_type):
            copy_file(path, path.with_name(f"{path.name}.older"))
            write_rows(path, row_type, rows)
    return rows


def _columns(path: Path, found: list[str], row_type: type) -> list[str]:
    """Check the names of the columns and return them without the first, which is the schema."""
    known = {field.name: field for field in fields(row_type)}
    needed = [name for name, field in known.items() if _has_no_default(field)]
    if found[:1] != ["schema"] or len(set(found)) < len(found) or not set(needed) <= set(found):
        shown = ", ".join(found) or "nothing"
        shown = shown if len(shown) <= LONGEST_HEADER else f"{shown[:LONGEST_HEADER]}..."
        raise InputError(f"{path}: the columns must be {', '.join(_header(row_type))}; the file has {shown}.")
    newer = [name for name in found[1:] if name not in known]
    if newer:
        raise InputError(
            f"{path}: column {_short(newer[0])} is unknown to this version: a newer one has written the file (update "
            "this one), or its first line is damaged."
        )
    return found[1:]


def _has_no_default(field: Field) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _whole(path: Path, content: bytes) -> bytes:
    """Drop the last row where a kill or a loss of power left it unfinished. InputError: the rest is no beginning of a
    row."""
    length = whole_rows(content)
    rest, first = content[length:].partition(b"\0")[0], f"{SCHEMA},".encode()
    begin = first if length else b"schema,"
    if rest[: len(begin)] != begin[: len(rest)] or b"\n" + first in rest:  # rows after a quote that is one too many
        line, shown = content[:length].count(b"\n") + 1, _short(rest.decode(errors="replace"))
        raise InputError(f"{path}, line {line}: {shown} is no row, nor the beginning of one.")
    return content[:length]


def _header(row_type: type) -> list[str]:
    return ["schema", *(f.name for f in fields(row_type))]


def _line(cells: list[str]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\r\n").writerow(cells)  # a cell that holds either is quoted
    return buffer.getvalue().removesuffix("\r\n") + "\n"


def _cells(row: AnyRow) -> list[str]:
    return [str(SCHEMA), *(_cell(value) for value in asdict(row).values())]


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, Enum):
        return str(value.value)
    text = json.dumps(value, sort_keys=True) if isinstance(value, dict | list) else str(value)
    return text.replace("\0", "\\0")  # a zero byte ends a file that a loss of power has torn


def _parse(path: Path, number: int, line: list[str], row_type: type[RowT], parsers: dict[str, Callable]) -> RowT:
    if len(line) != len(parsers) + 1:
        raise InputError(f"{path}, line {number}: {len(line)} cells where {len(parsers) + 1} are needed.")
    if line[0] != str(SCHEMA):
        newer = line[0].isdecimal() and int(line[0]) > SCHEMA
        hint = " A newer version has written it: update this one." if newer else ""
        raise InputError(f"{path}, line {number}: schema {_short(line[0])}; this version reads schema {SCHEMA}.{hint}")
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


def _parser(name: str, hint: Any) -> Callable[[str], Any]:
    if name in UNBOUNDED:
        return _optional(float) if hint == float | None else float
    return _PARSERS.get(hint, hint)


def _finite(cell: str) -> float:
    value = float(cell)
    if not math.isfinite(value):
        raise ValueError("a finite number is needed")
    return value


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


# What is not its own parser; int, str and the enumerations are.
_PARSERS: dict[Any, Callable[[str], Any]] = {
    float: _finite,
    float | None: _optional(_finite),
    int | None: _optional(int),
    dict[str, Any]: _mapping,
    list[Any]: _listing,
    bool: _truth,
}
