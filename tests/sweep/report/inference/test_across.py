"""Figures over several tasks against values computed by hand, and the mixed model against what was put in."""

import numpy as np
import pytest

from sweep.report.inference.aggregates import improvement, iqm, optimality_gap, profile, stratified
from sweep.report.inference.mixed_model import Run, fit


def sample(*tasks):
    return [[np.array(draw, dtype=float) for draw in task] for task in tasks]


ONE = sample([[0.0, 0.4], [0.8, 1.2]], [[0.5, 0.6], [0.7, 1.0]])
OTHER = sample([[0.1], [0.8]], [[0.4], [0.6]])


def test_the_figures_of_agarwal_and_others_are_those_computed_by_hand():
    assert iqm(ONE) == pytest.approx((0.5 + 0.6 + 0.7 + 0.8) / 4)  # two of eight are cut on either side
    assert optimality_gap(ONE) == pytest.approx(1 - (0 + 0.4 + 0.8 + 1 + 0.5 + 0.6 + 0.7 + 1) / 8)
    assert profile(ONE, 0.6) == pytest.approx((2 / 4 + 2 / 4) / 2)
    first = (0 + 1 + 1 + 1 + 0 + 0 + 0.5 + 1) / 8  # against 0.1, then against 0.8
    second = (1 + 1 + 1 + 1 + 0 + 0.5 + 1 + 1) / 8
    assert improvement(ONE, OTHER) == pytest.approx((first + second) / 2)
    assert improvement(OTHER, ONE) == pytest.approx(1 - (first + second) / 2)


def test_the_bootstrap_resamples_draws_within_tasks_and_keeps_pairs():
    found = stratified([sample([[0.0], [1.0]], [[5.0]])], iqm, np.random.default_rng(0), 500)
    assert (found.low, found.high) == (pytest.approx(5 / 3), pytest.approx(7 / 3)), "a task of one draw does not vary"
    shifted = [[draw - 0.1 for draw in task] for task in ONE]
    paired = stratified(
        [sample([[0.2], [0.6], [0.9]]), sample([[0.1], [0.5], [0.8]])], improvement, np.random.default_rng(0), 500
    )
    assert paired.low >= 0.5 and improvement(ONE, shifted) > 0.5


def test_the_mixed_model_finds_the_effects_and_components_that_were_put_in():
    generator, runs = np.random.default_rng(0), []
    draws = 0.02 * generator.standard_normal(30)
    for family, effect in (("resnet", 0.0), ("continuous", 0.03)):
        crossed = 0.01 * generator.standard_normal(30)
        for size, level in (("10", 0.5), ("50", 0.7)):
            for draw in range(30):
                for noise in 0.005 * generator.standard_normal(3):
                    runs.append(Run(family, size, draw, level + effect + draws[draw] + crossed[draw] + noise))
    found = fit(runs, "resnet")
    effect, error = found.effects["continuous"]
    assert abs(effect - 0.03) < 3 * error and error == pytest.approx(0.01 * (2 / 30) ** 0.5, rel=0.4)
    assert found.draws == pytest.approx(0.02, rel=0.35)
    assert found.families_by_draw == pytest.approx(0.01, rel=0.35)
    assert found.residual == pytest.approx(0.005, rel=0.15)
    assert found.converged
