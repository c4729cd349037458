"""Testing the final networks: what is measured, on which images, and that every value has one row; Ray is left out."""

import json
import re
from dataclasses import replace
from functools import partial
from io import StringIO
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from ray.exceptions import RayError

from odenet.data.batches import Batches, Statistics
from odenet.data.config import Portion
from odenet.data.sets import Images, load_test
from odenet.data.subsets import load_data
from odenet.enums import Corruption, Device, Scheme
from odenet.robustness.config import Attack, AttackConfig
from odenet.robustness.corruptions import corrupt
from odenet.training.checkpoint import load_checkpoint
from odenet.training.config import RuntimeConfig
from odenet.training.evaluation import evaluate as score
from odenet.training.loop import Training
from sweep.config.evaluate_config import ConditionKind, EvaluateConfig
from sweep.config.overrides import override
from sweep.config.schema import AppConfig
from sweep.errors import InputError, WorkError
from sweep.execution import measurements
from sweep.execution.interrupt import Interrupted
from sweep.records.evaluation import read_measured, read_test_use
from sweep.records.outcome import Outcome
from sweep.records.predictions import read_predictions, write_predictions
from sweep.records.rows import CLEAN, MANIFESTATION, REESTIMATED, EvaluationRow, Phase, TrialRow
from sweep.records.summary import sift
from sweep.records.tables import read_rows, write_rows
from sweep.report.statistics import wilson
from sweep.stages.evaluate import PreparedEvaluation, conditions, evaluate, final_networks, prepare_evaluate
from sweep.tracking.lines import OUTBOX
from sweep.worker.measurement import Bench, Measured, class_balanced, measure
from sweep.worker.segment import TrialEnded, WorkerPlace
from tests.sweep.sweep_files import PARAMETERS, session_on, trial, write_sweep

CPU = RuntimeConfig(device=Device.cpu)


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> AppConfig:
    """A sweep with two final networks, trained for an epoch each, and one that diverged."""
    runs = tmp_path_factory.mktemp("runs")
    config = write_sweep(runs, [trial(0, parameters=PARAMETERS)])
    final = runs / "x" / "final"
    rows = [trial(n, phase=Phase.final, seed=n, candidate=0) for n in (3, 4)]
    write_rows(final / "trials.csv", TrialRow, [*rows, trial(5, phase=Phase.final, outcome=Outcome.diverged)])
    for row in rows:
        params = {"training.seed": row.seed, "training.epochs": 1, "data.portion": "trainval", "refinement.count": 0}
        training = Training(override(config.experiment, {**PARAMETERS, **params}), CPU)
        next(training)
        training.save(final / f"model-{row.number}.ckpt")
    return config


@pytest.fixture(scope="module")
def measured(config):
    prepared = prepare_evaluate(config, "x")
    return measured_as(prepared, config.evaluate)


def measured_as(prepared: PreparedEvaluation, asked: EvaluateConfig) -> list[Measured]:
    """The accuracies of the first network, measured as asked."""
    bench = Bench(model=prepared.networks[0].network, test=prepared.test, config=asked, runtime=CPU)
    wanted, _ = conditions(AppConfig(evaluate=asked))
    return [one for condition in wanted for one in measure(condition, bench).values if one.metric == "accuracy"]


def checkpoint(config: AppConfig, number: int = 3):
    return session_on(config).files.checkpoint(number)


def test_only_done_final_networks_are_tested_with_the_statistics_they_were_trained_with(config):
    prepared = prepare_evaluate(config, "x")
    assert [one.row.number for one in prepared.networks] == [3, 4]
    assert len(prepared.test.images) == len(load_test(config.data)) == 596
    trained = load_data(override(config.experiment, {"data.portion": Portion.trainval.value}).data).train
    assert [one.network.images.mean for one in prepared.networks] == 2 * [Statistics.of(trained).mean_C.tolist()]


def test_the_clean_score_is_that_of_the_network_as_trained_on_the_whole_test_set(config, measured):
    clean, saved, test = measured[0], load_checkpoint(checkpoint(config)), load_test(config.data)
    assert (clean.condition, clean.scheme, clean.steps, clean.n) == (CLEAN, Scheme.euler, 2, 596)
    assert clean.value == (saved.classifier().predict(test.pixels_BCHW) == test.labels_B).mean()
    statistics = Statistics.of(load_data(saved.experiment.data).train)
    bare = score(saved.build(), Batches(test, statistics=statistics), batch_size=500)
    assert (clean.value, clean.n) == (bare.accuracy, bare.n)


def test_every_scheme_and_step_factor_is_measured_once_on_the_same_balanced_part(config, measured):
    table = [(one.scheme.value, one.steps) for one in measured[1:]]
    assert sorted(table) == sorted((s, n) for s in ("euler", "midpoint", "heun", "rk4") for n in (1, 2, 4, 8))
    assert {(one.condition, one.n) for one in measured[1:]} == {(MANIFESTATION, 20)}
    model, test = load_checkpoint(checkpoint(config)).classifier(), load_test(config.data)
    part = Batches(class_balanced(test, 20), statistics=Statistics.identity(1))
    for one in measured[1:]:
        assert one.value == score(model.manifest(scheme=one.scheme, steps=one.steps), part, batch_size=500).accuracy


def test_the_trained_manifestation_is_measured_also_where_it_was_not_asked_for(config):
    asked = EvaluateConfig(schemes=[Scheme.rk4], step_factors=[0.1, 0.2], manifestation_images=10)
    table = {(one.scheme, one.steps) for one in measured_as(prepare_evaluate(config, "x"), asked)[1:]}
    assert table == {(scheme, steps) for scheme in (Scheme.euler, Scheme.rk4) for steps in (1, 2)}


def test_batches_are_for_speed_only(config, measured):
    asked = EvaluateConfig(batch_size=7, manifestation_images=20)
    small = measured_as(prepare_evaluate(config, "x"), asked)
    assert [one.value for one in small] == [one.value for one in measured]


def images(*labels: int) -> Images:
    count = len(labels)
    pixels = np.arange(count, dtype=np.uint8).reshape(count, 1, 1, 1)
    return Images(pixels, np.array(labels), np.arange(100, 100 + count))


@pytest.mark.parametrize(
    ("count", "chosen"),
    [
        (3, [0, 2, 5]),
        (6, [0, 1, 2, 3, 5, 6]),
        (4, [0, 1, 2, 5]),
        (1, [0]),
        (7, range(7)),
        (99, range(7)),
        (None, range(7)),
    ],
)
def test_a_balanced_part_takes_the_first_images_of_every_class_in_file_order(count, chosen):
    everything = images(0, 0, 1, 1, 1, 2, 2)
    part = class_balanced(everything, count)
    assert part.pixels_BCHW.flatten().tolist() == list(chosen)
    assert part.labels_B.tolist() == everything.labels_B[list(chosen)].tolist()
    assert part.indices_B.tolist() == [100 + n for n in chosen]


def test_smaller_parts_are_contained_in_larger_ones(config):
    test = load_test(config.data)
    parts = [set(class_balanced(test, count).indices_B) for count in (10, 100, 500, 596)]
    assert all(small < large for small, large in pairwise(parts))
    assert set(np.bincount(class_balanced(test, 100).labels_B)) == {10}


@pytest.fixture
def in_place(monkeypatch):
    """Ray, whose tasks are done here and now."""
    instead = SimpleNamespace(
        put=lambda value: value,
        get=lambda task: task(),
        wait=lambda refs, num_returns: (refs[:num_returns], refs[num_returns:]),
        remote=as_if_remote,
        cancel=lambda task, force: None,
    )
    monkeypatch.setattr(measurements, "ray", instead)


def as_if_remote(**resources: float):
    assert resources == {"num_cpus": 1.0, "num_gpus": 0.0}

    def remote(function):
        def options(label_selector):
            return SimpleNamespace(remote=lambda *words: partial(function, *words))

        return SimpleNamespace(options=options)

    return remote


def test_a_node_of_no_use_is_said_once_and_what_it_had_is_measured_elsewhere(config, in_place, monkeypatch):
    unfit = TrialEnded(outcome=Outcome.node_unfit, reason="host4 cannot use the run directory: gone")
    answers = iter([unfit, unfit])
    monkeypatch.setattr(measurements, "unseen", lambda marker: next(answers, None))
    monkeypatch.setattr(measurements, "here", lambda: WorkerPlace(host="host4", node="a4"))
    monkeypatch.setattr("sweep.cluster.placement.fitting", lambda *_: 1)
    session, prepared = session_on(config), prepare_evaluate(config, "x")
    tasks = prepared.tasks[:2]
    assert [task for task, _ in measurements.measure_all(session, tasks, prepared.test)] == tasks
    assert session.console.file.getvalue().count("host4") == 1
    assert session.placement.left_out.selector() == {"ray.io/node-id": "!in(a4)"}
    monkeypatch.setattr("sweep.cluster.placement.fitting", lambda *_: 0)
    with pytest.raises(WorkError, match="no node is left that a trial can run on: host4 cannot use"):
        measurements._leave_out(session, measurements.UnfitNode("a4", unfit.reason))


def test_rows_csv_has_every_value_of_every_network_under_its_own_key(config, measured, in_place, capsys):
    session = session_on(config)
    evaluate(session, prepare_evaluate(config, "x"))
    assert isinstance(session.console.file, StringIO)
    said = " ".join(session.console.file.getvalue().split())
    seeds = "mean over 3 fresh seeds, of which 1 failed, counted as chance"
    assert re.search(rf"x: test accuracy [\d.]+%, sd [\d.]+, {seeds}; .*rows\.csv has all", said)
    rows = read_rows(session.files.rows, EvaluationRow)
    assert len({row.key for row in rows}) == len(rows) == 2 * (2 + 16 * 3)
    assert {(row.split, row.family, row.trained_scheme, row.trained_steps) for row in rows} == {
        ("test", "smoke", "euler", 2)
    }
    mine = [row for row in rows if row.seed == 3 and row.metric == "accuracy"]
    assert [(row.condition, row.scheme, row.steps, row.value, row.n) for row in mine] == [
        (one.condition, one.scheme.value, one.steps, one.value, one.n) for one in measured
    ]
    with pytest.raises(InputError, match="test data is used once"):
        prepare_evaluate(config, "x")

    told = map(json.loads, (session.directory / OUTBOX).read_text().splitlines())
    (line,) = [one for one in told if one["op"] == "describe"]
    assert (line["key"], line["name"], line["card"]) == ("x/final-3", "x", "final/model_card.md")
    own = measured[0].value
    assert (line["tags"]["test/accuracy"], line["tags"]["test/accuracy.n"]) == (f"{own:.4f}", "596 images")
    bounds = wilson(own, 596)
    assert line["tags"]["test/accuracy.interval"] == f"{bounds.low:.1%} to {bounds.high:.1%}"
    assert {"data_hash": "da7a", "config_hash": "c0ffee", "seed": "3"}.items() <= line["tags"].items()
    card = session.files.model_card.read_text()
    assert f"| test accuracy | all test images, this network | {own:.1%} | 596 images | {bounds.low:.1%} to" in card
    assert "| mean test accuracy | all test images, each final network that ended done |" in card
    assert "not tested" not in card and "2 seeds" in card


def asking(config: AppConfig, *kinds: ConditionKind) -> AppConfig:
    return replace(config, evaluate=replace(config.evaluate, conditions=list(kinds)))


def assert_whole(files):
    """What an evaluation writes counts by the rules that tell whole cells from others."""
    rows = read_measured(files.rows)
    assert sift(rows, final_networks(files)).whole == rows


@pytest.fixture
def untested(config):
    files = session_on(config).files
    for file in (files.rows, files.predictions, files.test_use):
        file.unlink(missing_ok=True)
    return files


def test_predictions_hold_the_class_of_every_image_that_makes_the_accuracy(config, untested, in_place):
    evaluate(session_on(config), prepare_evaluate(asking(config, ConditionKind.clean), "x"))
    found = read_predictions(untested.predictions)
    clean = {row.seed: row.value for row in read_rows(untested.rows, EvaluationRow) if row.metric == "accuracy"}
    assert dict(zip(found.seeds_R.tolist(), found.hits_RN.mean(1).tolist(), strict=True)) == clean
    assert found.indices_N.tolist() == load_test(config.data).indices_B.tolist()


def test_conditions_can_be_added_and_nothing_is_measured_twice(config, untested, in_place):
    session = session_on(config)
    evaluate(session, prepare_evaluate(asking(config, ConditionKind.clean), "x"))
    first = read_rows(untested.rows, EvaluationRow)
    both = prepare_evaluate(config, "x")
    assert {condition.kind for _, condition in both.tasks} == {ConditionKind.manifestation}
    evaluate(session, both)
    rows = read_rows(untested.rows, EvaluationRow)
    assert [row for row in rows if row.condition == CLEAN] == first
    assert len({row.key for row in rows}) == len(rows) == 2 * (2 + 16 * 3)
    uses = read_test_use(untested.test_use)
    assert sorted((use.seed, use.condition) for use in uses) == [
        (3, CLEAN), (3, MANIFESTATION), (4, CLEAN), (4, MANIFESTATION),
    ]  # fmt: skip


def test_an_evaluation_that_was_cut_short_goes_on_with_what_is_left(config, untested, in_place, monkeypatch):
    measured_before, real = [], measurements._measure_on

    def dies_at_the_third(*given):
        measured_before.append(given)
        if len(measured_before) == 3:
            raise RayError("The worker died.")
        return real(*given)

    monkeypatch.setattr(measurements, "_measure_on", dies_at_the_third)
    with pytest.raises(WorkError, match=r"The evaluation failed: The worker died\. .* go on with `sweep evaluate x`"):
        evaluate(session_on(config), prepare_evaluate(config, "x"))
    monkeypatch.setattr(measurements, "_measure_on", real)
    assert len({(row.seed, row.condition) for row in read_rows(untested.rows, EvaluationRow)}) == 2
    left = prepare_evaluate(config, "x")
    assert len(left.tasks) == 2
    evaluate(session_on(config), left)
    assert len({row.key for row in read_rows(untested.rows, EvaluationRow)}) == 2 * (2 + 16 * 3)


def test_ctrl_c_ends_the_workers_keeps_what_is_measured_and_says_so(config, untested, in_place, monkeypatch):
    real, ended = measurements._measure_on, []

    def interrupted_at_the_third(*given):
        if len(read_test_use(untested.test_use)) == 2:
            raise KeyboardInterrupt
        return real(*given)

    monkeypatch.setattr(measurements, "_measure_on", interrupted_at_the_third)
    measurements.ray.cancel = lambda task, force: ended.append(force)
    said = r"2 measurements of x are left\. What was measured is kept in .*rows\.csv; go on with `sweep evaluate x`\."
    with pytest.raises(Interrupted, match=said):
        evaluate(session_on(config), prepare_evaluate(config, "x"))
    assert (ended, len(prepare_evaluate(config, "x").tasks)) == ([True], 2)


def test_what_was_measured_before_is_said_where_its_result_was_removed(config, untested, in_place, capsys):
    session = session_on(config)
    evaluate(session, prepare_evaluate(asking(config, ConditionKind.clean), "x"))
    capsys.readouterr()
    untested.rows.unlink()
    with session.console.capture() as said:
        evaluate(session, prepare_evaluate(asking(config, ConditionKind.clean), "x"))
    assert "2 of these measurements were made before" in " ".join(said.get().split())
    assert len(read_test_use(untested.test_use)) == 4


def test_results_of_another_final_training_are_refused(config, untested, in_place):
    evaluate(session_on(config), prepare_evaluate(asking(config, ConditionKind.clean), "x"))
    rows = read_rows(untested.rows, EvaluationRow)
    write_rows(untested.rows, EvaluationRow, [replace(row, config_hash="another") for row in rows])
    with pytest.raises(InputError, match=r"config_hash another, data_hash da7a\. They are of another final"):
        prepare_evaluate(config, "x")


@pytest.mark.parametrize("gone", ["accuracy", "loss", "prediction", "predictions"])
def test_half_a_result_is_measured_again_and_what_is_whole_is_not(config, untested, in_place, gone):
    asked = asking(config, ConditionKind.clean)
    evaluate(session_on(config), prepare_evaluate(asked, "x"))
    whole, said = read_rows(untested.rows, EvaluationRow), read_predictions(untested.predictions)
    if gone == "prediction":
        write_predictions(untested.predictions, replace(said, classes_RN=said.classes_RN[1:], seeds_R=said.seeds_R[1:]))
    elif gone == "predictions":
        untested.predictions.unlink()
    else:
        left = [row for row in whole if (row.seed, row.metric) != (3, gone)]
        write_rows(untested.rows, EvaluationRow, left)
    again = prepare_evaluate(asked, "x")
    assert {one.row.seed for one, _ in again.tasks} == ({3, 4} if gone == "predictions" else {3})
    session = session_on(config)
    with session.console.capture() as told:
        evaluate(session, again)
    assert "Counts as not measured, because a part is missing: clean of seed 3" in " ".join(told.get().split())
    assert read_rows(untested.rows, EvaluationRow) == whole
    assert sorted(read_predictions(untested.predictions).seeds_R.tolist()) == [3, 4]
    with pytest.raises(InputError, match="test data is used once"):
        prepare_evaluate(asked, "x")


@pytest.mark.parametrize(
    "line", ["{}", '{"config_hash": 1}', "no line", "[]"], ids=["empty", "other types", "text", "list"]
)
def test_a_damaged_record_of_test_use_is_refused_before_anything_is_measured(config, untested, line):
    untested.test_use.write_text(line + "\n")
    with pytest.raises(InputError, match=r"test_use\.jsonl is damaged"):
        prepare_evaluate(config, "x")


def test_a_record_of_test_use_that_a_kill_cut_short_is_read_up_to_there(config, untested, in_place):
    evaluate(session_on(config), prepare_evaluate(asking(config, ConditionKind.clean), "x"))
    content = untested.test_use.read_bytes()
    untested.test_use.write_bytes(content[:-20])
    assert len(read_test_use(untested.test_use)) == 1


CORRUPTIONS = [Corruption.fog, Corruption.gaussian_noise, Corruption.saturate]
FEW = AttackConfig(
    linf_255=[2.0, 16.0], l2=[], attacks=[Attack.apgd_ce, Attack.square, Attack.transfer], images=20, check_images=8,
    apgd_steps=5, pgd_steps=5, square_queries=20,
)  # fmt: skip


def test_corrupted_images_are_measured_at_each_severity_and_what_does_not_suit_them_is_said(
    config, untested, in_place, tmp_path
):
    asked = replace(
        config.evaluate, conditions=[ConditionKind.corruption], corruptions=CORRUPTIONS, severities=[1, 5],
        corruption_images=100, cache_dir=str(tmp_path),
    )  # fmt: skip
    session = session_on(replace(config, evaluate=asked))
    with session.console.capture() as said:
        evaluate(session, prepare_evaluate(session.config, "x"))
    assert "Left out: corruption=saturate needs colour" in " ".join(said.get().split())
    rows = [row for row in read_rows(untested.rows, EvaluationRow) if row.metric == "accuracy" and row.seed == 3]
    assert [(row.condition, row.severity, row.n, row.source) for row in rows] == [
        (f"corruption/{name}", severity, 100, "regenerated")
        for name in ("fog", "gaussian_noise")
        for severity in (1.0, 5.0)
    ]
    images = class_balanced(load_test(config.data), 100)
    changed, network = corrupt(images, Corruption.fog, 5), load_checkpoint(checkpoint(config)).classifier()
    assert rows[1].value == (network.predict(changed.pixels_BCHW) == images.labels_B).mean()
    more = prepare_evaluate(replace(config, evaluate=replace(asked, severities=[1, 3, 5])), "x")
    assert {condition.severities for _, condition in more.tasks} == {(3.0,)}


def test_attacked_networks_have_a_row_for_every_attack_and_check(config, untested, in_place):
    asked = replace(config.evaluate, conditions=[ConditionKind.attack], attack=FEW)
    session = session_on(replace(config, evaluate=asked))
    evaluate(session, prepare_evaluate(session.config, "x"))
    rows = [row for row in read_measured(untested.rows) if row.seed == 3]
    accuracy = {(row.condition, row.severity): row.value for row in rows if row.metric == "accuracy"}
    attacks = [name for name, severity in accuracy if severity == 2.0]
    assert {"attack/linf/apgd_ce", "attack/linf/square", "attack/linf/union", "attack/linf/transfer_sibling"} <= set(
        attacks
    )
    for epsilon in (2.0, 16.0):
        each = [value for (name, severity), value in accuracy.items() if severity == epsilon]
        assert accuracy["attack/linf/union", epsilon] == min(each) <= accuracy["attack/clean", 0.0]
    checks = [row for row in rows if row.condition.startswith("attack/check/") and row.metric == "passed"]
    assert len(checks) == 9 and {row.value for row in checks} <= {0.0, 1.0}
    assert_whole(untested)
    assert (untested.attacked / "3").is_dir()


def test_a_sweep_that_attacks_are_taken_over_from_must_be_another_one_with_final_networks(config, untested):
    for name, reason in (("x", "is this sweep"), ("y", "it has no final network")):
        asked = replace(config.evaluate, conditions=[ConditionKind.attack], attack=FEW, transfer=[name])
        with pytest.raises(InputError, match=f"evaluate.transfer={name}: {reason}"):
            prepare_evaluate(replace(config, evaluate=asked), "x")


def test_an_adaptive_network_is_not_attacked_without_the_flag_and_nothing_is_started(config, untested):
    asked = replace(config, evaluate=replace(config.evaluate, conditions=[ConditionKind.attack], attack=FEW))
    path, adaptive = checkpoint(config), {"model.network": "neural_ode", "model.scheme": None, "model.nodes": 1}
    kept = path.read_bytes()
    try:
        Training(override(config.experiment, adaptive), CPU).save(path)
        with pytest.raises(InputError, match=r"chooses its own steps .* attack.allow_adaptive=true"):
            prepare_evaluate(asked, "x")
        flagged = replace(asked.evaluate, attack=replace(FEW, allow_adaptive=True))
        assert prepare_evaluate(replace(asked, evaluate=flagged), "x").tasks
    finally:
        path.write_bytes(kept)


def test_attacks_without_transfer_need_no_sibling(config, untested):
    attack = replace(FEW, attacks=[Attack.apgd_ce])
    asked = replace(config.evaluate, conditions=[ConditionKind.attack], attack=attack)
    assert [one.others for one in prepare_evaluate(replace(config, evaluate=asked), "x").networks] == [{}, {}]


def test_more_images_than_there_are_cannot_be_attacked(config, untested):
    asked = replace(config.evaluate, conditions=[ConditionKind.attack], attack=replace(FEW, images=1000))
    with pytest.raises(InputError, match=r"1000 test images of digits: .* are possible"):
        prepare_evaluate(replace(config, evaluate=asked), "x")


def test_what_networks_are_as_odes_is_measured_and_manifestations_with_batch_norm_estimated_anew(
    config, untested, in_place
):
    kinds = [
        ConditionKind.manifestation, ConditionKind.manifestation_reestimated, ConditionKind.diagnostics,
        ConditionKind.compression,
    ]  # fmt: skip
    asked = replace(
        config.evaluate, conditions=kinds, manifestation_images=120, schemes=[Scheme.rk4], step_factors=[2.0]
    )
    session = session_on(replace(config, evaluate=asked))
    evaluate(session, prepare_evaluate(session.config, "x"))
    rows = [row for row in read_rows(untested.rows, EvaluationRow) if row.seed == 3]
    stored, again = (
        {(row.scheme, row.steps): row.value for row in rows if (row.condition, row.metric) == (name, "accuracy")}
        for name in (MANIFESTATION, REESTIMATED)
    )
    assert stored.keys() == again.keys() == {("euler", 2), ("euler", 4), ("rk4", 2), ("rk4", 4)}
    lost = {
        (row.scheme, row.steps): row.value for row in rows if (row.condition, row.metric) == (MANIFESTATION, "lost")
    }
    assert lost["euler", 2] == 0 and all(value >= stored["euler", 2] - stored[cell] for cell, value in lost.items())
    found = {row.metric: row.value for row in rows if row.condition == "diagnostics"}
    assert_whole(untested)
    assert found["steps"] == 2 and found["valid"] in (0.0, 1.0) and found["parameters"] > 0
    smaller = [row for row in rows if row.condition.startswith("compression/")]
    assert {row.condition.partition("/")[2] for row in smaller} >= {"trained", "shortened"}
    told = {row.metric: row for row in smaller if row.condition == "compression/trained"}
    own = next(row for row in rows if (row.condition, row.steps) == ("manifestation", row.trained_steps))
    assert (told["accuracy"].value, told["accuracy"].n, told["accuracy"].severity) == (own.value, 120, 1.0)
    assert told["parameters"].value == found["parameters"] and told["latency_ms"].n == 10
    assert told["kilobytes"].value >= 4 * found["parameters"] / 1000
    assert found["lipschitz_median"] <= found["lipschitz_90"] <= found["lipschitz_largest"]
