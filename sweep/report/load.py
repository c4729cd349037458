"""Reads run directories. All but one table of trials may be absent; what is absent is named, with what makes it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from odenet.data import DataSet
from sweep.best import Best, read_best
from sweep.errors import InputError
from sweep.export import CurveRow, EvaluationRow, Row, TrialRow, read_rows

# Each file of a run directory, and the stage that writes it.
FILES = {
    "trials.csv": "search",
    "curves.csv": "search",
    "best.yaml": "search",
    "final/trials.csv": "final",
    "final/curves.csv": "final",
    "final/crowned.yaml": "final",
    "rows.csv": "evaluate",
}


@dataclass(frozen=True, slots=True)
class Task:
    """What families are compared on."""

    dataset: str
    per_class: int | None

    def __str__(self) -> str:
        return f"{self.dataset}, {'all images' if self.per_class is None else f'{self.per_class} images per class'}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """The files of one run directory: one family on one task and draw."""

    directory: Path
    name: str
    family: str
    task: Task
    draw: int
    trials: list[TrialRow]
    curves: list[CurveRow]
    best: Best | None  # best.yaml
    final_trials: list[TrialRow]
    final_curves: list[CurveRow]
    crowned: Best | None  # final/crowned.yaml
    evaluations: list[EvaluationRow]
    missing: tuple[str, ...]  # names of FILES

    @property
    def crowned_candidate(self) -> int | None:
        """Number of the search trial whose configuration was retrained, None before that."""
        return None if self.crowned is None else int(self.crowned.provenance["trial"])


def load_sweeps(directories: Sequence[Path]) -> tuple[list[Sweep], list[Path]]:
    """The sweeps in these directories, and the directories that hold one without any trial yet.

    Raises InputError: no directory, no sweep in one, no trial in any, a damaged file, or runs that would count twice.
    """
    if not directories:
        raise InputError("A report of no sweeps: name at least one run directory; `sweep status` lists them.")
    loaded = {directory: _load(directory) for directory in directories}
    empty = [directory for directory, sweep in loaded.items() if sweep is None]
    sweeps = [sweep for sweep in loaded.values() if sweep is not None]
    if not sweeps:
        raise InputError(f"No trial has ended yet in {', '.join(map(str, empty))}: wait for the first one.")
    _check_counted_once(sweeps)
    return sweeps, empty


def _check_counted_once(sweeps: Sequence[Sweep]) -> None:
    held: dict[tuple[str, Task, int], Path] = {}
    for sweep in sweeps:
        cell = (sweep.family, sweep.task, sweep.draw)
        if cell in held:
            raise InputError(
                f"{held[cell]} and {sweep.directory} both hold family {sweep.family} on {sweep.task}, draw "
                f"{sweep.draw}: in one report their runs would be counted twice. Write a report of each."
            )
        held[cell] = sweep.directory


def _load(directory: Path) -> Sweep | None:
    missing = tuple(name for name in FILES if not (directory / name).is_file())
    if {"trials.csv", "final/trials.csv"} <= set(missing):
        raise InputError(
            f"{directory} holds no sweep: {', '.join(missing)} are missing there, and a report needs at least "
            "trials.csv, which `sweep search` writes. `sweep status` lists the sweeps."
        )
    trials = _rows(directory / "trials.csv", TrialRow)
    final_trials = _rows(directory / "final/trials.csv", TrialRow)
    evaluations = _rows(directory / "rows.csv", EvaluationRow)
    first = next(iter([*trials, *final_trials]), None)
    if first is None:
        return None
    _check_one_cell(directory, [*trials, *final_trials, *evaluations])
    return Sweep(
        directory=directory,
        name=first.sweep,
        family=first.family,
        task=Task(first.dataset, first.per_class),
        draw=first.draw,
        trials=sorted(trials, key=lambda row: row.number),
        curves=_rows(directory / "curves.csv", CurveRow),
        best=_best(directory / "best.yaml"),
        final_trials=final_trials,
        final_curves=_rows(directory / "final/curves.csv", CurveRow),
        crowned=_best(directory / "final/crowned.yaml"),
        evaluations=evaluations,
        missing=missing,
    )


def _check_one_cell(directory: Path, rows: Sequence[TrialRow | EvaluationRow]) -> None:
    cells = {(row.family, row.dataset, str(row.per_class), row.draw) for row in rows}
    if len(cells) > 1:
        found = "; ".join(f"{family} on {data}, per_class={n}, draw {draw}" for family, data, n, draw in sorted(cells))
        raise InputError(f"{directory} mixes what a sweep keeps apart: {found}. One directory holds one of them.")
    dataset = rows[0].dataset
    if dataset not in DataSet.__members__:
        possible = ", ".join(DataSet.__members__)
        raise InputError(f"{directory}: dataset {dataset!r} is unknown here; this version knows {possible}.")


def _rows(path: Path, row_type: type[Row]) -> list[Row]:
    return read_rows(path, row_type) if path.is_file() else []


def _best(path: Path) -> Best | None:
    if not path.is_file():
        return None
    best = read_best(path)
    if not isinstance(best.provenance.get("trial"), int):
        found = best.provenance.get("trial")
        raise InputError(f"{path}: provenance.trial={found!r}: must be the number of the trial it comes from.")
    return best
