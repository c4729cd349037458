"""Intervals and p-values against values computed by hand, and coverage by simulation."""

import ast
import itertools
import re
from pathlib import Path

import numpy as np
import pytest

from odenet.training.config import OBJECTIVE_EPOCHS
from sweep.report.inference.comparison import ALPHA, DECIDES, EQUIVALENCE, MEANINGFUL, RESAMPLED
from sweep.report.statistics import (
    bootstrap,
    grand_mean,
    holm,
    sign_flip_p,
    smallest_p,
    spread,
    student,
    wilson,
    wins,
)

ROOT = Path(__file__).parents[3]


def sample(*draws):
    return [np.array(seeds, dtype=float) for seeds in draws]


def test_draws_weigh_the_same_however_many_seeds_each_has():
    assert grand_mean(sample([1, 2, 3], [10])) == pytest.approx((2 + 10) / 2)


def test_the_spread_of_a_single_value_is_none_and_of_more_the_sample_standard_deviation():
    assert spread([0.5]) is None
    assert spread([1, 2, 3, 4]) == pytest.approx((5 / 3) ** 0.5)


def test_the_bootstrap_reaches_exactly_the_values_that_enumeration_gives():
    draws = sample([0, 1], [4])
    means = []
    for first, second in itertools.product(draws, repeat=2):
        for a in itertools.product(first, repeat=len(first)):
            for b in itertools.product(second, repeat=len(second)):
                means.append((np.mean(a) + np.mean(b)) / 2)
    found = bootstrap(draws, np.random.default_rng(0), level=1.0)
    assert (found.low, found.high) == (min(means), max(means)) == (0, 4)


def test_the_bootstrap_has_the_variance_of_two_levels_of_resampling():
    """Variance of the mean of D resampled draw means: between draws / D + mean within / (D S), each with divisor n."""
    draws = list(np.random.default_rng(5).normal(0, 1, size=(9, 4)))
    between, within = np.var([np.mean(seeds) for seeds in draws]), np.mean([np.var(seeds) / 4 for seeds in draws])
    found = bootstrap(draws, np.random.default_rng(1), level=0.6827)
    assert (found.high - found.low) / 2 == pytest.approx(((between + within) / 9) ** 0.5, rel=0.05)


def test_an_interval_over_many_seeds_is_that_of_the_normal_distribution_at_95_percent():
    seeds_S = np.random.default_rng(0).normal(size=400)
    found = bootstrap([seeds_S], np.random.default_rng(1))
    half = 1.96 * seeds_S.std() / 20
    assert (found.low, found.high) == pytest.approx((seeds_S.mean() - half, seeds_S.mean() + half), abs=0.08 * half)


def test_equal_generators_give_equal_intervals():
    draws = sample([1, 2], [3, 5, 4])
    assert bootstrap(draws, np.random.default_rng(7)) == bootstrap(draws, np.random.default_rng(7))


@pytest.mark.parametrize("draws", [[], sample([1], [])])
def test_a_bootstrap_without_runs_is_refused(draws):
    with pytest.raises(ValueError, match="at least one draw, and at least one seed in every draw"):
        bootstrap(draws, np.random.default_rng(0))


def test_intervals_over_twelve_draws_cover_the_truth_about_as_often_as_they_say():
    generator, covered, repetitions = np.random.default_rng(3), 0, 200
    for _ in range(repetitions):
        draws = [generator.normal(generator.normal(0.02, 0.03), 0.02, size=3) for _ in range(12)]
        interval = bootstrap(draws, generator, resamples=500)
        covered += interval.low <= 0.02 <= interval.high
    assert 0.88 <= covered / repetitions <= 0.99


def test_intervals_over_three_draws_cover_far_less_than_they_say():
    """Why it is not the interval that is reported."""
    generator, covered, repetitions = np.random.default_rng(4), 0, 200
    for _ in range(repetitions):
        draws = [generator.normal(generator.normal(0.0, 0.03), 0.002, size=3) for _ in range(3)]
        interval = bootstrap(draws, generator, resamples=500)
        covered += interval.low <= 0 <= interval.high
    assert covered / repetitions < 0.88


@pytest.mark.parametrize(
    ("differences", "p"),
    [
        ([0.3], 1.0),
        ([1, 2, 3], 2 / 8),  # +++ alone reaches the mean 2
        ([1, 2, -3], 8 / 8),  # the mean is 0
        ([3, 2, -1], 4 / 8),  # |mean| >= 4/3: 6, 4, and their mirrors
        ([1, 2, 3, 4, 5], 2 / 32),
        ([-1, 2, 3, 4, 5], 4 / 32),  # sums 15 and 13, and their mirrors
        ([0, 0, 0], 1.0),
    ],
)
def test_the_sign_flip_p_is_the_one_enumerated_by_hand(differences, p):
    assert sign_flip_p(differences) == pytest.approx(p)


@pytest.mark.parametrize("draws", [2, 3, 5])
def test_no_differences_give_a_smaller_p_than_the_smallest(draws):
    assert sign_flip_p(range(1, draws + 1)) == pytest.approx(smallest_p(draws)) == pytest.approx(2 / 2**draws)


@pytest.mark.parametrize(
    ("p_values", "adjusted"),
    [
        ([], []),
        ([0.2], [0.2]),
        ([0.01, 0.04, 0.03], [0.03, 0.06, 0.06]),
        ([0.5, 0.6], [1.0, 1.0]),
        ([0.04, 0.01], [0.04, 0.02]),
    ],
)
def test_holm_adjusts_step_down_and_keeps_the_order(p_values, adjusted):
    assert holm(p_values) == pytest.approx(adjusted)


def test_ties_count_as_half_a_win():
    assert grand_mean(wins(sample([0.1, 0.0], [-0.1, 0.2]))) == pytest.approx((0.75 + 0.5) / 2)


def test_students_and_wilsons_intervals_are_the_published_ones() -> None:
    found = student(0.8, 0.1, 4)  # t(0.975, 3) = 3.1824
    assert (found.low, found.high) == (pytest.approx(0.8 - 0.15912, abs=1e-4), pytest.approx(0.8 + 0.15912, abs=1e-4))
    found = wilson(0.9, 10)  # Agresti and Coull 1998, table 1: not 0.714 to 1.086, which would be Wald's
    assert (found.low, found.high) == (pytest.approx(0.5958, abs=1e-3), pytest.approx(0.9821, abs=1e-3))
    assert wilson(1.0, 10).high == pytest.approx(1.0) and wilson(0.0, 10).low == pytest.approx(0.0, abs=1e-12)


def test_no_sentence_of_the_code_repeats_a_threshold_and_the_pages_say_the_present_ones() -> None:
    """What is fixed in one place is read from there: else a report states rules that were not applied."""
    repeated = re.compile(
        r"\b95 ?%|0\.95\b|\b0\.75\b|10,000 resamples|last (5|five) epochs|(one|1) point\b|at least 5\b"
    )
    found = []
    for path in [*(ROOT / "sweep").rglob("*.py"), *(ROOT / "sweep").rglob("*.j2")]:
        text = path.read_text()
        if path.suffix == ".py":
            tree = ast.parse(text)
            told = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}  # docstrings
            constants = (node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in told)
            text = "\n".join(node.value for node in constants if isinstance(node.value, str))
        found += [f"{path.name}: {match[0]}" for match in repeated.finditer(text)]
    assert found == []
    rules = (ROOT / "docs/statistics.md").read_text()
    words = {1: "one", 5: "five", 10: "ten"}
    assert f"Holm-adjusted p is at most {ALPHA}, the mean difference is above 0 and P(A > B) is at least" in rules
    assert f"is at least {MEANINGFUL} |" in rules
    assert f"lies within {words[round(100 * EQUIVALENCE)]} point of accuracy" in rules
    assert f"| fewer than {words[DECIDES]} draws, or one training set |" in rules
    assert f"from {words[RESAMPLED]} draws on" in rules
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        text = " ".join(page.read_text().split())
        said = set(re.findall(r"last (\w+) epochs", text)) if page.name != "log.md" else set()
        assert said <= {str(OBJECTIVE_EPOCHS), words[OBJECTIVE_EPOCHS]}, page
