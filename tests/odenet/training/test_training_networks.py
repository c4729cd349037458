"""Training of every network, at a depth that changes, and how far reconstruction strays in it."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from odenet import (
    Augment,
    Gradient,
    ModelConfig,
    Network,
    OptimConfig,
    RefinementConfig,
    Schedule,
    Scheme,
    Training,
    TrainingConfig,
)
from tests.odenet.training.test_training import CPU, HAMILTONIAN, SGD


def test_coarsening_happens_at_its_epoch_and_halves_the_cost() -> None:
    model, refinement = ModelConfig(width=2, nodes=2), RefinementConfig(count=1, first=0.25, coarsen=0.75)
    training = Training(replace(SGD, model=model, refinement=refinement), CPU)
    reports = [report.metrics for report in training]
    assert [(m["depth/nodes"], m["depth/steps"]) for m in reports] == [(2, 2), (4, 4), (4, 4), (2, 2)]
    gflops = [0.0, *(m["cost/train_gflops"] for m in reports)]
    spent = [after - before for before, after in pairwise(gflops)]
    assert spent[3] == pytest.approx(spent[0])
    assert spent[1] == pytest.approx(spent[2])
    assert spent[1] > spent[0]
    evaluations = [0.0, *(m["cost/rate_evaluations"] for m in reports)]
    assert [after - before for before, after in pairwise(evaluations)] == [4 * 6, 4 * 12, 4 * 12, 4 * 6]
    assert all(torch.tensor(value).isfinite() for metrics in reports for value in metrics.values())


@pytest.mark.slow
@pytest.mark.parametrize("network", Network)
def test_every_network_learns_what_it_sees(network: Network) -> None:
    nodes = 1 if network is Network.neural_ode else 2
    config = replace(
        SGD,
        model=ModelConfig(network=network, width=4, nodes=nodes),
        optim=OptimConfig(batch_size=30, lr=0.005, schedule=Schedule.constant),
        data=replace(SGD.data, augment=Augment.none),
        refinement=RefinementConfig(),
        training=TrainingConfig(epochs=8),
    )
    losses = [report.metrics["train/loss"] for report in Training(config, CPU)]
    assert all(torch.tensor(losses).isfinite())
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("gradient", Gradient)
def test_the_drift_of_reconstruction_is_reported_where_there_is_one(gradient: Gradient) -> None:
    config = replace(HAMILTONIAN, model=replace(HAMILTONIAN.model, gradient=gradient))
    checked = [report.metrics for report in Training(config, replace(CPU, check_drift=True))]
    drifts = [metrics.pop("gradient/drift", None) for metrics in checked]
    if gradient is Gradient.reconstructed:
        assert all(drift is not None and 0 < drift < 0.01 for drift in drifts)
        assert checked == [
            {**report.metrics, "cost/seconds": metrics["cost/seconds"]}
            for report, metrics in zip(Training(config, CPU), checked, strict=True)
        ]
    else:
        assert drifts == [None] * 4


def test_a_scheme_that_is_no_inverse_drifts_further_than_one_that_is() -> None:
    drifts = []
    for scheme in (Scheme.verlet, Scheme.euler):
        config = replace(HAMILTONIAN, model=replace(HAMILTONIAN.model, scheme=scheme))
        drifts.append(next(Training(config, replace(CPU, check_drift=True))).metrics["gradient/drift"])
    assert drifts[0] < 0.01 * drifts[1]
