"""Tuning curves against enumeration, and their bands against what they promise."""

import itertools

import numpy as np
import pytest

from sweep.report.inference.bands import area, expected_best, tuning_curve


@pytest.mark.parametrize("n", [1, 2, 5])
def test_the_expected_best_is_the_mean_over_all_subsets(n):
    values = np.random.default_rng(n).random(n).round(1).tolist()  # with ties
    for k in range(1, n + 1):
        mean = np.mean([max(subset) for subset in itertools.combinations(values, k)])
        assert expected_best(values, k) == pytest.approx(mean)


def test_a_thousand_trials_have_an_expected_best_between_mean_and_maximum():
    values = np.linspace(0, 1, 1000).tolist()
    assert expected_best(values, 1) == pytest.approx(0.5)
    assert expected_best(values, 1000) == pytest.approx(1.0)
    assert expected_best(values, 3) == pytest.approx(0.75, abs=0.001)


def test_bands_hold_for_all_k_at_once_as_often_as_they_say():
    """Of uniform values the median of the best of k is 0.5^(1/k)."""
    generator, ks = np.random.default_rng(0), [1, 2, 3, 4]
    truth_K, covered = 0.5 ** (1 / np.array(ks)), 0
    for _ in range(2000):
        found = tuning_curve(generator.random(16).tolist(), ks)
        covered += bool(np.all((found.low_K <= truth_K) & (truth_K <= found.high_K)))
    assert covered / 2000 >= 0.94  # they hold for every quantile, of which these are four


def test_a_curve_is_inside_its_band_and_rises_and_failures_lower_it():
    values = [0.1, 0.1, *np.linspace(0.5, 0.9, 14)]
    found = tuning_curve(values, [1, 2, 3, 4])
    assert np.all((found.low_K <= found.median_K) & (found.median_K <= found.high_K) & (found.high_K <= 1))
    assert np.all(np.diff(found.median_K) >= 0) and np.all(np.diff(found.mean_K) > 0)
    assert found.median_K[0] == pytest.approx(np.sort(values)[7]), "the 8th of 16"


def test_no_curve_goes_beyond_a_quarter_of_the_trials():
    with pytest.raises(AssertionError):
        tuning_curve([0.5] * 8, [1, 2, 3])


def test_the_area_is_the_mean_over_the_logarithm_of_k():
    assert area(np.array([1, 2, 4]), np.array([0.2, 0.4, 0.6])) == pytest.approx(0.4)
    assert area(np.array([1, 2, 3]), np.array([0.0, 1.0, 1.0])) == pytest.approx(1 - 0.5 / np.log2(3))
    assert area(np.array([1]), np.array([0.3])) == 0.3
