"""What was measured of final networks so far, rows.csv and predictions.npz, and when: test_use.jsonl.

A test set answers once. Where a network was measured under one condition twice, or another one was trained after the
first answer was known, test_use.jsonl says so, whatever was removed in between: lines are only added to it.

Shapes: `B` test images.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from odenet.enums import Compression, Corruption
from sweep.config.evaluate_config import SEVERITIES, ConditionKind
from sweep.errors import InputError
from sweep.records.files import append_line, read_bytes, sync, whole_lines
from sweep.records.predictions import Predictions, read_predictions, write_predictions
from sweep.records.rows import CLEAN, COMPRESSION, CORRUPTION, EvaluationRow, TrialRow
from sweep.records.run_directory import SweepFiles
from sweep.records.summary import network, sift, unit_of, unsaid
from sweep.records.tables import read_rows, write_rows

SHARES = ("accuracy", "lost", "first_broken")  # metrics that are shares of the images
KINDS = [kind.value for kind in ConditionKind]  # in the order of rows.csv


class EvaluationFiles:
    """The rows and predictions of a sweep's final networks; each file is replaced as a whole by what is added."""

    def __init__(self, files: SweepFiles, final: Sequence[TrialRow]) -> None:
        """Read what there is of these final networks. InputError: a file is damaged."""
        self._files = files
        sifted = sift(read_measured(files.rows) if files.rows.exists() else [], final)
        self.rows, self.partial, self._foreign = sifted.whole, sifted.partial, sifted.foreign
        self._predictions = read_predictions(files.predictions) if files.predictions.exists() and self.rows else None
        without = self._without_predictions()
        self.partial += [row for row in self.rows if row.seed in without and unit_of(row)[0] == CLEAN]
        self.rows = [row for row in self.rows if row not in self.partial]

    def _without_predictions(self) -> set[int]:
        """Return the seeds whose clean accuracy lacks the predictions that make it. A version that kept none kept no
        test_use.jsonl either."""
        uses = {(use.config_hash, use.seed) for use in read_test_use(self._files.test_use) if use.condition == CLEAN}
        kept = {row.seed for row in self.rows if self._predictions or (row.config_hash, row.seed) in uses}
        return kept & unsaid(self.rows, self._predictions)

    def severities(self, row: TrialRow, condition: str) -> set[float]:
        """Return the severities of a condition that are known of a network."""
        mine = [one for one in self.rows if network(one) == network(row)]
        return {one.severity for one in mine if f"{one.condition}/".startswith(f"{condition}/")}

    def check_networks(self) -> None:
        """Refuse rows of other networks than the final ones: InputError."""
        for one in self._foreign[:1]:
            cell = f"{one.family} on {one.dataset}, per_class={one.per_class}, draw {one.draw}"
            raise InputError(
                f"{self._files.rows} has results of a network that is not in {self._files.final.trials}: {cell}, seed "
                f"{one.seed}, config_hash {one.config_hash}, data_hash {one.data_hash}. They are of another final "
                f"training. Move {self._files.rows.name} and {self._files.predictions.name} away to measure the "
                "present networks, and say so where you report it."
            )

    def goes_on(self, name: str, left: int) -> str:
        """Say what is kept of an evaluation that was cut short, and how it goes on; `left`: measurements."""
        return (
            f"{left} measurements of {name} are left. What was measured is kept in {self._files.rows}; go on with "
            f"`sweep evaluate {name.partition('/')[0]}`."
        )

    def predicts(self, seed: int, classes_B: np.ndarray, labels_B: np.ndarray, indices_B: np.ndarray) -> None:
        """Write down the class that a network gives every test image. StorageError: it could not be."""
        row_B, known = classes_B.astype(np.int16), self._predictions
        if known is None:
            self._predictions = Predictions(labels_B, indices_B, row_B[None], np.array([seed]))
        else:
            others = known.seeds_R != seed
            seeds_R = np.append(known.seeds_R[others], seed)
            self._predictions = replace(known, classes_RN=np.vstack([known.classes_RN[others], row_B]), seeds_R=seeds_R)
        write_predictions(self._files.predictions, self._predictions)

    def add(self, rows: Iterable[EvaluationRow], seeds: Sequence[int]) -> None:
        """Write down what was measured, in the order of `seeds`, whichever was measured first. StorageError: it could
        not be."""

        def place(row: EvaluationRow) -> tuple[int, int, str]:
            return seeds.index(row.seed), KINDS.index(row.condition.partition("/")[0]), row.condition

        added = list(rows)
        again = {(network(row), unit_of(row)) for row in added}
        self.partial = [row for row in self.partial if (network(row), unit_of(row)) not in again]
        self.rows = sorted([*self.rows, *added], key=place)
        write_rows(self._files.rows, EvaluationRow, sorted([*self.rows, *self.partial], key=place))


def read_measured(path: Path) -> list[EvaluationRow]:
    """Read rows.csv. InputError: damaged, a value that no evaluation finds, or the same twice."""
    rows, lines = read_rows(path, EvaluationRow), dict[tuple[Any, ...], int]()
    for line, row in enumerate(rows, start=2):
        if wrong := next(_wrong(row), None):
            raise InputError(f"{path}, line {line}: {wrong}.")
        if (first := lines.setdefault(row.key, line)) != line:
            raise InputError(
                f"{path}, line {line}: {row.condition}, {row.metric} of seed {row.seed} is in line {first}, too; each "
                "is measured once. Remove the line that was added."
            )
    return rows


def _wrong(row: EvaluationRow) -> Iterator[str]:
    kind, _, name = row.condition.partition("/")
    if kind not in KINDS:
        yield f"condition {row.condition!r} is unknown; possible are {', '.join(KINDS)}"
    if kind == CORRUPTION and name not in Corruption.__members__:
        yield f"corruption {name!r} is unknown; possible are {', '.join(Corruption.__members__)}"
    if kind == CORRUPTION and row.severity not in SEVERITIES:
        yield f"severity {row.severity:g} is none of a corruption; possible are 1 to 5"
    if kind == COMPRESSION and name not in Compression.__members__:
        yield f"compression {name!r} is unknown; possible are {', '.join(Compression.__members__)}"
    if row.split != "test":
        yield f"split {row.split!r} is unknown; an evaluation measures test images"
    if row.metric in SHARES and not 0 <= row.value <= 1:
        yield f"{row.metric} is {row.value:g}; a share of images is 0 to 1"
    if row.n < 1:
        yield f"n is {row.n}; a value is of at least 1 image"


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
