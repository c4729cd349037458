"""The table of a network's manifestations: the same weights under other schemes and steps, each measured once."""

from collections.abc import Sequence

import pytest
import torch

from odenet import DataConfig, ModelConfig, Network, Scheme, build_model, evaluate, load_data, manifest
from odenet.data.batches import Batches, Statistics
from odenet.networks.model import DepthNet
from odenet.training.cost import forward_gflops
from odenet.training.evaluation import manifestations, predict

RK4, EULER, MIDPOINT, DOPRI5 = Scheme.rk4, Scheme.euler, Scheme.midpoint, Scheme.dopri5


@pytest.fixture(scope="module")
def batches() -> Batches:
    images = load_data(DataConfig(per_class=5)).train
    return Batches(images, statistics=Statistics.of(images))


def network(name: str, nodes: int = 3) -> DepthNet:
    return build_model(ModelConfig(network=Network[name], width=4, nodes=nodes), channels=1, classes=10)


CASES: list[tuple[DepthNet, Sequence[Scheme], Sequence[float], list[tuple[Scheme, int]]]] = [
    (network("continuous"), [RK4, EULER, RK4], [0.5, 2.0], [(s, n) for s in (EULER, RK4) for n in (2, 3, 6)]),
    (network("continuous"), [RK4], [0.01, 0.1, 1.0], [(s, n) for s in (EULER, RK4) for n in (1, 3)]),
    (network("continuous"), [], [], [(EULER, 3)]),
    (network("lm_resnet"), [RK4, EULER], [1.0], [(Scheme.lm, 3)]),  # the others make no sense of its weights
    (network("neural_ode", nodes=1), [EULER, DOPRI5], [2.0], [(DOPRI5, 1), (EULER, 1), (EULER, 2)]),
]


@pytest.mark.parametrize(("model", "schemes", "factors", "pairs"), CASES)
def test_every_scheme_that_has_a_meaning_is_measured_once_at_every_number_of_steps(
    model: DepthNet,
    schemes: Sequence[Scheme],
    factors: Sequence[float],
    pairs: list[tuple[Scheme, int]],
    batches: Batches,
) -> None:
    table = manifestations(model, batches, schemes, factors)
    assert [(one.scheme, one.steps) for one in table] == pairs
    course = model.depths()[-1].course
    assert [one.trained for one in table] == [pair == (course.scheme, course.steps) for pair in pairs]


def test_an_entry_is_what_the_manifested_network_scores_and_costs(batches: Batches) -> None:
    model = network("continuous")
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for one in manifestations(model, batches, [EULER, MIDPOINT, RK4], [0.5, 2.0], batch_size=16):
        other = manifest(model, scheme=one.scheme, steps=one.steps)
        assert one.score == evaluate(other, batches, batch_size=16)
        assert one.score.n == len(batches)
        assert one.gflops == forward_gflops(other, batches.shape)
        assert one.rate_evaluations == 3 * one.steps * {EULER: 1, MIDPOINT: 2, RK4: 4}[one.scheme]
    assert model.training
    assert model.depths()[-1].course.steps == 3
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


def test_every_stage_takes_the_factor_of_its_own_steps(batches: Batches) -> None:
    model = network("hamiltonian")
    assert [depth.course.steps for depth in model.depths()] == [1, 3, 3, 2]
    trained, longer = manifestations(model, batches, [], [2.0])
    assert (trained.trained, trained.steps, trained.score) == (True, 2, evaluate(model, batches))
    assert longer.score == evaluate(manifest(model, scheme=Scheme.verlet, steps=[2, 6, 6, 4]), batches)
    assert (longer.steps, longer.rate_evaluations) == (4, 2 * trained.rate_evaluations)


def test_the_class_of_every_image_is_told_beside_the_score(batches: Batches) -> None:
    model = network("continuous")
    score, classes_N = predict(model, batches, batch_size=16)
    assert score == evaluate(model, batches, batch_size=16)
    assert (classes_N == batches.labels_N.numpy()).mean() == pytest.approx(score.accuracy)
    assert [len(one.hits_N) for one in manifestations(model, batches, [], [])] == [len(batches)]
