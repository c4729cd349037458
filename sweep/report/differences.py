"""The tables of comparisons with the baseline: what was found, and what a study of this size and spread can find."""

from collections.abc import Sequence

import numpy as np

from sweep.report.elements import NONE, Table, listing, percent, plural, points, points_interval
from sweep.report.inference import power
from sweep.report.inference.comparison import ALPHA, DECIDES, smallest_adjusted
from sweep.report.inference.power import EFFECTS, Components, Design, Prospect
from sweep.report.results import Difference, TaskResults
from sweep.report.statistics import Interval, smallest_p


def found(results: TaskResults) -> Table:
    """Build the table of differences, intervals, tests and verdicts."""
    base, several = results.baseline.name, results.differences
    resampled = any(one.comparison.resampled for one in several)
    columns = [
        "family", "draws", "pairs", "Δ", "Δ interval", "SE draws", "SE images", "df",
        *(["bootstrap Δ interval"] if resampled else []), f"P(> {base})", "P interval", "p", "p Holm", "p sign-flip",
        "verdict",
    ]  # fmt: skip
    rows = [_row(one, resampled) for one in several]
    unmatched = sum(one.unmatched for one in several)
    caption = (
        f"Against {base}, over runs of the same draw and seed ({unmatched} runs without a partner left out). Δ in "
        "points, with its 95 % interval by Student's t: the variance is that of the draws' mean differences (SE draws; "
        "over seeds where there is one draw) plus that of the images' mean differences (SE images), degrees of freedom "
        "by Satterthwaite. p: of the same difference and variances, by that of Behrens and Fisher (Student's "
        "t where no image error is known), because Satterthwaite's far tail is too light for Holm's adjustment. Holm: "
        "over the families of this table. P interval: Wilson's, with draws as cases. p sign-flip: exact, on the draws' "
        f"mean differences, unadjusted. {flips(several)}"
    )
    caption += " Bootstrap: two-level, paired, beside it only from 10 draws on." if resampled else ""
    return Table(caption, columns, rows, ("family", "verdict"))


def _row(one: Difference, resampled: bool) -> list[str]:
    own, estimate = one.comparison, one.comparison.estimate
    errors = [NONE] * 3
    if estimate is not None:
        errors = [
            percent(estimate.between**0.5, 2),
            NONE if estimate.within is None else percent(estimate.within**0.5, 2),
            f"{estimate.df:.1f}",
        ]
    return [
        one.family.name,
        str(own.draws),
        str(own.pairs),
        points(own.delta),
        points_interval(own.interval),
        *errors,
        *([points_interval(own.resampled)] if resampled else []),
        f"{own.improvement:.2f}",
        _shares(own.improvement_interval),
        *([NONE, NONE] if estimate is None else [f"{own.p:.3g}", f"{one.p_holm:.3g}"]),
        f"{own.sign_flip:.3g}",
        one.verdict.value,
    ]


def _shares(interval: Interval | None) -> str:
    return NONE if interval is None else f"{interval.low:.2f} to {interval.high:.2f}"


def flips(several: Sequence[Difference]) -> str:
    """Say what the sign-flip test can show at best, alone and after Holm's adjustment."""
    told = []
    for draws in sorted({one.comparison.draws for one in several}):
        least = smallest_adjusted(draws, len(several))
        can = "it could reject" if least <= ALPHA else "so it cannot reject, whatever the data"
        told.append(
            f"The smallest sign-flip p that {plural(draws, 'draw')} can give is {smallest_p(draws):.3g}, adjusted over "
            f"{_families(len(several))} {least:.3g}: {can}."
        )
    return " ".join(told)


def _families(number: int) -> str:
    return "1 family" if number == 1 else f"{number} families"


def prospects(results: TaskResults) -> Table | None:
    """Simulate what this design can show, a row per family and number of draws; None where there is one draw only."""
    rows = []
    for one in results.differences:
        own = one.comparison
        if own.conditional or own.estimate is None:
            continue
        spread = power.components(list(one.pairs.values()), own.estimate.within)
        per_draw = max(1, round(own.pairs / own.draws))
        for draws in sorted({own.draws, max(own.draws, DECIDES)}):
            design = Design(draws=draws, seeds=per_draw, families=len(results.differences), images=_images(one))
            rows.append(_prospect(one.family.name, design, spread))
    if not rows:
        return None
    caption = (
        f"Simulated: {power.STUDIES:,} studies of so many draws and seeds, whose differences spread as those found "
        "here (sd of a pair about its draw, sd of draws, error of the test images, in points; they are estimates "
        "themselves, from few draws rough ones). Coverage: how often the 95 % interval has the true difference. "
        f"False: how often any of {_families(len(results.differences))} is called better or worse where none differs. "
        f"The rest: how often a family is called better that is truly ahead by {listing(_effects())}. With fewer than "
        f"{DECIDES} draws there is no verdict to be found; the row below is what {DECIDES} draws would find."
    )
    columns = ["family", "draws", "seeds", "sd pairs", "sd draws", "SE images", "coverage, %", "false, %", *_effects()]
    return Table(caption, columns, rows, ("family",))


def _images(one: Difference) -> int:
    """Return the number of test images where their error is known."""
    runs = [run for run in one.family.runs if run.hits_N is not None]
    return power.MANY_IMAGES if not runs or runs[0].hits_N is None else len(runs[0].hits_N)


def _effects() -> list[str]:
    return [f"{points(effect)} points" for effect in EFFECTS]


def _prospect(name: str, design: Design, spread: Components) -> list[str]:
    shown: Prospect = power.coverage_and_power(design, spread, np.random.default_rng(0))
    sizes = [percent(sd, 2) for sd in (spread.seeds, spread.draws, spread.images)]
    found = [percent(shown.power[effect], 0) for effect in EFFECTS]
    decides = design.draws >= DECIDES
    rest = [percent(shown.false), *found] if decides else [NONE] * (len(EFFECTS) + 1)
    return [name, str(design.draws), str(design.seeds), *sizes, percent(shown.coverage), *rest]
