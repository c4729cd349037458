"""The trials that speak of searches of any length: random ones that nobody would have stopped."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sweep.config.search_config import SchedulerKind
from sweep.records.outcome import Outcome
from sweep.records.rows import TrialRow, ranked
from sweep.report.elements import listing
from sweep.report.inference.bands import TuningCurve, tuning_curve
from sweep.report.load import Sweep
from sweep.report.results import LOST, UNFINISHED, Family, TaskResults, chance

RANDOM = "random"
FEWEST = 8  # trials: a curve goes to a quarter of them, and begins with the best of one and of two
LAST = 16  # the longest search that a curve speaks of


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """The random trials of a family on one draw of the data."""

    draw: int
    rows: list[TrialRow]
    values_N: np.ndarray  # fractions; failed trials, and those beyond a limit, at chance
    curve: TuningCurve

    @property
    def gflops(self) -> float:
        """Return the mean cost of a trial."""
        return float(np.mean([row.gflops for row in self.rows]))


def random_trials(sweep: Sweep) -> list[TrialRow]:
    """List the ended trials of which an expectation can be taken: proposed at random and never to be stopped.

    A trial that might have been stopped does not count even where it survived: survivors alone would be too good.
    """
    drawn = [row for row in sweep.trials if row.proposed_by == RANDOM and not row.schedule]
    if sweep.search is not None and sweep.search.scheduler is not SchedulerKind.none:
        drawn = [row for row in drawn if sweep.search.is_unstopped(row.number, row.proposed_by)]
    if any(row.outcome is Outcome.pruned for row in drawn):
        return []
    ended = [row for row in drawn if row.outcome not in (*UNFINISHED, *LOST)]
    return ended if len(ended) >= FEWEST else []


def drawn_of(families: Sequence[Family]) -> dict[str, list[Drawn]]:
    """Collect the random trials by family and draw, with their curves to the same k; families without are left out.

    Draws are kept apart: trials of several draws pooled are not independent of each other.
    """
    found = {f.name: [(sweep, rows) for sweep in f.sweeps if (rows := random_trials(sweep))] for f in families}
    sizes = [len(rows) for own in found.values() for _, rows in own]
    ks = range(1, min([LAST, *(size // 4 for size in sizes)]) + 1)
    return {name: [_drawn(sweep, rows, ks) for sweep, rows in own] for name, own in found.items() if own}


def _drawn(sweep: Sweep, rows: list[TrialRow], ks: Sequence[int]) -> Drawn:
    chosen = {row.number: row.objective for row in ranked(rows)}
    values = [chosen.get(row.number) for row in rows]
    fractions = [chance(sweep.task) if value is None else value for value in values]
    return Drawn(sweep.draw, rows, np.array(fractions), tuning_curve(fractions, ks))


def without_curve(results: TaskResults) -> str | None:
    """Say which sweeps have no tuning curve, why, and what gives one; None where all have."""
    sweeps = [sweep for family in results.families for sweep in family.sweeps if sweep.trials]
    lacking = [sweep.name for sweep in sweeps if not random_trials(sweep)]
    if not lacking:
        return None
    where = "any sweep" if len(lacking) == len(sweeps) > 1 else listing(lacking)
    return (
        f"No tuning curve of {where}: it needs at least {FEWEST} ended trials of a sweep that were proposed at random "
        "and never stopped early (search.sampler=random without a scheduler, or a search.random_share). Trials of "
        "another sampler depend on each other, and survivors of a scheduler are too good."
    )
