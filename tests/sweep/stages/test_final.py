"""Confirming and retraining: who is crowned, on which seeds and data; the legs are run here instead of by Ray."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from odenet.data.config import Portion
from odenet.seeding import derive
from odenet.training.config import ExperimentConfig
from sweep.errors import InputError, WorkError
from sweep.execution.list_source import Job
from sweep.execution.session import Session
from sweep.records.best import Best, crowned_sentence, read_best, write_candidates
from sweep.records.outcome import Outcome
from sweep.records.rows import Phase
from sweep.stages.final import Candidate, Final, crown, prepare_final, put_away
from sweep.tracking.lines import OUTBOX, KnownRuns
from sweep.worker.segment import Segment, WorkerResult
from tests.sweep.pretended import Sweep, Worker, history_in, opened, over
from tests.sweep.sweep_files import PARAMETERS, best_of, session_on, trial, write_sweep


def drive(work: Final, worker: Worker) -> tuple[Sweep, list[Segment]]:
    """Runs every segment, one after another."""
    sweep = opened(work.batch.session, work.batch.source, work.batch.splits)
    legs = sweep.drive(worker)
    work.batch.log.rows = sweep.log.rows
    return sweep, legs


class Diverging(Worker):
    """Trials of these numbers diverge at once."""

    def __init__(self, *numbers: int) -> None:
        super().__init__()
        self._numbers = numbers

    def results(self, segment: Segment) -> Iterator[WorkerResult]:
        if segment.number in self._numbers:
            yield over(Outcome.diverged, "the loss is nan")
        else:
            yield from super().results(segment)


def work_on(path: Path, **seeds: int) -> Final:
    """Final training after a search whose best are 0.7 (trial 1), 0.6 (0) and 0.5 (2)."""
    rows = [trial(n, objective=objective, parameters=with_lr(n)) for n, objective in enumerate((0.6, 0.7, 0.5, 0.4))]
    config = write_sweep(path, [*rows, trial(4, objective=0.9, outcome=Outcome.pruned)])
    return final_of(session_on(replace(config, final=replace(config.final, **seeds))))


def final_of(session: Session) -> Final:
    return Final(session, prepare_final(session.config, session.name))


def with_lr(number: int) -> dict[str, Any]:
    return {**PARAMETERS, "optim.lr": 0.01 * (number + 1)}


def prefer(candidate: int) -> Worker:
    return Worker(lambda segment, epoch: 0.9 if segment.candidate == candidate else 0.2)


def outbox(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (path / "x" / OUTBOX).read_text().splitlines()]


# --- who is crowned ---------------------------------------------------------------------------------------------------

CANDIDATES = [
    Candidate(number, Best(ExperimentConfig(), {"trial": number, "parameters": with_lr(number)}))
    for number in (5, 3, 8)
]
TWICE = [
    Job(number=2 * n + k, phase=Phase.confirm, candidate=one.number, parameters={}, experiments=[])
    for n, one in enumerate(CANDIDATES)
    for k in range(2)
]
OK, BAD, LOST = Outcome.done, Outcome.diverged, Outcome.node_lost


@pytest.mark.parametrize(
    ("ends", "winner"),
    [
        ([(OK, 0.5), (OK, 0.7), (OK, 0.65), (OK, 0.65), (OK, 0.1), (OK, 0.9)], 3),  # by the mean, not the best seed
        ([(OK, 0.5), (OK, 0.5), (OK, 0.5), (OK, 0.5), (OK, 0.5), (OK, 0.5)], 5),  # a tie: the better search rank
        ([(OK, 0.9), (BAD, None), (OK, 0.55), (OK, 0.55), (OK, 0.1), (OK, 0.1)], 3),  # failed counts as chance
        ([(OK, 0.9), (Outcome.pruned, 0.9), (OK, 0.6), (OK, 0.6), (OK, 0.1), (OK, 0.1)], 3),  # and so does cut short
        ([(OK, 0.6), (LOST, None), (OK, 0.55), (OK, 0.55), (LOST, 0.9), (LOST, 0.9)], 5),  # a lost worker says nothing
        ([(BAD, None)] * 6, 5),
        ([(OK, 0.05), (OK, 0.05), (BAD, None), (BAD, None), (OK, 0.1), (OK, 0.0)], 3),  # worse than chance
    ],
)
def test_the_best_mean_over_the_confirming_seeds_is_crowned(ends, winner):
    told = {n: trial(n, outcome=outcome, objective=objective) for n, (outcome, objective) in enumerate(ends)}
    assert crown(CANDIDATES, TWICE, told, chance=0.1).number == winner


def test_a_single_candidate_is_crowned_without_confirming():
    assert crown(CANDIDATES[:1], [], {}, chance=0.1) is CANDIDATES[0]


def test_candidates_are_the_best_done_trials_of_the_search_in_their_order(tmp_path):
    rows = [trial(n, objective=0.1 * n, parameters=with_lr(n)) for n in range(5)]
    config = write_sweep(tmp_path, [*rows, trial(5, objective=0.99, outcome=Outcome.diverged)])
    prepared = prepare_final(config, "x")
    splits = prepared.splits
    found = [
        (one.number, one.best.provenance["parameters"], one.best.experiment.optim.lr) for one in prepared.candidates
    ]
    assert found == [(n, with_lr(n), with_lr(n)["optim.lr"]) for n in (4, 3, 2)]
    assert set(splits) == set(Portion)
    assert (splits[Portion.trainval].val, len(splits[Portion.trainval].train)) == (None, 50)


def test_a_best_yaml_alone_is_its_own_only_candidate(tmp_path):
    config = write_sweep(tmp_path, [trial(7, parameters=with_lr(7))])
    (tmp_path / "x" / "trials.csv").unlink()
    (candidate,) = prepare_final(config, "x").candidates
    assert (candidate.number, candidate.best) == (7, read_best(tmp_path / "x" / "best.yaml"))


def test_the_complete_experiments_that_the_search_wrote_are_taken_as_far_as_they_go(tmp_path):
    rows = [trial(n, objective=0.9 - 0.1 * n, parameters=with_lr(n)) for n in range(4)]
    config = write_sweep(tmp_path, rows)
    written = [replace(best_of(row, config.experiment), schedule=[]) for row in rows[:2]]
    marked = [replace(one, provenance={**one.provenance, "written": True}) for one in written]
    write_candidates(tmp_path / "x" / "candidates.yaml", marked)
    assert "written" not in prepare_final(config, "x").candidates[0].best.provenance  # the search has not ended
    (tmp_path / "x" / "progress.json").write_text('{"seconds": 9.0, "finished": true}')
    for top, expected in ((1, marked[:1]), (2, marked)):
        few = replace(config, final=replace(config.final, top=top))
        assert [one.best for one in prepare_final(few, "x").candidates] == expected
    more = prepare_final(replace(config, final=replace(config.final, top=3)), "x").candidates
    assert [(one.number, "written" in one.best.provenance) for one in more] == [(0, False), (1, False), (2, False)]


SAID = (
    "x: crowned trial 0: objective 60.0%, the mean over 2 confirming seeds, sd 14.1 points; its 60.0% in the search, "
    "one seed, was what it was chosen by",
    "x: retrained on train and val over 1 fresh seed, none of them chosen: the first, ",
)


def test_a_crowned_configuration_has_the_value_of_its_phase_and_says_over_how_many_seeds(tmp_path):
    work = work_on(tmp_path, top=2, confirm_seeds=2, seeds=1)
    lucky = Worker(lambda segment, epoch: {0: 0.9, 1: 0.2, 2: 0.5, 3: 0.7}.get(segment.number, 0.0))
    drive(work, lucky)
    work.conclude()
    origin = read_best(tmp_path / "x" / "final" / "crowned.yaml").provenance
    assert (origin["phase"], origin["trial"], origin["seeds"]) == ("confirm", 0, 2)
    assert (origin["objective"], origin["sd"]) == (pytest.approx(0.6), pytest.approx(0.02**0.5))
    assert origin["search"] == {"objective": 0.6, "seeds": 1}
    crowned, kept = ("".join(line.split()) for line in SAID)
    said = "".join(work.batch.session.console.file.getvalue().split())  # in 80 columns
    assert said.partition(crowned)[2].startswith(kept) and said.endswith("model-4.ckpt,istheMLflowmodelx,aliaschampion")
    card = (tmp_path / "x" / "final" / "model_card.md").read_text()
    assert "| confirmed objective | validation images, the configuration retrained on train | 60.0% | 2 seeds |" in card
    assert "It was not tested" in card


def test_a_configuration_crowned_without_confirming_keeps_the_phase_and_value_that_it_has(tmp_path):
    work = work_on(tmp_path, top=1, seeds=1)
    drive(work, Worker())
    work.conclude()
    best = read_best(tmp_path / "x" / "final" / "crowned.yaml")
    assert [best.provenance.get(key) for key in ("phase", "objective", "seeds", "search")] == ["search", 0.7, 1, None]
    assert crowned_sentence(best) == (
        "crowned trial 1 without confirming it, as the only candidate: objective 70.0% in the search, one seed"
    )


# --- what is run ------------------------------------------------------------------------------------------------------


def test_every_candidate_is_confirmed_on_the_same_seeds_and_the_crowned_one_trained_on_fresh_ones(tmp_path):
    _, legs = drive(work_on(tmp_path, confirm_seeds=2, seeds=3), prefer(0))
    assert [(segment.number, segment.phase, segment.candidate) for segment in legs] == [
        *((number, Phase.confirm, (1, 1, 0, 0, 2, 2)[number]) for number in range(6)),
        *((number, Phase.final, 0) for number in range(6, 9)),
    ]
    experiments = [segment.experiment for segment in legs]
    seeds = [experiment.training.seed for experiment in experiments]
    assert seeds[:2] == seeds[2:4] == seeds[4:6]
    assert seeds == [
        derive(0, segment.phase.value, n) % 2**31 for segment, n in zip(legs, [0, 1] * 3 + [0, 1, 2], strict=True)
    ]
    assert len(set(seeds)) == 5
    assert [experiment.data.portion for experiment in experiments] == [Portion.train] * 6 + [Portion.trainval] * 3
    assert {(segment.epochs, segment.until) for segment in legs} == {(2, 2)}
    assert [segment.parameters for segment in legs] == [with_lr(segment.candidate) for segment in legs]
    assert {round(experiment.optim.lr, 9) for experiment in experiments[6:]} == {0.01}


def test_crowned_yaml_and_one_checkpoint_per_seed_are_kept_and_the_first_seed_is_registered(tmp_path):
    work = work_on(tmp_path, confirm_seeds=1, seeds=2)
    drive(work, prefer(2))
    work.conclude()
    crowned = read_best(tmp_path / "x" / "final" / "crowned.yaml")
    assert crowned.experiment.optim.lr == with_lr(2)["optim.lr"]
    assert (crowned.provenance["trial"], crowned.provenance["phase"]) == (2, "confirm")
    assert [history_in(tmp_path / "x" / "final" / f"model-{n}.ckpt") for n in (3, 4)] == [[3, 3], [4, 4]]
    assert not (tmp_path / "x" / "final" / "checkpoints").exists()
    (model,) = [line for line in outbox(tmp_path) if line["op"] == "model"]
    assert (model["key"], model["name"], Path(model["path"]).name) == ("x/final-3", "x", "model-3.ckpt")
    assert [line["status"] for line in outbox(tmp_path) if line["op"] == "end" and line["key"] == "x"] == ["FINISHED"]
    names = {line["key"]: line["name"] for line in outbox(tmp_path) if line["op"] == "start"}
    assert list(names.values()) == [
        "x", "confirm 1 seed 1", "confirm 0 seed 1", "confirm 2 seed 1", "final 2 seed 1", "final 2 seed 2",
    ]  # fmt: skip
    kept = [(line["key"], line["folder"], Path(line["path"]).name) for line in outbox(tmp_path) if line.get("folder")]
    assert kept[:2] == [(f"x/final-{n}", "checkpoint", f"model-{n}.ckpt") for n in (3, 4)]


def test_a_command_that_was_killed_before_it_had_kept_its_networks_keeps_them_when_it_is_resumed(tmp_path):
    work = work_on(tmp_path, confirm_seeds=1, seeds=2)
    sweep, _ = drive(work, prefer(2))
    sweep.controller.finish("")  # killed here
    for _ in range(2):  # and here once more, when all was written but that it is finished
        work = final_of(work.batch.session)
        assert drive(work, prefer(2))[1] == []
        work.conclude()
        assert [history_in(tmp_path / "x" / "final" / f"model-{n}.ckpt") for n in (3, 4)] == [[3, 3], [4, 4]]
    assert len([line for line in outbox(tmp_path) if line["op"] == "model"]) == 1


def test_a_schedule_is_followed_in_every_seed_and_crowned_with_its_parameters(tmp_path):
    schedule = [{"epoch": epoch, "parameters": with_lr(9 * epoch), "parent": 0} for epoch in (0, 1)]
    config = write_sweep(tmp_path, [trial(0, schedule=schedule)])
    work = final_of(session_on(replace(config, final=replace(config.final, seeds=2))))
    sweep, legs = drive(work, Worker())
    assert [(segment.number, segment.until, segment.experiment.optim.lr) for segment in legs] == [
        (0, 1, 0.01), (0, 2, 0.1), (1, 1, 0.01), (1, 2, 0.1),
    ]  # fmt: skip
    assert {(row.outcome, row.legs) for row in sweep.log.in_order()} == {(Outcome.done, 2)}
    assert read_best(tmp_path / "x" / "final" / "crowned.yaml").schedule == schedule


def test_a_final_that_was_cut_short_goes_on_with_the_trials_that_have_not_ended(tmp_path):
    work = work_on(tmp_path, confirm_seeds=1, seeds=2)
    first = opened(work.batch.session, work.batch.source, work.batch.splits)
    ids = [segment.trial_id for segment in first.drive(prefer(0), legs=4)]
    again = final_of(work.batch.session)
    sweep, legs = drive(again, prefer(0))
    assert [(segment.number, segment.candidate) for segment in legs] == [(4, 0)]
    assert [row.trial_id for row in sweep.log.in_order()][:4] == ids


def test_a_seed_that_fails_is_left_out_and_the_first_that_is_done_is_registered(tmp_path):
    work = work_on(tmp_path, confirm_seeds=1, seeds=2)
    drive(work, Diverging(3))
    work.conclude()
    assert [path.name for path in (tmp_path / "x" / "final").glob("*.ckpt")] == ["model-4.ckpt"]
    assert [line["key"] for line in outbox(tmp_path) if line["op"] == "model"] == ["x/final-4"]


def test_final_fails_with_reasons_where_no_seed_is_done(tmp_path):
    work = work_on(tmp_path, confirm_seeds=1, seeds=2)
    drive(work, Diverging(3, 4))
    with pytest.raises(WorkError, match=r"No final seed of x ended done \(diverged: the loss is nan\); .*csv lists"):
        work.conclude()
    assert [line["status"] for line in outbox(tmp_path) if line["op"] == "end" and line["key"] == "x"] == ["FAILED"]


def test_final_that_is_stopped_says_so_to_mlflow(tmp_path):
    work_on(tmp_path).stopped("KILLED")
    assert [line["status"] for line in outbox(tmp_path) if line["op"] == "end"] == ["KILLED"]


def test_retraining_the_same_sweep_again_is_refused(tmp_path):
    work = work_on(tmp_path, confirm_seeds=1, seeds=1)
    sweep, _ = drive(work, Worker())
    sweep.controller.finish("")
    sweep.log.mark_finished()
    with pytest.raises(InputError, match=r"x has final trials already; `sweep final x --again` puts .*final away"):
        final_of(work.batch.session)


# --- once more --------------------------------------------------------------------------------------------------------


def ended_final(path: Path) -> Final:
    work = work_on(path, confirm_seeds=1, seeds=1)
    sweep, _ = drive(work, Worker())
    sweep.controller.finish("")
    work.conclude()
    return work


def starts(path: Path) -> dict[str, dict[str, Any]]:
    """The lines that began a final trial's run, by key; each key once."""
    lines = [line for line in outbox(path) if line["op"] == "start" and line["key"].startswith("x/final-")]
    assert len({line["key"] for line in lines}) == len(lines)
    return {line["key"]: line for line in lines}


def test_final_training_done_again_is_a_run_of_its_own_and_the_former_one_is_kept_with_its_test_results(tmp_path):
    work = ended_final(tmp_path)
    files = work.batch.session.files
    files.rows.write_text("what the test set said")
    files.predictions.write_bytes(b"of which image")
    former = put_away(files)
    assert (former.name, files.final.directory.exists(), files.rows.exists()) == ("final~1", False, False)
    assert (former / "rows.csv").read_text() == "what the test set said"
    assert (former / "predictions.npz").exists() and not files.predictions.exists()
    assert (former / "model-3.ckpt").exists()

    again = final_of(work.batch.session)
    sweep, _ = drive(again, Worker())
    sweep.controller.finish("")
    again.conclude()
    first, second = starts(tmp_path).values()
    assert (first["key"], second["key"], second["name"]) == ("x/final-3", "x/final-3#2", "final 0 seed 1 #2")
    assert first["tags"]["trial_id"] != second["tags"]["trial_id"]
    told = KnownRuns.read(tmp_path / "x" / OUTBOX)
    assert [told.status(key) for key in starts(tmp_path)] == ["FINISHED", "FINISHED"]
    assert first["tags"]["trial_id"] in told.replaced() and second["tags"]["trial_id"] not in told.replaced()
    models = [line for line in outbox(tmp_path) if line["op"] == "model"]
    assert [line["key"] for line in models] == ["x/final-3", "x/final-3#2"]
    assert put_away(files).name == "final~2"
    assert [one.directory.name for one in files.former_finals] == ["final~1", "final~2"]


def test_final_training_whose_directory_was_removed_and_one_that_goes_on_have_their_own_runs(tmp_path):
    work = ended_final(tmp_path)
    shutil.rmtree(work.batch.session.files.final.directory)
    again = final_of(work.batch.session)
    opened(work.batch.session, again.batch.source, again.batch.splits).drive(Worker(), legs=4)
    drive(final_of(work.batch.session), Worker())
    assert list(starts(tmp_path)) == ["x/final-3", "x/final-3#2"]


def test_again_is_refused_where_nothing_was_trained_or_mlflow_needs_its_files(tmp_path):
    work = work_on(tmp_path)
    with pytest.raises(InputError, match=r"MLflow was not told \d+ lines about x yet, and they name files .*deliver x"):
        prepare_final(work.batch.session.config, "x", again=True)
    shutil.rmtree(work.batch.session.files.final.directory)
    with pytest.raises(InputError, match=r"x has no final training to be done again: `sweep final x` begins it"):
        prepare_final(work.batch.session.config, "x", again=True)
