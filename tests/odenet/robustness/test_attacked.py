"""Attacks break what can be broken and nothing else, their checks find masked gradients, and a killed evaluation goes
on: on linear networks, of which all is known."""

import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor

from odenet import AttackConfig, Cells, Classifier, attack
from odenet.robustness.attack_checks import check_saturates, check_weaker
from odenet.robustness.attack_results import MASKED, UNION, AttackReport, area_under
from odenet.robustness.attacked import SETTINGS
from odenet.robustness.attacks import Attacker, withstood
from odenet.robustness.config import WHITE_BOX, Attack, Norm
from odenet.robustness.threat import Ball, Cases, Subject
from tests.grids import for_each
from tests.odenet.robustness.attack_cases import N, distances, images_of, linear, quick

EXACT = ("transfer_scaled", *(one.value for one in WHITE_BOX))
TOLERANCE = 0.02  # relative, by which an image may be nearer to a hyperplane than epsilon and not be broken


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return linear()


@pytest.fixture(scope="module")
def report(classifier: Classifier) -> AttackReport:
    return attack(classifier, images_of(classifier), quick(), others={"scaled": linear(after=lambda z: 3 * z)})


def failed(report: AttackReport) -> set[str]:
    return {check.name for check in report.checks if not check.passed}


# --- what is broken -------------------------------------------------------------------------------------------------


def test_white_box_attacks_break_what_the_formula_says_and_no_attack_breaks_more(
    classifier: Classifier, report: AttackReport
) -> None:
    assert {norm for norm, _, _ in report.survivors} == set(Norm)
    between = 0
    for (norm, epsilon, name), survived_B in report.survivors.items():
        exact_B = distances(classifier, images_of(classifier), norm)
        assert not (~survived_B & (exact_B > epsilon * (1 + 1e-4))).any(), f"{name} broke what cannot be broken"
        if name in EXACT:
            assert not (survived_B & (exact_B < epsilon * (1 - TOLERANCE))).any(), f"{name} left what can be broken"
        between += int(0 < survived_B.sum() < report.clean_B.sum())
    assert between == len(report.survivors), "every epsilon must divide the images"


def test_the_least_norms_are_the_distances(classifier: Classifier, report: AttackReport) -> None:
    for norm in Norm:
        exact_B = distances(classifier, images_of(classifier), norm)
        assert report.minimal_norms[norm] == pytest.approx(exact_B, rel=TOLERANCE, abs=1e-6)
        assert report.median_minimal_norm(norm) == pytest.approx(np.median(exact_B[exact_B > 0]), rel=TOLERANCE)


def test_a_linear_network_passes_all_nine_checks(report: AttackReport) -> None:
    assert [check.name for check in report.checks] == [
        *("pgd_saturates", "whole_ball", "noise_weaker", "square_weaker", "transfer_weaker"),
        *("finite_differences", "stored_activations", "no_flag", "deterministic"),
    ]
    assert (failed(report), report.label, report.flags) == (set(), "", ())
    assert (report.clean_accuracy, report.gradient_errors) == (14 / 16, ())


def test_the_union_is_of_each_image_and_never_above_an_attack(report: AttackReport) -> None:
    for norm, epsilon in {(row.norm, row.epsilon) for row in report.results}:
        rows = [row for row in report.results if (row.norm, row.epsilon) == (norm, epsilon)]
        *attacks, union = rows
        assert [row.attack for row in attacks] == [*(one.value for one in WHITE_BOX), "transfer_scaled", "square"]
        left_B = np.all([report.survivors[norm, epsilon, row.attack] for row in attacks], axis=0)
        assert (union.attack, union.accuracy, union.n) == (UNION, left_B.mean(), N)
        assert union.accuracy <= min(row.accuracy for row in attacks)
        assert sum(row.first for row in attacks) == pytest.approx(report.clean_accuracy - union.accuracy)
        assert attacks[0].first == pytest.approx(report.clean_accuracy - attacks[0].accuracy)


def test_a_copy_with_other_logits_of_the_same_boundaries_transfers_as_well_as_the_network_itself(
    report: AttackReport,
) -> None:
    found = {(row.norm, row.epsilon, row.attack): row.accuracy for row in report.results}
    for (norm, epsilon, name), accuracy in found.items():
        if name == "apgd_ce":
            assert found[norm, epsilon, "transfer_scaled"] <= accuracy + 1 / N


def test_the_curve_falls_and_its_area_is_the_mean_over_log_epsilon(report: AttackReport) -> None:
    for norm in Norm:
        (few, high), (many, low) = report.curve(norm)
        assert few < many
        assert high >= low
        assert report.area(norm) == pytest.approx((high + low) / 2)
    assert area_under([(0.1, 1.0), (1.0, 0.6), (100.0, 0.0)]) == pytest.approx((0.8 * 1 + 0.3 * 2) / 3)
    assert np.isnan(area_under([(0.1, 1.0)]))


def test_the_attacks_of_the_standard_set_leave_what_pyautoattack_leaves(classifier: Classifier) -> None:
    from pyautoattack import AutoAttack

    logging.getLogger("auto-attack").setLevel(logging.ERROR)
    images, config = images_of(classifier), quick(attacks=["apgd_t", "fab_t"], linf_255=[1.8], l2=[0.045])
    ours = attack(classifier, images, config)
    x, labels = torch.tensor(images.pixels_BCHW) / 255, torch.tensor(images.labels_B)
    for norm, name in ((Norm.linf, "Linf"), (Norm.l2, "L2")):
        for epsilon, accuracy in ours.curve(norm):
            theirs = AutoAttack(
                classifier, norm=name, eps=epsilon, seed=0, version="custom", attacks=["apgd-t", "fab-t"]
            )
            theirs.fab.n_restarts = 1
            theirs.fab.n_iter = theirs.apgd_targeted.n_iter = config.apgd_steps
            moved, _ = theirs.run_standard_evaluation(x, labels)
            left = (classifier(moved).argmax(1) == labels).double().mean().item()
            assert left == pytest.approx(accuracy, abs=1 / N)


# --- masked gradients -----------------------------------------------------------------------------------------------


def quantised(x: Tensor) -> Tensor:
    return (16 * x).round() / 16


class Noisy:
    """Draws from torch's global generator, as a randomised defence does."""

    def __call__(self, x: Tensor) -> Tensor:
        return x + 0.1 * torch.randn_like(x)


MASKING: dict[str, tuple[Classifier, set[str], str]] = {
    "quantised": (
        linear(before=quantised),
        {"finite_differences", "no_flag", "noise_weaker", "whole_ball"},
        "zero gradient",
    ),
    "cut off": (
        linear(before=torch.Tensor.detach),
        {"finite_differences", "no_flag", "noise_weaker", "whole_ball"},
        "zero gradient",
    ),
    "saturated": (linear(after=lambda z: 1e6 * z), {"noise_weaker"}, ""),
    "at random": (linear(before=Noisy()), {"finite_differences", "deterministic", "no_flag"}, "randomized defense"),
    "probabilities": (linear(after=lambda z: z.softmax(1)), {"no_flag"}, "probability distribution"),
}


@pytest.mark.parametrize("name", MASKING)
def test_masked_gradients_fail_the_checks_that_are_for_them(name: str) -> None:
    masked, expected, flag = MASKING[name]
    config = quick(linf_255=[8.0], l2=[], apgd_steps=20, fab_steps=10)
    report = attack(masked, images_of(linear()), config, others={"plain": linear()})
    assert expected <= failed(report), report.checks
    assert report.label == MASKED
    assert any(flag in told for told in report.flags) or not flag


def test_what_breaks_where_gradients_do_not_is_a_failed_check_of_its_own() -> None:
    masked, images = linear(before=quantised), images_of(linear())
    report = attack(masked, images, quick(linf_255=[2.0, 8.0], l2=[], fab_steps=10), others={"plain": linear()})
    assert {"square_weaker", "transfer_weaker"} <= failed(report)
    first = {row.attack: row.first for row in report.results if row.epsilon == 8 / 255}
    assert first["transfer_plain"] > 0.25


@for_each(
    ("shares", "n", "passed"),
    [
        ((0.5, 0.4, 0.4), 100, True),
        ((0.5, 0.4, 0.385), 100, True),
        ((0.5, 0.4, 0.37), 100, False),  # 200 steps still break more
        ((0.5, 0.4, 0.43), 100, False),  # 200 steps break less
        ((0.4, 0.5, 0.5), 100, False),  # 50 steps break less than 10
        ((8 / 16, 7 / 16, 6 / 16), 16, True),  # one image
        ((8 / 16, 7 / 16, 5 / 16), 16, False),
        ((float("nan"),) * 3, 16, False),
    ],
)
def test_pgd_must_saturate(shares: tuple[float, ...], n: int, passed: bool) -> None:
    assert check_saturates(shares, n).passed is passed


@for_each(("n", "broken", "passed"), [(1000, 2, True), (1000, 3, False), (64, 1, True), (64, 2, False), (64, 0, True)])
def test_another_attack_may_break_two_images_of_a_thousand_and_one_of_few(n: int, broken: int, passed: bool) -> None:
    white_B, other_B = np.arange(n) >= 5, np.arange(n) >= 5 + broken
    fine = (white_B, np.ones(n, dtype=bool))
    assert check_weaker("square_weaker", [fine, (white_B, other_B)]).passed is passed
    assert check_weaker("square_weaker", [(white_B, other_B), fine]).value == broken / n


@pytest.mark.parametrize("missing", ["square", "transfer"])
def test_an_attack_that_was_not_run_is_no_pass(missing: str) -> None:
    kinds = [one for one in ("apgd_ce", "transfer", "square") if one != missing]
    others = {"scaled": linear()} if missing == "square" else {}
    report = attack(linear(), images_of(linear()), quick(attacks=kinds, l2=[], apgd_steps=5), others=others)
    (check,) = [check for check in report.checks if check.name == f"{missing}_weaker"]
    assert np.isnan(check.value)
    assert failed(report) == {check.name}
    assert report.label == MASKED


def test_a_network_that_is_always_wrong_has_an_accuracy_of_zero_and_no_check_that_passes() -> None:
    images = images_of(linear())
    wrong = linear(after=lambda z: -z)
    report = attack(wrong, images, quick(linf_255=[8.0], l2=[0.1]), others={"plain": linear()})
    assert {row.accuracy for row in report.results} == {report.clean_accuracy} == {0.0}
    assert len(failed(report)) >= 7
    assert np.isnan(report.median_minimal_norm(Norm.l2))


def test_logits_that_are_not_numbers_are_wrong() -> None:
    broken = linear(after=lambda z: z * float("nan"))
    report = attack(broken, images_of(linear()), quick(attacks=["apgd_ce", "square"], linf_255=[8.0], l2=[]))
    assert report.clean_accuracy == 0.0


# --- containment ----------------------------------------------------------------------------------------------------


def test_an_attack_leaves_nothing_behind(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    classifier, images, others = linear(), images_of(linear()), {"plain": linear()}
    before = [parameter.clone() for parameter in classifier.parameters()]
    torch.manual_seed(5)
    state, trace, threads = torch.get_rng_state(), sys.gettrace(), torch.get_num_threads()
    classifier.train()
    config = quick(linf_255=[8.0], l2=[0.4], apgd_steps=5, fab_steps=5)
    attack(classifier, images, config, others=others)
    assert torch.equal(state, torch.get_rng_state())
    assert (trace, threads) == (sys.gettrace(), torch.get_num_threads())
    assert torch.is_grad_enabled()
    assert classifier.training
    for parameter, kept in zip(classifier.parameters(), before, strict=True):
        assert parameter.requires_grad
        assert parameter.grad is None
        assert torch.equal(parameter, kept)
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []


def test_an_attack_computes_in_float32() -> None:
    seen = set[tuple[object, ...]]()

    def look(x: Tensor) -> Tensor:
        conv, products = torch.backends.cudnn.conv.fp32_precision, torch.backends.cuda.matmul.fp32_precision
        seen.add((conv, products, torch.is_autocast_enabled("cpu")))
        return x

    before = torch.backends.cudnn.conv.fp32_precision, torch.backends.cuda.matmul.fp32_precision
    looked_at, images = linear(before=look), images_of(linear())
    seen.clear()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        attack(looked_at, images, small(attacks=["apgd_ce"], l2=[]))
    assert seen == {("ieee", "ieee", False)}
    assert (torch.backends.cudnn.conv.fp32_precision, torch.backends.cuda.matmul.fp32_precision) == before


@for_each("norm", Norm)
def test_perturbations_stay_in_the_ball_and_in_the_picture(norm: Norm) -> None:
    x = torch.rand(6, 3, 5, 7, generator=torch.Generator().manual_seed(0))
    cases, ball = Cases(x, torch.zeros(6, dtype=torch.long), torch.arange(6)), Ball(norm, 0.3)
    start = ball.random(cases, 0, "start")
    moved = ball.project(x + torch.randn(x.shape, generator=torch.Generator().manual_seed(1)), x)
    for found in (start, moved):
        assert ball.holds(found, x).all()
        assert ball.length(found - x).min() > 0.1
    assert torch.equal(ball.random(cases.take(slice(4, 5)), 0, "start"), start[4:5]), "it is of the image"
    drawn = ball.random(Cases(x[:1].expand(6, -1, -1, -1), cases.labels_B, cases.indices_B), 0, "start")
    assert len({tuple(one.flatten().tolist()) for one in drawn}) == 6
    assert not torch.equal(ball.random(cases, 1, "start"), start)
    for wrong in (x + 0.31, start + float("nan")):
        assert not ball.holds(wrong, x).any()
    black = torch.zeros(1, 3, 5, 7)
    for x, wrong in ((black, black - 0.01), (black + 1, black + 1.01)):
        assert not ball.holds(wrong, x).any()


def test_what_an_attack_moves_too_far_breaks_nothing() -> None:
    classifier = linear()
    images = images_of(classifier)
    subject = Subject(classifier, batch_size=4)
    x, labels = torch.tensor(images.pixels_BCHW) / 255, torch.tensor(images.labels_B)
    right_B = subject.right(x, labels)
    cases = Cases(x, labels, torch.arange(N)).take(right_B)
    tiny = Ball(Norm.linf, 1e-6)
    attacker = Attacker(subject, quick())
    assert attacker.pgd(cases, tiny, steps=5, restarts=1).all()
    assert withstood(subject, cases, tiny, [lambda part: 1 - part.x_BCHW]).all()


# --- resumed, in batches ---------------------------------------------------------------------------------------------


def equal(left: AttackReport, right: AttackReport) -> bool:
    return (
        left.results == right.results
        and left.flags == right.flags
        and all(np.array_equal(mask, right.survivors[key]) for key, mask in left.survivors.items())
        and str(left.checks) == str(right.checks)
        and all(np.array_equal(left.minimal_norms[norm], right.minimal_norms[norm]) for norm in Norm)
    )


def small(**changes: object) -> AttackConfig:
    return quick(**{"apgd_steps": 5, "fab_steps": 5, "linf_255": [1.8], "l2": [0.045], "square_queries": 20, **changes})


def run(cells: Cells | None = None, config: AttackConfig | None = None, other: Callable = linear) -> AttackReport:
    return attack(linear(), images_of(linear()), config or small(), others={"other": other()}, cells=cells)


def test_a_killed_evaluation_goes_on_and_ends_as_one_that_was_not(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []

    def killed(*progress: object) -> None:
        told.append(progress)  # type: ignore[arg-type]
        if len(told) in (4, 9):
            raise KeyboardInterrupt

    whole = run()
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            run(Cells(tmp_path, killed))
    kept = {file.name: file.stat().st_mtime_ns for file in tmp_path.iterdir()}
    assert len(kept) == 5
    assert all(name.endswith(".json") and not name.startswith(".") for name in kept)
    resumed = run(Cells(tmp_path, killed))
    assert equal(resumed, whole)
    assert {name: (tmp_path / name).stat().st_mtime_ns for name in kept} == kept
    assert [done for _, done, _ in told[-15:]] == list(range(1, 16))
    assert {total for _, _, total in told} == {15} == {len(list(tmp_path.iterdir()))}


def test_a_part_that_cannot_be_written_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("odenet.robustness.cells.os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        run(Cells(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_an_epsilon_is_added_without_attacking_again(tmp_path: Path) -> None:
    run(Cells(tmp_path))
    file = tmp_path / "linf-0.00705882-apgd_t.json"
    before = file.stat().st_mtime_ns
    with pytest.raises(
        ValueError, match=r"linf-checks.json was computed from another network, other images or settings"
    ):
        run(Cells(tmp_path), small(linf_255=[0.4, 1.8]))
    (tmp_path / "linf-checks.json").unlink()
    run(Cells(tmp_path), small(linf_255=[0.4, 1.8]))
    assert file.stat().st_mtime_ns == before


def test_parts_of_something_else_and_damaged_ones_are_refused(tmp_path: Path) -> None:
    run(Cells(tmp_path))
    place = "name another directory, or remove the file"
    for changed in (small(seed=1), small(pgd_steps=21)):
        with pytest.raises(ValueError, match=place):
            run(Cells(tmp_path), changed)
    with pytest.raises(ValueError, match=rf"transfer_other.json .* {place}"):
        run(Cells(tmp_path), other=scaled)
    for content in ("{", "[]", "{}"):
        (tmp_path / "l2-fab_t.json").write_text(content)
        with pytest.raises(ValueError, match=r"l2-fab_t.json is damaged .* remove it"):
            run(Cells(tmp_path))


def scaled() -> Classifier:
    other = linear()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(2)
    return other


def test_the_batch_size_changes_nothing_and_the_seed_what_is_drawn() -> None:
    assert equal(run(config=small(batch_size=9)), run(config=small(batch_size=64)))
    one, other = (Attacker(Subject(linear(), batch_size=64), small(seed=seed)).noise for seed in (0, 1))
    images = images_of(linear(), 64)
    cases = Cases(torch.tensor(images.pixels_BCHW) / 255, torch.tensor(images.labels_B), torch.arange(64))
    ball = Ball(Norm.linf, 16 / 255)
    assert not torch.equal(one(cases, ball, draws=1), other(cases, ball, draws=1))


def test_every_attack_says_what_its_result_depends_on() -> None:
    assert list(SETTINGS) == list(Attack)
    assert {name for names in SETTINGS.values() for name in names} <= set(AttackConfig.__dataclass_fields__)


def test_a_configuration_merges_as_those_of_a_sweep_do() -> None:
    schema = OmegaConf.structured(AttackConfig)
    merged = OmegaConf.to_object(OmegaConf.merge(schema, {"attacks": ["pgd", "square"], "linf_255": [1, 2]}))
    assert merged == AttackConfig(attacks=[Attack.pgd, Attack.square], linf_255=[1.0, 2.0])


# --- bad input ------------------------------------------------------------------------------------------------------


@for_each(
    ("changes", "said"),
    [
        ({"attacks": ["apgd_dlr"]}, r"attack.attacks='apgd_dlr' is not possible: apgd_ce, apgd_t, .* can be"),
        ({"attacks": []}, r"attack.attacks=\[\]: must be one or more of apgd_ce, .*, each once"),
        ({"attacks": ["pgd", "pgd"]}, r"attack.attacks=\[pgd, pgd\]: must be one or more of apgd_ce"),
        ({"linf_255": [], "l2": []}, r"attack.linf_255=\[\] with attack.l2=\[\]: there is no epsilon"),
        ({"linf_255": [256.0]}, r"attack.linf_255=\[256.0\]: every epsilon must be positive and at most 255"),
        ({"linf_255": [0.0]}, r"attack.linf_255=\[0.0\]: every epsilon must be positive"),
        ({"l2": [float("nan")]}, r"attack.l2=\[nan\]: every epsilon must be positive and finite"),
        ({"l2": [0.5, 0.25]}, r"attack.l2=\[0.5, 0.25\]: epsilons must increase, each once"),
        ({"l2": [0.5, 0.5]}, r"attack.l2=\[0.5, 0.5\]: epsilons must increase, each once"),
        ({"images": 0}, r"attack.images=0: must be at least 1"),
        ({"check_images": -1}, r"attack.check_images=-1: must be at least 1"),
        ({"square_queries": 0}, r"attack.square_queries=0: must be at least 1"),
        ({"batch_size": 0}, r"attack.batch_size=0: must be at least 1"),
        ({"pgd_restarts": 0}, r"attack.pgd_restarts=0: must be at least 1"),
        ({"apgd_steps": 4}, r"attack.apgd_steps=4: must be at least 5"),
        ({"fab_steps": 0}, r"attack.fab_steps=0: must be at least 5"),
    ],
)
def test_a_config_that_cannot_be_is_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        AttackConfig(**changes)  # type: ignore[arg-type]


def of_other_images() -> Classifier:
    other = linear()
    return Classifier(other.network, replace(other.images, labels=["0", "1"]))


BAD: Sequence[tuple[dict[str, object], dict[str, Classifier], str]] = [
    ({"images": 64}, {}, r"attack.images=64, but 16 images were given"),
    ({}, {"a/b": linear()}, r"cannot be called 'a/b': use letters, digits"),
    ({}, {"a": of_other_images()}, r"a, to transfer from, takes \(1, 8, 8\) to 2 classes, .* \(1, 8, 8\) to 10"),
    ({"attacks": ["pgd"]}, {"a": linear()}, r"\(a\) with attack.attacks without transfer have no effect"),
]


@for_each(("changes", "others", "said"), BAD)
def test_what_does_not_fit_is_refused(changes: dict[str, object], others: dict[str, Classifier], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        attack(linear(), images_of(linear()), quick(**changes), others=others)


def test_images_that_do_not_fit_the_network_are_refused() -> None:
    images = images_of(linear())
    with pytest.raises(ValueError, match=r"Images of shape \(1, 4, 16\) were given, but the network takes \(1, 8, 8\)"):
        attack(linear(), replace(images, pixels_BCHW=images.pixels_BCHW.reshape(-1, 1, 4, 16)), quick())
    with pytest.raises(ValueError, match=r"An image of class 12 was given, but the network tells 0 to 9"):
        attack(linear(), replace(images, labels_B=np.full(N, 12)), quick())
