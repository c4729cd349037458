"""What the arm of a study makes of a sampled configuration, counted on the networks themselves."""

from dataclasses import replace
from pathlib import Path

import pytest

from odenet.data.config import Portion
from odenet.networks.model import build_model
from odenet.networks.refinement import refine
from odenet.training.config import ExperimentConfig, identity
from odenet.training.cost import train_gflops
from search_spaces import SPACES
from sweep.cli.announce import described
from sweep.config.overrides import override
from sweep.config.schema import AppConfig
from sweep.config.study_config import Arm
from sweep.errors import InputError
from sweep.execution.trial_source import trial_seed
from sweep.records.best import read_best
from sweep.records.rows import TrialRow, ranked
from sweep.records.run_directory import SweepFiles
from sweep.records.tables import read_rows
from sweep.stages.final import prepare_final
from sweep.stages.replay import prepare_replay
from sweep.stages.study import prepare_study
from sweep.study.members import members
from sweep.tuning.arms import WITHIN, Shape, epoch_gflops, parameters_of, with_compute, with_parameters
from tests.grids import for_each
from tests.sweep.study.study_files import searched_study, study_config

SHAPE = Shape(images=30, classes=10, of_image=(1, 8, 8))
COMPUTE = ("study.arm=equal_compute", "study.median_epochs=6")


def experiment(**values: object) -> ExperimentConfig:
    keys = {name.replace("__", "."): value for name, value in values.items()}
    return override(ExperimentConfig(), {"model.width": 4, **keys})


def counted_by_hand(one: ExperimentConfig) -> list[float]:
    """The GFLOP of each epoch of a network that is built and refined as training does it."""
    network = build_model(one.model, channels=1, classes=10)
    found = []
    for epoch in range(one.training.epochs):
        if epoch in one.refinement.due(one.training.epochs):
            refine(network)
        found.append(30 * train_gflops(network, (1, 8, 8)))
    return found


def test_the_cost_of_epochs_is_that_of_the_network_at_each_depth() -> None:
    one = experiment(refinement__count=2, training__epochs=10)
    assert epoch_gflops(one, SHAPE) == pytest.approx(counted_by_hand(one))


@for_each("budget", [0.6, 0.9])
@for_each("nodes", [1, 2])
@for_each("count", [0, 2])
@for_each("scheme", ["euler", "rk4"])
def test_as_many_epochs_are_trained_as_the_compute_pays_for(scheme: str, count: int, nodes: int, budget: float) -> None:
    one = experiment(model__scheme=scheme, refinement__count=count, model__nodes=nodes)
    made = with_compute(one, budget, SHAPE)
    more = replace(made, training=replace(made.training, epochs=made.training.epochs + 1))
    assert replace(made, training=one.training) == one, "nothing but the epochs is another"
    assert sum(counted_by_hand(made)) <= budget < sum(counted_by_hand(more))


def test_rk4_gets_a_third_of_the_epochs_of_euler_and_everything_at_least_one() -> None:
    euler, rk4 = (with_compute(experiment(model__scheme=name), 4.0, SHAPE).training.epochs for name in ("euler", "rk4"))
    assert 2.8 < euler / rk4 < 4, "four rates a step, beside a stem and transitions that cost the same"
    assert with_compute(experiment(), 1e-9, SHAPE).training.epochs == 1
    assert with_compute(experiment(refinement__count=2), 1e-9, SHAPE).training.epochs == 3, (
        "the fewest with room for two"
    )


FAMILIES = ("resnet", "continuous", "hamiltonian", "lm_resnet", "revnet")


@for_each("corner", [corner for name in FAMILIES for corner in SPACES[name].corners()[-2:]])
def test_widths_come_within_five_percent_of_the_parameters_of_the_baseline(corner: dict) -> None:
    target = parameters_of(override(ExperimentConfig(), SPACES["resnet"].corners()[0] | {"model.width": 8}), SHAPE)
    made = with_parameters(override(ExperimentConfig(), corner | {"model.width": 8}), target, SHAPE)
    assert abs(parameters_of(made, SHAPE) / target - 1) <= WITHIN


def test_the_parameters_are_those_after_the_last_refinement() -> None:
    one = experiment(refinement__count=2, training__epochs=10)
    network = build_model(one.model, channels=1, classes=10)
    refine(network)
    refine(network)
    assert parameters_of(one, SHAPE) == network.parameter_count


def test_every_trial_and_all_that_follows_it_has_the_epochs_that_the_compute_pays_for(tmp_path: Path) -> None:
    config = searched_study(tmp_path, *COMPUTE, "study.draws=[0]")
    for part, member in members(config).items():
        shape = Shape.of(prepare_study(config, "other").searches[part].splits)
        best = read_best(tmp_path / "tiny" / part / "best.yaml").experiment
        assert best.training.seed in {trial_seed(member.search.seed, number) for number in range(2)}
        trained = ranked(read_rows(tmp_path / "tiny" / part / "trials.csv", TrialRow))[0]
        assert (trained.config_hash, trained.epochs) == (identity(best), best.training.epochs)
        spent = sum(epoch_gflops(best, shape))
        assert member.study.gflops is not None
        assert spent <= member.study.gflops or best.training.epochs <= 3
        assert spent + max(epoch_gflops(best, shape)) > 0.9 * member.study.gflops
        prepared = prepare_final(member, f"tiny/{part}")
        retrained = [one.experiments({"data.portion": Portion.trainval.value})[0][1] for one in prepared.candidates]
        assert retrained[0].training.epochs == best.training.epochs


def test_the_budget_is_that_of_the_baselines_median_configuration_by_size(tmp_path: Path) -> None:
    config = study_config(tmp_path, *COMPUTE, "study.sizes=[5,10]")
    found = members(config)
    assert list(found)[:4] == ["resnet-n5-d0", "continuous-n5-d0", "resnet-n10-d0", "continuous-n10-d0"]
    small, large = found["continuous-n5-d1"].study.gflops, found["continuous-n10-d0"].study.gflops
    assert small is not None
    assert large == pytest.approx(2 * small)
    median = override(config.experiment, SPACES["resnet"].corners()[0] | {"training.epochs": 6})
    assert small == pytest.approx(sum(epoch_gflops(median, replace(SHAPE, images=30))))
    assert members(study_config(tmp_path, "study.arm=equal_compute", "study.gflops=7"))["resnet-d0"].study.gflops == 7


REFUSED = {
    ("study.arm=equal_compute", "study.gflops=1", "search.scheduler=asha"): "use search.scheduler=none",
    ("study.arm=equal_parameters", "search.scheduler=asha"): "study.arm=equal_parameters with search.scheduler=asha",
    ("study.arm=equal_compute", "study.gflops=1", "refinement.at=[1]"): "decides what refinement.at says; leave it out",
}


def test_what_an_arm_cannot_hold_equal_is_refused(tmp_path: Path) -> None:
    for words, says in REFUSED.items():
        with pytest.raises(InputError, match=says):
            prepare_study(study_config(tmp_path, *words, "study.families=[continuous]"), "tiny")
    for words, says in {
        ("study.arm=equal_compute",): "needs a budget: study.median_epochs=30",
        (*COMPUTE, "study.gflops=3"): "one of them",
        ("study.gflops=3",): "study.gflops=3.0 is for study.arm=equal_compute; the arm is equal_epochs",
        ("study.arm=equal_parameters", "study.parameters=0"): "study.parameters=0: must be above 0",
        ("study.sizes=[0]",): r"study.sizes=\[0\]: images per class",
        ("study.sizes=[5,5]",): r"study.sizes=\[5, 5\]: at least one, each once",
    }.items():
        with pytest.raises(InputError, match=says):
            study_config(tmp_path, *words)


def test_what_has_epochs_of_its_own_is_not_replayed_and_says_how_long_it_trains(tmp_path: Path) -> None:
    config = searched_study(tmp_path, "study.arm=equal_compute", "study.gflops=0.5", "study.draws=[0]")
    with pytest.raises(InputError, match="its trials have epochs of their own"):
        prepare_replay(config, SweepFiles(tmp_path / "tiny/resnet-d0"))
    assert "each, 2 trials of as many epochs as 0.5 GFLOP pay for on digits, sampler" in described("study", config)
    assert "computation of 6 of the median configuration" in described("study", study_config(tmp_path, *COMPUTE))


def test_equal_parameters_begin_with_those_of_the_baseline(tmp_path: Path) -> None:
    config: AppConfig = study_config(tmp_path, "study.arm=equal_parameters", "model.width=8")
    prepared = prepare_study(config, "tiny")
    terms = prepared.searches["continuous-d0"].problem.terms
    assert terms is not None
    assert terms.arm is Arm.equal_parameters
    median = override(config.experiment, SPACES["resnet"].corners()[0])
    assert terms.amount == parameters_of(median, terms.shape)
