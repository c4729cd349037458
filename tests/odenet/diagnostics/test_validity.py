"""The verdict on whether a network is an ODE: the rule on numbers by hand, then on networks whose answer is known."""

import numpy as np
import pytest
import torch

from odenet import (
    Classifier,
    DataConfig,
    ExperimentConfig,
    ModelConfig,
    Network,
    Scheme,
    Training,
    TrainingConfig,
    load_test,
)
from odenet.data.batches import Batches, Statistics
from odenet.diagnostics.manifesting import change, lost, reestimated_manifestations, validity, verdict
from odenet.diagnostics.validity import AccuracyChange, judge, paired_error
from odenet.networks.norms import NodeBatchNorm
from odenet.training.evaluation import Manifested, Score, manifestations
from tests.odenet.diagnostics.probes import images, right, tiny

EULER, RK4, HEUN = Scheme.euler, Scheme.rk4, Scheme.heun
ASKED = [(EULER, 2.0), (EULER, 4.0), (RK4, 1.0), (RK4, 2.0)]


def drops(*values: float, error: float | None = 0.02) -> list[AccuracyChange]:
    return [AccuracyChange(scheme, steps, drop, error) for (scheme, steps), drop in zip(ASKED, values, strict=True)]


def test_the_paired_error_is_that_of_the_changes_image_by_image() -> None:
    draws = np.random.default_rng(0)
    own, other = draws.random((2, 200)) < 0.7
    changes = own.astype(float) - other
    lost, gained = (own & ~other).mean(), (other & ~own).mean()
    assert paired_error(lost, gained, 200) == pytest.approx(changes.std(ddof=1) / np.sqrt(200))
    assert paired_error(0.0, 0.0, 200) == 0.0
    with pytest.raises(ValueError, match="n=1: a standard error needs at least 2 images"):
        paired_error(0.0, 0.0, 1)


def test_hits_made_by_hand_give_the_drop_and_its_error() -> None:
    own, other = np.array([1, 1, 1, 0], bool), np.array([1, 0, 0, 1], bool)
    made = [
        Manifested(scheme, steps, scheme is EULER, Score(hits.mean(), 1.0, 4), 1.0, 1, hits)
        for scheme, steps, hits in ((EULER, 4, own), (RK4, 8, other))
    ]
    found = change(*made)
    assert (found.scheme, found.steps, found.drop) == (RK4, 2.0, 0.25)
    assert found.error == pytest.approx(np.std([0, 1, 1, -1], ddof=1) / 2)
    assert verdict(made).worst == found
    with pytest.raises(ValueError, match="No verdict without the score under the trained manifestation"):
        verdict(made[1:])


def test_the_largest_drop_decides_by_one_point_and_by_two_standard_errors() -> None:
    assert judge(EULER, drops(0.0, 0.01, -0.02, 0.005)).valid is True
    assert judge(EULER, drops(0.0, 0.0, 0.0, 0.0101)).valid is False
    assert judge(EULER, drops(0.009, 0.0, 0.0, 0.0, error=0.0045)).valid is True
    assert judge(EULER, drops(0.0, 0.009, 0.0, 0.0, error=0.0044)).valid is False
    assert judge(EULER, drops(0.009, 0.0, 0.0, 0.0, error=None)).valid is True, "an error that is not known"
    found = judge(EULER, drops(0.0, 0.03, 0.02, 0.0))
    assert (found.drop, found.error, found.unmeasured) == (0.03, 0.02, ())
    assert found.worst is not None
    assert (found.worst.scheme, found.worst.steps) == (EULER, 4.0)


def test_what_the_rule_does_not_ask_for_does_not_decide_and_what_was_not_measured_is_named() -> None:
    others = [
        AccuracyChange(HEUN, 1.0, 0.5, 0.01),
        AccuracyChange(EULER, 0.5, 0.5, 0.01),
        AccuracyChange(RK4, 4.0, 0.5, 0.01),
    ]
    assert judge(EULER, [*drops(0, 0, 0, 0), *others]).valid is True
    found = judge(EULER, [AccuracyChange(EULER, 2.0, 0.0, 0.0), *others])
    assert (found.valid, found.unmeasured) == (True, ("euler at 4n", "rk4 at 1n", "rk4 at 2n"))
    assert judge(RK4, [AccuracyChange(RK4, 2.0, 0.0, 0.0)]).unmeasured == ("rk4 at 4n",), "RK4 at n is the trained one"
    nothing = judge(EULER, others)
    assert (nothing.valid, nothing.drop) == (None, None)
    assert "no manifestation was measured" in nothing.reason


def test_the_critical_step_is_the_longest_down_to_which_nothing_is_lost() -> None:
    def longest(**drop: float) -> float | None:
        named = {"quarter": 0.25, "half": 0.5, "twice": 2.0, "four": 4.0}
        return judge(
            EULER, [AccuracyChange(EULER, named[name], value, 0.02) for name, value in drop.items()]
        ).critical_step

    assert longest(quarter=0.2, half=0.0, twice=0.0, four=0.0) == 2.0
    assert longest(quarter=0.0, half=0.2, twice=0.0, four=0.0) == 1.0, "a longer one that passes by luck"
    assert longest(quarter=0.0, half=0.0, twice=0.2, four=0.0) == 0.25
    assert longest(twice=0.0, four=0.2) is None


@pytest.mark.parametrize(
    ("name", "reason"),
    [("lm_resnet", "its k_n belong to one step"), ("polynet", "block is one step"), ("neural_ode", "adaptive")],
)
def test_a_network_that_approximates_no_ode_has_no_verdict_but_a_reason(name: str, reason: str) -> None:
    found = validity(tiny(name, nodes=1), images(100))
    assert (found.valid, found.drop, found.critical_step) == (None, None, None)
    assert reason in found.reason


def alternating(model: Classifier) -> Classifier:
    """Let the rate change its sign from node to node, as no ODE's could: each step undoes the one before."""
    for stage in model.network.depth_stages():
        norm = [layer for layer in stage.rate.node_layers() if isinstance(layer, NodeBatchNorm)][-1]
        with torch.no_grad():
            norm.weight *= torch.tensor([8.0, -8.0, 8.0, -8.0])[:, None]
    return model


def test_a_network_converged_in_depth_is_valid_and_one_of_alternating_weights_is_not() -> None:
    converged = tiny("continuous", nodes=4, depth_time=1e-4)
    found = validity(converged, right(converged, images()))
    assert (found.valid, found.drop, found.error, found.critical_step) == (True, 0.0, 0.0, 4.0)
    jumping = alternating(tiny("continuous", nodes=4))
    found = validity(jumping, right(jumping, images()))
    assert found.valid is False
    assert found.drop is not None
    assert found.drop > 0.05
    assert found.unmeasured == ()


def test_the_verdict_rests_on_the_table_of_manifestations() -> None:
    model = tiny("continuous", nodes=2)
    shown = right(model, images())
    batches = Batches(shown, statistics=Statistics.identity(1))
    table = manifestations(model, batches, [RK4], [0.25, 0.5, 2.0, 4.0])
    assert validity(model, shown) == verdict(table)
    assert all(one.hits_N.mean() == pytest.approx(one.score.accuracy) for one in table)


def test_the_table_is_had_with_batch_norms_estimated_anew_as_the_verdict_is() -> None:
    model, shown, training = tiny("continuous", nodes=2), images(), images(64, seed=1)
    batches = Batches(shown, statistics=Statistics.identity(1))
    table = reestimated_manifestations(model, batches, training, [RK4], [0.25, 0.5, 2.0, 4.0])
    assert [(one.scheme, one.steps) for one in table] == [(s, n) for s in (EULER, RK4) for n in (1, 2, 4, 8)]
    assert validity(model, shown, training_images=training) == verdict(table)
    own, other = table[1], table[2]
    assert change(own, other).drop == pytest.approx(own.score.accuracy - other.score.accuracy)
    assert lost(own, other) == np.mean(own.hits_N & ~other.hits_N)


def test_a_second_order_ode_is_judged_by_its_own_scheme_alone() -> None:
    model = tiny("leapfrog", depth_time=1e-3)
    found = validity(model, right(model, images()))
    assert (found.valid, found.unmeasured) == (True, ("rk4 at 1n", "rk4 at 2n"))


def test_the_control_a_trained_resnet_fails() -> None:
    config = ExperimentConfig(
        model=ModelConfig(network=Network.resnet, width=4, nodes=4),
        data=DataConfig(per_class=20),
        training=TrainingConfig(epochs=8),
    )
    training = Training(config)
    *_, last = training
    assert last.metrics["val/accuracy"] > 0.3, "it has learned something to lose"
    found = validity(training.checkpoint().classifier(), load_test(config.data))
    assert found.valid is False
    assert found.drop is not None
    assert found.error is not None
    assert found.drop > 4 * found.error


def test_too_few_images_and_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^99 images are too few: at least 100 are needed\.$"):
        validity(tiny("continuous"), images(99))
    with pytest.raises(ValueError, match=r"^Images of shape \(1, 9, 9\): the network takes \(1, 8, 8\)\.$"):
        validity(tiny("continuous"), images(side=9))
