"""Between a source and the log: what follows each way in which a segment can end, and when no further one begins."""

import pytest

from sweep.execution.trial_source import FINISHED
from sweep.records.outcome import Outcome
from sweep.records.rows import counted
from sweep.worker.segment import Segment, WorkerPlace, WorkerResult
from tests.sweep.pretended import Sweep, Worker, begun, curves_of, ended, outcomes, over, reported

TRIALS = "search.trials=4"


def next_segment(sweep: Sweep) -> Segment:
    segment = sweep.controller.next_segment()
    assert isinstance(segment, Segment)
    return segment


# --- how a segment ended ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("last", "until", "outcome", "reason"),
    [
        (ended(2, 0.5), 2, Outcome.done, ""),
        (over(Outcome.diverged, "the loss is nan"), 2, Outcome.diverged, "the loss is nan"),
        (over(Outcome.timeout, "longer than 9 s"), 2, Outcome.timeout, "longer than 9 s"),
        (reported(1, 0.5), 2, Outcome.pruned, "stopped by the scheduler after epoch 1"),
        (reported(1, 0.5), 1, Outcome.paused, "waits at epoch 1"),
        (
            reported(1, 0.5, over(Outcome.interrupted, "stopped").ended),
            2,
            Outcome.interrupted,
            "stopped",
        ),
        (over(Outcome.interrupted, "no space", storage="no space"), 2, Outcome.interrupted, "no space"),
    ],
)
def test_how_a_trial_stands_is_read_from_its_last_result(tmp_path, last, until, outcome, reason):
    words = ("search.scheduler=depth_asha", "search.grace=0.5", "search.reduction=2") if until == 1 else ()
    sweep = begun(tmp_path, TRIALS, *words)
    segment = next_segment(sweep)
    assert segment.until == until
    sweep.controller.result(segment, last)
    sweep.controller.segment_ended(segment, last, "TERMINATED")
    row = sweep.log.rows[0]
    assert (row.outcome, row.reason, row.ray) == (outcome, reason, "TERMINATED")


@pytest.mark.parametrize("scheduler", ["none", "asha", "depth_asha", "pbt"])
def test_a_sweep_whose_trials_give_way_and_whose_driver_dies_ends_as_one_left_alone(tmp_path, scheduler):
    rules = () if scheduler == "none" else ("search.grace=0.25", "search.reduction=2", "search.pbt.interval=0.4")
    words = (TRIALS, "training.epochs=6", "search.checkpoint_every=1", f"search.scheduler={scheduler}", *rules)
    alone, shared = (begun(tmp_path / name, *words) for name in ("alone", "shared"))
    alone.drive()
    turns = waited = 0
    while isinstance(segment := shared.controller.next_segment(), Segment):
        turns += 1
        for result in Worker().results(segment):
            if not shared.controller.result(segment, result) or result.done:
                break
            if turns % 2 and shared.controller.gives_way(segment):
                waited += 1
                break
        shared.controller.segment_ended(segment, result, "TERMINATED")
        if turns == 3:
            assert Outcome.paused in outcomes(shared)
            shared = begun(tmp_path / "shared", *words)
    assert waited > 3
    assert curves_of(shared) == curves_of(alone)
    assert outcomes(shared) == outcomes(alone)


@pytest.mark.parametrize("outcome", [Outcome.code, Outcome.host_oom], ids=str)
def test_a_trial_that_failed_by_itself_is_not_tried_again(tmp_path, outcome):
    sweep = begun(tmp_path, TRIALS)
    sweep.controller.segment_failed(next_segment(sweep), outcome, "KeyError: 1", "Traceback ...")
    row = sweep.log.rows[0]
    assert (row.outcome, row.reason, row.ray) == (outcome, "KeyError: 1", "ERROR")
    assert sweep.log.files.failure(0).read_text() == "Traceback ..."
    assert next_segment(sweep).number == 1


@pytest.mark.parametrize("outcome", [Outcome.worker_lost, Outcome.node_lost], ids=str)
def test_a_lost_worker_is_followed_by_as_many_attempts_as_are_allowed_and_each_is_said(tmp_path, outcome):
    sweep = begun(tmp_path, TRIALS, "search.retries=2")
    for attempt in (2, 3):
        sweep.controller.segment_failed(next_segment(sweep), outcome, "it was lost")
        assert f"x trial 0: it was lost; attempt {attempt} follows" in sweep.said()
        assert sweep.log.rows[0].outcome is Outcome.running
    sweep.controller.segment_failed(next_segment(sweep), outcome, "it was lost")
    assert (sweep.log.rows[0].outcome, sweep.log.rows[0].legs) == (outcome, 3)
    assert next_segment(sweep).number == 1


def test_a_trial_on_a_node_of_no_use_goes_elsewhere_at_no_cost_and_the_node_is_named_once(tmp_path):
    sweep = begun(tmp_path, TRIALS, "search.retries=0")
    unfit = over(Outcome.node_unfit, "host4 cannot use the run directory: gone")
    for _ in range(3):
        sweep.controller.segment_ended(next_segment(sweep), unfit, "TERMINATED")
    named = "x trial 0: host4 cannot use the run directory: gone; trials go elsewhere, until Ray is started anew there"
    assert sweep.said().count("host4") == 1
    assert " ".join(sweep.said().split()).count(named) == 1
    assert {row.outcome for row in sweep.log.in_order()} == {Outcome.running}


def test_a_trial_waits_until_a_worker_has_it_and_a_loss_names_the_host(tmp_path):
    sweep = begun(tmp_path, TRIALS, "search.retries=0")
    segment = next_segment(sweep)
    assert counted(sweep.log.in_order()) == "1 waiting"
    sweep.controller.result(segment, WorkerResult(place=WorkerPlace(host="host2", gpu="0 H100"), done=False))
    row = sweep.log.rows[0]
    assert (counted([row]), row.reason, row.host, row.gpu) == ("1 running", "", "host2", "0 H100")
    sweep.controller.segment_failed(segment, Outcome.node_lost, "its node was lost")
    assert sweep.log.rows[0].reason == "its node was lost (host2)"


def test_a_notice_of_a_worker_is_said_with_its_trial(tmp_path):
    sweep = begun(tmp_path, TRIALS)
    sweep.controller.result(next_segment(sweep), reported(1, 0.5, notice="a checkpoint is damaged"))
    assert "x trial 0: a checkpoint is damaged" in sweep.said()


# --- stopping ---------------------------------------------------------------------------------------------------------


def test_once_it_is_to_stop_no_leg_begins_and_it_ends_with_those_that_run(tmp_path):
    sweep = begun(tmp_path, TRIALS)
    segment = next_segment(sweep)
    sweep.interrupt.stop("enough")
    assert sweep.controller.next_segment() is None
    sweep.controller.segment_ended(segment, over(Outcome.interrupted, "enough"), "TERMINATED")
    assert sweep.controller.next_segment() is FINISHED
    assert sweep.controller.finish("enough") == 1
    assert not begun(tmp_path, TRIALS).log.progress.finished


def test_a_trial_that_waits_for_another_attempt_does_not_keep_a_sweep_from_stopping(tmp_path):
    sweep = begun(tmp_path, TRIALS)
    sweep.controller.segment_failed(next_segment(sweep), Outcome.worker_lost, "lost")
    sweep.interrupt.stop("enough")
    assert sweep.controller.next_segment() is FINISHED
    assert sweep.controller.finish("enough") == 1
    assert outcomes(sweep) == [Outcome.interrupted]


def test_a_worker_that_is_lost_while_it_stops_is_taken_up_by_the_next_session(tmp_path):
    sweep = begun(tmp_path, TRIALS)
    segment = next_segment(sweep)
    sweep.interrupt.stop("enough")
    sweep.controller.segment_failed(segment, Outcome.worker_lost, "lost")
    assert outcomes(sweep) == [Outcome.interrupted]
    assert next_segment(begun(tmp_path, TRIALS)).trial_id == segment.trial_id


def test_a_worker_that_cannot_write_stops_the_sweep(tmp_path):
    sweep = begun(tmp_path, TRIALS)
    segment = next_segment(sweep)
    sweep.controller.result(segment, over(Outcome.interrupted, "no space", storage="no space left"))
    assert (sweep.interrupt.stopping, sweep.interrupt.storage) == (True, "no space left")
    assert sweep.interrupt.file.read_text() == "no space left"


# --- the end ----------------------------------------------------------------------------------------------------------


def test_a_finished_sweep_says_so_on_disk_and_has_nothing_left(tmp_path):
    sweep = begun(tmp_path, TRIALS)
    sweep.drive()
    assert sweep.controller.next_segment() is FINISHED
    assert sweep.controller.finish("") == 0
    assert not begun(tmp_path, TRIALS).log.progress.finished, "it is concluded first"
    sweep.log.mark_finished()
    again = begun(tmp_path, TRIALS)
    assert again.log.progress.finished
    assert again.controller.next_segment() is FINISHED
    assert outcomes(again) == [Outcome.done] * 4


@pytest.mark.parametrize(
    ("limit", "begins", "reason"),
    [
        ("search.budget.gflops=30", 2, "search.budget.gflops=30 is spent (40)"),  # 20 for a trial of two epochs
        ("search.budget.target=0.06", 2, "search.budget.target=0.06 is reached (0.072)"),
        ("search.budget.plateau=1", 3, "search.budget.plateau=1: as many trials were done without a new best"),
        ("search.budget.hours=0.0000000001", 0, "search.budget.hours=1e-10 is spent"),
    ],
)
def test_when_the_budget_is_spent_no_further_trial_begins_and_it_says_why(tmp_path, limit, begins, reason):
    sweep = begun(tmp_path, "search.trials=9", limit)
    assert len(sweep.drive()) == begins
    assert sweep.controller.spent.startswith(reason)
    assert sweep.controller.finish("") == 0
    assert sweep.controller.next_segment() is FINISHED


def test_what_was_spent_in_an_earlier_session_counts(tmp_path):
    words = ("search.trials=9", "search.budget.gflops=50")
    begun(tmp_path, *words).drive(legs=2)
    assert len(begun(tmp_path, *words).drive()) == 1


def test_trials_that_wait_when_the_budget_is_spent_end_where_they_are(tmp_path):
    rungs = ("search.scheduler=depth_asha", "search.grace=0.5", "search.reduction=2", "search.budget.gflops=10")
    sweep = begun(tmp_path, "search.trials=9", *rungs)
    sweep.drive(Worker())
    assert [(row.outcome, row.reason) for row in sweep.log.in_order()] == [
        (Outcome.pruned, "not promoted from the rung at epoch 1")
    ]
