"""The results of a sweep as far as its stages are done, read from its tables: which count, as figures, and in words.

A cell of rows.csv is what one measurement wrote of one network. One that was cut by hand counts as not measured, and
what is of another network than the final ones counts for nothing.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np

from odenet.data.config import DataSet
from odenet.data.sets import SETS
from sweep.records.outcome import Outcome
from sweep.records.predictions import Predictions
from sweep.records.rows import (
    ATTACK,
    CLEAN,
    COMPRESSION,
    CORRUPTION,
    DIAGNOSTICS,
    DUPLICATE_FREE,
    MANIFESTATION,
    REESTIMATED,
    EvaluationRow,
    Phase,
    TrialRow,
    ranked,
)
from sweep.records.run_directory import SweepFiles
from sweep.records.tables import read_rows

AGREEMENT = 0.002  # of an accuracy with its predictions, and two images: another device rounds some to the other side
NEEDED = {  # metrics that stand together in a cell, by kind of condition
    **{kind: {"accuracy", "loss"} for kind in (CLEAN, MANIFESTATION, REESTIMATED, CORRUPTION)},
    DIAGNOSTICS: {"steps", "parameters"},
    COMPRESSION: {"accuracy", "loss", "parameters", "latency_ms"},
}

NetworkKey = tuple[Any, ...]
Unit = tuple[str, float]  # what is measured at once: a condition, a corruption at each severity


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean over seeds with its standard deviation, which a single seed has not."""

    mean: float
    sd: float | None
    n: int

    @classmethod
    def of(cls, values: list[float]) -> "Mean":
        return cls(fmean(values), stdev(values) if len(values) > 1 else None, len(values))

    def __str__(self) -> str:
        return f"{self.mean:.1%}" if self.sd is None else f"{self.mean:.1%}, sd {100 * self.sd:.1f}"


@dataclass(frozen=True, slots=True)
class SweepSummary:
    """The trials of a sweep's search, of its final phases and around its selected configuration, and what the test set
    said."""

    search: list[TrialRow]
    final: list[TrialRow]
    test: list[EvaluationRow]
    sensitivity: list[TrialRow] = field(default_factory=list)

    @classmethod
    def read(cls, files: SweepFiles) -> "SweepSummary":
        """Read what there is. InputError: a table is damaged."""
        tables = [read_rows(part.trials, TrialRow) if part.trials.exists() else [] for part in files.parts]
        search, final, sensitivity = tables
        measured = read_rows(files.rows, EvaluationRow) if files.rows.exists() else []
        return cls(search, final, sift(measured, final).whole, sensitivity)

    @property
    def best(self) -> TrialRow | None:
        return next(iter(ranked(self.search)), None)

    @property
    def confirmed(self) -> Mean | None:
        """The objective of the crowned configuration over the confirming seeds; None where nothing was chosen."""
        crowned = {row.candidate for row in self.final if row.phase is Phase.final}
        rows = [row for row in self.final if row.phase is Phase.confirm and row.candidate in crowned]
        return Mean.of([_counted(row) for row in rows]) if rows and all(row.outcome.ended for row in rows) else None

    @property
    def tested(self) -> Mean | None:
        """The test accuracy of the final networks as trained; a training that failed counts as chance, as in
        reports."""
        clean = [row.value for row in self.test if (row.condition, row.metric) == (CLEAN, "accuracy")]
        failed = [row for row in self.final if row.phase is Phase.final and row.outcome is not Outcome.done]
        return Mean.of([*clean, *map(_chance, failed)]) if clean else None

    def metrics(self) -> dict[str, float]:
        """Return all figures by the names that MLflow shows."""
        rows = [*self.search, *self.final, *self.sensitivity]
        values = {
            "cost/train_gflops": sum(row.gflops for row in rows),
            "cost/seconds": sum(row.seconds for row in rows),
            "cost/gpu_seconds": sum(row.gpu_seconds for row in rows),
        }
        counts = Counter(row.outcome.value if row.outcome.ended else "waiting" for row in self.search)
        values |= {f"trials/{outcome}": float(count) for outcome, count in {"waiting": 0, **counts}.items()}
        if self.best is not None:
            values |= {"best/objective": self.best.objective or 0.0, "best/seeds": 1.0}
        for name, found in (("confirmed/objective", self.confirmed), ("test/accuracy", self.tested)):
            if found is not None:
                values |= {f"{name}_mean": found.mean, f"{name.split('/')[0]}/seeds": float(found.n)}
            if found is not None and found.sd is not None:
                values[f"{name}_sd"] = found.sd
        return values

    def table(self) -> str:
        """Return the results as a table in Markdown: which value, of what phase, over how many seeds."""
        lines = [f"| {what} | {value} | {of} |" for what, value, of in self._results()]
        return "\n".join(["| result | value | of |", "|---|---|---|", *lines]) if lines else ""

    def _results(self) -> Iterator[tuple[str, str, str]]:
        if self.best is not None:
            of = f"search trial {self.best.number}, one seed: the best of {len(self.search)} is partly luck"
            yield "best objective", f"{self.best.objective or 0.0:.1%}", of
        if self.confirmed is not None:
            crowned = next(row.candidate for row in self.final if row.phase is Phase.final)
            of = f"mean over {self.confirmed.n} seeds of the crowned configuration, of search trial {crowned}"
            yield "confirmed objective", str(self.confirmed), of
        if self.tested is not None:
            yield "test accuracy", str(self.tested), f"mean over {self.tested.n} fresh seeds, trained on train and val"


def _counted(row: TrialRow) -> float:
    """Return what a confirming trial counts when configurations are compared: one that failed counts as chance."""
    done = row.outcome is Outcome.done and row.objective is not None
    return (row.objective or 0.0) if done else _chance(row)


def _chance(row: TrialRow) -> float:
    classes = row.classes or SETS[DataSet[row.dataset]].classes
    assert classes is not None, "rows of a user's own images say how many classes they have"
    return 1 / classes


# --- what counts of rows.csv ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Sifted:
    """The rows of the final networks in whole cells, and those that count for nothing: of other networks, and of cells
    a part of which is missing."""

    whole: list[EvaluationRow] = field(default_factory=list)
    foreign: list[EvaluationRow] = field(default_factory=list)
    partial: list[EvaluationRow] = field(default_factory=list)


def network(row: TrialRow | EvaluationRow) -> NetworkKey:
    """Return what tells a trained network from every other one."""
    return row.family, row.dataset, row.per_class, row.draw, row.seed, row.config_hash, row.data_hash


def sift(rows: Sequence[EvaluationRow], final: Iterable[TrialRow]) -> Sifted:
    """Tell what counts of measured values, beside the trials of final training."""
    mine, found = {network(row) for row in final if row.phase is Phase.final}, Sifted()
    units: dict[tuple[NetworkKey, Unit], list[EvaluationRow]] = {}
    for row in rows:
        units.setdefault((network(row), unit_of(row)), []).append(row)
    whole = {key for key, own in units.items() if _is_whole(own)}
    for row in rows:
        counts = found.whole if (network(row), unit_of(row)) in whole else found.partial
        (counts if network(row) in mine else found.foreign).append(row)
    return found


def named(rows: Iterable[EvaluationRow]) -> str:
    """Name what these rows are of: which conditions of which seeds."""
    units = {(row.seed, unit_of(row)): None for row in rows}
    return ", ".join(
        f"{condition}{f' at severity {severity:g}' if severity else ''} of seed {seed}"
        for seed, (condition, severity) in units
    )


def not_counted(sifted: Sifted, rows: Path, sweep: str) -> Iterator[str]:
    """Say what of rows.csv counts for nothing, and how to mend it."""
    if sifted.foreign:
        seeds = ", ".join(map(str, dict.fromkeys(row.seed for row in sifted.foreign)))
        yield (
            f"{rows} has {len(sifted.foreign)} values of other networks than those in folder final (seeds {seeds}), "
            f"which are in no figure. Move {rows.name} and predictions.npz away, and `sweep evaluate {sweep}` measures "
            "the present networks; say so where you report them."
        )
    if sifted.partial:
        yield (
            f"{rows} has only a part of {named(sifted.partial)}, which is in no figure: `sweep evaluate {sweep}` with "
            "that condition measures it again."
        )


def unit_of(row: EvaluationRow) -> Unit:
    """Return what this row was measured with, at once."""
    kind = row.condition.partition("/")[0]
    return (row.condition, row.severity) if kind == CORRUPTION else (kind, 0.0)


def _is_whole(rows: Sequence[EvaluationRow]) -> bool:
    """Tell whether all that a measurement writes is there, as far as its own rows tell."""
    cells: dict[tuple[str, str, int, float], set[str]] = {}
    for row in rows:
        cells.setdefault((row.condition, row.scheme, row.steps, row.severity), set()).add(row.metric)
    if any(not _needed(condition, severity) <= found for (condition, *_, severity), found in cells.items()):
        return False
    kind, first = rows[0].condition.partition("/")[0], rows[0]
    if kind in (MANIFESTATION, REESTIMATED):
        return _is_table(cells, (first.trained_scheme, first.trained_steps))
    heads = {CLEAN: CLEAN, ATTACK: f"{ATTACK}/{CLEAN}"}
    return kind not in heads or any(condition == heads[kind] for condition, *_ in cells)


def _needed(condition: str, severity: float) -> set[str]:
    """Return the metrics that stand together in a cell of this condition."""
    kind, _, rest = condition.partition("/")
    if kind == ATTACK:
        return _needed_of_attack(rest, severity)
    if condition == DUPLICATE_FREE:
        return {"accuracy"}
    return NEEDED.get(kind, set())


def _needed_of_attack(name: str, severity: float) -> set[str]:
    if name.startswith("check/"):
        return {"passed", "value", "limit"}
    if name == "gradient_error":
        return {"relative_error"}
    if name == CLEAN:
        return {"accuracy"}
    return {"accuracy", "first_broken"} if severity else {"median_minimal_norm"}


def _is_table(cells: Mapping[tuple[str, str, int, float], set[str]], trained: tuple[str, int]) -> bool:
    """Tell whether every scheme was measured at as many steps, an adaptive one at the trained ones, each in full."""
    steps_of: dict[str, set[int]] = {}
    for _, scheme, steps, _ in cells:
        steps_of.setdefault(scheme, set()).add(steps)
    most = max(map(len, steps_of.values()))
    alike = all(len(steps) == most or steps == {trained[1]} for steps in steps_of.values())
    return alike and trained[1] in steps_of.get(trained[0], set()) and len(set(map(frozenset, cells.values()))) == 1


def agree(accuracy: float, hits_N: np.ndarray) -> bool:
    """Tell whether a network with this accuracy can have these images right."""
    return abs(accuracy - float(hits_N.mean())) <= AGREEMENT + 2 / hits_N.size


def unsaid(rows: Sequence[EvaluationRow], said: Predictions | None) -> set[int]:
    """Return the seeds whose clean accuracy has not the predictions that make it."""
    hits = {} if said is None else dict(zip(said.seeds_R.tolist(), said.hits_RN, strict=True))
    clean = {row.seed: row.value for row in rows if (row.condition, row.metric) == (CLEAN, "accuracy")}
    return {seed for seed, value in clean.items() if seed not in hits or not agree(value, hits[seed])}
