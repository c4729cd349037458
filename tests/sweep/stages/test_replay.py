"""`sweep replay`: recorded curves under other samplers, schedulers and numbers of workers, in simulated time."""

import heapq
import math
import time
from collections import Counter
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from odenet.training.config import ExperimentConfig
from search_spaces import SPACES, Choice, Float, Int, Space, When, fixed
from sweep.config.compose import load
from sweep.config.overrides import override
from sweep.config.schema import ReplayConfig, save
from sweep.config.search_config import Budget, Objective, SamplerKind, SchedulerKind, SearchConfig
from sweep.execution.simulator import Archive, RecordedTrial, Recording, Simulation, as_it_was, replayed, simulation
from sweep.execution.trial_source import SearchSource, Trials
from sweep.records.checkpoints import TrialFolders
from sweep.records.outcome import Outcome
from sweep.records.rows import CurveRow, TrialRow
from sweep.records.run_directory import JOURNAL
from sweep.records.tables import append_row, write_rows
from sweep.tuning.ask_and_tell import ENQUEUED, Proposals
from sweep.tuning.optuna_study import OptunaStudy, open_study
from sweep.tuning.schedulers import build_scheduler, refinement_epochs
from tests.sweep.sweep_command import Command, assert_refused, in_empty_directory, tree
from tests.sweep.sweep_files import trial, write_sweep

EPOCHS = 9
CHANCE = 0.1
SPACE = SPACES["smoke"]
RANDOM = SearchConfig(sampler=SamplerKind.random, trials=12)
ONE_OBJECTIVE = [kind for kind in SchedulerKind if kind not in (SchedulerKind.pbt, SchedulerKind.depth_asha)]
RUNS = Path("runs")


def curve_of(number: int, objectives: list[float], gflops: float = 1.0, seconds: float = 1.0) -> list[CurveRow]:
    """Each epoch costs so much."""
    return [
        CurveRow(
            number=number, epoch=epoch, train_loss=1.0, val_loss=1.0, val_accuracy=objective, objective=objective,
            cost_train_gflops=gflops * epoch, cost_seconds=seconds * epoch, cost_rate_evaluations=3 * epoch,
            depth_steps=2, depth_nodes=2,
        )
        for epoch, objective in enumerate(objectives, start=1)
    ]  # fmt: skip


def row_of(curve: list[CurveRow], **changes: Any) -> TrialRow:
    last = curve[-1]
    row = trial(
        last.number, objective=last.objective, epochs=last.epoch, gflops=last.cost_train_gflops,
        seconds=last.cost_seconds, rate_evaluations=last.cost_rate_evaluations,
    )  # fmt: skip
    return replace(row, **changes)


def recording(search: SearchConfig = RANDOM, space: Space = SPACE, **changes: Any) -> Recording:
    """A random search in which every trial was done: the nearer its learning rate to 0.03, the better."""
    proposals = Proposals(
        space, replace(search, sampler=SamplerKind.random), OptunaStudy.in_memory([Objective.accuracy]), CHANCE
    )
    rows, curves = [], []
    for number in range(search.trials):
        parameters = proposals.ask().parameters
        end = 0.9 - 0.2 * abs(math.log10(parameters["optim.lr"] / 0.03))
        slope = [CHANCE + (end - CHANCE) * epoch / EPOCHS for epoch in range(1, EPOCHS + 1)]
        curve = curve_of(number, slope, gflops=1.1 + number / 7, seconds=0.3 + (number * 5 % 7) / 10)
        rows.append(row_of(curve, parameters=parameters, proposed_by="random"))
        curves += curve
    experiment = override(ExperimentConfig(), {"training.epochs": EPOCHS, "model.network": "continuous"})
    if refined := refinement_epochs(search, EPOCHS):
        experiment = override(experiment, {"refinement.at": refined})
    whole = Recording(space=space, experiment=experiment, search=search, chance=CHANCE, rows=rows, curves=curves)
    return replace(whole, **changes)


def run(recorded: Recording, search: SearchConfig, workers: int = 4) -> Simulation:
    one = simulation(recorded, search, workers)
    one.run()
    return one


def rows_of(one: Simulation) -> list[TrialRow]:
    """All but the ids, which are drawn anew."""
    return [replace(one.rows[number], trial_id="") for number in sorted(one.rows)]


def gflops(rows: Any) -> float:
    return math.fsum(row.gflops for row in rows)


# --- what is spent ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 3, 100])
@pytest.mark.parametrize("sampler", [SamplerKind.random, SamplerKind.tpe, SamplerKind.nsga2])
def test_without_a_scheduler_exactly_the_recorded_total_is_spent_whoever_proposes(sampler, workers):
    recorded = recording()
    was = as_it_was(recorded, workers)
    for tally in replayed(recorded, replace(RANDOM, sampler=sampler), workers, repeats=2):
        assert (tally.trials, tally.epochs, tally.gflops) == (12, 12 * EPOCHS, was.gflops)
        assert (tally.outcomes, tally.best) == (was.outcomes, was.best)


def test_a_random_search_replayed_with_its_own_seed_repeats_itself_trial_by_trial():
    recorded = recording()
    one = run(recorded, RANDOM, workers=1)
    kept = [(row.number, row.parameters, row.objective, row.gflops, row.seconds) for row in recorded.rows]
    assert [(row.number, row.parameters, row.objective, row.gflops, row.seconds) for row in rows_of(one)] == kept
    assert one.curves == recorded.curves
    other = run(recorded, replace(RANDOM, seed=1), workers=1)
    assert [row.gflops for row in rows_of(other)] != [row.gflops for row in recorded.rows]


def test_repeats_differ_by_their_seeds_and_begin_with_the_sweep_s_own():
    tallies = replayed(recording(), replace(RANDOM, trials=4), workers=1, repeats=4)
    assert len({tally.gflops for tally in tallies}) > 1
    assert tallies[0] == replayed(recording(), replace(RANDOM, trials=4), workers=1, repeats=1)[0]


@pytest.mark.parametrize("sampler", [SamplerKind.random, SamplerKind.tpe])
@pytest.mark.parametrize("scheduler", ONE_OBJECTIVE)
def test_under_every_scheduler_each_trial_ends_and_none_costs_more_than_recorded(scheduler, sampler):
    recorded = recording()
    one = run(recorded, replace(RANDOM, scheduler=scheduler, sampler=sampler))
    assert len(one.rows) == 12
    assert {row.outcome for row in one.rows.values()} <= {Outcome.done, Outcome.pruned}
    assert sorted(row.gflops for row in one.rows.values())[-1] <= max(row.gflops for row in recorded.rows)
    assert all(row.epochs == EPOCHS for row in one.rows.values() if row.outcome is Outcome.done)


def test_asha_spends_less_and_stops_whom_its_rungs_stop():
    recorded = recording(replace(RANDOM, trials=30))
    asha = replace(RANDOM, trials=30, scheduler=SchedulerKind.asha)
    one = run(recorded, asha, workers=1)
    rule = build_scheduler(asha, EPOCHS)
    for row in recorded.rows:
        curve = [curve for curve in recorded.curves if curve.number == row.number]
        stopped = [at.epoch for at in curve if not rule.report(row.number, at.epoch, at.objective)]
        assert one.rows[row.number].epochs == min([*stopped, EPOCHS])
    counts = Counter(row.outcome for row in one.rows.values())
    assert counts[Outcome.pruned] > counts[Outcome.done] > 0
    assert gflops(one.rows.values()) < 0.7 * gflops(recorded.rows)
    assert {row.reason.split(" after")[0] for row in one.rows.values()} == {"", "stopped by the scheduler"}


def test_the_random_share_is_not_stopped():
    asha = replace(RANDOM, trials=30, scheduler=SchedulerKind.asha, random_share=0.5, sampler=SamplerKind.tpe)
    one = run(recording(replace(RANDOM, trials=30)), asha)
    assert {row.outcome for number, row in one.rows.items() if asha.is_random(number)} == {Outcome.done}
    assert Outcome.pruned in {row.outcome for row in one.rows.values()}


def test_depth_asha_promotes_no_more_than_its_share_of_a_recorded_depth_asha():
    search = replace(RANDOM, trials=27, scheduler=SchedulerKind.depth_asha, grace=1 / 9)
    one = run(recording(search), search, workers=1)
    rungs = refinement_epochs(search, EPOCHS)
    assert rungs == [1, 3]
    beyond = [sum(row.epochs > rung for row in one.rows.values()) for rung in rungs]
    assert 0 < beyond[1] < beyond[0] < 27 / 3 + math.sqrt(27)
    assert {row.epochs for row in one.rows.values()} == {1, 3, EPOCHS}
    assert {row.reason for row in one.rows.values() if row.epochs < EPOCHS} == {
        "not promoted from the rung at epoch 1", "not promoted from the rung at epoch 3",
    }  # fmt: skip
    assert all(row.legs == 1 + (row.epochs > 1) + (row.epochs > 3) for row in one.rows.values())


def test_what_was_enqueued_comes_first_again():
    recorded = recording()
    rows = [*recorded.rows[:-1], replace(recorded.rows[-1], proposed_by=ENQUEUED)]
    one = run(replace(recorded, rows=rows), replace(RANDOM, seed=9))
    assert (one.rows[0].parameters, one.rows[0].proposed_by) == (rows[-1].parameters, ENQUEUED)


def test_several_objectives_and_limits_are_told_as_they_were_measured():
    search = replace(RANDOM, sampler=SamplerKind.nsga2, objectives=[Objective.accuracy, Objective.gflops])
    recorded = recording(search)
    rows = [replace(row, objectives={"gflops": row.gflops, "accuracy": row.objective}) for row in recorded.rows]
    rows[0] = replace(rows[0], constraints={"parameters": 9.0}, feasible=False)
    rows[1] = replace(rows[1], objectives={})
    one = run(replace(recorded, rows=rows), search)
    assert len(one.rows) == 11  # the one without its second objective is left out
    assert sorted(row.objectives["gflops"] for row in one.rows.values()) == sorted(
        row.gflops for row in rows if row.number != 1
    )
    assert [row.constraints for row in one.rows.values() if not row.feasible] == [{"parameters": 9.0}]


# --- simulated time ---------------------------------------------------------------------------------------------------


def test_one_worker_trains_one_trial_after_the_other():
    one = run(recording(), replace(RANDOM, scheduler=SchedulerKind.asha, sampler=SamplerKind.tpe), workers=1)
    assert [curve.number for curve in one.curves] == sorted(curve.number for curve in one.curves)
    assert one.clock == pytest.approx(math.fsum(row.seconds for row in one.rows.values()))


@pytest.mark.parametrize("workers", [1, 2, 5, 12, 40])
def test_the_wall_clock_is_that_of_whole_trials_taken_whenever_a_worker_is_free(workers):
    one = run(recording(), RANDOM, workers)
    free = [0.0] * workers
    for row in rows_of(one):
        heapq.heapreplace(free, free[0] + row.seconds)
    assert one.clock == pytest.approx(max(free))
    assert as_it_was(recording(), workers).seconds == pytest.approx(max(free))


def test_as_many_trials_run_at_once_as_there_are_workers_and_results_come_in_order_of_time():
    one = simulation(recording(), replace(RANDOM, scheduler=SchedulerKind.asha), workers=3)
    clock, running = 0.0, []
    while one.advance():
        assert one.clock >= clock
        clock = one.clock
        running.append(sum(row.outcome is Outcome.running for row in one.rows.values()))
    assert max(running) == 3
    assert running[:10].count(0) == 0
    assert not one.advance()  # and stays at its end


def test_nothing_depends_on_the_real_time(monkeypatch):
    search = replace(RANDOM, scheduler=SchedulerKind.asha, sampler=SamplerKind.tpe, budget=Budget(hours=4 / 3600))
    quick = rows_of(run(recording(), search))
    assert 0 < len(quick) < 12  # the simulated clock does count
    ticks = count(1, 10**6)
    monkeypatch.setattr(time, "monotonic", lambda: float(next(ticks)))
    assert rows_of(run(recording(), search)) == quick


def test_gpu_hours_are_spent_as_they_were():
    recorded = recording()
    rows = [replace(row, gpu_seconds=0.5 * row.seconds) for row in recorded.rows]
    one = run(replace(recorded, rows=rows), RANDOM)
    assert [row.gpu_seconds for row in rows_of(one)] == pytest.approx([row.gpu_seconds for row in rows])
    limited = replace(RANDOM, budget=Budget(gpu_hours=rows[0].gpu_seconds / 3600))
    assert len(run(replace(recorded, rows=rows), limited, workers=1).rows) in (1, 2)  # by rounding


def test_a_budget_ends_the_search_with_trials_that_run_brought_to_their_end():
    search = replace(RANDOM, budget=Budget(gflops=30.0))
    one = run(recording(), search, workers=1)
    spent = [row.gflops for row in rows_of(one)]
    assert sum(spent[:-1]) < 30.0 <= sum(spent)
    assert {row.outcome for row in one.rows.values()} == {Outcome.done}


@pytest.mark.parametrize("scheduler", [SchedulerKind.asha, SchedulerKind.median, SchedulerKind.depth_asha])
@pytest.mark.parametrize("events", [1, 20, 41])
def test_a_search_restored_from_the_middle_comes_to_the_same_end(tmp_path, scheduler, events):
    search = replace(RANDOM, scheduler=scheduler, sampler=SamplerKind.tpe)
    recorded = recording(search)

    def source() -> SearchSource:
        proposals = Proposals(SPACE, search, open_study(tmp_path / JOURNAL, "x", [Objective.accuracy]), CHANCE)
        trials = Trials(proposals, recorded.experiment, search, TrialFolders(""))
        return SearchSource(trials, build_scheduler(search, EPOCHS))

    archive = Archive(recorded.trials, SPACE)
    first = Simulation(source(), archive, search.budget, workers=1)
    for _ in range(events):
        assert first.advance()
    second = Simulation(source(), archive, search.budget, workers=1, rows=dict(first.rows), clock=first.clock)
    second.source.restore([first.rows[number] for number in sorted(first.rows)], first.curves)
    second.run()
    undisturbed = run(recorded, search, workers=1)
    assert [replace(row, legs=0) for row in rows_of(second)] == [replace(row, legs=0) for row in rows_of(undisturbed)]
    assert [*first.curves, *second.curves] == undisturbed.curves
    assert second.clock == pytest.approx(undisturbed.clock)


# --- which curves, and for whom ---------------------------------------------------------------------------------------

SHORT = [0.2, 0.3]
WHOLE = [0.1 * epoch for epoch in range(1, EPOCHS + 1)]

# what became of a trial, its curve's objectives: whether it can be replayed
WORTH = {
    "done": (Outcome.done, WHOLE, True),
    "done, of which epochs are missing": (Outcome.done, SHORT, False),
    "done with an objective that is no number": (Outcome.done, [*WHOLE[:-1], math.nan], False),
    "diverged": (Outcome.diverged, SHORT, True),
    "out of GPU memory": (Outcome.cuda_oom, SHORT, True),
    "pruned": (Outcome.pruned, SHORT, False),
    "worker lost": (Outcome.worker_lost, SHORT, False),
    "defect": (Outcome.code, WHOLE, False),
    "timeout": (Outcome.timeout, SHORT, False),
}


@pytest.mark.parametrize("case", WORTH)
def test_replayed_are_trials_whose_curve_says_how_they_end(case):
    outcome, objectives, worth = WORTH[case]
    curve = curve_of(0, objectives)
    one = recording(rows=[row_of(curve, outcome=outcome)], curves=curve)
    assert len(one.trials) == worth


def test_a_curve_with_a_hole_or_with_an_epoch_twice_and_a_configuration_of_another_space_are_left_out():
    curve = curve_of(0, WHOLE)
    row = row_of(curve)
    assert len(recording(rows=[row], curves=curve).trials) == 1
    for damaged in (curve[:3] + curve[4:], [*curve, curve[3]], []):
        assert recording(rows=[row], curves=damaged).trials == []
    foreign = replace(row, parameters={**row.parameters, "optim.lr": 7.0})
    assert recording(rows=[foreign], curves=curve).trials == []


def test_trials_that_diverged_do_so_again_after_the_same_epochs_and_at_the_same_cost():
    recorded = recording()
    curves = [curve for curve in recorded.curves if curve.number != 5 or curve.epoch <= 4]
    cut = row_of([curve for curve in curves if curve.number == 5], outcome=Outcome.diverged, reason="loss is nan")
    at_once = replace(recorded.rows[6], outcome=Outcome.diverged, objective=None, epochs=0, gflops=0.0, seconds=0.0)
    rows = [*recorded.rows[:5], replace(recorded.rows[5], **_told(cut)), at_once, *recorded.rows[7:]]
    recorded = replace(recorded, rows=rows, curves=[curve for curve in curves if curve.number != 6])
    one = run(recorded, RANDOM, workers=1)
    assert [one.rows[5].outcome, one.rows[5].epochs, one.rows[5].reason] == [Outcome.diverged, 4, "loss is nan"]
    assert [one.rows[6].outcome, one.rows[6].epochs, one.rows[6].gflops] == [Outcome.diverged, 0, 0.0]
    assert gflops(one.rows.values()) == gflops(rows)


def _told(row: TrialRow) -> dict[str, Any]:
    names = ("outcome", "reason", "objective", "epochs", "gflops", "seconds", "rate_evaluations")
    return {name: getattr(row, name) for name in names}


def test_more_trials_than_can_be_replayed_are_not_begun():
    assert len(run(recording(), replace(RANDOM, trials=500)).rows) == 12
    assert len(run(recording(), replace(RANDOM, trials=5)).rows) == 5


def archive(space: Space, *points: dict[str, Any]) -> Archive:
    return Archive([RecordedTrial(trial(number, parameters=point), []) for number, point in enumerate(points)], space)


LOG = Space({"n": fixed(1), "x": Float(1e-3, 1.0, log=True)})
PLAIN = Space({"n": fixed(1), "x": Float(0.0, 1.0)})
MIXED = Space({"c": Choice(("p", "q", "r")), "i": Int(0, 10)})
UNDER = Space({"on": Choice((False, True)), "x": Float(0, 1), "y": Float(0, 1)}, {"x": When("on", (True,))})

# space, proposal, recorded configurations: which is nearest
NEAREST: dict[str, tuple[Space, dict, list[dict], int]] = {
    "in parts of the range": (PLAIN, {"x": 0.1}, [{"x": 0.001}, {"x": 0.19}], 1),
    "of its logarithm": (LOG, {"x": 0.1}, [{"x": 0.005}, {"x": 0.4}], 1),
    "options have no order": (MIXED, {"c": "p", "i": 5}, [{"c": "r", "i": 5}, {"c": "q", "i": 5}], 0),
    "another option is as far as a whole range": (
        MIXED,
        {"c": "p", "i": 0},
        [{"c": "q", "i": 0}, {"c": "p", "i": 9}],
        1,
    ),
    "an unused key is as far as a whole range": (
        UNDER,
        {"on": True, "x": 0.5, "y": 0.0},
        [{"on": False, "y": 0.0}, {"on": True, "x": 1.0, "y": 1.0}],
        1,
    ),
    "both without it": (UNDER, {"on": False, "y": 0.0}, [{"on": False, "y": 0.6}, {"on": False, "y": 0.1}], 1),
    "of equals the first": (PLAIN, {"x": 0.5}, [{"x": 0.75}, {"x": 0.25}], 0),
    "nothing is searched": (Space({"n": fixed(1)}), {}, [{}, {}], 0),
}


@pytest.mark.parametrize("case", NEAREST)
def test_a_proposal_gets_the_nearest_recorded_configuration(case):
    space, proposal, points, expected = NEAREST[case]
    assert archive(space, *points).of(7, proposal).row.number == expected


def test_each_recorded_trial_is_given_away_once_and_a_trial_keeps_the_one_it_has():
    one = archive(PLAIN, {"x": 0.2}, {"x": 0.3}, {"x": 0.9})
    assert [one.of(number, {"x": 0.25 + number / 100}).row.number for number in (0, 1, 2)] == [0, 1, 2]
    assert [one.of(number, {"x": 0.0}).row.number for number in (0, 1, 2)] == [0, 1, 2]
    with pytest.raises(AssertionError, match="more trials than are recorded"):
        one.of(3, {"x": 0.0})


def test_gflops_to_the_best_count_all_that_was_spent_until_a_chosen_trial_is_done():
    good, bad, close = (curve_of(number, [0.2, end]) for number, end in enumerate((0.8, 0.5, 0.795)))
    rows = [row_of(curve) for curve in (good, bad, close)]
    mixed = [bad[0], good[0], bad[1], close[0], close[1], good[1]]
    recorded = recording(rows=rows, curves=mixed)
    assert as_it_was(recorded, 1).gflops_to_best == 1 + 2 + 2  # within a point of 0.8
    infeasible = replace(recorded, rows=[*rows[:2], replace(rows[2], feasible=False)])
    assert as_it_was(infeasible, 1).gflops_to_best == 6
    none = replace(recorded, rows=[replace(row, outcome=Outcome.pruned) for row in rows])
    assert (as_it_was(none, 1).gflops_to_best, as_it_was(none, 1).best) == (None, None)


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def sweep(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    return in_empty_directory(monkeypatch, tmp_path, capsys)


def write_recorded(recorded: Recording, *overrides: str, name: str = "x", finished: str = "true") -> Path:
    """The run directory of a sweep that left this."""
    write_sweep(RUNS, list(recorded.rows), name)
    config = load([f"training.epochs={EPOCHS}", "space=smoke", "data.per_class=5", *overrides])
    directory = RUNS / name
    (directory / "config.yaml").write_text(save(config))
    for curve in recorded.curves:
        append_row(directory / "curves.csv", curve)
    (directory / "progress.json").write_text(f'{{"seconds": 1.0, "finished": {finished}}}')
    return directory


SAVED = ["search.sampler=random", "search.trials=12"]


def cells(out: str) -> dict[str, list[str]]:
    """The table's lines by their names."""
    lines = [[cell.strip() for cell in line[1:-1].split("│")] for line in out.splitlines() if line.startswith("│")]
    return {name: values for name, *values in lines}


def test_it_prints_the_sweep_beside_its_replays_and_writes_nothing(sweep):
    recorded = recording()
    write_recorded(recorded, *SAVED)
    before = tree(Path.cwd())
    answer = sweep("replay", "x", "search.scheduler=asha", "replay.workers=2", "replay.repeats=3")
    assert (answer.code, answer.err) == (0, "")
    assert tree(Path.cwd()) == before
    table = cells(answer.out)
    assert table["trials begun"] == ["12", "12"]
    assert table["epochs"][0] == str(12 * EPOCHS)
    assert table["done"][0] == "12"
    mean, low, _, high = table["epochs"][1].translate(str.maketrans("()", "  ")).split()
    assert float(low) < float(mean) < float(high) < 12 * EPOCHS
    assert table["wall clock, s"][0] == f"{as_it_was(recorded, 2).seconds:.1f}"
    assert table["best objective, 1 seed"][0] == f"{max(row.objective or 0 for row in recorded.rows):.2%}"
    assert table["GFLOP until within 1 point of the best recorded"][0] != "never"
    for said in ("replay.workers=2", "random, none", "random, asha", "mean of n = 3", "nearest recorded configuration"):
        assert said in answer.out
    assert "Left out" not in answer.out


def test_it_says_what_was_left_out_and_that_the_rest_were_chosen(sweep):
    recorded = recording()
    stopped = {1: Outcome.pruned, 2: Outcome.pruned, 4: Outcome.worker_lost}
    rows = [replace(row, outcome=stopped.get(row.number, row.outcome)) for row in recorded.rows]
    write_recorded(replace(recorded, rows=rows), *SAVED, "search.scheduler=asha")
    out = sweep("replay", "x", "search.scheduler=none", "search.trials=40").out
    assert "Replayed are 9 of 12 trials" in out
    assert "are 2 pruned, 1 worker_lost: where a scheduler chose, the others are better than all were." in out
    assert "search.trials=40 counts as 9" in out
    assert cells(out)["trials begun"] == ["12", "9"]


def test_a_replay_that_never_comes_near_the_best_says_so(sweep):
    write_recorded(recording(), *SAVED)
    out = sweep("replay", "x", "search.trials=1", "replay.repeats=2").out
    near = cells(out)["GFLOP until within 1 point of the best recorded"][1]
    assert near == "never" or near.endswith("1 of 2")


def test_a_sweep_without_any_done_trial_has_no_best(sweep):
    curve = curve_of(0, SHORT)
    write_recorded(recording(rows=[row_of(curve, outcome=Outcome.diverged)], curves=curve), *SAVED)
    assert cells(sweep("replay", "x").out)["best objective, 1 seed"] == ["never", "never"]


DEPTH = ["search.scheduler=depth_asha", "search.grace=0.2"]

# how the sweep was searched, what is asked: what the refusal says
REFUSED: dict[str, tuple[list[str], list[str], tuple[str, ...]]] = {
    "depth where none was": (SAVED, DEPTH, ("depth_asha cannot be replayed", "after the epochs 2, 6", "at no rung")),
    "depth at other rungs": (
        [*SAVED, *DEPTH],
        ["search.grace=0.4"],
        ("epochs 4,", "after the epochs 2, 6", "Leave out"),
    ),
    "no depth": ([*SAVED, *DEPTH], ["search.scheduler=asha"], ("search.scheduler=asha cannot", "(depth_asha)")),
    "a population": (SAVED, ["search.scheduler=pbt"], ("search.scheduler=pbt cannot be replayed", "none, asha")),
    "of a population": (["search.scheduler=pbt"], ["search.scheduler=none"], ("members changed", "another sweep")),
    "no rung": (SAVED, ["search.scheduler=asha", "search.grace=1.0"], ("search.grace=1.0", "which is their last")),
    "cmaes on options": (SAVED, ["search.sampler=cmaes"], ("search.sampler=cmaes: model.scheme", "use random, tpe")),
    "a grid of numbers": (SAVED, ["search.sampler=grid"], ("search.sampler=grid: optim.lr",)),
    "another network": (SAVED, ["model.width=9"], ("model.width=9: what is learned is fixed", "search.sampler")),
    "another objective": (SAVED, ["search.objectives=[accuracy]"], ("search.objectives=[accuracy]: what is learned",)),
    "a typo": (SAVED, ["search.samplr=tpe"], ("search.samplr",)),
    "no worker": (SAVED, ["replay.workers=0"], ("replay.workers=0: must be from 1 to 100000",)),
    "no repeat": (SAVED, ["replay.repeats=0"], ("replay.repeats=0: must be from 1 to 1000",)),
    "half a worker": (SAVED, ["replay.workers=0.5"], ("replay.workers",)),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_the_curves_cannot_say_is_refused(sweep, case):
    saved, asked, needles = REFUSED[case]
    write_recorded(recording(), *saved)
    assert_refused(sweep, ["replay", "x", *asked], needles)


def test_a_sweep_that_is_not_there_has_not_ended_or_left_no_curves_is_refused(sweep):
    assert_refused(sweep, ["replay", "x"], ("There is no sweep x in", "there are: none"))
    directory = write_recorded(recording(), *SAVED, finished="false")
    assert_refused(sweep, ["replay", "x"], ("The search of x has not ended", "`sweep resume x`"))
    (directory / "progress.json").write_text("{")
    assert_refused(sweep, ["replay", "x"], ("progress.json is damaged",))
    (directory / "progress.json").write_text('{"seconds": 1.0, "finished": true}')
    whole = (directory / "curves.csv").read_bytes()
    (directory / "curves.csv").write_bytes(whole[:-30])
    assert_refused(sweep, ["replay", "x"], (f"curves.csv, line {12 * EPOCHS + 1}",))
    (directory / "curves.csv").unlink()
    assert_refused(sweep, ["replay", "x"], ("has no learning curves to replay", "run `sweep search` first"))
    write_rows(directory / "curves.csv", CurveRow, [])
    assert_refused(sweep, ["replay", "x"], ("None of the 12 trials of x has a whole curve",))
    (directory / "study.yaml").write_bytes((directory / "config.yaml").read_bytes())
    assert_refused(sweep, ["replay", "x"], ("x is a study: replay one of its sweeps, x/FAMILY-dDRAW",))


@pytest.mark.parametrize("changes", [{"workers": 0}, {"workers": 100_001}, {"repeats": 0}, {"repeats": 1001}])
def test_numbers_out_of_range_are_refused_with_the_range(changes):
    (name,) = changes
    with pytest.raises(ValueError, match=rf"replay\.{name}=.*: must be from 1 to "):
        ReplayConfig(**changes)
