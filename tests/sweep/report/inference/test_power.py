"""Simulated studies, drawn here: how often intervals cover, and how often the rules say what is not so.

Legend: `B` studies, `F` families besides the baseline, `D` draws, `S` seeds, `N` test images. In points: a run has a
standard deviation of 1, a family has one of its own in every draw (interaction), the test images give the difference of
two families an error of their own.
"""

import itertools
from dataclasses import dataclass

import numpy as np
import pytest

from sweep.report.inference import power
from sweep.report.inference.comparison import Verdict, compare, decide
from sweep.report.inference.power import Components, Design, components, coverage_and_power
from sweep.report.statistics import holm

B, S, N = 4000, 3, 596
ERRORS, INTERACTIONS = (0.0, 0.4, 1.3), (0.0, 0.7, 1.4)


@dataclass(frozen=True, kw_only=True)
class Truth:
    """What studies are drawn from; `effect`: how far every family is ahead, in points."""

    D: int
    F: int = 1
    error: float = 0.0
    interaction: float = 0.0
    effect: float = 0.0
    sd: float = 1.0


def studies(generator, truth, B=B):
    """Differences (B, F, D, S) to one baseline, as fractions, and their variances by N images."""
    F, error = truth.F, truth.error
    accuracies = truth.sd * generator.standard_normal((B, F + 1, truth.D, S))
    accuracies += truth.interaction * generator.standard_normal((B, F + 1, truth.D, 1))
    accuracies += error / 2**0.5 * generator.standard_normal((B, F + 1, 1, 1))
    within = error**2 * generator.chisquare(N - 1, (B, F)) / (N - 1)
    return (accuracies[:, 1:] - accuracies[:, :1] + truth.effect) / 100, within / 1e4


def cases():
    return itertools.product((5, 10), ERRORS, INTERACTIONS)  # draws, errors, interactions


def test_the_printed_interval_covers_in_at_least_93_percent_of_studies():
    generator = np.random.default_rng(0)
    covered = {}
    for D, error, interaction in cases():
        differences, within = studies(generator, Truth(D=D, error=error, interaction=interaction, effect=1.0))
        found = power.weigh(differences, within)
        covered[D, error, interaction] = float((np.abs(found.delta_BF - 0.01) <= power.half_widths(found, N)).mean())
    assert {case: share for case, share in covered.items() if not 0.93 <= share <= 0.975} == {}


@pytest.mark.parametrize(("F", "most"), [(1, 0.05), (9, 0.06)])
def test_families_of_no_difference_are_seldom_called_better_or_worse(F, most):
    """Measured with 100,000 and 20,000 studies: at most 4.9 % and 4.3 %; 4,000 are that far from it by chance."""
    generator, chance = np.random.default_rng(1), 2.5 * (most * (1 - most) / B) ** 0.5
    false = {}
    for D, error, interaction in cases():
        studied = studies(generator, Truth(D=D, F=F, error=error, interaction=interaction))
        better, worse = power.called(power.weigh(*studied))
        false[D, error, interaction] = float((better | worse).any(1).mean())
    assert {case: share for case, share in false.items() if share > most + chance} == {}


def equivalent(found):
    half = power.half_widths(found, N)
    return power.comparison.is_equivalent(found.delta_BF - half, found.delta_BF + half)


def test_equivalence_is_found_where_it_is_and_not_where_families_are_a_point_apart():
    generator = np.random.default_rng(2)
    found = {}
    for effect, sd in itertools.product((0.0, 1.0, 1.5), (0.3, 1.0)):
        differences, within = studies(generator, Truth(D=10, error=0.1, effect=effect, sd=sd))
        found[effect, sd] = float(equivalent(power.weigh(differences, within)).mean())
    assert found[0.0, 0.3] > 0.99 and found[0.0, 1.0] > 0.6
    assert max(found[1.0, 0.3], found[1.0, 1.0]) <= 0.035  # 2.5 % of intervals lie wholly below the true difference
    assert max(found[1.5, 0.3], found[1.5, 1.0]) <= 0.005


def test_power_grows_with_the_difference_the_draws_and_smaller_errors():
    found = {}
    for D, images, draws in itertools.product((5, 10), (0.004, 0.013), (0.0, 0.014)):
        spread = Components(seeds=0.014, draws=draws, images=images)
        found[D, images, draws] = coverage_and_power(
            Design(draws=D, seeds=S, images=N), spread, np.random.default_rng(0)
        ).power
    for shown in found.values():
        assert list(shown.values()) == sorted(shown.values())
    for images, draws in itertools.product((0.004, 0.013), (0.0, 0.014)):
        assert found[10, images, draws][0.02] > found[5, images, draws][0.02]
    assert found[5, 0.004, 0.0][0.03] > 0.9
    assert found[5, 0.013, 0.014][0.03] < 0.5


def test_what_is_printed_of_a_design_is_what_such_studies_show():
    """The report's simulation against the studies of this file, drawn otherwise."""
    spread = Components(seeds=0.014142, draws=0.0099, images=0.004)  # differences: sqrt 2 of a family's own 1 and 0.7
    shown = coverage_and_power(Design(draws=5, seeds=S, families=3, images=N), spread, np.random.default_rng(0))
    generator = np.random.default_rng(3)
    better, worse = power.called(power.weigh(*studies(generator, Truth(D=5, F=3, error=0.4, interaction=0.7))))
    assert shown.false == pytest.approx((better | worse).any(1).mean(), abs=0.015)
    differences, within = studies(generator, Truth(D=5, F=3, error=0.4, interaction=0.7))
    differences[:, 0] += 0.03
    found = power.weigh(differences, within)
    assert shown.power[0.03] == pytest.approx(power.called(found)[0][:, 0].mean(), abs=0.04)
    assert shown.coverage == pytest.approx(0.95, abs=0.02)


def test_below_five_draws_there_is_nothing_to_be_found():
    shown = coverage_and_power(
        Design(draws=4, seeds=3), Components(seeds=0.01, draws=0, images=0), np.random.default_rng(0)
    )
    assert set(shown.power.values()) == {0.0} and shown.false == 0 and shown.coverage == pytest.approx(0.95, abs=0.02)


def test_many_studies_at_once_are_judged_as_one_is():
    """The simulations apply the very rules of the report."""
    generator = np.random.default_rng(4)
    for D in (4, 5, 6):
        differences, _ = studies(generator, Truth(D=D, F=3, interaction=0.7, effect=2.0), B=12)
        images_BFN = generator.normal(0, 0.1, (12, 3, 50))
        found = power.weigh(differences, images_BFN.var(-1, ddof=1) / 50)
        (better, worse), half = power.called(found), power.half_widths(found, 50)
        for b in range(12):
            compared = [compare(list(differences[b, f]), images_BFN[b, f]) for f in range(3)]
            assert [one.p for one in compared] == pytest.approx(found.p_BF[b])
            assert [one.interval.high - one.delta for one in compared] == pytest.approx(half[b])
            verdicts = [one for _, one in decide(compared)]
            assert [one in (Verdict.better, Verdict.better_within) for one in verdicts] == better[b].tolist()
            assert [one in (Verdict.worse, Verdict.worse_within) for one in verdicts] == worse[b].tolist()
            assert (D < 5) is all(one is Verdict.pilot for one in verdicts)


def test_p_values_of_many_studies_are_adjusted_as_those_of_one():
    p_BF = np.random.default_rng(0).random((50, 4)) ** 3
    assert power.adjusted(p_BF) == pytest.approx(np.array([holm(p_F) for p_F in p_BF]))


def test_networks_tested_image_by_image_are_covered_too():
    """Every run has each image right by chance, with a probability that the image, the draw and the family decide."""
    generator, covered, repetitions = np.random.default_rng(5), 0, 250
    easy = np.linspace(-1, 4, 4000)  # the images there could be
    truth = {}
    for gain in (0.0, 0.3):
        drawn = easy + gain + 0.3 * generator.standard_normal((400, 1))
        truth[gain] = (1 / (1 + np.exp(-drawn))).mean()
    for _ in range(repetitions):
        chosen, draws = generator.choice(len(easy), 200, replace=False), []
        right = []
        for gain in (0.0, 0.3):
            logits = easy[chosen] + gain + 0.3 * generator.standard_normal((5, 1, 1))
            right.append(generator.random((5, 3, 200)) < 1 / (1 + np.exp(-logits)))
        difference_DSN = right[1].astype(float) - right[0]
        draws = list(difference_DSN.mean(-1))
        interval = compare(draws, difference_DSN.mean((0, 1))).interval
        covered += interval.low <= truth[0.3] - truth[0.0] <= interval.high
    assert covered / repetitions >= 0.93


def test_components_are_those_of_an_analysis_of_variance():
    found = components([np.array([1.0, 3.0]), np.array([5.0, 7.0])], 0.25)
    assert found.seeds == pytest.approx(2**0.5)
    assert found.draws == pytest.approx((8 - 2 / 2) ** 0.5)  # variance of 2 and 6, less what seeds give it
    assert found.images == 0.5
    assert components([np.array([1.0]), np.array([3.0])], None) == Components(seeds=0.0, draws=2**0.5, images=0.0)
    assert components([np.array([0.0, 9.0]), np.array([0.0, 9.0])], None).draws == 0
