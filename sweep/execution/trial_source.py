"""Sources of trials: a source hands out the segments of a search and hears what became of them.

`list_source` has one for given trials, `population_source` one for a population. They know nothing of Ray: `controller`
asks them for segments, and so does `simulator`, which trains nothing.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from odenet.seeding import derive
from odenet.training.config import ExperimentConfig
from sweep.config.overrides import override
from sweep.config.search_config import Objective, SearchConfig
from sweep.records.checkpoints import TrialFolders
from sweep.records.outcome import Outcome
from sweep.records.rows import CurveRow, Phase, TrialRow
from sweep.tuning.arms import EqualTerms
from sweep.tuning.ask_and_tell import Proposal, Proposals
from sweep.tuning.schedulers import Scheduler, refinement_epochs
from sweep.worker.segment import Segment


class Finished:
    """The answer, in place of a segment, that none will follow."""


FINISHED = Finished()
Next = Segment | Finished | None  # None: not now


class TrialSource(ABC):
    """A source is asked for segments, and told of every epoch and of how each segment ended. `total`: trials in all."""

    total: int

    @abstractmethod
    def restore(self, rows: Sequence[TrialRow], curves: Sequence[CurveRow]) -> None:
        """Take up what was recorded before; called first of all. Trials that have not ended come again."""

    @abstractmethod
    def next(self, may_begin: bool) -> Next:
        """Return the next segment. With `may_begin` False only trials under way go on; none is begun or promoted."""

    @abstractmethod
    def result(self, number: int, epoch: int, objective: float | None) -> bool:
        """Hear of an epoch, and tell whether the trial is to go on."""

    @abstractmethod
    def segment_ended(self, row: TrialRow) -> None:
        """Hear how the trial stands after its segment."""

    @abstractmethod
    def again(self, segment: Segment) -> None:
        """Give the trial another segment, because this one's worker was lost."""

    def leftover(self) -> list[tuple[int, str]]:
        """List, once finished, the trials that still wait and will not go on, each with the reason."""
        return []


def trial_seed(sweep_seed: int, number: int) -> int:
    """Derive the training seed of a trial: each has its own, so that none is judged on a lucky one alone."""
    return derive(sweep_seed, "trial", number) % 2**31


@dataclass(slots=True)
class Trials:
    """The state of proposed trials that several sources share."""

    proposals: Proposals
    experiment: ExperimentConfig
    config: SearchConfig
    folders: TrialFolders
    epochs: dict[int, int] = field(default_factory=dict)  # completed
    running: set[int] = field(default_factory=set)
    due: list[int] = field(default_factory=list)  # under way before, to be taken up
    terms: EqualTerms | None = None  # of a study's arm, under which nothing is stopped early

    def restore(self, rows: Sequence[TrialRow], curves: Sequence[CurveRow]) -> None:
        standing = {row.number: row for row in rows}
        for curve in curves:
            self.epochs[curve.number] = max(curve.epoch, self.epochs.get(curve.number, 0))
        for proposal in self.proposals.asked:
            row = standing.get(proposal.number)
            if row is not None and row.outcome.ended:
                self.tell(row)
            else:
                self.due.append(proposal.number)

    def tell(self, row: TrialRow) -> None:
        """Tell Optuna how a trial stands."""
        values = {Objective[name]: value for name, value in row.objectives.items()}
        if row.objective is not None:
            values[Objective.accuracy] = row.objective
        limits = self.config.constraints.limits()
        excess = {name: value - limits[name] for name, value in row.constraints.items() if name in limits}
        self.proposals.tell(row.number, row.outcome, values, excess)

    def is_unstopped(self, number: int) -> bool:
        """Tell whether the scheduler has no say in this trial."""
        return self.config.is_unstopped(number, self.proposals.asked[number].proposed_by)

    def segment(self, proposal: Proposal, parameters: dict[str, Any], until: int) -> Segment:
        number = proposal.number
        experiment = override(self.experiment, {**parameters, "training.seed": trial_seed(self.config.seed, number)})
        if self.terms is not None:
            experiment = self.terms.apply(experiment)
            until = experiment.training.epochs
        self.running.add(number)
        self.proposals.tell(number, Outcome.running)
        return Segment(
            number=number,
            trial_id=proposal.trial_id,
            phase=Phase.search,
            candidate=number,
            parameters=proposal.parameters,
            proposed_by=proposal.proposed_by,
            experiment=experiment,
            epochs=experiment.training.epochs,
            until=until,
            folder=self.folders.of(number, proposal.trial_id),
        )


class SearchSource(TrialSource):
    """A source in which Optuna proposes and a scheduler stops trials, or lets them wait at rungs until they are
    promoted."""

    def __init__(self, trials: Trials, scheduler: Scheduler) -> None:
        self._trials, self._scheduler = trials, scheduler
        self._rungs = refinement_epochs(trials.config, trials.experiment.training.epochs)  # where trials wait
        self.total = trials.config.trials

    def restore(self, rows: Sequence[TrialRow], curves: Sequence[CurveRow]) -> None:
        for curve in curves:
            if curve.objective is not None:
                self.result(curve.number, curve.epoch, curve.objective)
        self._trials.restore(rows, curves)
        for row in rows:
            if row.outcome.ended:
                self._scheduler.end(row.number)
        # Who waits at a rung is promoted by its rank there, also where that was decided before.
        self._trials.due = [number for number in self._trials.due if not self._at_rung(number)]

    def _at_rung(self, number: int) -> bool:
        return not self._trials.is_unstopped(number) and self._trials.epochs.get(number, 0) in self._rungs

    def next(self, may_begin: bool) -> Next:
        trials = self._trials
        if trials.due:
            return self._segment(trials.due.pop(0))
        promoted = self._scheduler.promote() if may_begin else None
        if promoted is not None:
            return self._segment(promoted)
        if may_begin and len(trials.proposals) < self.total and not trials.proposals.exhausted:
            return self._segment(trials.proposals.ask().number)
        return None if trials.running else FINISHED

    def _segment(self, number: int) -> Segment:
        trials = self._trials
        last = trials.experiment.training.epochs
        until = last if trials.is_unstopped(number) else self._scheduler.until(trials.epochs.get(number, 0))
        proposal = trials.proposals.asked[number]
        return trials.segment(proposal, proposal.parameters, until)

    def result(self, number: int, epoch: int, objective: float | None) -> bool:
        trials = self._trials
        trials.epochs[number] = max(epoch, trials.epochs.get(number, 0))
        if objective is None:
            return True
        if not self._rungs:
            trials.proposals.report(number, epoch, objective)
        elif epoch in self._rungs:
            trials.proposals.report(number, self._rungs.index(epoch), objective)
        if trials.is_unstopped(number):
            return True
        return self._scheduler.report(number, epoch, objective)

    def segment_ended(self, row: TrialRow) -> None:
        self._trials.running.discard(row.number)
        self._trials.tell(row)
        if row.outcome.ended:
            self._scheduler.end(row.number)

    def again(self, segment: Segment) -> None:
        self._trials.running.discard(segment.number)
        self._trials.due.append(segment.number)

    def leftover(self) -> list[tuple[int, str]]:
        return [
            (proposal.number, f"not promoted from the rung at epoch {self._trials.epochs.get(proposal.number, 0)}")
            for proposal in self._trials.proposals.asked
            if not self._trials.proposals.outcome(proposal.number).ended
        ]
