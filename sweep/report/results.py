"""Turn rows into what is compared: runs by (draw, seed), families per task, differences to the baseline.

Accuracies are fractions; they become percent where they are written.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from odenet.data.config import DataSet, Order
from odenet.data.sets import SETS
from sweep.records.outcome import Outcome
from sweep.records.rows import CLEAN, EvaluationRow, Phase, TrialRow, ranked
from sweep.report import statistics
from sweep.report.inference import comparison
from sweep.report.inference.comparison import Comparison, MeanEstimate, Verdict
from sweep.report.inference.overlap import overlap
from sweep.report.inference.pairs import FinalRun, image_means, matched
from sweep.report.load import Sweep, Task, task_of
from sweep.report.statistics import Interval

BASELINE = "resnet"
UNFINISHED = tuple(o for o in Outcome if not o.ended)
# Ended without a result. Those that failed count as chance accuracy and are never dropped; those that were lost with
# their worker or node say nothing about a network, and are in no statistic.
LOST = tuple(o for o in Outcome if o.retried)
FAILED = tuple(o for o in Outcome if o not in (Outcome.done, Outcome.pruned, *UNFINISHED, *LOST))
WITHOUT_RESULT = (*FAILED, *LOST)


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
    def estimate(self) -> MeanEstimate | None:
        """The mean with its variances; None below two runs or draws, which have no spread."""
        draws = sorted({run.draw for run in self.runs})
        per_image = image_means({draw: [(run, None) for run in self.runs if run.draw == draw] for draw in draws})
        return comparison.estimate(self.by_draw(), per_image) if self.runs else None

    @property
    def interval(self) -> Interval | None:
        """The interval of the mean, cut to what an accuracy can be. With one draw it is over its seeds only."""
        found = self.estimate
        return None if found is None else Interval(max(0.0, found.interval.low), min(1.0, found.interval.high))

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
    pairs: dict[int, np.ndarray]  # differences of matched runs, by draw
    unmatched: int  # runs of either side without a partner of the same draw and seed
    p_holm: float
    verdict: Verdict

    @property
    def by_draw(self) -> dict[int, float]:
        return {draw: float(np.mean(values)) for draw, values in self.pairs.items()}


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


def _place(sweep: Sweep) -> tuple[str, float, bool, tuple[bool, str], int]:
    size = math.inf if sweep.task.per_class is None else sweep.task.per_class
    return sweep.task.dataset, size, sweep.task.shared, _baseline_first(sweep.family), sweep.draw


def build_study(sweeps: list[Sweep], empty: list[Path], home: Path) -> Study:
    """Arrange the results in the order of tasks (small data first), families (baseline first) and draws."""
    ordered = sorted(sweeps, key=_place)
    tasks = list(dict.fromkeys(sweep.task for sweep in ordered))
    return Study(ordered, empty, [_results(task, [s for s in ordered if s.task == task]) for task in tasks], home)


def chance(task: Task) -> float:
    """Return the accuracy of guessing."""
    classes = task.classes or SETS[DataSet[task.dataset]].classes
    assert classes is not None, "rows of a user's own images say how many classes they have"
    return 1 / classes


def mean_or_none(values: Iterable[float]) -> float | None:
    found = list(values)
    return float(np.mean(found)) if found else None


def is_trained(row: EvaluationRow) -> bool:
    return (row.scheme, row.steps) == (row.trained_scheme, row.trained_steps)


def best_objective(sweep: Sweep) -> float | None:
    """Return the best objective of the search, among done trials only."""
    return next((row.objective for row in ranked(sweep.trials)), None)


def configuration_value(row: TrialRow) -> float | None:
    """Return the objective as statistics of configurations use it: failures at chance, None for what has not ended or
    was lost with its worker.

    A search trial that ran out of time counts by its last value, as a pruned one does and as its sampler was told.
    """
    if row.outcome in (*UNFINISHED, *LOST):
        return None
    if row.outcome is Outcome.timeout and row.phase is Phase.search and row.objective is not None:
        return row.objective
    return chance(task_of(row)) if row.outcome in FAILED else row.objective


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
        row.seed
        for row in sweep.final_trials
        if row.phase is Phase.final and row.outcome in FAILED and row.seed not in measured
    }
    said = sweep.predictions
    hits = {} if said is None else dict(zip(said.seeds_R.tolist(), said.hits_RN, strict=True))
    indices_N = None if said is None else said.indices_N
    runs = [
        FinalRun(sweep.draw, seed, value, indices_N=indices_N if seed in hits else None, hits_N=hits.get(seed))
        for seed, value in measured.items()
    ]
    return sorted([*runs, *_at_chance(sweep, failed)], key=lambda run: run.seed)


def _at_chance(sweep: Sweep, seeds: Iterable[int]) -> list[FinalRun]:
    return [FinalRun(sweep.draw, seed, chance(sweep.task), failed=True) for seed in seeds]


def found_nothing(sweep: Sweep) -> bool:
    """Tell whether a search is over and its method failed in it: no trial may be chosen, and there is no network."""
    asked = 1 if sweep.search is None else sweep.search.trials
    ended = [row for row in sweep.trials if row.outcome not in (*UNFINISHED, *LOST)]
    over = asked <= len(ended) == len(sweep.trials)
    return over and not ranked(sweep.trials) and not sweep.final_trials


def is_test_accuracy(row: EvaluationRow) -> bool:
    return (row.split, row.metric, row.severity) == ("test", "accuracy", 0.0)


def _baseline_first(name: str) -> tuple[bool, str]:
    return name != BASELINE, name


def _results(task: Task, sweeps: Sequence[Sweep]) -> TaskResults:
    families = []
    for name in dict.fromkeys(sweep.family for sweep in sweeps):
        own = [sweep for sweep in sweeps if sweep.family == name]
        families.append(Family(name, own, [run for sweep in own for run in _runs(sweep, sweeps)]))
    return TaskResults(task, families, _differences(families[0], families[1:]))


def _runs(sweep: Sweep, sweeps: Sequence[Sweep]) -> list[FinalRun]:
    """List the final runs; of a search that found nothing as many at chance as other families have on the draw."""
    if not found_nothing(sweep):
        return final_runs(sweep)
    beside = (run for other in sweeps if other.draw == sweep.draw for run in final_runs(other))
    return _at_chance(sweep, sorted({run.seed for run in beside}))


def _differences(baseline: Family, others: Sequence[Family]) -> list[Difference]:
    compared = []
    for family in others:
        pairs = matched(family.runs, baseline.runs)
        if not pairs:
            continue
        values = {draw: np.array([a.accuracy - b.accuracy for a, b in own if b]) for draw, own in pairs.items()}
        shared = draw_overlap(family, list(pairs))
        found = comparison.compare(list(values.values()), image_means(pairs), shared or 0.0)
        compared.append((family, values, found))
    decided = comparison.decide([found for _, _, found in compared])
    return [
        Difference(family, found, values, len(family.runs) + len(baseline.runs) - 2 * found.pairs, p_holm, verdict)
        for (family, values, found), (p_holm, verdict) in zip(compared, decided, strict=True)
    ]


def draw_overlap(family: Family, draws: Sequence[int]) -> float | None:
    """Return the share of images that two draws have in common; None where the size of the classes is not known."""
    task, first = family.sweeps[0].task, next((sweep.best for sweep in family.sweeps if sweep.best), None)
    order = first.experiment.data.order if first else Order.shuffled
    return overlap(task.dataset, task.per_class, draws, order)
