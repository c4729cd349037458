"""Rules that stop or pause trials by recorded objectives, without Ray or Optuna. The objective is maximized."""

import math
from abc import ABC, abstractmethod
from bisect import bisect_left, bisect_right, insort
from collections import defaultdict
from itertools import accumulate
from statistics import median

from sweep.config.search_config import SchedulerKind, SearchConfig

FEWEST_OTHERS = 3  # median: a median of fewer says little
GOLDEN = 0x9E3779B97F4A7C15  # of 2^64 the golden section: multiples of it fill a circle evenly, at any stride

Position = tuple[float, int]  # (-objective, number): sorts the best first


class Scheduler(ABC):
    """A rule that stops or pauses trials. It knows only what it was told, and every call may be repeated.

    It is restored by repeating `report` for each recorded value, in the order in which they had arrived, and `end` for
    the trials that ended: its answers are the same then. A promotion after which nothing was reported cost nothing, and
    is decided again.

    Args:
        epochs: of a whole trial.
        rungs: epochs after which trials are compared.
        pauses: epochs after which a trial pauses; () for rules that only stop trials.
    """

    def __init__(self, epochs: int, rungs: tuple[int, ...] = (), pauses: tuple[int, ...] = ()) -> None:
        self.rungs = rungs
        self._epochs = epochs
        self._pauses = pauses
        self._reached: dict[int, int] = {}
        self._stopped: set[int] = set()
        self._ended: set[int] = set()

    def until(self, epoch: int) -> int:
        """Return the epoch at which a segment ends that begins after `epoch` epochs."""
        return next((pause for pause in self._pauses if pause > epoch), self._epochs)

    def report(self, number: int, epoch: int, objective: float) -> bool:
        """Tell whether trial `number` goes on with `objective` after `epoch` epochs. Call it for every epoch, in order.

        A trial is stopped for good, and at once where its objective is not finite: a comparison with NaN is false, so
        a rung would let it pass.
        """
        if epoch > self._reached.get(number, 0) and number not in self._stopped:
            self._reached[number] = epoch
            if not math.isfinite(objective) or (epoch < self._epochs and not self._goes_on(number, epoch, objective)):
                self._stopped.add(number)
        return number not in self._stopped

    def promote(self) -> int | None:
        """Return a paused trial whose next segment is due, and count it as promoted from now on; None: there is
        none."""
        return None

    def end(self, number: int) -> None:
        """Hear that the trial ended: what it reported still counts, but it is never promoted."""
        self._ended.add(number)

    @abstractmethod
    def _goes_on(self, number: int, epoch: int, objective: float) -> bool:
        """Tell whether the trial goes on after this epoch, which is reported for the first time and is not the last."""


class Unstopped(Scheduler):
    """No rule: every trial runs to its last epoch."""

    def _goes_on(self, number: int, epoch: int, objective: float) -> bool:  # noqa: ARG002
        return True


class Asha(Scheduler):
    """Asynchronous successive halving, stopping type (Li et al. 2020, arXiv 1810.05934).

    At a rung a trial goes on if less than 1/reduction of the trials seen there, itself included, are better. The first
    goes on, and so do equals. Nobody waits for others: of n trials in random order about n/reduction go on, but all of
    them where each is better than those before.
    """

    def __init__(self, epochs: int, rungs: tuple[int, ...], reduction: int) -> None:
        super().__init__(epochs, rungs)
        self._reduction = reduction
        self._seen: dict[int, list[float]] = {rung: [] for rung in rungs}  # ascending

    def _goes_on(self, number: int, epoch: int, objective: float) -> bool:  # noqa: ARG002
        if epoch not in self._seen:
            return True
        seen = self._seen[epoch]
        insort(seen, objective)
        better = len(seen) - bisect_right(seen, objective)
        return better * self._reduction < len(seen)


class Hyperband(Scheduler):
    """Brackets of asynchronous successive halving, each with a later first rung; the last has none (arXiv 1603.06560).

    For objectives whose order early in training says little about the end. Trials are compared within their bracket,
    which depends on their number alone. With s rungs left a bracket gets its share of ceil((S + 1)/(s + 1) *
    reduction^s), S = all rungs: about equal epochs for each bracket.
    """

    def __init__(self, epochs: int, rungs: tuple[int, ...], reduction: int) -> None:
        super().__init__(epochs, rungs)
        left = range(len(rungs), -1, -1)
        self._brackets = [Asha(epochs, rungs[len(rungs) - s :], reduction) for s in left]
        self._until = list(accumulate(_sizes(len(rungs), reduction)))

    def bracket(self, number: int) -> int:
        """Return the bracket of trial `number`; bracket 0 has all rungs."""
        turn = number * GOLDEN % 2**64
        return bisect_right(self._until, turn * self._until[-1] >> 64)

    def _goes_on(self, number: int, epoch: int, objective: float) -> bool:
        return self._brackets[self.bracket(number)].report(number, epoch, objective)


def _sizes(rungs: int, reduction: int) -> list[int]:
    return [-(-(rungs + 1) * reduction**s // (s + 1)) for s in range(rungs, -1, -1)]


def bracket_shares(rungs: int, reduction: int) -> list[float]:
    """Compute the part of all trials in each of hyperband's brackets; the first has all rungs, the last none."""
    sizes = _sizes(rungs, reduction)
    return [size / sum(sizes) for size in sizes]


class Median(Scheduler):
    """The median stopping rule (Golovin et al. 2017, Google Vizier, 3.2.1).

    After `grace` epochs a trial is stopped where its best objective so far is below the median of the mean objectives,
    from the first epoch to this one, of the other trials that have come so far, if these are at least three.
    """

    def __init__(self, epochs: int, grace: int) -> None:
        super().__init__(epochs)
        self._grace = grace
        self._sums: dict[int, float] = defaultdict(float)
        self._counts: dict[int, int] = defaultdict(int)
        self._best: dict[int, float] = {}
        self._means: dict[int, list[float]] = defaultdict(list)  # by epoch, ascending

    def _goes_on(self, number: int, epoch: int, objective: float) -> bool:
        self._sums[number] += objective
        self._counts[number] += 1
        self._best[number] = max(objective, self._best.get(number, objective))
        others = self._means[epoch]
        compared = epoch >= self._grace and len(others) >= FEWEST_OTHERS
        goes_on = not compared or self._best[number] >= median(others)
        insort(others, self._sums[number] / self._counts[number])
        return goes_on


class DepthAsha(Scheduler):
    """Asynchronous successive halving, promotion type (arXiv 1810.05934, Algorithm 2), for trials that grow at rungs.

    A trial pauses at each rung, and its next segment, which is deeper and dearer, is due while it is among the best
    floor(n / reduction) of the n trials that have come to the rung; of equals the one with the lower number. Better
    ones that come later take nothing back: in random order n/reduction and fewer than sqrt(n) are promoted, more where
    trials become better and better.
    """

    def __init__(self, epochs: int, rungs: tuple[int, ...], reduction: int) -> None:
        super().__init__(epochs, rungs, pauses=rungs)
        self._reduction = reduction
        self._seen: dict[int, list[Position]] = {rung: [] for rung in rungs}
        self._paused: dict[int, list[Position]] = {rung: [] for rung in rungs}

    def promote(self) -> int | None:
        for rung in reversed(self.rungs):
            seen, paused = self._seen[rung], self._paused[rung]
            while paused and self._is_gone(paused[0][1], rung):
                paused.pop(0)
            if paused and bisect_left(seen, paused[0]) < len(seen) // self._reduction:
                return paused.pop(0)[1]
        return None

    def _goes_on(self, number: int, epoch: int, objective: float) -> bool:
        if epoch in self._seen:
            insort(self._seen[epoch], (-objective, number))
            insort(self._paused[epoch], (-objective, number))
        return True

    def _is_gone(self, number: int, rung: int) -> bool:
        """Tell whether a trial ended, or was promoted by an earlier session and has reported from beyond the rung."""
        return number in self._ended or self._reached[number] > rung


def build_scheduler(config: SearchConfig, epochs: int) -> Scheduler:
    """Build the rule that the configuration names, for trials of so many epochs.

    Raises:
        ValueError: trials would never be compared before their last epoch.
    """
    match config.scheduler:
        case SchedulerKind.none:
            return Unstopped(epochs)
        case SchedulerKind.pbt:
            raise AssertionError("The members of a population are compared by PopulationSource.")
        case SchedulerKind.asha:
            return Asha(epochs, rungs(config, epochs), config.reduction)
        case SchedulerKind.hyperband:
            return Hyperband(epochs, rungs(config, epochs), config.reduction)
        case SchedulerKind.median:
            return Median(epochs, rungs(config, epochs)[0])
        case SchedulerKind.depth_asha:
            return DepthAsha(epochs, rungs(config, epochs), config.reduction)


def refinement_epochs(config: SearchConfig, epochs: int) -> list[int]:
    """List the epochs, counted from 0, at whose start a promoted trial is refined; none but in depth_asha.

    Raises:
        ValueError: as `build_scheduler`.
    """
    return list(rungs(config, epochs)) if config.scheduler is SchedulerKind.depth_asha else []


def rungs(config: SearchConfig, epochs: int) -> tuple[int, ...]:
    """List the rungs: from grace * epochs on, each `reduction` times the one before, below the last epoch."""
    rung, rungs = max(1, round(config.grace * epochs)), list[int]()
    while rung < epochs:
        rungs.append(rung)
        rung *= config.reduction
    if not rungs:
        raise ValueError(
            f"search.scheduler={config.scheduler.value} with search.grace={config.grace} and "
            f"training.epochs={epochs}: trials are first compared after epoch {rung}, which is their last; choose a "
            "smaller grace, more epochs, or scheduler=none."
        )
    return tuple(rungs)
