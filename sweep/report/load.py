"""Read run directories. All but one table of trials may be absent; what is absent is named, with what makes it."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from odenet.data.config import DataSet
from odenet.training.config import from_plain
from search_spaces import SHARED
from sweep.config.search_config import Objective, SearchConfig
from sweep.errors import NO_YAML, InputError
from sweep.records.best import Best, read_best
from sweep.records.evaluation import read_measured
from sweep.records.files import read_bytes
from sweep.records.predictions import Predictions, read_predictions
from sweep.records.rows import CLEAN, CurveRow, EvaluationRow, ManifestationRow, RowT, TrialRow
from sweep.records.summary import agree, not_counted, sift
from sweep.records.tables import read_rows

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
# Nothing is said of these where they are absent, but for what intervals leave out without predictions.
OPTIONAL = {"config.yaml": "search", "manifestations.csv": "search", "predictions.npz": "evaluate"}


@dataclass(frozen=True, slots=True)
class Task:
    """The data on which families are compared; of published sets the number of classes is known. `shared`: what all
    families search was searched, and nothing of their own."""

    dataset: str
    per_class: int | None
    classes: int | None = None
    shared: bool = False

    def __str__(self) -> str:
        images = "all images" if self.per_class is None else f"{self.per_class} images per class"
        return f"{self.dataset}, {images}{', shared dimensions only' if self.shared else ''}"


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
    evaluations: list[EvaluationRow]  # of the final networks, in whole cells
    not_counted: tuple[str, ...] = ()  # what else rows.csv has
    predictions: Predictions | None = None  # what final networks say of every test image
    manifestations: list[ManifestationRow]  # of search trials that are done, on validation images
    sensitivity: list[TrialRow] = field(default_factory=list)  # around `center`
    center: Best | None = None  # sensitivity/best.yaml
    search: SearchConfig | None  # of config.yaml
    missing: tuple[str, ...]  # names of FILES and OPTIONAL

    @property
    def crowned_candidate(self) -> int | None:
        """The number of the search trial whose configuration was retrained; None before that."""
        return None if self.crowned is None else int(self.crowned.provenance["trial"])


def task_of(row: TrialRow) -> Task:
    classes = None if row.dataset in DataSet.__members__ else row.classes
    return Task(row.dataset, row.per_class, classes, row.family.endswith(SHARED))


def load_sweeps(directories: Sequence[Path]) -> tuple[list[Sweep], list[Path]]:
    """Load the sweeps in these directories, and list the directories that hold one without any trial yet.

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
    missing = tuple(name for name in (*FILES, *OPTIONAL) if not (directory / name).is_file())
    if {"trials.csv", "final/trials.csv"} <= set(missing):
        named = ", ".join(name for name in FILES if name in missing)
        raise InputError(
            f"{directory} holds no sweep: {named} are missing there, and a report needs at least trials.csv, which "
            "`sweep search` writes. `sweep status` lists the sweeps."
        )
    trials = _rows(directory / "trials.csv", TrialRow)
    final_trials = _rows(directory / "final/trials.csv", TrialRow)
    measured = read_measured(directory / "rows.csv") if (directory / "rows.csv").is_file() else []
    sifted = sift(measured, final_trials)
    around = _rows(directory / "sensitivity/trials.csv", TrialRow)
    first = next(iter([*trials, *final_trials]), None)
    if first is None:
        return None
    tables = {"trials.csv": trials, "final/trials.csv": final_trials, "sensitivity/trials.csv": around}
    _check_one_cell(directory, {**tables, "rows.csv": measured})
    for row in trials:
        _check_cells(directory / "trials.csv", row)
    for name, rows in tables.items():
        _check_once(directory / name, rows)
    return Sweep(
        directory=directory,
        name=first.sweep,
        family=first.family.removesuffix(SHARED),
        task=task_of(first),
        draw=first.draw,
        trials=sorted(trials, key=lambda row: row.number),
        curves=_rows(directory / "curves.csv", CurveRow, growing=True),
        best=_best(directory / "best.yaml"),
        final_trials=final_trials,
        final_curves=_rows(directory / "final/curves.csv", CurveRow, growing=True),
        crowned=_best(directory / "final/crowned.yaml"),
        evaluations=sifted.whole,
        not_counted=tuple(not_counted(sifted, directory / "rows.csv", first.sweep)),
        predictions=_predictions(directory / "predictions.npz", sifted.whole),
        manifestations=_manifestations(directory / "manifestations.csv"),
        sensitivity=around,
        center=_best(directory / "sensitivity/best.yaml"),
        search=_search(directory / "config.yaml"),
        missing=missing,
    )


def _check_one_cell(directory: Path, tables: Mapping[str, Sequence[TrialRow | EvaluationRow]]) -> None:
    cells: dict[tuple[str, str, str, int], dict[str, None]] = {}  # with the files that have rows of it
    for file, rows in tables.items():
        for row in rows:
            cells.setdefault((row.family, row.dataset, str(row.per_class), row.draw), {})[file] = None
    if len(cells) > 1:
        found = "; ".join(
            f"{family} on {data}, per_class={n}, draw {draw} ({', '.join(files)})"
            for (family, data, n, draw), files in sorted(cells.items())
        )
        raise InputError(f"{directory} mixes what a sweep keeps apart: {found}. One directory holds one of them.")
    ((_, dataset, _, _),) = cells
    if dataset.partition(":")[0] not in DataSet.__members__:
        possible = ", ".join(DataSet.__members__)
        raise InputError(f"{directory}: dataset {dataset!r} is unknown here; this version knows {possible}.")


def _check_once(path: Path, rows: Sequence[TrialRow]) -> None:
    twice = [number for number, count in Counter(row.number for row in rows).items() if count > 1]
    if twice:
        raise InputError(
            f"{path}: trial {twice[0]} is there twice, and would be counted twice. Remove one of the rows."
        )


def _predictions(path: Path, evaluations: Sequence[EvaluationRow]) -> Predictions | None:
    """Read what networks said of the test images; None where it is absent.

    Raises InputError: it is damaged, or of other networks than those whose accuracies rows.csv has.
    """
    if not path.is_file():
        return None
    found = read_predictions(path)
    clean = (row for row in evaluations if (row.condition, row.metric, row.severity) == (CLEAN, "accuracy", 0.0))
    told = {row.seed: row.value for row in clean if (row.scheme, row.steps) == (row.trained_scheme, row.trained_steps)}
    for seed, hits_N in zip(found.seeds_R.tolist(), found.hits_RN, strict=True):
        if seed in told and not agree(told[seed], hits_N):
            raise InputError(
                f"{path}: the network of seed {seed} has {hits_N.mean():.1%} of the images right, and rows.csv beside "
                f"it says {told[seed]:.1%}: they are not of the same networks. `sweep evaluate` with condition clean "
                "measures that network again."
            )
    return found


def _manifestations(path: Path) -> list[ManifestationRow]:
    """Read each manifestation once: a trial whose end was lost with its driver is measured again."""
    rows = {(row.number, row.scheme, row.steps): row for row in _rows(path, ManifestationRow, growing=True)}
    return list(rows.values())


def _check_cells(path: Path, row: TrialRow) -> None:
    """Check the cells that hold JSON, as far as the report reads into them."""
    where = f"{path}, trial {row.number}"
    for name in row.objectives:
        if name not in Objective.__members__:
            possible = ", ".join(Objective.__members__)
            raise InputError(f"{where}: {name!r} is no objective; possible are {possible}.")
    if row.objectives and Objective.accuracy.value not in row.objectives:
        raise InputError(f"{where}, column objectives: accuracy is not among {', '.join(row.objectives)}.")
    for column, values in (("objectives", row.objectives), ("constraints", row.constraints)):
        for name, value in values.items():
            if not _is_number(value):
                raise InputError(f"{where}, column {column}: {name}={value!r}: must be a finite number.")
    for entry in row.schedule:
        if not (
            isinstance(entry, dict) and _is_number(entry.get("epoch")) and isinstance(entry.get("parameters"), dict)
        ):
            raise InputError(
                f"{where}, column schedule: {entry!r}: must have epoch, a number, parameters, a mapping, and parent."
            )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _search(path: Path) -> SearchConfig | None:
    """Read the search's configuration; None where it is absent. InputError: config.yaml does not hold it."""
    if not path.is_file():
        return None
    try:
        content = yaml.safe_load(read_bytes(path))
        return from_plain(SearchConfig, content.get("search") if isinstance(content, dict) else None, "search")
    except (OSError, yaml.YAMLError, *NO_YAML) as error:
        raise InputError(f"{path}: {' '.join(str(error).split())}") from error


def _rows(path: Path, row_type: type[RowT], *, growing: bool = False) -> list[RowT]:
    """Read a table; `growing`: one that a search may be writing now, or that a loss of power cut off."""
    return read_rows(path, row_type, growing=growing) if path.is_file() else []


def _best(path: Path) -> Best | None:
    if not path.is_file():
        return None
    best = read_best(path)
    if not isinstance(best.provenance.get("trial"), int):
        found = best.provenance.get("trial")
        raise InputError(f"{path}: provenance.trial={found!r}: must be the number of the trial it comes from.")
    return best
