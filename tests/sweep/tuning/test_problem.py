"""What a sweep asks: the space that is left to search, the experiment around it, and what is tried first."""

from pathlib import Path

import pytest

from sweep.config.compose import load
from sweep.errors import InputError
from sweep.records.best import write_best
from sweep.records.outcome import Outcome
from sweep.records.rows import TrialRow
from sweep.records.tables import write_rows
from sweep.tuning.problem import TIMING, Problem, build_problem, check_objectives, enqueued
from tests.sweep.pretended import configured
from tests.sweep.sweep_files import PARAMETERS, best_of, trial

CONTINUOUS = ("space=continuous", "training.epochs=9")


def test_a_search_asks_its_space_around_its_experiment_as_they_are():
    config = configured()
    assert build_problem(config) == Problem(config.space.build(), config.experiment)


@pytest.mark.parametrize("scheduler", ["depth_asha", "pbt"])
def test_where_networks_are_refined_is_not_searched_where_the_scheduler_decides_it(scheduler):
    plain = build_problem(load([*CONTINUOUS])).space
    problem = build_problem(load([*CONTINUOUS, f"search.scheduler={scheduler}"]))
    space, experiment = problem.space, problem.experiment
    assert set(plain.entries) - set(space.entries) == set(TIMING) & set(plain.entries) != set()
    assert experiment.refinement.count == 0


def test_trials_that_wait_at_rungs_are_refined_there():
    words = ("search.scheduler=depth_asha", "search.grace=0.12", "search.reduction=3")
    experiment = build_problem(load([*CONTINUOUS, *words])).experiment
    assert experiment.refinement.at == [1, 3]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["search.scheduler=depth_asha", "space.fix.refinement.count=1"], "refinement.count is set, but search"),
        (["search.scheduler=pbt", "space.range.refinement.first=[0.3,0.4]"], "refinement.first is set, but search"),
        (["search.scheduler=pbt", "search.trials=1"], "a population has at least 2"),
        (["search.scheduler=pbt", "search.pbt.interval=0.99"], "choose a smaller interval or more epochs"),
        (["search.scheduler=asha", "search.grace=1"], "which is their last; choose a smaller grace"),
        (["search.scheduler=depth_asha", "search.grace=1"], "which is their last; choose a smaller grace"),
        (["search.sampler=gp"], "search.sampler=gp"),
        (["search.sampler=grid"], "search.sampler=grid"),
    ],
)  # fmt: skip
def test_what_cannot_be_searched_so_is_refused(words, message):
    with pytest.raises(ValueError) as error:
        build_problem(load([*CONTINUOUS, *words]))
    assert message in str(error.value)


def test_robustness_needs_other_manifestations_than_the_trained_one():
    several = ("search.objectives=[accuracy,robustness]",)
    config = load([*CONTINUOUS, *several])
    check_objectives(config, config.experiment)
    alone = ("evaluate.schemes=[euler]", "evaluate.step_factors=[1.0]")
    rigid = load(["space=resnet", *several, *alone])
    with pytest.raises(ValueError, match=r"robustness, but model\.network=resnet with model\.scheme=euler has no"):
        check_objectives(rigid, rigid.experiment)
    check_objectives(load(["space=resnet", *several]), rigid.experiment)
    check_objectives(load(["space=resnet", *alone]), rigid.experiment)


# --- configurations to try first --------------------------------------------------------------------------------------


def asked_first(*files: Path) -> list[dict]:
    config = configured()
    config.search.enqueue = [str(file) for file in files]
    try:
        return enqueued(config, config.space.build())
    finally:
        config.search.enqueue = []


def with_lr(number: int) -> dict:
    return {**PARAMETERS, "optim.lr": 0.01 * (number + 1)}


def test_a_table_gives_its_done_trials_best_first_and_a_best_yaml_its_own(tmp_path):
    rows = [trial(n, objective=0.1 * n, parameters=with_lr(n)) for n in range(3)]
    write_rows(tmp_path / "t.csv", TrialRow, [*rows, trial(3, outcome=Outcome.pruned, objective=0.9)])
    write_best(tmp_path / "b.yaml", best_of(trial(7, parameters=with_lr(7)), configured().experiment))
    assert asked_first(tmp_path / "t.csv", tmp_path / "b.yaml") == [with_lr(n) for n in (2, 1, 0, 7)]


def test_keys_that_this_space_does_not_have_are_left_out(tmp_path):
    write_rows(tmp_path / "t.csv", TrialRow, [trial(0, parameters={**PARAMETERS, "refinement.count": 1})])
    assert asked_first(tmp_path / "t.csv") == [PARAMETERS]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({**PARAMETERS, "optim.lr": 5.0}, "optim.lr: 5.0 is not a number from 0.001 to 0.3"),
        ({**PARAMETERS, "model.scheme": "rk4"}, "model.scheme"),
        ({"model.network": "continuous", "optim.lr": 0.1}, "model.scheme is missing"),
    ],
)
def test_what_is_not_in_the_space_is_refused_with_its_file(tmp_path, parameters, message):
    write_rows(tmp_path / "t.csv", TrialRow, [trial(0, parameters=parameters)])
    with pytest.raises(InputError) as error:
        asked_first(tmp_path / "t.csv")
    assert str(error.value).startswith(f"search.enqueue={tmp_path / 't.csv'}: ")
    assert message in str(error.value)


@pytest.mark.parametrize("name", ["nowhere.csv", "nowhere.yaml"])
def test_a_file_that_is_not_there_is_refused_by_name(tmp_path, name):
    with pytest.raises(InputError, match=f"{name} cannot be read"):
        asked_first(tmp_path / name)
