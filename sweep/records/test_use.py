"""test_use.jsonl: when which network was measured on test images under which condition; lines are only added.

A test set answers once. Where a network was measured under one condition twice, or another one was trained after the
first answer was known, this says so, whatever was removed in between.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from sweep.errors import InputError
from sweep.records.files import append_line, read_bytes, sync, whole_lines


@dataclass(frozen=True, slots=True, kw_only=True)
class TestUse:
    """One network, measured under one condition."""

    __test__ = False  # no test, whatever pytest thinks of the name

    config_hash: str
    draw: int
    seed: int
    condition: str
    when: str  # UTC, ISO 8601

    @property
    def key(self) -> tuple[str, int, int, str]:
        """Return what was measured, without when."""
        return self.config_hash, self.draw, self.seed, self.condition


def record_test_use(path: Path, uses: Iterable[TestUse]) -> None:
    """Append what was measured; it is on the disk afterwards. StorageError: it could not be written."""
    for use in uses:
        append_line(path, json.dumps(asdict(use)) + "\n")
    sync(path)


def read_test_use(path: Path) -> list[TestUse]:
    """Read the file; none where it is absent, and without the line that a kill left unfinished. InputError: damaged."""
    if not path.exists():
        return []
    try:
        content = read_bytes(path)
        lines = content[: whole_lines(content)].decode().splitlines()
        return [_parse(line) for line in lines]
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise InputError(
            f"{path} is damaged: {error}. It says when test images were used: mend the line, or remove it and say so "
            "where you report results."
        ) from error


def _parse(line: str) -> TestUse:
    values = json.loads(line)
    types = {field.name: int if field.name in ("draw", "seed") else str for field in fields(TestUse)}
    if not isinstance(values, dict) or {name: type(value) for name, value in values.items()} != types:
        raise ValueError(f"{line[:100]!r} is no use of the test set")
    return TestUse(**values)
