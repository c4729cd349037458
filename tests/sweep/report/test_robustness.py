"""What the report says of corrupted and attacked images, from rows whose means are known."""

from dataclasses import replace

import pytest

from sweep.records.rows import EvaluationRow
from sweep.records.tables import write_rows
from sweep.report.load import load_sweeps
from sweep.report.results import build_study
from sweep.report.robustness import attacks, corruptions
from tests.sweep.report.test_report import SEEDS, evaluation, write_final, write_search

# Accuracies by (corruption, severity); of the baseline, and of a family with half of its errors.
BASELINE = {("fog", 1.0): 0.8, ("fog", 5.0): 0.4, ("snow", 1.0): 0.6, ("snow", 5.0): 0.2}
HALF = {cell: 1 - (1 - value) / 2 for cell, value in BASELINE.items()}
CLEAN = {"resnet": 0.9, "continuous": 0.95}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    root, directories = tmp_path_factory.mktemp("report"), []
    for family, corrupted in (("resnet", BASELINE), ("continuous", HALF)):
        for draw in range(2):
            directory = root / f"{family}-d{draw}"
            write_search(directory, family, draw)
            write_final(directory, family, draw)
            write_rows(directory / "rows.csv", EvaluationRow, rows(family, draw, corrupted))
            directories.append(directory)
    return build_study(*load_sweeps(directories), root)


def rows(family, draw, corrupted):
    for seed in SEEDS:
        row = evaluation(family, draw, seed, CLEAN[family])
        yield from scored(row)
        for (name, severity), value in corrupted.items():
            yield from scored(replace(row, condition=f"corruption/{name}", severity=severity, value=value, n=200))
        yield from attacked(row, passes=family == "resnet" or draw == 0)


def scored(row):
    return [row, replace(row, metric="loss", value=1.5)]


def attacked(row, passes):
    yield replace(row, condition="attack/clean", n=64)
    robust = {1.0: 0.5, 2.0: 0.1 + 0.1 * (row.seed == SEEDS[0])}
    for epsilon, value in robust.items():
        part = replace(row, severity=epsilon, n=64)
        for name, accuracy, first in (("union", value, 0.0), ("apgd_ce", value + 0.1, 0.3), ("square", 0.9, 0.1)):
            yield replace(part, condition=f"attack/linf/{name}", value=accuracy)
            yield replace(part, condition=f"attack/linf/{name}", metric="first_broken", value=first)
    for name, passed in (("forward is deterministic", True), ("transfer is no stronger", passes)):
        for metric, value in (("passed", float(passed)), ("value", 0.0), ("limit", 0.0)):
            yield replace(row, condition=f"attack/check/{name}", metric=metric, value=value)


def cells(table):
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]


def test_errors_are_means_over_corruptions_and_severities_and_relative_to_the_baselines_of_the_same_draw(study):
    (results,) = study.tasks
    baseline, family = cells(corruptions.summary(results))
    assert (baseline["corrupted error ± sd"], family["corrupted error ± sd"]) == ("50.0 ± 0.0", "25.0 ± 0.0")
    assert (baseline["mCE ± sd"], family["mCE ± sd"]) == ("1.000 ± 0.000", "0.500 ± 0.000")
    # Fog: lost 0.1 + 0.5 of resnet, half of each less 0.05: (0.05 + 0.25) / 0.6; snow alike.
    assert (baseline["relative mCE ± sd"], family["relative mCE ± sd"]) == ("1.000 ± 0.000", "0.500 ± 0.000")
    assert (family["clean error ± sd"], family["networks"], family["images"]) == ("5.0 ± 0.0", "4", "200")
    assert "2 corruptions at severities 1, 5" in corruptions.summary(results).caption


def test_every_corruption_has_a_row_and_every_network_a_dot(study):
    (results,) = study.tasks
    fog, snow = cells(corruptions.by_corruption(results))
    assert list(fog) == ["corruption", "resnet (n = 4)", "continuous (n = 4)"]
    assert list(fog.values()) == ["fog", "60.0 ± 0.0", "80.0 ± 0.0"]
    assert list(snow.values())[1:] == ["40.0 ± 0.0", "70.0 ± 0.0"]
    figure = corruptions.against_clean(study, results, "corruptions-0")
    assert "resnet 10.0 and 50.0 % and continuous 5.0 and 25.0 %" in figure.panels[0].alternative


def test_networks_of_other_draws_are_no_baseline_and_one_that_lost_nothing_divides_nothing(study):
    (results,) = study.tasks
    resnet, continuous = (corruptions.networks(family) for family in results.families)
    here = next(one for one in continuous if one.draw == 0)
    assert corruptions.relative_error(here, [one for one in resnet if one.draw == 1], above_clean=False) is None
    perfect = [replace(one, errors=dict.fromkeys(one.errors, one.clean)) for one in resnet]
    assert corruptions.relative_error(here, perfect, above_clean=True) is None


def test_robust_accuracy_has_its_range_the_decisive_attack_and_whether_it_can_be_believed(study):
    (results,) = study.tasks
    table = cells(attacks.summary(results))
    assert [(row["family"], row["epsilon"]) for row in table] == [
        ("resnet", "1/255"), ("resnet", "2/255"), ("continuous", "1/255"), ("continuous", "2/255"),
    ]  # fmt: skip
    assert (table[1]["robust accuracy"], table[1]["range"]) == ("15.0", "10.0 to 20.0")
    assert (table[1]["decisive"], table[1]["networks"], table[1]["images"]) == ("apgd-ce (30.0 %)", "4", "64")
    assert table[0]["believable"] == "yes"
    assert table[3]["believable"] == "masked: upper bound only (2 of 4 networks)"


def test_every_sanity_check_has_a_row_with_how_many_networks_passed(study):
    (results,) = study.tasks
    first, second = cells(attacks.checks(results))
    assert (first["check"], first["resnet"], first["continuous"]) == ("forward is deterministic", "4 of 4", "4 of 4")
    assert (second["resnet"], second["continuous"]) == ("4 of 4", "2 of 4")


def test_curves_have_a_line_per_network_and_a_panel_per_norm_that_was_attacked_in(study):
    (results,) = study.tasks
    figure = attacks.curves(study, results, "attacks-0")
    assert [panel.title for panel in figure.panels] == ["l∞"]
    assert "resnet, 4 and continuous, 4" in figure.panels[0].alternative


def test_a_study_without_these_conditions_has_neither(study):
    (results,) = study.tasks
    bare = [
        replace(family, sweeps=[replace(sweep, evaluations=sweep.evaluations[:1]) for sweep in family.sweeps])
        for family in results.families
    ]
    empty = replace(results, families=bare)
    assert corruptions.summary(empty) is corruptions.by_corruption(empty) is None
    assert corruptions.against_clean(study, empty, "x") is attacks.summary(empty) is None
    assert attacks.checks(empty) is attacks.curves(study, empty, "x") is None
