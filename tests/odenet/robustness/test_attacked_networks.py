"""Trained networks under attack: the checks pass where gradients are honest, and those of attacks are, whatever a
network was trained with."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from odenet import (
    AttackConfig,
    Classifier,
    DataConfig,
    Device,
    ExperimentConfig,
    Gradient,
    ModelConfig,
    Network,
    RuntimeConfig,
    Scheme,
    Training,
    TrainingConfig,
    attack,
    balanced_test,
    build_model,
)
from odenet.data.images import Images
from odenet.networks.table import NETWORKS
from odenet.robustness.attack_checks import checks_of_network, margin_gradient
from odenet.robustness.attack_results import MASKED
from odenet.robustness.attacks import Attacker
from odenet.robustness.config import Attack, Norm
from odenet.robustness.threat import Ball, Cases, Subject, depth_stages, fingerprint, is_adaptive, solver_surrogates
from tests.grids import for_each
from tests.odenet.robustness.attack_cases import FORMAT

DATA = DataConfig(per_class=20)
MODEL = ModelConfig(width=8, nodes=2)
IMAGES = 16


def trained(model: ModelConfig, epochs: int = 10) -> Classifier:
    experiment = ExperimentConfig(model=model, data=DATA, training=TrainingConfig(epochs=epochs))
    training = Training(experiment, RuntimeConfig(device=Device.cpu))
    list(training)
    return training.checkpoint().classifier()


@pytest.fixture(scope="module")
def images() -> Images:
    return balanced_test(DATA, count=IMAGES)


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    """A ContinuousNet that was trained by reconstruction, which over two Euler steps is far from exact."""
    return trained(replace(MODEL, gradient=Gradient.reconstructed))


def cases_of(classifier: Classifier, images: Images) -> Cases:
    x, labels = torch.tensor(images.pixels_BCHW) / 255, torch.tensor(images.labels_B)
    cases = Cases(x, labels, torch.tensor(images.indices_B))
    return cases.take(Subject(classifier, batch_size=64).right(x, labels))


def test_a_trained_network_passes_all_checks_and_its_own_weights_transfer(
    classifier: Classifier, images: Images
) -> None:
    config = AttackConfig(
        linf_255=[16.0], l2=[], images=IMAGES, check_images=IMAGES, square_queries=100, apgd_steps=10, fab_steps=10,
        pgd_steps=10, pgd_restarts=1,
    )  # fmt: skip
    report = attack(classifier, images, config)
    assert report.clean_accuracy > 0.6
    assert [check for check in report.checks if not check.passed] == []
    assert (report.label, report.flags, report.adaptive) == ("", (), False)
    rows = {row.attack: row for row in report.results}
    assert list(rows) == [
        *("apgd_ce", "apgd_t", "fab_t", "pgd", "transfer_rk4_2", "transfer_euler_4", "transfer_euler_8"),
        *("square", "union"),
    ]
    assert rows["union"].accuracy <= min(row.accuracy for row in rows.values()) < report.clean_accuracy
    assert rows["transfer_euler_4"].accuracy < report.clean_accuracy
    assert 0 < report.median_minimal_norm(Norm.linf) < 0.5
    errors = [error.relative_error for error in report.gradient_errors]
    assert [error.steps for error in report.gradient_errors] == [2, 4, 8]
    assert 0.01 < errors[2] < errors[1] < errors[0]


def test_attacks_differentiate_by_stored_activations_whatever_the_network_was_trained_with(
    classifier: Classifier, images: Images
) -> None:
    cases, subject = cases_of(classifier, images), Subject(classifier, batch_size=64)
    assert {stage.depth.course.gradient for stage in depth_stages(classifier)} == {Gradient.reconstructed}
    assert {stage.depth.course.gradient for stage in depth_stages(subject.classifier)} == {Gradient.direct}
    forced = {check.name: check for check in checks_of_network(classifier, subject, cases).checks}
    assert forced["stored_activations"].value == 0.0
    subject.classifier = classifier  # as it would be without
    given = {check.name: check for check in checks_of_network(classifier, subject, cases).checks}
    assert not given["stored_activations"].passed
    assert given["stored_activations"].value > 0.01
    assert not torch.equal(margin_gradient(subject, cases), margin_gradient(Subject(classifier, batch_size=9), cases))


def test_a_fingerprint_is_of_weights_and_manifestation_but_not_of_the_gradient(classifier: Classifier) -> None:
    direct = Subject(classifier, batch_size=1).classifier
    assert fingerprint(direct) == fingerprint(classifier)
    others = [classifier.manifest(scheme="euler", steps=4), classifier.manifest(scheme="heun", steps=2)]
    changed = Subject(classifier, batch_size=1).classifier
    with torch.no_grad():
        next(changed.network.parameters()).mul_(1.001)
    assert len({fingerprint(one) for one in (classifier, *others, changed)}) == 4


def untrained(network: Network, **changes: object) -> Classifier:
    nodes = 1 if network is Network.neural_ode else 2
    config = ModelConfig(network=network, width=8, nodes=nodes, **changes)  # type: ignore[arg-type]
    images = replace(FORMAT, height=32, width=32)
    return Classifier(build_model(config, channels=1, classes=10), images)


@for_each("network", [one for one in Network if one in NETWORKS])
def test_every_network_is_attacked_from_its_own_weights_under_other_manifestations(network: Network) -> None:
    classifier = untrained(network)
    surrogates = solver_surrogates(classifier)
    assert len(surrogates) >= 2
    for name, surrogate in surrogates.items():
        courses = {(stage.depth.course.scheme, stage.depth.course.steps) for stage in depth_stages(surrogate)}
        assert [f"{scheme.value}_{steps}" for scheme, steps in courses] == [name]
        assert not is_adaptive(surrogate)
        logits = Subject(surrogate, batch_size=1).in_parts(torch.full((1, 1, 32, 32), 0.5))
        assert logits.shape == (1, 10)
    some = NETWORKS[network].capability.manifestations
    assert len(surrogates) == (3 if {Scheme.rk4, Scheme.euler} & set(some) else 2)


@pytest.fixture(scope="module")
def adaptive() -> Classifier:
    return Classifier(untrained(Network.neural_ode, tolerance=0.1).network, FORMAT)


def test_a_network_that_chooses_its_own_steps_is_refused(adaptive: Classifier, images: Images) -> None:
    message = (
        r"chooses its own steps \(dopri5\).*fixed steps \(Classifier.manifest\), or set attack.allow_adaptive=true"
    )
    with pytest.raises(ValueError, match=message):
        attack(adaptive, images, AttackConfig(images=IMAGES))
    under_dopri5 = Subject(adaptive, batch_size=1)  # wrapped, it is found, too
    with pytest.raises(ValueError, match=message):
        attack(
            Classifier(torch.nn.Sequential(under_dopri5.classifier.network), FORMAT), images, AttackConfig(images=16)
        )


def test_where_it_is_allowed_its_result_is_labelled_as_an_upper_bound(adaptive: Classifier, images: Images) -> None:
    config = AttackConfig(
        linf_255=[8.0], l2=[], images=1, check_images=1, attacks=[Attack.transfer], apgd_steps=5, pgd_steps=5,
        pgd_restarts=1, allow_adaptive=True,
    )  # fmt: skip
    one, subject = images.take(np.arange(1)), Subject(adaptive, batch_size=1)
    said = subject.in_parts(torch.tensor(one.pixels_BCHW) / 255).argmax(1)
    report = attack(adaptive, replace(one, labels_B=(said.numpy() + 1) % 10), config)  # wrong: the label is what counts
    assert (report.adaptive, report.label) == (True, MASKED)
    assert replace(report, checks=()).label == MASKED
    assert {row.attack for row in report.results} == {"transfer_euler_4", "transfer_rk4_8", "transfer_rk4_16", "union"}
    cases = cases_of(adaptive, replace(one, labels_B=said.numpy()))
    surrogate = Subject(solver_surrogates(adaptive)["rk4_8"], batch_size=1)
    assert Attacker(subject, config).transfer(cases, Ball(Norm.linf, 8 / 255), surrogate).shape == (1,)
    assert Attacker(subject, config).pgd(cases, Ball(Norm.linf, 8 / 255), steps=5, restarts=1).shape == (1,)
