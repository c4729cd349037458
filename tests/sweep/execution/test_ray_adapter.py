"""What Ray Tune sees of controllers: legs from each in turn, results to whom they belong, errors never swallowed."""

import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray import cloudpickle, exceptions
from ray.tune.experiment import Trial
from ray.tune.search import Searcher
from ray.tune.utils import flatten_dict

from sweep.cluster.concurrency import Concurrency
from sweep.cluster.placement import Placement
from sweep.errors import StorageError
from sweep.execution.ray_adapter import SegmentScheduler, SegmentSearcher, Watch, cause, details
from sweep.records.outcome import Outcome
from sweep.worker.segment import Segment, TrialEnded, WorkerPlace, WorkerResult
from tests.sweep.pretended import Sweep, begun, ended, outcomes, reported

GO, STOP = SegmentScheduler.CONTINUE, SegmentScheduler.STOP


@pytest.fixture(autouse=True)
def nodes(monkeypatch) -> None:
    node = {"NodeID": "0", "NodeManagerAddress": "::1", "Resources": {"CPU": 8.0}, "Alive": True}
    monkeypatch.setattr("ray.nodes", lambda: [node])


def bridge(*sweeps: Sweep) -> tuple[SegmentSearcher, SegmentScheduler]:
    concurrency = Concurrency(sweeps[0].session.config, Placement(), print)
    searcher = SegmentSearcher([sweep.controller for sweep in sweeps], sweeps[0].interrupt, concurrency)
    return searcher, SegmentScheduler(searcher, Placement())


def ray_trial(trial_id: str, **last: Any) -> Any:
    """The part of Ray's trial that is read."""
    return SimpleNamespace(trial_id=trial_id, last_result=last, pickled_error_file=None, error_file=None)


def failed(directory: Path, error: Exception | None, text: str) -> Any:
    """As Ray leaves a trial that ended in an error."""
    trial = ray_trial("a")
    if error is not None:
        trial.pickled_error_file = str(directory / "error.pkl")
        Path(trial.pickled_error_file).write_bytes(cloudpickle.dumps(error))
    trial.error_file = str(directory / "error.txt")
    Path(trial.error_file).write_text(text)
    return trial


def test_legs_come_from_the_first_sweep_while_it_has_any_and_then_from_the_next(tmp_path):
    first, second = (begun(tmp_path / name, "search.trials=2") for name in "ab")
    searcher, scheduler = bridge(first, second)
    suggested = [searcher.suggest(str(n)) for n in range(5)]
    assert [one and (one["batch"], one["segment"]["number"]) for one in suggested] == [
        (0, 0),
        (0, 1),
        (1, 0),
        (1, 1),
        None,
    ]
    assert [Segment.from_dict(one["segment"]) for one in suggested[:4]] == [
        searcher.segments[str(n)][1] for n in range(4)
    ]
    for n in (2, 0):
        scheduler.on_trial_complete(None, ray_trial(str(n)), ended(2, 0.5).to_dict())
    assert (outcomes(first), outcomes(second)) == ([Outcome.done, Outcome.running],) * 2
    for n in (1, 3):
        scheduler.on_trial_complete(None, ray_trial(str(n)), ended(2, 0.5).to_dict())
    assert searcher.suggest("5") == Searcher.FINISHED
    assert searcher.segments == {}


def test_a_result_goes_to_its_leg_and_the_answer_to_ray(tmp_path):
    words = ("search.trials=2", "search.scheduler=asha", "search.grace=0.5", "search.reduction=2")
    sweep = begun(tmp_path, *words)
    searcher, scheduler = bridge(sweep)
    trials = [ray_trial(str(n)) for n in range(2)]
    for one in trials:
        searcher.suggest(one.trial_id)
    answers = [
        scheduler.on_trial_result(None, one, reported(1, 0.5 - 0.1 * n).to_dict()) for n, one in enumerate(trials)
    ]
    assert answers == [GO, STOP]
    scheduler.on_trial_complete(None, trials[1], reported(1, 0.4).to_dict())
    assert outcomes(sweep) == [Outcome.running, Outcome.pruned]


def crowded(monkeypatch, part: int) -> None:
    """From now on another sweep waits, and this one may have `part` trials at once."""
    monkeypatch.setattr(Concurrency, "shared", True)
    monkeypatch.setattr(Concurrency, "limit", lambda _: part)


def test_where_another_sweep_waits_a_trial_gives_way_at_a_checkpoint_and_goes_on_from_it_later(tmp_path, monkeypatch):
    sweep = begun(tmp_path, "search.trials=3", "training.epochs=4", "search.checkpoint_every=2")
    searcher, scheduler = bridge(sweep)
    for name in "ab":
        searcher.suggest(name)
    crowded(monkeypatch, part=1)
    assert searcher.suggest("c") is None, "a search that has as many as it may begins none"
    answers = [scheduler.on_trial_result(None, ray_trial("a"), reported(n, 0.5).to_dict()) for n in (1, 2)]
    assert answers == [GO, STOP], "epoch 1 has no checkpoint"
    scheduler.on_trial_complete(None, ray_trial("a"), reported(2, 0.5).to_dict())
    row = sweep.log.rows[0]
    assert (row.outcome, row.reason) == (Outcome.paused, "gives way to another sweep at epoch 2")
    assert scheduler.on_trial_result(None, ray_trial("b"), reported(2, 0.5).to_dict()) == GO, "now it is one"
    monkeypatch.undo()
    monkeypatch.setattr(Concurrency, "limit", lambda _: 2)
    again = searcher.suggest("d")
    assert isinstance(again, dict)
    assert (again["segment"]["number"], again["segment"]["heard"]) == (0, 2)


def test_a_search_that_has_as_many_as_it_may_or_none_to_begin_says_what_it_wants(tmp_path, monkeypatch):
    seen: list[tuple[int, bool]] = []
    monkeypatch.setattr(Concurrency, "look", lambda _, live, wants_more: seen.append((live, wants_more)))
    searcher, _ = bridge(begun(tmp_path, "search.trials=2"))
    for name in "abcd":
        searcher.suggest(name)
    assert seen == [(0, True), (1, True), (2, True), (2, False)]


def test_the_last_epoch_comes_with_the_end_and_counts(tmp_path):
    sweep = begun(tmp_path)
    searcher, scheduler = bridge(sweep)
    searcher.suggest("a")
    scheduler.on_trial_complete(None, ray_trial("a"), ended(2, 0.75).to_dict())
    assert (sweep.log.rows[0].objective, sweep.log.rows[0].outcome) == (0.75, Outcome.done)


@pytest.mark.parametrize(
    ("error", "text", "outcome", "reason"),
    [
        (None, "... the node was running low on memory ...", Outcome.host_oom, "the machine was out of memory"),
        (exceptions.ActorDiedError(), "x", Outcome.worker_lost, "its worker process was lost"),
        (exceptions.WorkerCrashedError(), "x", Outcome.worker_lost, "its worker process was lost"),
        (exceptions.NodeDiedError("gone"), "x", Outcome.node_lost, "its node was lost"),
        (exceptions.ActorDiedError(), "its node has died", Outcome.node_lost, "its node was lost"),
        (exceptions.RuntimeEnvSetupError(), "why\nno space", Outcome.node_unfit, "start its worker: no space"),
        (ValueError(), "line 1\nValueError: 3", Outcome.code, "ValueError: 3"),
        (None, "", Outcome.code, "Ray gave no reason"),
    ],
)
def test_why_a_leg_ended_in_an_error_is_read_from_what_ray_has_of_it(tmp_path, error, text, outcome, reason):
    found, said = cause(failed(tmp_path, error, text))
    assert found is outcome
    assert said.endswith(reason)


def test_what_a_lost_worker_printed_last_is_kept_where_that_was_on_this_machine(tmp_path, monkeypatch):
    text = "The actor died unexpectedly.\n\tpid: 4711\n\tip: 192.0.2.7\n"
    node = SimpleNamespace(node_ip_address="192.0.2.7", get_logs_dir_path=lambda: str(tmp_path))
    monkeypatch.setattr("ray._private.worker._global_node", node)
    (tmp_path / "worker-1-4711.err").write_text("Fatal Python error: Segmentation fault\n")
    (tmp_path / "worker-1-471.err").write_text("of another one\n")
    lost = failed(tmp_path, exceptions.ActorDiedError(), text)
    assert details(lost).endswith(
        "ip: 192.0.2.7\n\nLast of worker-1-4711.err:\nFatal Python error: Segmentation fault\n"
    )
    node.node_ip_address = "192.0.2.8"
    assert "Segmentation" not in details(lost) and "The actor died" in details(lost)
    assert details(ray_trial("a", outcome="code", reason="KeyError: 1", details="Traceback")) == "Traceback"


def test_a_defect_that_was_reported_before_needs_no_words_of_ray():
    assert cause(ray_trial("a", outcome="code", reason="KeyError: 1")) == (Outcome.code, "KeyError: 1")
    assert cause(ray_trial("a")) == (Outcome.code, "Ray gave no reason")


def test_an_error_is_passed_on_with_its_cause(tmp_path):
    sweep = begun(tmp_path, "search.retries=0")
    searcher, scheduler = bridge(sweep)
    searcher.suggest("a")
    scheduler.on_trial_error(None, failed(tmp_path, exceptions.ActorDiedError(), "x"))
    row = sweep.log.rows[0]
    assert (row.outcome, row.reason) == (Outcome.worker_lost, "its worker process was lost")


def node(name: str) -> dict[str, Any]:
    return {"NodeID": name, "NodeManagerHostname": f"host-{name}", "NodeManagerAddress": f"10.0.0.{name}"} | {
        "Resources": {"CPU": 1.0}, "Alive": True,
    }  # fmt: skip


def unfit(name: str) -> dict[str, Any]:
    over = TrialEnded(outcome=Outcome.node_unfit, reason=f"host-{name} is of no use")
    result = WorkerResult(place=WorkerPlace(host=f"host-{name}", node=name), ended=over).to_dict()
    return flatten_dict(result, prevent_delimiter=False)  # as Ray hands it on


def test_later_segments_keep_away_from_a_node_of_no_use_and_without_another_the_sweep_stops(tmp_path, monkeypatch):
    monkeypatch.setattr("ray.nodes", lambda: [node("1"), node("2")])
    sweep, added = begun(tmp_path), Trial("none", stub=True, trial_id="c")
    searcher, scheduler = bridge(sweep)
    for name in "12":
        assert sweep.interrupt.failure is None
        searcher.suggest(name)
        scheduler.on_trial_complete(None, ray_trial(name), unfit(name))
    scheduler.on_trial_add(None, added)
    selector = added.placement_group_factory._bound.arguments["bundle_label_selector"]
    assert selector == [{"ray.io/node-id": "!in(1,2)"}]
    assert "no node is left that a trial can run on: host-1 is of no use; host-2" in str(sweep.interrupt.failure)


@pytest.mark.parametrize("moment", ["suggest", "result", "complete", "error"])
def test_what_goes_wrong_in_a_callback_of_ray_is_raised_between_two_steps(tmp_path, monkeypatch, moment):
    """Ray swallows what some callbacks raise."""
    sweep = begun(tmp_path)
    searcher, scheduler = bridge(sweep)
    if moment != "suggest":
        searcher.suggest("a")

    def full(*_: Any) -> None:
        raise StorageError("no space")

    for name in ("next_segment", "result", "segment_failed"):
        monkeypatch.setattr(sweep.controller, name, full)
    calls = {
        "suggest": (lambda: searcher.suggest("b"), None),
        "result": (lambda: scheduler.on_trial_result(None, ray_trial("a"), reported(1, 0.5).to_dict()), STOP),
        "complete": (lambda: scheduler.on_trial_complete(None, ray_trial("a"), ended(2, 0.5).to_dict()), None),
        "error": (lambda: scheduler.on_trial_error(None, ray_trial("a")), None),
    }
    call, answer = calls[moment]
    assert call() == answer
    with pytest.raises(StorageError, match="no space"):
        Watch(sweep.interrupt).on_step_begin(1, [])


def test_after_a_failure_nothing_more_is_written(tmp_path):
    sweep = begun(tmp_path)
    searcher, scheduler = bridge(sweep)
    searcher.suggest("a")
    sweep.interrupt.fail(StorageError("no space"))
    scheduler.on_trial_complete(None, ray_trial("a"), ended(2, 0.5).to_dict())
    assert outcomes(sweep) == [Outcome.running]


def test_rays_snapshots_keep_nothing(tmp_path):
    sweep = begun(tmp_path)
    searcher, _ = bridge(sweep)
    searcher.suggest("a")
    for one in (searcher, Watch(sweep.interrupt)):
        assert vars(pickle.loads(pickle.dumps(one))) == {}
    searcher.save(str(tmp_path / "snapshot"))
    searcher.restore(str(tmp_path / "snapshot"))
    assert not (tmp_path / "snapshot").exists()
