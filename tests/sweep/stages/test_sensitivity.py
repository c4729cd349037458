"""Training around a selected configuration: which neighbours, on which seeds and data; segments are run here instead of
by Ray."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from odenet.data.config import Portion
from odenet.training.config import ExperimentConfig
from sweep.config.overrides import override
from sweep.config.schema import AppConfig
from sweep.config.sensitivity_config import SensitivityConfig
from sweep.errors import InputError, WorkError
from sweep.records.best import read_best
from sweep.records.files import write_text
from sweep.records.outcome import Outcome
from sweep.records.rows import Phase, TrialRow
from sweep.records.run_directory import SweepFiles
from sweep.records.stage_record import BegunStage
from sweep.records.tables import read_rows
from sweep.stages.resume import stage_cut_short
from sweep.stages.sensitivity import Sensitivity, prepare_sensitivity
from sweep.tracking.lines import OUTBOX
from sweep.tuning.local_grid import BATCH, KEYS, LR, STEPS, WEIGHT_DECAY, local_grid, most_trainings
from sweep.worker.segment import Segment, WorkerResult
from tests.sweep.pretended import Sweep, Worker, opened, over
from tests.sweep.sweep_files import PARAMETERS, session_on, trial, write_sweep

CROSS = {
    "lr_factors": [0.5, 2.0], "weight_decay_factors": [2.0], "grid": False, "step_factors": [2.0],
    "batch_factors": [0.5],
}  # fmt: skip


def searched(runs: Path, **asked: Any) -> AppConfig:
    """A search that has ended, its best trial 3, and what is asked for around it."""
    config = write_sweep(runs, [trial(3, parameters=PARAMETERS)])
    write_text(runs / "x" / "progress.json", '{"seconds": 9.0, "finished": true}')
    return replace(config, sensitivity=SensitivityConfig(**{**CROSS, "center_seeds": 2, **asked}))


def work_on(config: AppConfig) -> tuple[Sensitivity, Sweep]:
    work = Sensitivity(session_on(config), prepare_sensitivity(config, "x"))
    return work, opened(work.batch.session, work.batch.source, work.batch.splits, work.batch.log.files)


class Diverging(Worker):
    """Every training diverges at once."""

    def results(self, segment: Segment) -> Iterator[WorkerResult]:
        yield over(Outcome.diverged, "the loss is nan")


def rows_of(config: AppConfig) -> list[TrialRow]:
    return read_rows(Path(config.runtime.runs_dir) / "x/sensitivity/trials.csv", TrialRow)


# --- which neighbours -------------------------------------------------------------------------------------------------


def test_a_grid_has_every_learning_rate_with_every_weight_decay_and_the_others_one_at_a_time():
    asked, around = SensitivityConfig(), override(ExperimentConfig(), {STEPS: 2, BATCH: 32})
    grid = local_grid(asked, around)
    pairs = {(point[LR] / 0.1, point[WEIGHT_DECAY] / 5e-4) for point in grid.points if point[STEPS] == 2}
    assert {(round(a, 6), round(b, 6)) for a, b in pairs} == {
        (a, b) for a in asked.lr_factors for b in asked.weight_decay_factors
    }
    assert [(point[STEPS], point[BATCH]) for point in grid.points[-4:]] == [(1, 32), (4, 32), (2, 16), (2, 64)]
    assert (len(grid.points), grid.left_out, most_trainings(asked)) == (53, [], 55)
    assert grid.points[0] == {LR: 0.1, WEIGHT_DECAY: 5e-4, STEPS: 2, BATCH: 32}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "model.substeps x 0.5: model.substeps would be 0.5, and is a whole number from 1 on."),
        ({"model.network": "resnet"}, "model.substeps x 2: model.network=resnet with model.substeps=2: it is a ResNet"),
        ({WEIGHT_DECAY: 0.0}, "optim.weight_decay: it is 0, and so is every multiple of it."),
    ],
)
def test_what_cannot_be_trained_is_left_out_with_the_reason(changes, said):
    grid = local_grid(SensitivityConfig(lr_factors=[], grid=False), override(ExperimentConfig(), changes))
    assert any(reason.startswith(said) for reason in grid.left_out)
    assert len({json.dumps(point) for point in grid.points}) == len(grid.points)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"lr_factors": [2.0, 2.0]}, "sensitivity.lr_factors=[2.0, 2.0]: from 0.000976562 to 1024, each once"),
        ({"batch_factors": [0.0]}, "sensitivity.batch_factors=[0.0]: from"),
        ({"seeds": 0}, "sensitivity.seeds=0: must be from 1 to 1000."),
        ({"seeds": 4}, "sensitivity.center_seeds=3 with sensitivity.seeds=4: others are compared"),
    ],
)
def test_factors_and_seeds_that_cannot_be_are_refused(asked, said):
    with pytest.raises(ValueError, match=r"^sensitivity\.") as refused:
        SensitivityConfig(**asked)
    assert str(refused.value).startswith(said)


# --- what is trained --------------------------------------------------------------------------------------------------


def test_all_are_trained_on_train_from_the_same_seed_and_the_selected_one_from_more(tmp_path):
    config = searched(tmp_path)
    work, sweep = work_on(config)
    segments = sweep.drive()
    sweep.log.finish("")
    work.batch.log.rows = sweep.log.rows
    work.conclude()
    assert [one.phase for one in segments] == [Phase.sensitivity] * 7
    assert {one.experiment.data.portion for one in segments} == {Portion.train}
    seeds = [one.experiment.training.seed for one in segments]
    assert len(set(seeds[:6])) == 1 and seeds[6] not in (seeds[0], config.training.seed)
    assert segments[0].parameters == segments[6].parameters
    factors = [{key: one.parameters[key] / segments[0].parameters[key] for key in KEYS} for one in segments[1:6]]
    assert [{key: f for key, f in one.items() if f != 1} for one in factors] == [
        {LR: 0.5}, {LR: 2.0}, {WEIGHT_DECAY: 2.0}, {STEPS: 2.0}, {BATCH: 0.5}
    ]  # fmt: skip
    assert [row.candidate for row in rows_of(config)] == [3] * 7
    assert read_best(tmp_path / "x/sensitivity/best.yaml") == read_best(tmp_path / "x/best.yaml")
    assert not (tmp_path / "x/sensitivity/checkpoints").exists()
    told = [json.loads(line) for line in (tmp_path / "x" / OUTBOX).read_text().splitlines()]
    assert {one.get("parent") for one in told if one.get("name", "").startswith("sensitivity ")} == {"x"}


def test_it_goes_on_after_a_kill_and_more_can_be_asked_for_without_training_anything_twice(tmp_path):
    config, files = searched(tmp_path), SweepFiles(tmp_path / "x")
    _, sweep = work_on(config)
    first = sweep.drive(legs=3)
    assert stage_cut_short(files) is BegunStage.sensitivity
    fewer = replace(config, sensitivity=SensitivityConfig(**{**CROSS, "lr_factors": [2.0, 4.0], "center_seeds": 2}))
    work, sweep = work_on(fewer)
    second = sweep.drive()
    sweep.log.finish("")
    work.batch.log.rows = sweep.log.rows
    work.conclude()
    work.batch.log.mark_finished()
    assert not {one.number for one in first} & {one.number for one in second}
    assert sorted(row.parameters[LR] / 0.05 for row in rows_of(config)[:3]) == [0.5, 1.0, 2.0]
    assert len(rows_of(config)) == len({row.config_hash for row in rows_of(config)}) == 8
    assert all(row.outcome is Outcome.done for row in rows_of(config)[3:])
    assert stage_cut_short(files) is None


def test_what_was_begun_is_finished_where_less_is_asked_for_by_now(tmp_path):
    config = searched(tmp_path)
    _, sweep = work_on(config)
    sweep.drive(legs=1)
    sweep.log.begin(sweep.controller.next_segment())  # type: ignore[arg-type]  # and then the driver dies
    nothing = {key: [] for key in CROSS if key != "grid"}
    less = replace(config, sensitivity=SensitivityConfig(**nothing, center_seeds=1))
    _, sweep = work_on(less)
    assert [(one.number, one.parameters[LR]) for one in sweep.drive()] == [(1, 0.025)]


def test_where_nothing_ended_done_the_work_has_failed_and_says_why(tmp_path):
    work, sweep = work_on(searched(tmp_path))
    sweep.drive(Diverging())
    work.batch.log.rows = sweep.log.rows
    with pytest.raises(WorkError, match=r"No training around x ended done \(diverged: the loss is nan\)"):
        work.conclude()


# --- what is refused --------------------------------------------------------------------------------------------------


def test_what_has_no_selected_configuration_or_was_done_is_refused(tmp_path):
    config, files = searched(tmp_path), SweepFiles(tmp_path / "x")
    work, sweep = work_on(config)
    sweep.drive()
    sweep.log.finish("")
    work.batch.log.mark_finished()
    with pytest.raises(InputError, match="All 7 trainings around the selected configuration of x were done"):
        prepare_sensitivity(config, "x")
    other = override(read_best(files.best).experiment, {LR: 0.2})
    text = files.best.read_text()
    files.best.write_text(text.replace("lr: 0.05", f"lr: {other.optim.lr}").replace("trial: 3", "trial: 5"))
    with pytest.raises(InputError, match="is around trial 3, and the selected configuration of x is trial 5 by now"):
        prepare_sensitivity(config, "x")
    files.progress.write_text('{"seconds": 9.0, "finished": false}')
    with pytest.raises(InputError, match="The search of x has not ended"):
        prepare_sensitivity(config, "x")
    files.progress.write_text('{"seconds": 9.0, "finished": true}')
    files.best.unlink()
    with pytest.raises(InputError, match="x has no selected configuration"):
        prepare_sensitivity(config, "x")
