"""One sweep while it runs: hand out segments, hear what became of them, decide what goes on, keep to the budget."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

from sweep.execution.interrupt import Interrupt
from sweep.execution.observers import Observer
from sweep.execution.trial_log import TrialLog
from sweep.execution.trial_source import FINISHED, Next, TrialSource
from sweep.records.outcome import STATES, Outcome
from sweep.tuning.stopping import exhausted
from sweep.worker.segment import Segment, WorkerResult

MOST_UNFIT = 100  # nodes of no use that a trial may come upon: each is left out from then on


class Controller:
    """The go-between of a source of segments and the log; every call writes down what happened before it returns."""

    def __init__(self, source: TrialSource, log: TrialLog, interrupt: Interrupt, say: Callable[[str], None]) -> None:
        self._source, self._log, self._config = source, log, log.session.config.search
        self._interrupt, self._tell_user = interrupt, say
        self._lost: dict[int, int] = {}  # workers lost, by trial
        self._unfit: Counter[int] = Counter()  # nodes that were of no use, by trial
        self._said: set[str] = set()  # of these nodes
        self._under_way: set[int] = set()  # trials of which Ray has a segment
        self._giving_way: set[int] = set()
        self._finished = False
        self.spent = ""  # why no further trial begins

    def take_up(self, observers: Sequence[Observer]) -> None:
        """Begin where the record ends, and tell these observers what happens from now on."""
        for notice in self._log.notices:
            self._tell_user(f"{self._log.session.name}: {notice}")
        self._source.restore(self._log.in_order(), self._log.curves)
        self._log.attach(observers)

    def next_segment(self) -> Next:
        if self._finished or self._interrupt.stopping:
            return None if self._under_way and not self._finished else FINISHED
        if self._config.budget.limited and not self.spent:
            self.spent = exhausted(self._config.budget, self._log.in_order(), self._log.progress.wall_clock)
            if self.spent:
                self._say(f"{self.spent}: no further trial begins")
        found = self._source.next(may_begin=not self.spent)
        if isinstance(found, Segment):
            self._under_way.add(found.number)
            found = replace(found, heard=self._log.begin(found).epochs)
        elif found is FINISHED:
            self._end()
        return found

    def _end(self) -> None:
        self._finished = True
        for number, reason in self._source.leftover():
            self._source.segment_ended(self._log.end_waiting(number, reason))

    def result(self, segment: Segment, result: WorkerResult) -> bool:
        """Hear what a worker reports, and tell whether the segment is to go on.

        The source hears again of an epoch that comes again: what it had decided may not have been carried out.
        """
        if result.place is not None:
            self._log.placed(segment.number, result.place)
        if result.ended is not None and result.ended.storage:
            self._interrupt.storage_failed(result.ended.storage)
        if result.epoch is None:
            return True
        if result.epoch.notice:
            self._say(f"trial {segment.number}: {result.epoch.notice}")
        self._log.epoch(segment, result.epoch)
        return self._source.result(segment.number, result.epoch.epoch, result.epoch.metrics.get("objective"))

    def gives_way(self, segment: Segment) -> bool:
        """Tell whether the segment can end now for another sweep's sake, because its newest epoch has a checkpoint."""
        is_kept = self._log.rows[segment.number].epochs % self._log.session.config.checkpoint_every == 0
        if is_kept:
            self._giving_way.add(segment.number)
        return is_kept

    def segment_ended(self, segment: Segment, result: WorkerResult, ray: str) -> None:
        """Hear that Ray is done with the segment, whose last result this is."""
        self._under_way.discard(segment.number)
        row = self._log.rows[segment.number]
        if segment.number in self._giving_way:
            self._giving_way.discard(segment.number)
            self._log.stand(segment, Outcome.paused, f"gives way to another sweep at epoch {row.epochs}", ray)
            self._source.again(segment)
            return
        if result.ended is not None:
            outcome, reason = result.ended.outcome, result.ended.reason
            if outcome is Outcome.done:
                self._log.measured(segment.number, result.ended, self._config)
        elif row.epochs >= segment.until:
            outcome, reason = Outcome.paused, f"waits at epoch {row.epochs}"
        else:
            outcome, reason = Outcome.pruned, f"stopped by the scheduler after epoch {row.epochs}"
        self._conclude(segment, outcome, reason, ray)

    def segment_failed(self, segment: Segment, outcome: Outcome, reason: str, details: str = "") -> None:
        """Hear that the segment's worker ended, or that its code raised an exception. `details`: for people to read."""
        self._under_way.discard(segment.number)
        if details:
            self._log.failed(segment, details)
        host = self._log.rows[segment.number].host
        self._conclude(segment, outcome, f"{reason} ({host})" if host and outcome.retried else reason)

    def _conclude(self, segment: Segment, outcome: Outcome, reason: str, ray: str | None = None) -> None:
        """Try again what is worth another attempt, and write down how the trial stands after anything else."""
        if outcome is Outcome.node_unfit and not self._interrupt.stopping:
            self._unfit[segment.number] += 1
            if self._unfit[segment.number] <= MOST_UNFIT:
                self._elsewhere(segment, reason)
                return
        elif outcome.retried:
            lost = self._lost[segment.number] = self._lost.get(segment.number, 0) + 1
            if self._interrupt.stopping:
                outcome = Outcome.interrupted
            elif lost <= self._config.retries:
                self._say(f"trial {segment.number}: {reason}; attempt {lost + 1} follows")
                self._source.again(segment)
                return
        self._source.segment_ended(self._log.stand(segment, outcome, reason, ray or STATES[outcome].ray))

    def _elsewhere(self, segment: Segment, reason: str) -> None:
        """Give the trial another segment, which Ray places on another node, and name a node of no use once."""
        if reason not in self._said:
            self._said.add(reason)
            self._say(f"trial {segment.number}: {reason}; trials go elsewhere, until Ray is started anew there")
        self._source.again(segment)

    def _say(self, text: str) -> None:
        self._tell_user(f"{self._log.session.name} {text}")

    def finish(self, reason: str) -> int:
        """End the session, and return how many trials wait to be taken up again."""
        return self._log.finish(reason)
