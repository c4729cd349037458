"""A source of given trials: a first list, then those that follow from how the first ended."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from odenet.training.config import ExperimentConfig
from sweep.execution.trial_source import FINISHED, Next, TrialSource
from sweep.records.checkpoints import TrialFolders
from sweep.records.outcome import Outcome
from sweep.records.rows import CurveRow, Phase, TrialRow
from sweep.worker.segment import Segment, new_trial_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A given trial. `experiments` come in turn, each from an epoch on; most trials have one, from epoch 0."""

    number: int
    phase: Phase
    candidate: int
    parameters: dict[str, Any]
    experiments: list[tuple[int, ExperimentConfig]]

    @property
    def epochs(self) -> int:
        return self.experiments[0][1].training.epochs

    def segment(self, done: int, trial_id: str, folders: TrialFolders) -> Segment:
        """Build the segment that follows `done` epochs."""
        ends = [*(begin for begin, _ in self.experiments[1:]), self.epochs]
        index = next((index for index, end in enumerate(ends) if done < end), len(ends) - 1)
        return Segment(
            number=self.number,
            trial_id=trial_id,
            phase=self.phase,
            candidate=self.candidate,
            parameters=self.parameters,
            proposed_by="",
            experiment=self.experiments[index][1],
            epochs=self.epochs,
            until=ends[index],
            folder=folders.of(self.number, trial_id),
        )


Ended = dict[int, TrialRow]  # by number: trials that ended


class ListSource(TrialSource):
    """A source that runs given jobs: a first list, then those that `follow_up` makes of how the first ended."""

    def __init__(
        self, first: list[Job], follow_up: Callable[[Ended], list[Job]], total: int, folders: TrialFolders
    ) -> None:
        self._jobs = {job.number: job for job in first}
        self._waiting, self._follow_up = [job.number for job in first], follow_up
        self.total, self._folders = total, folders
        self._running: set[int] = set()
        self._ended: Ended = {}
        self._epochs: dict[int, int] = {}
        self._ids: dict[int, str] = {}
        self._followed = False

    def restore(self, rows: Sequence[TrialRow], curves: Sequence[CurveRow]) -> None:
        for curve in curves:
            self._epochs[curve.number] = max(curve.epoch, self._epochs.get(curve.number, 0))
        self._ended = {row.number: row for row in rows if row.outcome.ended}
        self._ids = {row.number: row.trial_id for row in rows}
        self._waiting = [number for number in self._waiting if number not in self._ended]

    def next(self, may_begin: bool) -> Next:  # noqa: ARG002 - the list is the budget
        if not self._waiting and not self._running and not self._followed:
            later = self._follow_up(self._ended)
            self._jobs |= {job.number: job for job in later}
            self._waiting = [job.number for job in later if job.number not in self._ended]
            self._followed = True
        if not self._waiting:
            return None if self._running else FINISHED
        job = self._jobs[self._waiting.pop(0)]
        self._running.add(job.number)
        trial_id = self._ids.setdefault(job.number, new_trial_id())
        return job.segment(self._epochs.get(job.number, 0), trial_id, self._folders)

    def result(self, number: int, epoch: int, objective: float | None) -> bool:  # noqa: ARG002 - nothing is chosen
        self._epochs[number] = max(epoch, self._epochs.get(number, 0))
        return True

    def segment_ended(self, row: TrialRow) -> None:
        self._running.discard(row.number)
        if row.outcome.ended:
            self._ended[row.number] = row
        elif row.outcome is Outcome.paused:
            self._waiting.insert(0, row.number)  # its next segment

    def again(self, segment: Segment) -> None:
        self._running.discard(segment.number)
        self._waiting.insert(0, segment.number)
