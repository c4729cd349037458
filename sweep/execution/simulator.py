"""Simulate a sweep on recorded learning curves: the sources, samplers and schedulers of a real one, and no training.

Time is simulated. So many workers take the segments that a source hands out, each epoch takes the seconds and
operations that it took when it was recorded, and results arrive in the order of simulated time. Starting workers,
loading data and saving checkpoints take none.
"""

import heapq
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from odenet.seeding import derive
from odenet.training.config import ExperimentConfig
from search_spaces import Choice, Float, Int, Parameter, Space
from sweep.config.search_config import Budget, SearchConfig
from sweep.execution.trial_log import with_curve
from sweep.execution.trial_source import SearchSource, Trials, TrialSource
from sweep.records.checkpoints import TrialFolders
from sweep.records.outcome import STATES, Outcome
from sweep.records.rows import CurveRow, TrialRow, ranked
from sweep.tuning.ask_and_tell import ENQUEUED, Proposals
from sweep.tuning.optuna_study import OptunaStudy
from sweep.tuning.schedulers import build_scheduler
from sweep.tuning.stopping import exhausted
from sweep.worker.segment import Segment

CLOSE = 0.01  # one point of accuracy below the best recorded objective is as good


@dataclass(frozen=True, slots=True)
class RecordedTrial:
    """A trial with its whole curve, which is shorter than training only where the trial diverged."""

    row: TrialRow
    curve: Sequence[CurveRow]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """The tables of a finished search. `curves` are in the order in which the epochs had arrived."""

    space: Space
    experiment: ExperimentConfig  # around which was searched
    search: SearchConfig
    chance: float
    rows: Sequence[TrialRow]
    curves: Sequence[CurveRow]

    @property
    def trials(self) -> list[RecordedTrial]:
        """The trials that can be replayed: done ones whose every epoch is recorded, and those that ended by
        themselves."""
        curves: dict[int, list[CurveRow]] = {row.number: [] for row in self.rows}
        for curve in self.curves:
            curves.setdefault(curve.number, []).append(curve)
        return [RecordedTrial(row, curves[row.number]) for row in self.rows if self._is_whole(row, curves[row.number])]

    def _is_whole(self, row: TrialRow, curve: Sequence[CurveRow]) -> bool:
        if [one.epoch for one in curve] != list(range(1, row.epochs + 1)) or not self.space.contains(row.parameters):
            return False
        if row.outcome is not Outcome.done:
            return STATES[row.outcome].at_chance
        wanted = {one.value for one in self.search.objectives} if len(self.search.objectives) > 1 else set()
        whole = row.epochs == self.experiment.training.epochs and wanted <= row.objectives.keys()
        return whole and row.objective is not None and math.isfinite(row.objective)


class Archive:
    """Recorded trials, each given away once: a proposal gets the nearest one that is left.

    Near is what Gower's distance says (1971, doi 10.2307/2528823): the sum over the searched keys of |difference| in
    parts of the range, of its logarithm where the key is searched so; of 0 or 1 for options; of 1 where only one of
    the two uses the key. Of equally near ones it is the first.
    """

    def __init__(self, trials: Sequence[RecordedTrial], space: Space) -> None:
        self._trials, self._space = trials, space
        self._points = np.array([self._point(one.row.parameters) for one in trials])
        self._is_option = np.array([isinstance(parameter, Choice) for parameter in space.parameters.values()], bool)
        self._left = np.ones(len(trials), bool)
        self._given: dict[int, RecordedTrial] = {}

    def of(self, number: int, parameters: Mapping[str, Any]) -> RecordedTrial:
        """Return the recorded trial that stands for trial `number`, the same one each time."""
        if number not in self._given:
            distance = np.where(self._left, self._distances(self._point(parameters)), np.inf)
            nearest = int(distance.argmin())
            assert self._left[nearest], "more trials than are recorded"
            self._left[nearest] = False
            self._given[number] = self._trials[nearest]
        return self._given[number]

    def _point(self, parameters: Mapping[str, Any]) -> list[float]:
        searched = self._space.parameters.items()
        return [
            _coordinate(parameter, parameters[key]) if key in parameters else math.nan for key, parameter in searched
        ]

    def _distances(self, point: Sequence[float]) -> np.ndarray:
        gaps = np.abs(self._points - point)
        gaps = np.where(self._is_option, gaps > 0, gaps)
        unused, unused_here = np.isnan(self._points), np.isnan(point)
        gaps = np.where(unused | unused_here, 1.0, gaps)
        return np.where(unused & unused_here, 0.0, gaps).sum(axis=1)


def _coordinate(parameter: Parameter, value: Any) -> float:
    value = parameter.accept(value)
    if isinstance(parameter, Choice):
        return float(parameter.options.index(value))
    assert isinstance(parameter, Float | Int)
    scale = math.log if parameter.log else float
    low, high = scale(parameter.low), scale(parameter.high)
    return (scale(value) - low) / (high - low)


@dataclass(slots=True)
class Simulation:
    """One run of a source on so many workers; `rows` and `curves` are as a sweep would have written them."""

    source: TrialSource
    archive: Archive
    budget: Budget
    workers: int
    rows: dict[int, TrialRow] = field(default_factory=dict)
    curves: list[CurveRow] = field(default_factory=list)
    clock: float = 0.0  # seconds
    _spent: str = ""  # why no further trial begins
    _events: list[tuple[float, int, Segment]] = field(default_factory=list)  # when the next epoch of a segment ends
    _order: int = 0  # of events at the same time

    def run(self) -> None:
        """Run to the end of the search."""
        while self.advance():
            pass

    def advance(self) -> bool:
        """Run until the next epoch of any trial ends, or the trial itself; False where the search is over."""
        self._hand_out()
        if not self._events:
            for number, reason in self.source.leftover():
                self._stand(number, Outcome.pruned, reason)
            return False
        self.clock, _, segment = heapq.heappop(self._events)
        self._epoch(segment)
        return True

    def _hand_out(self) -> None:
        while len(self._events) < self.workers:
            if not self._spent:
                self._spent = exhausted(self.budget, list(self.rows.values()), self.clock)
            segment = self.source.next(may_begin=not self._spent)
            if not isinstance(segment, Segment):
                return
            row = self.rows.get(segment.number) or _begun(
                self.archive.of(segment.number, segment.parameters).row, segment
            )
            self.rows[segment.number] = replace(row, outcome=Outcome.running, reason="", legs=row.legs + 1)
            self._await(segment)

    def _await(self, segment: Segment) -> None:
        """Schedule the segment's next event. A trial diverges at the end of its last recorded epoch, because how far
        the next one came is not known."""
        row, curve = self.rows[segment.number], self.archive.of(segment.number, segment.parameters).curve
        lasts = max(0.0, curve[row.epochs].cost_seconds - row.seconds) if row.epochs < len(curve) else 0.0
        heapq.heappush(self._events, (self.clock + lasts, self._order, segment))
        self._order += 1

    def _epoch(self, segment: Segment) -> None:
        number, recorded = segment.number, self.archive.of(segment.number, segment.parameters)
        done = self.rows[number].epochs
        if done == len(recorded.curve):
            self._stand(number, recorded.row.outcome, recorded.row.reason)
            return
        curve = replace(recorded.curve[done], number=number)
        self.curves.append(curve)
        gpu_share = recorded.row.gpu_seconds / recorded.row.seconds if recorded.row.seconds else 0.0
        row = with_curve(self.rows[number], curve)
        self.rows[number] = replace(row, gpu_seconds=gpu_share * curve.cost_seconds)
        goes_on = self.source.result(number, curve.epoch, curve.objective)
        if curve.epoch == segment.epochs:
            self._done(number, recorded.row)
        elif curve.epoch == segment.until:
            self._stand(number, Outcome.paused, f"waits at epoch {curve.epoch}")
        elif not goes_on:
            self._stand(number, Outcome.pruned, f"stopped by the scheduler after epoch {curve.epoch}")
        else:
            self._await(segment)

    def _done(self, number: int, recorded: TrialRow) -> None:
        """End a trial as done, with the objectives and constraints that were recorded."""
        row = self.rows[number]
        measured = replace(row, objectives=recorded.objectives, constraints=recorded.constraints)
        self.rows[number] = replace(measured, feasible=recorded.feasible)
        self._stand(number, Outcome.done, "")

    def _stand(self, number: int, outcome: Outcome, reason: str) -> None:
        row = self.rows[number] = replace(self.rows[number], outcome=outcome, reason=reason)
        self.source.segment_ended(row)


def _begun(recorded: TrialRow, segment: Segment) -> TrialRow:
    """Reset the recorded trial to before its first epoch, under the proposal's number and parameters."""
    before = replace(recorded, objective=None, epochs=0, gflops=0.0, seconds=0.0, rate_evaluations=0, gpu_seconds=0.0)
    unmeasured = replace(before, objectives={}, constraints={}, feasible=True, legs=0)
    return replace(
        unmeasured,
        number=segment.number,
        candidate=segment.number,
        trial_id=segment.trial_id,
        parameters=segment.parameters,
        proposed_by=segment.proposed_by,
    )


def simulation(recording: Recording, search: SearchConfig, workers: int) -> Simulation:
    """Prepare the recorded search under another configuration. More trials than can be replayed are not begun.

    Raises:
        ValueError: the scheduler would never compare trials, or the sampler cannot search the space.
    """
    found = recording.trials
    search = replace(search, trials=min(search.trials, len(found)))
    first = [one.row.parameters for one in found if one.row.proposed_by == ENQUEUED]
    proposals = Proposals(recording.space, search, OptunaStudy.in_memory(search.objectives), recording.chance, first)
    trials = Trials(proposals, recording.experiment, search, TrialFolders(""))
    source = SearchSource(trials, build_scheduler(search, recording.experiment.training.epochs))
    source.restore([], [])
    return Simulation(source, Archive(found, recording.space), search.budget, workers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """The totals of a search."""

    trials: int  # begun
    outcomes: Counter[Outcome]
    epochs: int
    gflops: float
    seconds: float  # of wall clock
    best: float | None  # objective of a trial that may be chosen
    gflops_to_best: float | None  # spent when such a trial first came within CLOSE of the best recorded one


def replayed(recording: Recording, search: SearchConfig, workers: int, repeats: int) -> list[Tally]:
    """Replay the recorded search `repeats` times: first from search.seed, then from seeds derived from it.

    Raises:
        ValueError: as `simulation`.
    """
    best = _best(recording.rows)
    tallies = []
    for repeat in range(repeats):
        seed = derive(search.seed, "replay", repeat) % 2**31 if repeat else search.seed
        one = simulation(recording, replace(search, seed=seed), workers)
        one.run()
        tallies.append(_tally(list(one.rows.values()), one.curves, one.clock, best))
    return tallies


def as_it_was(recording: Recording, workers: int) -> Tally:
    """Sum up the recorded search itself; its wall clock is that of its trials one after another, whenever a worker is
    free."""
    free = [0.0] * workers
    for row in recording.rows:
        heapq.heapreplace(free, free[0] + row.seconds)
    return _tally(recording.rows, recording.curves, max(free), _best(recording.rows))


def _tally(rows: Sequence[TrialRow], curves: Iterable[CurveRow], seconds: float, best: float | None) -> Tally:
    return Tally(
        trials=len(rows),
        outcomes=Counter(row.outcome for row in rows),
        epochs=sum(row.epochs for row in rows),
        gflops=math.fsum(row.gflops for row in rows),
        seconds=seconds,
        best=_best(rows),
        gflops_to_best=None if best is None else _gflops_until(best - CLOSE, rows, curves),
    )


def _best(rows: Sequence[TrialRow]) -> float | None:
    return next((row.objective for row in ranked(list(rows))), None)


def _gflops_until(wanted: float, rows: Sequence[TrialRow], curves: Iterable[CurveRow]) -> float | None:
    last_epochs = {row.number: row.epochs for row in ranked(list(rows)) if (row.objective or 0.0) >= wanted}
    spent: dict[int, float] = {}
    for curve in curves:
        spent[curve.number] = curve.cost_train_gflops
        if curve.epoch == last_epochs.get(curve.number):
            return math.fsum(spent.values())
    return None
