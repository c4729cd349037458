"""Turn rows into what is compared: runs by (draw, seed), families per task, differences to the baseline.

Accuracies are fractions; they become percent where they are written.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from odenet.data.config import DataSet
from odenet.data.sets import SETS
from sweep.records.outcome import Outcome
from sweep.records.rows import CLEAN, EvaluationRow, Phase, TrialRow, ranked
from sweep.report import statistics
from sweep.report.load import Sweep, Task
from sweep.report.statistics import Comparison, Interval

BASELINE = "resnet"
UNFINISHED = tuple(o for o in Outcome if not o.ended)
# Ended without a result. They count as chance accuracy in statistics of configurations and are never dropped.
FAILED = tuple(o for o in Outcome if o not in (Outcome.done, Outcome.pruned, *UNFINISHED))


@dataclass(frozen=True, slots=True)
class FinalRun:
    """One final network on the test set, at the manifestation it was trained with."""

    draw: int
    seed: int
    accuracy: float
    failed: bool = False  # counted as chance


@dataclass(frozen=True, slots=True)
class Family:
    """The sweeps of one family on one task."""

    name: str
    sweeps: list[Sweep]
    runs: list[FinalRun]

    def by_draw(self) -> list[np.ndarray]:
        draws = sorted({run.draw for run in self.runs})
        return [np.array([run.accuracy for run in self.runs if run.draw == draw]) for draw in draws]

    @property
    def mean(self) -> float:
        return statistics.grand_mean(self.by_draw())

    @property
    def interval(self) -> Interval | None:
        """The interval of the mean; None below two runs, which have no spread. With one draw it is over its seeds
        only."""
        if len(self.runs) < 2:
            return None
        return statistics.bootstrap(self.by_draw(), np.random.default_rng(0))

    @property
    def final_trials(self) -> list[TrialRow]:
        """The final trainings that are done."""
        rows = [row for sweep in self.sweeps for row in sweep.final_trials]
        return [row for row in rows if row.phase is Phase.final and row.outcome is Outcome.done]

    def final_mean(self, value: Callable[[TrialRow], float]) -> float | None:
        """Average over the final trainings that are done."""
        return mean_or_none(map(value, self.final_trials))

    def sweep_mean(self, value: Callable[[Sweep], float | None]) -> float | None:
        """Average over draws what each sweep yields."""
        return mean_or_none(found for found in map(value, self.sweeps) if found is not None)


@dataclass(frozen=True, slots=True)
class Difference:
    """A family against the baseline; Holm's adjustment is over the families of the task."""

    family: Family
    comparison: Comparison
    by_draw: dict[int, float]
    unmatched: int  # runs of either side without a partner of the same draw and seed
    p_holm: float

    @property
    def delta_interval(self) -> Interval | None:
        """The interval of the difference; None for a single pair, which has no spread."""
        return self.comparison.delta_interval if self.comparison.pairs > 1 else None

    @property
    def improvement_interval(self) -> Interval | None:
        """The interval of the probability of improvement; None for a single pair."""
        return self.comparison.improvement_interval if self.comparison.pairs > 1 else None


@dataclass(frozen=True, slots=True)
class TaskResults:
    """Families on one data set and size; the baseline, where there is one, stands first."""

    task: Task
    families: list[Family]
    differences: list[Difference]

    @property
    def baseline(self) -> Family:
        return self.families[0]


@dataclass(frozen=True, slots=True)
class Study:
    """The results that a report shows. `home`: the folder of the report, to which paths are relative."""

    sweeps: list[Sweep]
    empty: list[Path]  # directories whose first trial has not ended
    tasks: list[TaskResults]
    home: Path

    @property
    def families(self) -> list[str]:
        """Names, the baseline first."""
        return sorted({sweep.family for sweep in self.sweeps}, key=_baseline_first)

    def short(self, sweep: Sweep) -> str:
        """Return the name of a sweep, without that of the study where all are of one."""
        studies = {other.name.rpartition("/")[0] for other in self.sweeps}
        return sweep.name.rpartition("/")[2] if len(studies) == 1 else sweep.name


def _place(sweep: Sweep) -> tuple[str, float, tuple[bool, str], int]:
    size = math.inf if sweep.task.per_class is None else sweep.task.per_class
    return sweep.task.dataset, size, _baseline_first(sweep.family), sweep.draw


def build_study(sweeps: list[Sweep], empty: list[Path], home: Path) -> Study:
    """Arrange the results in the order of tasks (small data first), families (baseline first) and draws."""
    ordered = sorted(sweeps, key=_place)
    tasks = list(dict.fromkeys(sweep.task for sweep in ordered))
    return Study(ordered, empty, [_results(task, [s for s in ordered if s.task == task]) for task in tasks], home)


def chance(task: Task) -> float:
    """Return the accuracy of guessing."""
    return 1 / SETS[DataSet[task.dataset]].classes


def mean_or_none(values: Iterable[float]) -> float | None:
    found = list(values)
    return float(np.mean(found)) if found else None


def is_trained(row: EvaluationRow) -> bool:
    return (row.scheme, row.steps) == (row.trained_scheme, row.trained_steps)


def best_objective(sweep: Sweep) -> float | None:
    """Return the best objective of the search, among done trials only."""
    return next((row.objective for row in ranked(sweep.trials)), None)


def configuration_value(row: TrialRow) -> float | None:
    """Return the objective as statistics of configurations use it: failures at chance, None for what has not ended.

    A search trial that ran out of time counts by its last value, as a pruned one does and as its sampler was told.
    """
    if row.outcome in UNFINISHED:
        return None
    if row.outcome is Outcome.timeout and row.phase is Phase.search and row.objective is not None:
        return row.objective
    return chance(Task(row.dataset, row.per_class)) if row.outcome in FAILED else row.objective


def confirmations(sweep: Sweep) -> dict[int, list[float]]:
    """Collect the objectives of the confirm phase by candidate, failures at chance."""
    found: dict[int, list[float]] = {}
    for row in sweep.final_trials:
        value = configuration_value(row)
        if row.phase is Phase.confirm and value is not None:
            found.setdefault(row.candidate, []).append(value)
    return found


def confirmed_objective(sweep: Sweep) -> float | None:
    """Average the crowned configuration's objectives in the confirm phase."""
    if sweep.crowned_candidate is None:
        return None
    return mean_or_none(confirmations(sweep).get(sweep.crowned_candidate, []))


def final_runs(sweep: Sweep) -> list[FinalRun]:
    """List one run per seed: measured test accuracy, on the most images measured; chance where the training failed."""
    clean = [row for row in sweep.evaluations if is_test_accuracy(row) and row.condition == CLEAN]
    measured = {row.seed: row.value for row in sorted(clean, key=lambda row: row.n) if is_trained(row)}
    failed = {
        row.seed: chance(sweep.task)
        for row in sweep.final_trials
        if row.phase is Phase.final and row.outcome in FAILED and row.seed not in measured
    }
    runs = [FinalRun(sweep.draw, seed, value) for seed, value in measured.items()]
    runs += [FinalRun(sweep.draw, seed, value, failed=True) for seed, value in failed.items()]
    return sorted(runs, key=lambda run: run.seed)


def is_test_accuracy(row: EvaluationRow) -> bool:
    return (row.split, row.metric, row.severity) == ("test", "accuracy", 0.0)


def _baseline_first(name: str) -> tuple[bool, str]:
    return name != BASELINE, name


def _results(task: Task, sweeps: Sequence[Sweep]) -> TaskResults:
    families = []
    for name in dict.fromkeys(sweep.family for sweep in sweeps):
        own = [sweep for sweep in sweeps if sweep.family == name]
        families.append(Family(name, own, [run for sweep in own for run in final_runs(sweep)]))
    compared = [(family, _matched(family, families[0])) for family in families[1:]]
    matched = [(family, pairs, statistics.compare(list(pairs.values()))) for family, pairs in compared if pairs]
    adjusted = statistics.holm([comparison.p for _, _, comparison in matched])
    differences = [
        Difference(
            family,
            comparison,
            {draw: float(np.mean(values)) for draw, values in pairs.items()},
            len(family.runs) + len(families[0].runs) - 2 * comparison.pairs,
            p_holm,
        )
        for (family, pairs, comparison), p_holm in zip(matched, adjusted, strict=True)
    ]
    return TaskResults(task, families, differences)


def _matched(family: Family, baseline: Family) -> dict[int, np.ndarray]:
    """Pair runs of the same draw and seed, and return their differences by draw."""
    partner = {(run.draw, run.seed): run.accuracy for run in baseline.runs}
    pairs: dict[int, list[float]] = {}
    for run in family.runs:
        if (run.draw, run.seed) in partner:
            pairs.setdefault(run.draw, []).append(run.accuracy - partner[run.draw, run.seed])
    return {draw: np.array(values) for draw, values in pairs.items()}
