"""The source of a population's segments: each generation is one segment of every member."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from search_spaces import Space
from sweep.execution.trial_source import FINISHED, Next, Trials, TrialSource
from sweep.records.checkpoints import checkpoint_name, inherited_name
from sweep.records.rows import CurveRow, TrialRow
from sweep.storage.folders import open_folder
from sweep.tuning.population import exchange, generations
from sweep.worker.segment import Segment


class PopulationSource(TrialSource):
    """A source for population-based training in step: all members reach a generation's end before they exchange, so
    that the result is a function of seed and scores. A member's schedule is the history of the weights that it has
    now."""

    def __init__(self, trials: Trials, space: Space) -> None:
        self._trials, self._space, self.total = trials, space, trials.config.trials
        epochs = trials.experiment.training.epochs
        self._ends = [*generations(trials.config, epochs), epochs]
        self._generation = 0
        self._waiting: list[int] = []
        self._scores: dict[tuple[int, int], float] = {}  # by number and epoch
        self._out: set[int] = set()  # members that ended
        self._schedules: dict[int, list[dict[str, Any]]] = {}

    def restore(self, rows: Sequence[TrialRow], curves: Sequence[CurveRow]) -> None:
        trials = self._trials
        for curve in curves:
            if curve.objective is not None:
                trials.proposals.report(curve.number, curve.epoch, curve.objective)
                self._scores[curve.number, curve.epoch] = curve.objective
        trials.restore(rows, curves)
        while len(trials.proposals) < self.total:
            trials.proposals.ask()
        self._out = {row.number for row in rows if row.outcome.ended}
        self._schedules = {row.number: list(row.schedule) for row in rows if row.schedule}
        for proposal in trials.proposals.asked:
            first = [{"epoch": 0, "parameters": proposal.parameters, "parent": proposal.number}]
            self._schedules.setdefault(proposal.number, first)
        while self._generation < len(self._ends) - 1 and not self._missing():
            self._meet()
        self._waiting, trials.due = self._missing(), []

    def _missing(self) -> list[int]:
        """List the members that have not reached the end of the present generation; in the last one, those not done."""
        end, is_last = self._ends[self._generation], self._generation == len(self._ends) - 1
        members = (number for number in range(self.total) if number not in self._out)
        return [number for number in members if is_last or self._trials.epochs.get(number, 0) < end]

    def next(self, may_begin: bool) -> Next:
        trials = self._trials
        if not self._waiting and not trials.running and self._generation < len(self._ends) - 1 and may_begin:
            self._meet()
            self._waiting = self._missing()
        if self._waiting:
            return self._segment(self._waiting.pop(0))
        return None if trials.running else FINISHED

    def _segment(self, number: int) -> Segment:
        trials = self._trials
        now = self._schedules[number][-1]
        segment = trials.segment(trials.proposals.asked[number], now["parameters"], self._ends[self._generation])
        folder, inherited = open_folder(segment.folder), inherited_name(now["epoch"])
        start = folder.path(inherited) if now["epoch"] and folder.has(inherited) else ""
        return replace(segment, start=start, schedule=self._schedules[number])

    def _meet(self) -> None:
        """Exchange members at the end of the present generation. What an interrupted exchange had decided is decided
        again."""
        end = self._ends[self._generation]
        before = {number: [one for one in past if one["epoch"] < end] for number, past in self._schedules.items()}
        scores = {number: score for (number, epoch), score in self._scores.items() if epoch == end}
        moves = exchange(
            scores,
            {number: before[number][-1]["parameters"] for number in scores},
            self._space,
            self._trials.config,
            self._generation,
        )
        for number, move in moves.items():
            donor = number if move.donor is None else move.donor
            if move.donor is None and move.parameters == before[number][-1]["parameters"]:
                self._schedules[number] = before[number]
                continue
            entry = {"epoch": end, "parameters": move.parameters, "parent": donor}
            self._schedules[number] = [*before[donor], entry]
            self._inherit(number, donor, end)
        self._generation += 1

    def _inherit(self, number: int, donor: int, epoch: int) -> None:
        """Copy the donor's weights at once, because the donor goes on and keeps only its newest."""
        folder, name = open_folder(self._folder_of(number)), inherited_name(epoch)
        if not folder.has(name):
            folder.take(name, self._folder_of(donor), checkpoint_name(epoch))

    def _folder_of(self, number: int) -> str:
        return self._trials.folders.of(number, self._trials.proposals.asked[number].trial_id)

    def result(self, number: int, epoch: int, objective: float | None) -> bool:
        self._trials.epochs[number] = max(epoch, self._trials.epochs.get(number, 0))
        if objective is not None:
            self._trials.proposals.report(number, epoch, objective)
            self._scores[number, epoch] = objective
        return True

    def segment_ended(self, row: TrialRow) -> None:
        self._trials.running.discard(row.number)
        self._trials.tell(row)
        if row.outcome.ended:
            self._out.add(row.number)

    def again(self, segment: Segment) -> None:
        self._trials.running.discard(segment.number)
        self._waiting.append(segment.number)

    def leftover(self) -> list[tuple[int, str]]:
        left, epochs = [number for number in range(self.total) if number not in self._out], self._trials.epochs
        return [(number, f"its population ended at epoch {epochs.get(number, 0)}") for number in left]
