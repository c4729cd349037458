"""Estimates and verdicts against values computed by hand, and a check of every rule from both of its sides."""

import numpy as np
import pytest
from scipy import stats

from sweep.report.inference.comparison import (
    Comparison,
    MeanEstimate,
    Verdict,
    compare,
    decide,
    estimate,
    p_value,
    satterthwaite,
    smallest_adjusted,
    verdict,
)
from sweep.report.inference.pairs import FinalRun, image_means, matched


def sample(*draws):
    return [np.array(seeds, dtype=float) for seeds in draws]


# The estimate


def test_without_test_images_it_is_students_t_over_draws():
    found = estimate(sample([1, 3], [4], [6, 6]))
    assert (found.mean, found.units, found.within, found.df) == (4.0, 3, None, 2.0)
    assert found.between == pytest.approx(4 / 3)  # draw means 2, 4, 6
    half = 4.302653 * (4 / 3) ** 0.5
    assert (found.interval.low, found.interval.high) == (pytest.approx(4 - half), pytest.approx(4 + half))
    assert found.p == pytest.approx(2 * stats.t.sf(4 / (4 / 3) ** 0.5, 2))


def test_the_variance_by_test_images_is_added_and_the_degrees_of_freedom_follow():
    images_N = np.array([1, 0, 0, -1, 1, 0, 0, 0, 1, 0], dtype=float)  # variance 0.4
    found = estimate(sample([1], [2], [3]), images_N)
    between, within = 1 / 3, images_N.var(ddof=1) / 10
    assert (found.between, found.within) == (pytest.approx(between), pytest.approx(within))
    assert found.df == pytest.approx((between + within) ** 2 / (between**2 / 2 + within**2 / 9))
    half = stats.t.ppf(0.975, found.df) * (between + within) ** 0.5
    assert found.interval.high == pytest.approx(2 + half)


def test_with_one_draw_the_seeds_are_the_units():
    found = estimate(sample([1, 2, 3]))
    assert (found.units, found.between) == (3, pytest.approx(1 / 3))
    assert estimate(sample([1])) is None
    assert estimate(sample([1], [2])).units == 2


def test_overlapping_draws_have_the_corrected_variance():
    draws = sample([1], [2], [3])
    assert estimate(draws, overlap=0.25).between == pytest.approx(1 / 3 + 0.25 / 0.75)


@pytest.mark.parametrize(("between", "within", "df"), [(1, 0, 4), (0, 1, 99), (0, 0, 4), (1, 1, 4 / (1 / 4 + 1 / 99))])
def test_degrees_of_freedom_lie_between_those_of_draws_and_images(between, within, df):
    assert satterthwaite(between, 5, within, 100) == pytest.approx(df)


@pytest.mark.parametrize("t", [0.5, 2.776, 8.6])
def test_p_is_students_without_image_error_and_normal_without_that_of_draws(t):
    assert p_value(t, 1, 5, 0) == pytest.approx(2 * stats.t.sf(t, 4))
    assert p_value(t, 0, 5, 1) == pytest.approx(2 * stats.norm.sf(t))


def test_p_between_them_is_that_of_a_sum_of_students_t_and_a_normal_variable():
    generator = np.random.default_rng(0)
    drawn, fixed = generator.standard_t(4, 400_000), generator.standard_normal(400_000)
    for mean, between, within in ((3, 1, 1), (4, 1, 0.3), (2, 0.1, 1)):
        share = np.mean(np.abs(between**0.5 * drawn + within**0.5 * fixed) > mean)
        assert p_value(mean, between, 5, within) == pytest.approx(share, rel=0.03)


def test_what_never_varies_is_certain_unless_it_is_nothing():
    assert (float(p_value(0.1, 0, 5, 0)), float(p_value(0.0, 0, 5, 0))) == (0.0, 1.0)


# The comparison


def test_a_comparison_says_difference_share_of_wins_and_both_tests():
    found = compare(sample([0.02, 0.04], [0.01, -0.01], [0.03, 0.05], [0.02, 0.0], [0.04, 0.02]))
    assert (found.draws, found.pairs, found.delta) == (5, 10, pytest.approx(0.022))
    assert found.improvement == pytest.approx((1 + 0.5 + 1 + 0.75 + 1) / 5)
    assert found.sign_flip == pytest.approx(4 / 32)  # of 0.03, 0, 0.04, 0.01, 0.03: the zero's sign does not matter
    assert found.improvement_interval.low == pytest.approx(0.418, abs=0.002)  # Wilson's, 0.85 of 5
    assert (found.resampled, found.conditional) == (None, False)


def test_the_bootstrap_stands_beside_from_ten_draws_on():
    draws = sample(*np.random.default_rng(0).normal(0.02, 0.01, size=(10, 2)))
    assert compare(draws[:9]).resampled is None
    found = compare(draws)
    assert found.interval.low < found.resampled.low < found.delta < found.resampled.high < found.interval.high


@pytest.mark.parametrize(("draws", "families", "p"), [(5, 1, 0.0625), (5, 9, 0.5625), (9, 9, 0.03515625), (2, 9, 1.0)])
def test_the_smallest_sign_flip_p_grows_with_the_families(draws, families, p):
    assert smallest_adjusted(draws, families) == pytest.approx(p)


# The rules


def compared(delta=0.03, half=0.02, ahead=0.8, draws=5, overlap=0.0):
    """A comparison whose interval is delta ± half (by Student's t with 4 degrees of freedom)."""
    between = (half / stats.t.ppf(0.975, 4)) ** 2
    found = MeanEstimate(mean=delta, units=5, between=between, within=None, df=4.0)
    return Comparison(
        delta=delta, estimate=found, improvement=ahead, improvement_interval=None, sign_flip=1.0, resampled=None,
        draws=draws, pairs=2 * draws, overlap=overlap,
    )  # fmt: skip


RULES = {
    "better": (compared(), 0.05, Verdict.better),
    "p above": (compared(), 0.0501, Verdict.inconclusive),
    "P at the threshold": (compared(ahead=0.75), 0.01, Verdict.better),
    "P below": (compared(ahead=0.749), 0.01, Verdict.inconclusive),
    "ahead in most pairs and behind on average": (compared(delta=-0.03), 0.01, Verdict.inconclusive),
    "worse": (compared(delta=-0.03, ahead=0.25), 0.05, Verdict.worse),
    "worse, p above": (compared(delta=-0.03, ahead=0.25), 0.0501, Verdict.inconclusive),
    "worse, P above": (compared(delta=-0.03, ahead=0.251), 0.01, Verdict.inconclusive),
    "behind in most pairs and ahead on average": (compared(ahead=0.2), 0.01, Verdict.inconclusive),
    "equivalent": (compared(delta=0.002, half=0.0079, ahead=0.6), 0.6, Verdict.equivalent),
    "too wide above": (compared(delta=0.002, half=0.0081, ahead=0.6), 0.6, Verdict.inconclusive),
    "too wide below": (compared(delta=-0.002, half=0.0081, ahead=0.4), 0.6, Verdict.inconclusive),
    "better, within": (compared(delta=0.005, half=0.004, ahead=0.9), 0.02, Verdict.better_within),
    "worse, within": (compared(delta=-0.005, half=0.004, ahead=0.1), 0.02, Verdict.worse_within),
    "four draws": (compared(draws=4), 0.001, Verdict.pilot),
    "four equivalent draws": (compared(delta=0, half=0.001, draws=4), 1.0, Verdict.pilot),
    "one training set": (compared(overlap=1.0), 0.001, Verdict.pilot),
    "overlapping draws": (compared(overlap=0.3), 0.001, Verdict.better),
}


@pytest.mark.parametrize("case", RULES)
def test_the_verdict_follows_the_fixed_rules(case):
    found, p_holm, expected = RULES[case]
    assert verdict(found, p_holm) is expected


def test_families_of_a_task_are_decided_together_by_holms_rule():
    strong, weak = compared(half=0.010), compared(half=0.029)
    assert 0.025 < weak.p < 0.05 and strong.p < 0.01
    assert [found for _, found in decide([weak])] == [Verdict.better]
    assert [found for _, found in decide([weak, strong])] == [Verdict.better, Verdict.better], "step down"
    decided = decide([weak, weak, strong])
    assert [found for _, found in decided] == [Verdict.inconclusive, Verdict.inconclusive, Verdict.better]
    assert decided[0][0] == pytest.approx(2 * weak.p)


# Images


def run(draw, seed, hits=None, failed=False, indices=(4, 5, 6)):
    kept = None if hits is None else np.array(hits, dtype=bool)
    places = None if hits is None else np.array(indices)
    return FinalRun(draw, seed, 0.1 if kept is None else float(kept.mean()), failed, places, kept)


def test_images_are_averaged_over_draws_and_runs_alike_and_failed_runs_guess():
    own = [run(0, 1, [1, 1, 0]), run(0, 2, [1, 0, 0]), run(1, 1, failed=True), run(2, 9, [1, 1, 1])]
    base = [run(0, 1, [0, 1, 0]), run(0, 2, [1, 1, 0]), run(1, 1, [1, 0, 0])]
    pairs = matched(own, base)
    assert {draw: len(found) for draw, found in pairs.items()} == {0: 2, 1: 1}
    first, second = np.array([0.5, -0.5, 0]), np.array([0.1 - 1, 0.1, 0.1])
    assert image_means(pairs) == pytest.approx((first + second) / 2)
    both = matched([run(0, 1, failed=True), run(1, 1, [1, 0, 0])], [run(0, 1, failed=True), run(1, 1, [0, 0, 0])])
    assert image_means(both) == pytest.approx([0.5, 0, 0])


@pytest.mark.parametrize(
    "other", [run(0, 1), run(0, 1, [1, 1, 0], indices=(4, 5, 7)), run(0, 1, [1, 1], indices=(4, 5))]
)
def test_images_say_nothing_where_a_run_kept_none_or_has_others(other):
    assert image_means(matched([run(0, 1, [1, 0, 1])], [other])) is None
    assert image_means(matched([run(0, 1, failed=True)], [run(0, 1, failed=True)])) is None
