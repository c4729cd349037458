"""The results of a sweep as far as its stages are done, read from its tables: as figures, and in words."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from statistics import fmean, stdev

from odenet.data.config import DataSet
from odenet.data.sets import SETS
from sweep.records.outcome import Outcome
from sweep.records.rows import CLEAN, EvaluationRow, Phase, TrialRow, ranked
from sweep.records.run_directory import SweepFiles
from sweep.records.tables import read_rows


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
        test = read_rows(files.rows, EvaluationRow) if files.rows.exists() else []
        return cls(search, final, test, sensitivity)

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
