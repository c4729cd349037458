"""Confirming and retraining: who is crowned, on which seeds and data; the jobs are driven here instead of by Ray."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sweep_files import PARAMETERS, session_on, trial, write_sweep

from odenet.config import ExperimentConfig, from_plain
from odenet.data import Portion
from odenet.seeding import derive
from sweep.best import read_best
from sweep.errors import InputError, WorkError
from sweep.export import Phase, TrialRow, write_rows
from sweep.final import Candidate, Final, check_final, crown
from sweep.outcome import Outcome
from sweep.recorder import Ended
from sweep.searcher import ending
from sweep.tracking import OUTBOX

Result = Callable[[dict[str, Any]], dict[str, Any]]  # of a job


def done(objective: float) -> dict[str, Any]:
    return {"outcome": "done", "objective": objective, "epoch": 2}


def drive(work: Final, result: Result) -> tuple[list[dict[str, Any]], list[Ended]]:
    """Hands every job its result, one after another; returns the jobs, and how they ended."""
    jobs: list[dict[str, Any]] = []
    ended = []
    while isinstance(job := work.batch.searcher.suggest(f"t{len(jobs)}"), dict):
        jobs.append(job)
        work.batch.searcher.on_trial_complete(f"t{len(jobs) - 1}", result(job))
        checkpoint = work.batch.session.directory / f"checkpoint-{job['number']}"
        checkpoint.write_text(f"network {job['number']}")
        outcome, reason = ending(result(job), failed=False)
        ended.append(Ended(trial(job["number"], phase=Phase[job["phase"]], outcome=outcome, reason=reason), checkpoint))
    assert len(jobs) == work.batch.total
    return jobs, ended


def work_on(path: Path, **seeds: int) -> Final:
    """Final training after a search whose best are 0.7 (trial 1), 0.6 (0) and 0.5 (2)."""
    rows = [trial(n, objective=objective, parameters=with_lr(n)) for n, objective in enumerate((0.6, 0.7, 0.5, 0.4))]
    config = write_sweep(path, [*rows, trial(4, objective=0.9, outcome=Outcome.pruned)])
    return Final(session_on(replace(config, final=replace(config.final, **seeds))))


def with_lr(number: int) -> dict[str, Any]:
    return {**PARAMETERS, "optim.lr": 0.01 * (number + 1)}


def prefer(candidate: int) -> Result:
    return lambda job: done(0.9 if job["candidate"] == candidate else 0.2)


def outbox(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (path / "x" / OUTBOX).read_text().splitlines()]


# --- who is crowned ---------------------------------------------------------------------------------------------------

CANDIDATES = [Candidate(number, with_lr(number), ExperimentConfig()) for number in (5, 3, 8)]
TWICE = [{"candidate": candidate.number} for candidate in CANDIDATES for _ in range(2)]
OK, BAD = Outcome.done, Outcome.diverged


@pytest.mark.parametrize(
    ("ends", "winner"),
    [
        ([(OK, 0.5), (OK, 0.7), (OK, 0.65), (OK, 0.65), (OK, 0.1), (OK, 0.9)], 3),  # by the mean, not the best seed
        ([(OK, 0.5), (OK, 0.5), (OK, 0.5), (OK, 0.5), (OK, 0.5), (OK, 0.5)], 5),  # a tie: the better search rank
        ([(OK, 0.9), (BAD, None), (OK, 0.55), (OK, 0.55), (OK, 0.1), (OK, 0.1)], 3),  # failed counts as chance
        ([(OK, 0.9), (Outcome.pruned, 0.9), (OK, 0.6), (OK, 0.6), (OK, 0.1), (OK, 0.1)], 3),  # and so does cut short
        ([(BAD, None)] * 6, 5),
        ([(OK, 0.05), (OK, 0.05), (BAD, None), (BAD, None), (OK, 0.1), (OK, 0.0)], 3),  # worse than chance
    ],
)
def test_the_best_mean_over_the_confirming_seeds_is_crowned(ends, winner):
    assert crown(CANDIDATES, TWICE, dict(enumerate(ends)), chance=0.1).number == winner


def test_a_single_candidate_is_crowned_without_confirming():
    assert crown(CANDIDATES[:1], [], {}, chance=0.1) is CANDIDATES[0]


def test_candidates_are_the_best_done_trials_of_the_search_in_their_order(tmp_path):
    rows = [trial(n, objective=0.1 * n, parameters=with_lr(n)) for n in range(5)]
    config = write_sweep(tmp_path, [*rows, trial(5, objective=0.99, outcome=Outcome.diverged)])
    candidates, splits = check_final(config, "x")
    assert [(one.number, one.parameters, one.experiment.optim.lr) for one in candidates] == [
        (n, with_lr(n), with_lr(n)["optim.lr"]) for n in (4, 3, 2)
    ]
    assert set(splits) == set(Portion)
    assert (splits[Portion.trainval].val, len(splits[Portion.trainval].train)) == (None, 50)


def test_a_best_yaml_alone_is_its_own_only_candidate(tmp_path):
    config = write_sweep(tmp_path, [trial(7, parameters=with_lr(7))])
    (tmp_path / "x" / "trials.csv").unlink()
    (candidate,), _ = check_final(config, "x")
    assert (candidate.number, candidate.parameters) == (7, with_lr(7))
    assert candidate.experiment == read_best(tmp_path / "x" / "best.yaml").experiment


# --- what is run ------------------------------------------------------------------------------------------------------


def test_every_candidate_is_confirmed_on_the_same_seeds_and_the_crowned_one_trained_on_fresh_ones(tmp_path):
    jobs, _ = drive(work_on(tmp_path, confirm_seeds=2, seeds=3), prefer(0))
    assert [(job["number"], job["phase"], job["candidate"]) for job in jobs] == [
        *((number, "confirm", (1, 1, 0, 0, 2, 2)[number]) for number in range(6)),
        *((number, "final", 0) for number in range(6, 9)),
    ]
    experiments = [from_plain(ExperimentConfig, job["experiment"]) for job in jobs]
    seeds = [experiment.training.seed for experiment in experiments]
    assert seeds[:2] == seeds[2:4] == seeds[4:6]
    assert seeds == [derive(0, job["phase"], n) % 2**31 for job, n in zip(jobs, [0, 1] * 3 + [0, 1, 2], strict=True)]
    assert len(set(seeds)) == 5
    assert [experiment.data.portion for experiment in experiments] == [Portion.train] * 6 + [Portion.trainval] * 3
    assert {experiment.training.epochs for experiment in experiments} == {2}
    assert [job["parameters"] for job in jobs] == [with_lr(job["candidate"]) for job in jobs]
    assert {round(experiment.optim.lr, 9) for experiment in experiments[6:]} == {0.01}


def test_crowned_yaml_and_one_checkpoint_per_seed_are_kept_and_the_first_seed_is_registered(tmp_path):
    work = work_on(tmp_path, confirm_seeds=1, seeds=2)
    work.conclude(drive(work, prefer(2))[1])
    crowned = read_best(tmp_path / "x" / "final" / "crowned.yaml")
    assert crowned.experiment.optim.lr == with_lr(2)["optim.lr"]
    assert (crowned.provenance["trial"], crowned.provenance["phase"]) == (2, "confirm")
    assert [(tmp_path / "x" / "final" / f"model-{n}.ckpt").read_text() for n in (3, 4)] == ["network 3", "network 4"]
    (model,) = [line for line in outbox(tmp_path) if line["op"] == "model"]
    assert (model["key"], model["name"], Path(model["path"]).name) == ("x/final-3", "x", "model-3.ckpt")
    assert [line["status"] for line in outbox(tmp_path) if line["op"] == "end"] == ["FINISHED"]


def test_a_seed_that_fails_is_left_out_and_the_first_that_is_done_is_registered(tmp_path):
    failing, work = {3: {"outcome": "diverged", "reason": "nan"}}, work_on(tmp_path, confirm_seeds=1, seeds=2)
    work.conclude(drive(work, lambda job: failing.get(job["number"], done(0.5)))[1])
    assert [path.name for path in (tmp_path / "x" / "final").glob("*.ckpt")] == ["model-4.ckpt"]
    assert [line["key"] for line in outbox(tmp_path) if line["op"] == "model"] == ["x/final-4"]


def test_final_fails_with_reasons_where_no_seed_is_done(tmp_path):
    def result(job: dict[str, Any]) -> dict[str, Any]:
        return done(0.5) if job["phase"] == "confirm" else {"outcome": "diverged", "reason": "the loss is nan"}

    work = work_on(tmp_path)
    _, ended = drive(work, result)
    with pytest.raises(WorkError, match=r"No final seed of x ended done \(diverged: the loss is nan\); .*csv lists"):
        work.conclude(ended)
    assert [line["status"] for line in outbox(tmp_path) if line["op"] == "end"] == ["FAILED"]


def test_final_that_is_stopped_says_so_to_mlflow(tmp_path):
    work_on(tmp_path).stopped("KILLED")
    assert [line["status"] for line in outbox(tmp_path) if line["op"] == "end"] == ["KILLED"]


def test_retraining_the_same_sweep_again_is_refused(tmp_path):
    work = work_on(tmp_path)
    write_rows(work.batch.files.trials, TrialRow, [])
    with pytest.raises(InputError, match=r"x has final trials already; remove .*final to train again"):
        Final(work.batch.session)
