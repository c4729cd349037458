"""The report's sentences. None claims more than the rules fixed before the final runs allow."""

from collections import Counter
from collections.abc import Iterable, Sequence

from sweep.records.outcome import Outcome
from sweep.records.rows import Phase, TrialRow
from sweep.report import figures
from sweep.report.elements import count, listing, percent, percent_interval, plural, points, points_interval
from sweep.report.inference.comparison import ALPHA, DECIDES, MARGIN, MEANINGFUL, Verdict
from sweep.report.load import FILES, Sweep
from sweep.report.results import (
    BASELINE,
    LOST,
    UNFINISHED,
    WITHOUT_RESULT,
    Difference,
    Family,
    Study,
    TaskResults,
    draw_overlap,
    found_nothing,
)
from sweep.report.robustness import manifestations
from sweep.report.robustness.manifestations import Robustness
from sweep.report.statistics import INTERVAL

SINGLE = "n = 1: no interval"
RULES = (
    "Rules fixed before the final runs: a family is better than the baseline when p, over draws and test images "
    f"and adjusted by Holm's rule over the families, is at most {ALPHA} and P(family > baseline) over "
    f"matched pairs is at least {MEANINGFUL}; worse in the mirror case; equivalent when the {INTERVAL} of the "
    f"difference lies within ±{MARGIN}; both at once reads “better, within {MARGIN}”; otherwise "
    f"inconclusive. With fewer than {DECIDES} draws, or one training set only, a result is a pilot and has no verdict."
)


def searched(study: Study) -> str:
    parts = []
    for results in study.tasks:
        families = listing([family.name for family in results.families])
        draws = sorted({sweep.draw for family in results.families for sweep in family.sweeps})
        which = f"{plural(len(draws), 'draw')}: {', '.join(map(str, draws))}"
        parts.append(f"{families} on {results.task} ({which})")
    return f"This report covers {plural(len(study.sweeps), 'sweep')}: {'; '.join(parts)}."


def spent(study: Study) -> str:
    trials = [row for sweep in study.sweeps for row in sweep.trials]
    sentence = f"The searches ran {plural(len(trials), 'trial')} ({outcomes(trials)}) at a cost of {cost(trials)}."
    retrained = [row for sweep in study.sweeps for row in sweep.final_trials]
    around = [row for sweep in study.sweeps for row in sweep.sensitivity]
    if around:
        told = f"{plural(len(around), 'run')} ({outcomes(around)}) for {cost(around)}"
        sentence = f"{sentence} Around selected configurations were trained {told}."
    if not retrained:
        return f"{sentence} Nothing was retrained yet."
    confirm = [row for row in retrained if row.phase is Phase.confirm]
    final = [row for row in retrained if row.phase is Phase.final]
    return (
        f"{sentence} Confirmation retrained {plural(len(confirm), 'run')} ({outcomes(confirm)}) for {cost(confirm)}; "
        f"final training {plural(len(final), 'run')} ({outcomes(final)}) for {cost(final)}."
    )


def outcomes(rows: Sequence[TrialRow]) -> str:
    counted = Counter(row.outcome for row in rows)
    return listing([f"{counted[outcome]} {outcome.value}" for outcome in Outcome if counted[outcome]])


def cost(rows: Iterable[TrialRow]) -> str:
    rows = list(rows)
    return f"{count(sum(row.gflops for row in rows))} GFLOP and {count(sum(row.seconds for row in rows))} seconds"


def equal_terms(results: TaskResults) -> str | None:
    """Say where families did not get the same number of trials in every draw; None when they did."""
    trials = {family.name: [len(sweep.trials) for sweep in family.sweeps] for family in results.families}
    if len({tuple(sorted(numbers)) for numbers in trials.values()}) == 1:
        return None
    told = "; ".join(f"{name} {listing([str(n) for n in numbers])}" for name, numbers in trials.items())
    return f"Not on equal terms: the number of search trials per draw differs between families ({told})."


def other_baseline(results: TaskResults) -> str | None:
    """Say which family stands in where the usual baseline is absent; None where nothing is compared."""
    name = results.baseline.name
    if name == BASELINE or len(results.families) == 1:
        return None
    return f"{BASELINE} is not among the families: {name}, the first by name, is the baseline."


def conclusion(difference: Difference, results: TaskResults) -> str:
    """Say what the rules allow, with the difference, its interval and what they rest on."""
    found, delta = difference.comparison, difference.comparison.interval
    spread = f"{INTERVAL} {points_interval(delta)}" if delta else SINGLE
    return (
        f"{_decision(difference, results)}: test accuracy differs by {points(found.delta)} points ({spread}; "
        f"{plural(found.draws, 'draw')}, {plural(found.pairs, 'matched run')} each)."
    )


def uncompared(family: Family, results: TaskResults) -> str:
    return (
        f"Inconclusive for {family.name}: no final run of it on the test set shares draw and seed with one of "
        f"{results.baseline.name}."
    )


def accuracy(difference: Difference, results: TaskResults) -> str:
    own, base, ahead = difference.family, results.baseline, difference.comparison.improvement_interval
    spread = f"{ahead.low:.2f} to {ahead.high:.2f}" if ahead else SINGLE
    return (
        f"{reached(own)}, {reached(base)}; P({own.name} > {base.name}) = "
        f"{difference.comparison.improvement:.2f} ({spread}). {_caution(difference)}"
    ).strip()


def robustness(family: Family, base: Family | None = None) -> str:
    """Say what a family's networks lose under finer manifestations than their own, and what those of the baseline,
    which is the control where it is the ResNet."""
    own = manifestations.robustness(family)
    if own is None:
        return f"Not measured: {family.name} has no test accuracy under another integrator or more steps."
    told = (
        f"Under other integrators with at least as many steps as in training the test accuracy of {family.name} "
        f"changes by {_loss(own)}, at worst by {points(own.worst)} ({_cell(own)})"
    )
    if base is None:
        return f"{told}."
    other, part = manifestations.robustness(base), "control" if base.name == BASELINE else "baseline and no control"
    return f"{told}; that of {base.name}, the {part}, " + (
        "was not measured." if other is None else f"by {_loss(other)}, at worst by {points(other.worst)}."
    )


def _loss(found: Robustness) -> str:
    spread = f"{INTERVAL} {points_interval(found.interval)}" if found.interval else SINGLE
    return f"{points(found.change)} points on average ({spread}; {plural(found.networks, 'network')})"


def _cell(found: Robustness) -> str:
    scheme, ratio = found.worst_cell
    return f"{scheme}, {ratio:.2g}× the steps" if scheme else "none"


def cost_ratio(family: Family, base: Family) -> str:
    """Compare final trainings of a family with those of the base."""
    found = figures.ratios(family, base)
    if not found:
        return f"Not comparable: {family.name} or {base.name} has no final training that is done."
    told = [
        f"{ratio:.2f} times the {words} ({count(own)} against {count(other)})" for words, own, other, ratio in found
    ]
    n = f"means over {len(family.final_trials)} and {plural(len(base.final_trials), 'final training')}"
    return f"{family.name} takes {listing(told)} of {base.name} ({n})."


def final_cost(family: Family) -> str:
    """Say what a family's final networks cost, and its search beside them."""
    rows = [row for sweep in family.sweeps for row in sweep.trials]
    search = f"The search cost {cost(rows)} in {plural(len(rows), 'trial')}"
    if not family.final_trials:
        return f"{search}."
    own = [f"{count(family.final_mean(value))} {words}" for words, _, value in figures.COSTS]
    own = [text.replace("training FLOPs", "GFLOP of training") for text in own]
    return (
        f"A final network has {own[0]} and took {listing(own[1:])} (mean over "
        f"{plural(len(family.final_trials), 'final training')}). {search}."
    )


def missing_files(sweeps: Sequence[Sweep], names: Sequence[str]) -> str | None:
    """Say which sweeps lack any of these files, and the command that makes them; None when all are there."""
    lacking: dict[str, list[str]] = {}
    for name in names:
        found = [sweep.name for sweep in sweeps if name in sweep.missing]
        if found:
            lacking[name] = found
    if not lacking:
        return None
    told = []
    for name, found in lacking.items():
        where = "every sweep" if len(found) == len(sweeps) else listing(found)
        told.append(f"{name} is missing in {where} (`sweep {FILES[name]}` writes it)")
    return f"{'; '.join(told)}."


def unfinished(study: Study) -> str | None:
    """Name the trials that have no result because they have not ended."""
    rows = [row for sweep in study.sweeps for row in [*sweep.trials, *sweep.final_trials] if row.outcome in UNFINISHED]
    if not rows:
        return None
    return f"{plural(len(rows), 'trial')} had not ended ({outcomes(rows)}); no statistic counts them."


def empty_sweeps(study: Study) -> str | None:
    if not study.empty:
        return None
    return f"Left out, because no trial of theirs has ended: {listing([path.name for path in study.empty])}."


def failed_finals(results: TaskResults) -> str | None:
    failed = [f"{n} of {f.name}" for f in results.families if (n := sum(run.failed for run in f.runs))]
    if not failed:
        return None
    empty = [sweep.name for f in results.families for sweep in f.sweeps if f.runs and found_nothing(sweep)]
    none = f" No trial of {listing(empty)} ended done: every final run of that draw counts so." if empty else ""
    return f"Final runs that failed count as chance accuracy and are not dropped: {listing(failed)}.{none}"


def lost_finals(results: TaskResults) -> str | None:
    """Say which final runs were lost with their worker or node: they are never scored."""
    rows = {f.name: [row for sweep in f.sweeps for row in sweep.final_trials] for f in results.families}
    counted = {name: sum(row.phase is Phase.final and row.outcome in LOST for row in own) for name, own in rows.items()}
    lost = [f"{n} of {name}" for name, n in counted.items() if n]
    if not lost:
        return None
    return (
        f"Final runs that were lost with their worker or node say nothing about a network and are not scored: "
        f"{listing(lost)}. `sweep final NAME --again` runs them again."
    )


def image_error(results: TaskResults) -> str | None:
    """Say where intervals leave out the error of the test images; None where none does."""
    estimates = {family.name: family.estimate for family in results.families if family.runs}
    lacking = [name for name, found in estimates.items() if found and found.within is None]
    if not lacking:
        return None
    sweeps = [sweep for family in results.families if family.name in lacking for sweep in family.sweeps]
    bare = [sweep.name for sweep in sweeps if sweep.predictions is None]
    where = "every sweep" if len(bare) == len(sweeps) else listing(bare)
    why = f"predictions.npz is missing in {where}" if bare else "they were not tested on the same images"
    return f"Intervals of {listing(lacking)} leave out the error of the test images and are too narrow by it: {why}."


def shared_draws(results: TaskResults) -> str | None:
    """Say how far draws share training images; None where they are known to be disjoint."""
    draws = sorted({sweep.draw for family in results.families for sweep in family.sweeps})
    shared = draw_overlap(results.baseline, draws)
    if shared is None:
        return "Whether draws share images cannot be known of a user's own images; intervals take them to be disjoint."
    if not 0 < shared < 1:
        return None
    return (
        f"Draws are not disjoint: two of them share {percent(shared)} % of their images on average. Intervals of "
        "differences are by the corrected resampled t (Nadeau and Bengio 2003; its rule is from memory, unverified)."
    )


def failures(study: Study) -> list[tuple[Sweep, TrialRow]]:
    return [(s, row) for s in study.sweeps for row in [*s.trials, *s.final_trials] if row.outcome in WITHOUT_RESULT]


def reached(family: Family) -> str:
    """Say a family's mean test accuracy with its interval."""
    interval = family.interval
    scope = " over the seeds of one draw" if len(family.by_draw()) == 1 else ""
    told = f"{INTERVAL} {percent_interval(interval)}{scope}" if interval else SINGLE
    n = f"; n = {len(family.runs)}" if interval else ""
    return f"{family.name} reaches {percent(family.mean)} % ({told}{n})"


def _decision(difference: Difference, results: TaskResults) -> str:
    name, base, found = difference.family.name, results.baseline.name, difference.verdict
    if found is Verdict.pilot:
        scope = " (seeds, conditional on this training set)" if difference.comparison.conditional else ""
        return f"Pilot, no verdict on {name} against {base}{scope}"
    if found is Verdict.inconclusive:
        return f"Inconclusive: the data do not decide between {name} and {base}"
    if found is Verdict.equivalent:
        return f"{name} is equivalent to {base}, within {MARGIN}"
    direction, _, within = found.value.partition(", ")
    return f"{name} is {direction} than {base}{', ' if within else ''}{within}"


def _caution(difference: Difference) -> str:
    found = difference.comparison
    if found.estimate is None:
        return "One pair of runs: it says nothing about other seeds or other draws of the data."
    if found.draws == 1:
        return (
            "One training set: the estimand is the mean over seeds, conditional on this training set; nothing is said "
            "about other draws of the data."
        )
    if found.conditional:
        return "All draws have the same training images: nothing is said about other training sets."
    if found.draws < DECIDES:
        return (
            f"A pilot: Student's t over {found.draws} draws has {found.estimate.df:.1f} degrees of freedom, so that "
            f"its interval covers but is wide; a verdict needs at least {DECIDES} draws."
        )
    return ""
