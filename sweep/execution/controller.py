"""One sweep while it runs: hands out legs, hears what became of them, decides what goes on, and sees to the budget."""

from typing import Any

from sweep.config.search_config import SearchConfig
from sweep.execution.display import ProgressDisplay
from sweep.execution.interrupt import Control
from sweep.execution.segment import Leg
from sweep.execution.trial_log import Book
from sweep.execution.trial_source import FINISHED, Next, Source
from sweep.records.outcome import STATES, Outcome
from sweep.tuning.stopping import exhausted


class Conductor:
    """Between a source of legs and the book; every call writes down what happened before it returns."""

    def __init__(self, source: Source, book: Book, config: SearchConfig, control: Control) -> None:
        self._source, self._book, self._config, self._control = source, book, config, control
        self._lost: dict[int, int] = {}  # workers lost, by trial
        self._under_way: set[int] = set()  # trials of which Ray has a leg
        self._finished = False
        self.spent = ""  # why no further trial begins

    def take_up(self, display: ProgressDisplay) -> None:
        """What was recorded before is where this begins."""
        self._source.restore(self._book.in_order(), self._book.curves)
        self._book.retell()
        self._book.show_on(display)

    def next_leg(self) -> Next:
        if self._finished or self._control.stopping:
            return None if self._under_way and not self._finished else FINISHED
        if self._config.budget.limited and not self.spent:
            self.spent = exhausted(self._config.budget, self._book.in_order(), self._book.progress.wall_clock)
            if self.spent:
                self._book.say(f"{self.spent}: no further trial begins")
        found = self._source.next(may_begin=not self.spent)
        if isinstance(found, Leg):
            self._under_way.add(found.number)
            self._book.begin(found)
        elif found is FINISHED:
            self._end()
        return found

    def _end(self) -> None:
        self._finished = True
        for number, reason in self._source.leftover():
            self._source.leg_ended(self._book.end_waiting(number, reason))

    def result(self, leg: Leg, result: dict[str, Any]) -> bool:
        """An epoch; whether the leg is to go on. The source hears again of one that comes again: what it had decided
        may not have been carried out.
        """
        if "notice" in result:
            self._book.say(f"trial {leg.number}: {result['notice']}")
        if "storage" in result:
            self._control.storage = result["storage"]
            self._control.stop(result["storage"])
        if "epoch" not in result:
            return True
        self._book.epoch(leg, result)
        return self._source.result(leg.number, result["epoch"], result.get("objective"))

    def leg_ended(self, leg: Leg, result: dict[str, Any], ray: str) -> None:
        """Ray is done with the leg, whose last result this is."""
        self._under_way.discard(leg.number)
        row = self._book.rows[leg.number]
        if "outcome" in result:
            outcome, reason = Outcome[result["outcome"]], result.get("reason", "")
        elif row.epochs >= leg.until:
            outcome, reason = Outcome.paused, f"waits at epoch {row.epochs}"
        else:
            outcome, reason = Outcome.pruned, f"stopped by the scheduler after epoch {row.epochs}"
        if outcome is Outcome.done:
            self._book.measured(leg, result, self._config)
        self._source.leg_ended(self._book.stand(leg, outcome, reason, ray))

    def leg_failed(self, leg: Leg, outcome: Outcome, reason: str) -> None:
        """The leg's worker ended, or its code did."""
        self._under_way.discard(leg.number)
        lost = self._lost[leg.number] = self._lost.get(leg.number, 0) + 1
        if outcome.retried and lost <= self._config.retries and not self._control.stopping:
            self._book.say(f"trial {leg.number}: {reason}; attempt {lost + 1} follows")
            self._source.again(leg)
            return
        if outcome.retried and self._control.stopping:
            outcome = Outcome.interrupted
        self._source.leg_ended(self._book.stand(leg, outcome, reason, STATES[outcome].ray))

    def finish(self, reason: str) -> int:
        """The run is over. Returns how many trials wait to be taken up again."""
        self._book.progress.finished = self._finished and not self._control.stopping
        return self._book.finish(reason)
