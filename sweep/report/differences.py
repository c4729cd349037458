"""The tables of comparisons with the baseline: what was found, and what a study of this size and spread can find."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from sweep.report.elements import NONE, Block, Heading, Table, listing, percent, plural, points, points_interval
from sweep.report.inference import aggregates, power
from sweep.report.inference.comparison import ALPHA, DECIDES, estimate, smallest_adjusted
from sweep.report.inference.mixed_model import Run, fit
from sweep.report.inference.pairs import image_means, matched
from sweep.report.inference.power import EFFECTS, Components, Design, Prospect
from sweep.report.results import Difference, Study, TaskResults, chance
from sweep.report.statistics import INTERVAL, Interval, holm, smallest_p

FIGURES = (aggregates.iqm, aggregates.optimality_gap)
PROFILE = (0.8, 0.9, 0.95, 1.0)  # scores of the performance profile


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
        f"points, with its {INTERVAL} by Student's t: the variance is that of the draws' mean differences (SE draws; "
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
        f"themselves, from few draws rough ones). Coverage: how often the {INTERVAL} has the true difference. "
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


def across_sizes(study: Study) -> list[Block]:
    """Compare families over the sizes of a data set on which all of them have final runs; empty for one size."""
    made: list[Block] = []
    for alike in dict.fromkeys(replace(results.task, per_class=None) for results in study.tasks):
        of_data = [results for results in study.tasks if replace(results.task, per_class=None) == alike]
        sizes = [results for results in of_data if results.differences]
        if len(sizes) > 1:
            names = listing([str(results.task) for results in sizes])
            tables = [_contrasts(sizes), _aggregates(sizes), _mixed(sizes)]
            made += [Heading(f"Over {names}"), *(table for table in tables if table.rows)]
    return made


def _contrasts(sizes: Sequence[TaskResults]) -> Table:
    """Build the table of two contrasts per draw: the mean over sizes, and the smallest minus the largest."""
    tested = []
    contrasts = {"mean over sizes": _even(sizes), "smallest minus largest": _ends(sizes)}
    for title, weights in contrasts.items():
        for family in _on_all(sizes):
            per_draw, images_N = _contrast(sizes, family, weights)
            found = estimate([np.array([value]) for value in per_draw], images_N)
            tested += [(family, title, found)] if found is not None else []
    rows = []
    for kind in contrasts:
        own = [one for one in tested if one[1] == kind]
        for (family, title, found), adjusted in zip(own, holm([one[2].p for one in own]), strict=True):
            images = NONE if found.within is None else percent(found.within**0.5, 2)
            told = [points(found.mean), points_interval(found.interval), percent(found.between**0.5, 2), images]
            rows.append([family, title, str(found.units), *told, f"{found.p:.3g}", f"{adjusted:.3g}"])
    caption = (
        f"Differences to {sizes[0].baseline.name} in points, contrasts of sizes within each draw (a draw's images are "
        "nested, so sizes are not independent): interval and p as for one size, Holm's adjustment over the "
        f"families of a contrast. With fewer than {DECIDES} draws a pilot."
    )
    columns = ["family", "contrast", "draws", "Δ", "Δ interval", "SE draws", "SE images", "p", "p Holm"]
    return Table(caption, columns, rows, ("family", "contrast"))


def _even(sizes: Sequence[TaskResults]) -> list[float]:
    return [1 / len(sizes)] * len(sizes)


def _ends(sizes: Sequence[TaskResults]) -> list[float]:
    return [1.0, *[0.0] * (len(sizes) - 2), -1.0]


def _on_all(sizes: Sequence[TaskResults]) -> list[str]:
    """List the families that are compared on every size, with one baseline."""
    if len({results.baseline.name for results in sizes}) > 1:
        return []
    compared = [[one.family.name for one in results.differences] for results in sizes]
    return [name for name in compared[0] if all(name in names for names in compared)]


def _contrast(
    sizes: Sequence[TaskResults], family: str, weights: Sequence[float]
) -> tuple[list[float], np.ndarray | None]:
    """Return the weighted sum over sizes of a family's differences, by draw, and by test image where that is known."""
    found = [next(one for one in results.differences if one.family.name == family) for results in sizes]
    draws = [draw for draw in found[0].by_draw if all(draw in one.by_draw for one in found)]
    per_draw = [sum(w * one.by_draw[draw] for w, one in zip(weights, found, strict=True)) for draw in draws]
    matches = [matched(one.family.runs, results.baseline.runs) for one, results in zip(found, sizes, strict=True)]
    images = [image_means({draw: own[draw] for draw in draws}) for own in matches]
    known = [one for one in images if one is not None]
    if len(known) < len(sizes) or len({len(one) for one in known}) > 1:
        return per_draw, None
    return per_draw, np.sum([w * one for w, one in zip(weights, known, strict=True)], axis=0)


def _aggregates(sizes: Sequence[TaskResults]) -> Table:
    """Build the table of the figures of Agarwal et al., of families with runs on every size."""
    names = [sizes[0].baseline.name, *_on_all(sizes)]
    families = [{f.name: f for f in results.families} for results in sizes]
    best = [max(own[name].mean for name in names) for own in families]
    scores = {
        name: [
            [(runs - chance(results.task)) / (top - chance(results.task)) for runs in own[name].by_draw()]
            for results, own, top in zip(sizes, families, best, strict=True)
        ]
        for name in names
    }
    rows = []
    for name, own in scores.items():
        spread = [aggregates.stratified([own], value, np.random.default_rng(0)) for value in FIGURES]
        beside = [[len(draws) for draws in one] for one in (own, scores[names[0]])]
        ahead = None
        if name != names[0] and beside[0] == beside[1]:
            ahead = aggregates.stratified([own, scores[names[0]]], aggregates.improvement, np.random.default_rng(0))
        told = [f"{value(own):.3f} ({_shares(interval)})" for value, interval in zip(FIGURES, spread, strict=True)]
        share = f"{aggregates.improvement(own, scores[names[0]]):.2f}"
        chances = NONE if name == names[0] else f"{share} ({_shares(ahead)})"
        profile = [percent(aggregates.profile(own, score), 0) for score in PROFILE]
        rows.append([name, str(len(aggregates.pooled(own))), *told, chances, *profile])
    caption = (
        "Scores by which chance is 0 and the best family's mean on a size 1 (Agarwal et al. 2021, arXiv 2108.13264): "
        "interquartile mean, optimality gap (how far scores stay below 1), P(a run is ahead of one of the baseline), "
        f"all runs of a size against all; percent of runs above a score. In brackets the {INTERVAL} by resampling "
        "draws within each size, which is too narrow with few draws."
    )
    columns = ["family", "n runs", "IQM", "optimality gap", f"P(> {names[0]})", *(f"> {score:g}" for score in PROFILE)]
    return Table(caption, columns, rows, ("family",))


def _mixed(sizes: Sequence[TaskResults]) -> Table:
    """Build the table of the mixed model, which stands beside the contrasts and decides nothing."""
    names = [sizes[0].baseline.name, *_on_all(sizes)]
    runs = [
        Run(family.name, str(results.task.per_class), run.draw, run.accuracy)
        for results in sizes
        for family in results.families
        if family.name in names
        for run in family.runs
    ]
    columns = ["family", "Δ", "SE", "sd draws", "sd family × draw", "sd residual"]
    if len(names) < 2 or len({run.draw for run in runs}) < 2:
        return Table("", columns, [])
    found = fit(runs, names[0])
    rest = [percent(sd, 2) for sd in (found.draws, found.families_by_draw, found.residual)]
    rows = [[name, points(effect), percent(error, 2), *rest] for name, (effect, error) in found.effects.items()]
    caption = (
        "Beside it only: a linear mixed model, accuracy ~ family + size with draws and families × draws as components "
        "(REML, statsmodels), in points. It knows nothing of the test images."
        f"{'' if found.converged else ' It did not converge.'}"
    )
    return Table(caption, columns, rows, ("family",))
