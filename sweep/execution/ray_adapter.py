"""The searcher, scheduler and callback of Ray Tune, which pass everything on to the controllers."""

import re
from pathlib import Path
from typing import Any

from ray import cloudpickle, exceptions
from ray._private import worker
from ray.air._internal import usage
from ray.tune.execution import class_cache
from ray.tune.execution.placement_groups import PlacementGroupFactory
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial
from ray.tune.progress_reporter import TrialProgressCallback
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from sweep.cluster.concurrency import Concurrency
from sweep.cluster.placement import Placement
from sweep.errors import WorkError
from sweep.execution.controller import Controller
from sweep.execution.interrupt import Interrupt
from sweep.execution.trial_source import FINISHED
from sweep.records.outcome import Outcome
from sweep.worker.failure import last_lines, presentable
from sweep.worker.segment import Segment, WorkerResult


class SegmentSearcher(Searcher):
    """A Ray Tune searcher that asks the controllers in turn; while one waits for results, the next is asked."""

    def __init__(self, controllers: list[Controller], interrupt: Interrupt, concurrency: Concurrency) -> None:
        super().__init__()
        self._controllers, self.interrupt, self._concurrency = controllers, interrupt, concurrency
        self._open = list(range(len(controllers)))
        self._wants_more = True  # unless the last question, at a time with room, had no segment for an answer
        self.segments: dict[str, tuple[Controller, Segment]] = {}  # by Ray's trial id

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]  # FINISHED is a str
        try:
            self._concurrency.look(len(self.segments), self._wants_more)
            if len(self.segments) >= self._concurrency.limit():
                self._wants_more = True
                return None
            found = self._suggest(trial_id)
            self._wants_more = isinstance(found, dict)
            return found
        except Exception as error:  # noqa: BLE001 - Ray would go on; it is raised between two of its steps
            self.interrupt.fail(error)
            return None

    def _suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        for index in list(self._open):
            segment = self._controllers[index].next_segment()
            if isinstance(segment, Segment):
                self.segments[trial_id] = self._controllers[index], segment
                return {"batch": index, "segment": segment.to_dict()}
            if segment is FINISHED:
                self._open.remove(index)
        return None if self._open else Searcher.FINISHED

    @property
    def is_sharing(self) -> bool:
        """Tell whether another sweep may wait for what this one does not use."""
        return self._concurrency.shared

    def has_too_many(self) -> bool:
        """Tell whether more segments are under way than this sweep's part of a cluster that others are on, too."""
        return self.is_sharing and len(self.segments) > self._concurrency.limit()

    def set_max_concurrency(self, max_concurrent: int) -> bool:  # noqa: ARG002 - what Tune was told
        """Tell Ray Tune that the number of trials at once is kept here."""
        return True

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Do nothing: the scheduler has passed it on."""

    def __getstate__(self) -> dict[str, Any]:
        """Keep nothing in Ray's snapshots: what is known is on disk already."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Save nothing."""

    def restore(self, checkpoint_path: str) -> None:
        """Restore nothing."""


class SegmentScheduler(FIFOScheduler):
    """A Ray Tune scheduler that passes on every result, end and error; the controller decides."""

    def __init__(self, searcher: SegmentSearcher, placement: Placement) -> None:
        super().__init__()
        self._searcher, self._placement = searcher, placement
        self._ended: list[Trial] = []
        self._tune: TuneController | None = None  # itself; `choose_trial_to_run` gets a wrapper

    def on_trial_add(self, tune_controller: TuneController, trial: Trial) -> None:
        """Keep the segment away from nodes that are left out by now; later ones give it another segment."""
        super().on_trial_add(tune_controller, trial)
        if arguments := self._placement.arguments():
            trial.update_resources(PlacementGroupFactory([dict(self._placement.per_trial)], **arguments))

    def choose_trial_to_run(self, tune_controller: TuneController) -> Trial | None:
        """Choose as FIFOScheduler; at this point of a step nothing of Ray Tune's looks at ended segments."""
        for trial in self._ended:
            assert self._tune is not None
            _forget(self._tune, trial)
        if self._tune is not None and self._searcher.is_sharing and not self._tune._pending_trials:
            self._tune._cleanup_cached_actors(force_all=True)  # else idle workers would keep what others wait for
        self._ended.clear()
        return super().choose_trial_to_run(tune_controller)

    def on_trial_result(self, _: TuneController, trial: Trial, result: dict[str, Any]) -> str:
        controller, segment = self._searcher.segments[trial.trial_id]
        try:
            goes_on = controller.result(segment, WorkerResult.from_dict(result))
            if goes_on and self._searcher.has_too_many():
                goes_on = not controller.gives_way(segment)
        except Exception as error:  # noqa: BLE001 - as in SegmentSearcher
            self._searcher.interrupt.fail(error)
            goes_on = False
        return self.CONTINUE if goes_on else self.STOP

    def on_trial_complete(self, tune_controller: TuneController, trial: Trial, result: dict[str, Any]) -> None:
        self._end(tune_controller, trial)
        controller, segment = self._searcher.segments.pop(trial.trial_id)
        try:
            if self._searcher.interrupt.failure is None:
                last = WorkerResult.from_dict(result)
                self._leave_out(last)
                controller.result(segment, last)
                controller.segment_ended(segment, last, Trial.TERMINATED)
        except Exception as error:  # noqa: BLE001 - as in SegmentSearcher
            self._searcher.interrupt.fail(error)

    def on_trial_error(self, tune_controller: TuneController, trial: Trial) -> None:
        self._end(tune_controller, trial)
        controller, segment = self._searcher.segments.pop(trial.trial_id)
        try:
            outcome, reason = cause(trial)
            if outcome is Outcome.node_unfit:  # Ray does not say which node it was
                self._placement.look_again()
                self._check_nodes()
            controller.segment_failed(segment, outcome, reason, details(trial))
        except Exception as error:  # noqa: BLE001 - as in SegmentSearcher
            self._searcher.interrupt.fail(error)

    def _leave_out(self, result: WorkerResult) -> None:
        if result.place is not None and result.ended is not None and result.ended.outcome is Outcome.node_unfit:
            self._placement.left_out.add(result.place.node, result.ended.reason)
            self._check_nodes()

    def _check_nodes(self) -> None:
        if obstacle := self._placement.obstacle():
            raise WorkError(obstacle)

    def on_trial_remove(self, _: TuneController, trial: Trial) -> None:
        """Drop a segment that never started when the run is stopped; `finish` marks its trial as interrupted."""

    def _end(self, tune_controller: TuneController, trial: Trial) -> None:
        self._tune = tune_controller
        self._ended.append(trial)


class Watch(TrialProgressCallback):
    """A callback that raises, between two of Ray's steps, what went wrong inside one.

    It stands in the place of the one that Ray Tune would add, which keeps every trial to print its progress.
    """

    def __init__(self, interrupt: Interrupt) -> None:
        self._interrupt = interrupt

    def on_trial_result(self, *_: Any, **__: Any) -> None: ...

    def on_trial_error(self, *_: Any, **__: Any) -> None: ...

    def on_trial_complete(self, *_: Any, **__: Any) -> None: ...

    def on_step_begin(self, iteration: int, trials: list[Trial], **info: Any) -> None:  # noqa: ARG002
        if self._interrupt.failure is not None:
            raise self._interrupt.failure

    def __getstate__(self) -> dict[str, Any]:
        return {}


def _forget(tune_controller: TuneController, trial: Trial) -> None:
    """Drop what Ray Tune keeps of an ended segment for results and snapshots that nobody reads."""
    tune_controller._trials.remove(trial)
    tune_controller._trial_metadata.pop(trial.trial_id, None)
    for trials in (
        tune_controller._live_trials,
        tune_controller._stopped_trials,
        tune_controller._failed_trials,
        tune_controller._trials_to_cache,
    ):
        trials.discard(trial)
    manager = tune_controller._actor_manager  # keeps the tasks of workers that were asked for, and then not needed
    waiting = manager._pending_actors_to_enqueued_actor_tasks
    for actor in waiting.keys() - manager._pending_actors_to_attrs.keys():
        del waiting[actor]


def unburden() -> None:
    """Keep Ray Tune from sending variables of this process along with every trial: AWS keys would stand in Ray's logs,
    and a trial with variables of its own could not run in a worker that was started beforehand. And from counting
    callbacks for its makers, for which it would load MLflow, which takes this process 2 s."""
    class_cache.ENV_VARS_TO_PROPAGATE.clear()
    class_cache.DEFAULT_ENV_VARS.clear()
    usage.tag_callbacks = lambda callbacks: False  # noqa: ARG005 - the name is Ray's


def cause(trial: Trial) -> tuple[Outcome, str]:
    """Find out why a segment ended in an error, as an outcome and a reason."""
    last = WorkerResult.from_dict(trial.last_result or {}).ended
    if last is not None and last.outcome in (Outcome.code, Outcome.node_unfit):
        return last.outcome, last.reason
    error, text = _error(trial)
    if "running low on memory" in text:
        return Outcome.host_oom, "Ray's memory monitor ended its worker: the machine was out of memory"
    if isinstance(error, exceptions.NodeDiedError) or "node has died" in text:
        return Outcome.node_lost, "its node was lost"
    if isinstance(error, exceptions.RuntimeEnvSetupError) or "RuntimeEnvSetupError" in text:
        return Outcome.node_unfit, f"a node could not start its worker: {last_line(text)}"
    if isinstance(error, exceptions.RayActorError | exceptions.WorkerCrashedError):
        return Outcome.worker_lost, "its worker process was lost"
    return Outcome.code, last_line(text)


def last_line(text: str) -> str:
    return (text.strip().splitlines() or ["Ray gave no reason"])[-1]


def details(trial: Trial) -> str:
    """Describe for people why a segment ended in an error: by its worker, else by Ray and what the worker printed last,
    where that was on this machine."""
    last = WorkerResult.from_dict(trial.last_result or {}).ended
    if last is not None and last.details:
        return last.details
    _, text = _error(trial)
    process, address = re.search(r"\bpid: ?(\d+)", text), re.search(r"\bip: ?(\S+)", text)
    node: Any = worker._global_node
    logs: list[Path] = []
    if node is not None and process and address and address[1] == node.node_ip_address:
        logs = sorted(Path(node.get_logs_dir_path()).glob(f"worker-*-{process[1]}.*"))
    printed = [f"\nLast of {file.name}:\n{said}\n" for file in logs if (said := last_lines(file))]
    return presentable(text) + presentable("".join(printed))


def _error(trial: Trial) -> tuple[Any, str]:
    """Load the error that Ray has just written on this machine; `Trial.get_error` reads a copy that is made later."""
    pickled, text = trial.pickled_error_file, trial.error_file
    error = cloudpickle.loads(Path(pickled).read_bytes()) if pickled else None
    return error, Path(text).read_text() if text else ""
