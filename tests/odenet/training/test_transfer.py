"""Going on with the weights of a checkpoint under another experiment."""

import copy
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from odenet import (
    Basis,
    Checkpoint,
    ExperimentConfig,
    ModelConfig,
    Network,
    OptimConfig,
    OptimizerKind,
    RefinementConfig,
    RegularizationConfig,
    Scheme,
    Training,
    build_model,
    load_checkpoint,
    save_checkpoint,
)
from odenet.training.config import from_plain, to_plain
from odenet.training.transfer import CHANGEABLE, transfer
from tests.odenet.training.test_checkpoint import equal
from tests.odenet.training.test_experiment_config import keys, other_value
from tests.odenet.training.test_training import CPU, SGD, comparable

ADAMW = OptimConfig(optimizer=OptimizerKind.adamw, lr=0.01, batch_size=8)
DONORS: dict[str, ExperimentConfig] = {
    "sgd": SGD,
    "adamw on hats": replace(
        SGD, model=ModelConfig(width=2, nodes=2, basis=Basis.hat, scheme=Scheme.heun, substeps=2), optim=ADAMW
    ),
    "coarsened": replace(
        SGD,
        model=ModelConfig(network=Network.hamiltonian, width=4, nodes=2),
        refinement=RefinementConfig(at=[1], coarsen=0.5),
        regularization=RegularizationConfig(stochastic_depth=0.2, noise=0.1),
    ),
    "residual": replace(SGD, model=ModelConfig(network=Network.lm_resnet, width=2), refinement=RefinementConfig()),
}


def trained(config: ExperimentConfig, epochs: int = 3) -> Checkpoint:
    training = Training(config, CPU)
    for _ in range(epochs):
        next(training)
    return training.checkpoint()


@pytest.fixture(scope="module", params=DONORS)
def donor(request: pytest.FixtureRequest) -> Checkpoint:
    return trained(DONORS[request.param])


@pytest.fixture(scope="module")
def sgd() -> Checkpoint:
    return trained(SGD)


def changed(config: ExperimentConfig, values: dict[str, Any]) -> ExperimentConfig:
    plain = to_plain(config)
    for key, value in values.items():
        part, name = key.split(".")
        plain[part][name] = value
    return from_plain(ExperimentConfig, plain)


def rest(checkpoint: Checkpoint) -> list[Any]:
    return [comparable(report) for report in Training(checkpoint.experiment, CPU, checkpoint=checkpoint)]


def logits(checkpoint: Checkpoint) -> torch.Tensor:
    with torch.no_grad():
        return checkpoint.build().double().eval()(torch.linspace(-1, 1, 64, dtype=torch.float64).view(1, 1, 8, 8))


def test_where_nothing_changes_a_transfer_is_the_identity_and_training_goes_on_bit_for_bit(donor: Checkpoint) -> None:
    same = transfer(donor, donor.experiment)
    for name in Checkpoint.__slots__:
        assert equal(getattr(same, name), getattr(donor, name)), name
    assert rest(copy.deepcopy(same)) == rest(copy.deepcopy(donor))


def test_the_donor_stays_as_it_was_also_while_its_heir_is_trained(sgd: Checkpoint) -> None:
    before = copy.deepcopy(sgd)
    heir = transfer(sgd, changed(SGD, {"optim.weight_decay": 0.1, "model.nodes": 2}))
    rest(heir)
    assert all(equal(getattr(sgd, name), getattr(before, name)) for name in Checkpoint.__slots__)


def test_epoch_progress_and_last_report_are_the_donors(sgd: Checkpoint) -> None:
    config = changed(SGD, {"optim.lr": 0.01, "model.scheme": "heun"})
    heir = Training(config, CPU, checkpoint=transfer(sgd, config))
    assert (heir.epoch, heir.last and heir.last.epoch) == (3, 3)
    report = next(heir)
    for key in ("cost/train_gflops", "cost/rate_evaluations"):
        assert report.metrics[key] > sgd.progress[key.removeprefix("cost/").removeprefix("train_")]
    with pytest.raises(StopIteration):
        next(heir)


# What can change


VALUES: dict[str, Any] = {
    "optim.lr": 0.02,
    "optim.momentum": 0.5,
    "optim.weight_decay": 0.1,
    "optim.nesterov": True,
    "optim.schedule": "constant",
    "optim.batch_size": 4,
    "optim.depth_metric": "node",
    "regularization.smoothness": 0.1,
    "regularization.stochastic_depth": 0.5,
    "regularization.noise": 0.1,
    "data.augment": "none",
    "training.seed": 5,
    "model.scheme": "rk4",
    "model.substeps": 2,
    "model.nodes": 2,
}


def test_the_table_of_what_can_change_is_tested_whole() -> None:
    assert set(VALUES) == set(CHANGEABLE)


@pytest.mark.slow
@pytest.mark.parametrize("key", VALUES)
def test_each_thing_that_can_change_makes_a_difference_in_the_next_epoch(
    key: str, sgd: Checkpoint, tmp_path: Path
) -> None:
    config = changed(SGD, {key: VALUES[key]})
    heir = transfer(sgd, config)
    save_checkpoint(tmp_path / "heir", heir)
    assert heir.experiment == config
    assert rest(load_checkpoint(tmp_path / "heir")) == rest(copy.deepcopy(heir)) != rest(copy.deepcopy(sgd))


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("name", ["sgd", "adamw on hats"])
def test_hyperparameters_that_the_optimizer_holds_are_the_new_ones(name: str, momentum: float) -> None:
    start = changed(DONORS[name], {"optim.momentum": 0.9 - momentum})
    config = changed(start, {"optim.momentum": momentum, "optim.weight_decay": 0.25})
    training = Training(config, CPU, checkpoint=transfer(trained(start, 1), config))
    (group,) = training.optimizer.param_groups
    assert group["weight_decay"] == 0.25
    assert (group["momentum"] if name == "sgd" else group["betas"][0]) == momentum
    assert [report.epoch for report in training] == [2, 3, 4]


@pytest.mark.parametrize(
    ("values", "courses"),
    [
        ({"model.scheme": "rk4"}, ("rk4", 2)),
        ({"model.substeps": 4}, ("euler", 8)),
        ({"model.scheme": "heun", "model.substeps": 2, "model.nodes": 4}, ("heun", 16)),
    ],
)
def test_scheme_and_steps_follow_the_new_experiment_at_the_present_depth(
    sgd: Checkpoint, values: dict[str, Any], courses: tuple[str, int]
) -> None:
    depths = transfer(sgd, changed(SGD, values)).depths
    assert {(depth.course.scheme.value, depth.course.steps) for depth in depths} == {courses}
    assert {depth.course.depth_time for depth in depths} == {depth.course.depth_time for depth in sgd.depths}


@pytest.mark.parametrize(
    ("name", "nodes", "present"), [("sgd", 4, 8), ("adamw on hats", 3, 5), ("adamw on hats", 5, 9)]
)
def test_more_nodes_are_refinements_that_keep_the_network_as_a_function_of_depth(
    name: str, nodes: int, present: int
) -> None:
    donor = trained(DONORS[name])
    heir = transfer(donor, changed(donor.experiment, {"model.nodes": nodes}))
    assert {(depth.nodes, depth.initial_nodes) for depth in heir.depths} == {(present, donor.depths[0].initial_nodes)}
    steps = heir.depths[0].course.steps
    finer = [replace(depth, course=replace(depth.course, steps=steps)) for depth in donor.depths]
    torch.testing.assert_close(logits(heir), logits(replace(donor, depths=finer)), rtol=1e-6, atol=1e-6)
    assert [report["depth/nodes"] for report in (r.metrics for r in rest(heir))] == [present]


def test_refinements_to_come_follow_on_the_new_nodes() -> None:
    donor, config = trained(SGD, 1), changed(SGD, {"model.nodes": 4})
    assert [report.metrics["depth/nodes"] for report in rest(transfer(donor, config))] == [4, 8, 8]
    assert Training(config, CPU).model.depths()[0].nodes == 4


def test_the_momentum_is_refined_with_the_weights(sgd: Checkpoint) -> None:
    heir = transfer(sgd, changed(SGD, {"model.nodes": 2}))
    model = build_model(SGD.model, channels=1, classes=10, depths=heir.depths)
    for index, (name, parameter) in enumerate(model.named_parameters()):
        old, new = (one.optimizer["state"][index]["momentum_buffer"] for one in (sgd, heir))
        assert new.shape == parameter.shape, name
        assert torch.equal(new, old.repeat_interleave(2, 0) if ".rate." in name else old)


# What cannot


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "network": (
        {"model.network": "stateful"},
        r"A network in training cannot change model\.network from continuous .*",
    ),
    "two": (
        {"model.width": 4, "training.epochs": 9, "optim.lr": 1.0},
        r"A network in training cannot change model\.width from 2 to 4, training\.epochs from 4 to 9; it can change "
        r"optim\.lr, .*, model\.scheme, model\.substeps, model\.nodes\.",
    ),
    "optimizer": ({"optim.optimizer": "adamw"}, r".* cannot change optim\.optimizer from sgd to adamw; .*"),
    "draw": ({"data.draw": 1}, r".* cannot change data\.draw from 0 to 1; .*"),
    "refinement": ({"refinement.first": 0.25}, r".* cannot change refinement\.first from 0\.5 to 0\.25; .*"),
    "three nodes": (
        {"model.nodes": 3},
        r"model\.nodes from 1 to 3: no refinement leads there, the stages would have \[3, 3, 3\] nodes after "
        r"\[1, 1, 1\]; each refinement halves every cell\.",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_change_is_refused_by_name(case: str, sgd: Checkpoint) -> None:
    values, message = REFUSED[case]
    with pytest.raises(ValueError, match=f"^{message}$"):
        transfer(sgd, changed(SGD, values))


def test_fewer_nodes_are_refused_and_so_is_a_network_of_fixed_depth() -> None:
    donor = trained(changed(SGD, {"model.nodes": 2}), 0)
    with pytest.raises(ValueError, match=r"^model\.nodes from 2 to 1: no refinement leads there"):
        transfer(donor, SGD)
    fixed = trained(DONORS["residual"], 0)
    with pytest.raises(ValueError, match=r"^model\.network=lm_resnet cannot be refined; continuous, "):
        transfer(fixed, changed(fixed.experiment, {"model.nodes": 4}))


@pytest.mark.parametrize(
    "key", [key for key in keys() if key not in (*CHANGEABLE, "data.path")]
)  # where images are, not which
def test_every_other_key_of_an_experiment_is_fixed(key: str, sgd: Checkpoint) -> None:
    (part, name), config = key.split("."), copy.deepcopy(SGD)
    present = getattr(getattr(config, part), name)
    value = other_value(key, keys()[key], lambda all_: next(one for one in all_ if one is not present))
    # Most make no experiment together with the rest, which is not what is asked here.
    setattr(getattr(config, part), name, value if value != present else 0.25)
    with pytest.raises(ValueError, match=rf"^A network in training cannot change {re.escape(key)} from "):
        transfer(sgd, config)
