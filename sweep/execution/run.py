"""Run segments on Ray Tune, for searching and for final training alike; the sweeps of a study run side by side, so that
a cluster is never idle between two of them and worker processes start once.

Ray starts processes, places them and tells what became of them. It retries nothing and keeps no checkpoint: a segment
that was lost is followed by another one.
"""

import logging
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from odenet.data.config import Portion
from odenet.data.subsets import Splits
from sweep.cluster.concurrency import Concurrency
from sweep.cluster.watch import ended
from sweep.config.places import is_bucket
from sweep.config.schema import MOST
from sweep.errors import StorageError, WorkError
from sweep.execution.controller import Controller
from sweep.execution.display import ProgressDisplay, ShownTrials
from sweep.execution.interrupt import Interrupt, Interrupted
from sweep.execution.mlflow_runs import TrialRuns
from sweep.execution.observers import CheckpointCleaner
from sweep.execution.session import Session, shipped_texts
from sweep.execution.trial_log import TrialLog
from sweep.execution.trial_source import TrialSource
from sweep.records.files import make_directory, storing
from sweep.records.run_directory import kept_modules
from sweep.worker.segment import Orders

if TYPE_CHECKING:
    from ray import tune

    from sweep.execution.ray_adapter import SegmentSearcher


@dataclass(frozen=True, slots=True)
class Batch:
    """The trials to run for one sweep: where they come from, on what data, where they are written down."""

    session: Session
    source: TrialSource
    log: TrialLog
    splits: dict[Portion, Splits]


class Work(ABC):
    """A batch with what follows when its trials have ended."""

    batch: Batch

    @abstractmethod
    def conclude(self) -> None:
        """Write the results. WorkError: there is nothing to go on with."""

    @property
    def resumed_as(self) -> str:
        """The name by which `sweep resume` goes on with it: its study's, or its own where it is in none."""
        return self.batch.session.name.split("/")[0]

    @abstractmethod
    def stopped(self, status: str) -> None:
        """Keep what is done when trials were cut short; `status` is MLflow's word for it."""


def run_works(
    works: Sequence[Work], title: str, directory: Path, trainable: "type[tune.Trainable] | None" = None
) -> None:
    """Run all batches as one Ray Tune experiment, kept in `directory`, and conclude each. `trainable`: another one
    than `SegmentTrainable`.

    Raises:
        Interrupted: the user stopped it; the rows written say which trials were cut short.
        StorageError: something could not be written. WorkError: Ray Tune failed, or nothing came of a batch; the other
            batches are concluded all the same.
    """
    if not works:
        return
    batches = [work.batch for work in works]
    from sweep.execution.ray_adapter import SegmentSearcher
    from sweep.worker.trainable import SegmentTrainable

    shutil.rmtree(directory, ignore_errors=True)  # Ray's record of an earlier session; ours is elsewhere
    first = batches[0].session
    for batch in batches:
        _make_place(batch.session.folders(batch.log.files).place)
    with (
        ProgressDisplay(first.console, title, sum(batch.source.total for batch in batches)) as display,
        Interrupt(directory.parent / "stop", display.say) as interrupt,
        Concurrency(first.config, first.placement, display.say) as concurrency,
    ):
        controllers = [Controller(batch.source, batch.log, interrupt, display.say) for batch in batches]
        for controller, batch in zip(controllers, batches, strict=True):
            shown = ShownTrials(display, batch.session.config.training.epochs)
            controller.take_up([TrialRuns(batch.session, batch.splits), shown, CheckpointCleaner(batch.session.mirror)])
        searcher = SegmentSearcher(controllers, interrupt, concurrency)
        failure = _fit(_tuner(batches, searcher, directory, trainable or SegmentTrainable), interrupt)
        reason = interrupt.reason or "the sweep was stopped"
        waiting = sum(controller.finish(reason) for controller in controllers)
    _raise_if_cut_short(works, failure, waiting, interrupt)
    _conclude(works)


def _make_place(place: str) -> None:
    """Make the directory of the trials' folders: a worker makes no directory above its trial's."""
    if not is_bucket(place):
        with storing(Path(place), 0):
            make_directory(Path(place))


def _fit(tuner: "tune.Tuner", interrupt: Interrupt) -> BaseException | None:
    """Run Ray Tune to its end and return what went wrong, or None."""
    import ray
    from ray import tune

    try:
        tuner.fit()
    except KeyboardInterrupt as error:
        if not ended():
            return error
        interrupt.fail(WorkError(ended()))
    except (ray.exceptions.RayError, tune.TuneError, StorageError, OSError, EOFError) as error:
        return interrupt.failure or error
    return interrupt.failure


def _raise_if_cut_short(
    works: Sequence[Work], failure: BaseException | None, waiting: int, interrupt: Interrupt
) -> None:
    kept = f"What is done is kept; `sweep resume {works[0].resumed_as}` goes on."
    if failure is not None and not isinstance(failure, KeyboardInterrupt):
        _stop(works, "FAILED")
        if isinstance(failure, StorageError):
            raise failure
        raise WorkError(f"Ray Tune stopped: {failure}. {kept}") from failure
    if interrupt.storage:
        _stop(works, "FAILED")
        raise WorkError(f"A worker could not write its checkpoint: {interrupt.storage}. Make space. {kept}")
    if waiting or failure is not None or interrupt.stopping:
        _stop(works, "KILLED")
        raise Interrupted(f"{waiting} trials were cut short and wait at a checkpoint. {kept}")


def _stop(works: Sequence[Work], status: str) -> None:
    for work in works:
        work.stopped(status)


def _conclude(works: Sequence[Work]) -> None:
    failures = []
    for work in works:
        try:
            work.conclude()
        except StorageError:
            raise  # it is concluded by `sweep resume`
        except WorkError as error:
            failures.append(str(error))
        work.batch.log.mark_finished()
    if failures:
        raise WorkError(" ".join(failures))


def _tuner(
    batches: list[Batch], searcher: "SegmentSearcher", directory: Path, trainable: "type[tune.Trainable]"
) -> "tune.Tuner":
    from ray import tune

    from sweep.execution.ray_adapter import SegmentScheduler, Watch, unburden

    session = batches[0].session
    config, per_trial = session.config, dict(session.per_trial)
    bound = tune.with_parameters(
        trainable,
        runtime=config.runtime.for_training(),
        orders=[orders_of(batch) for batch in batches],
        stop=batches[0].session.stop_sign(searcher.interrupt.file),
    )
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # what went wrong is in the rows
    os.environ |= {"RAY_AIR_NEW_OUTPUT": "0", "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1", "RAY_CHDIR_TO_TRIAL_DIR": "0"}
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # Interrupt has its own
    unburden()
    return tune.Tuner(
        tune.with_resources(bound, tune.PlacementGroupFactory([per_trial])),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=SegmentScheduler(searcher, session.placement),
            num_samples=-1,  # as many segments as it takes
            max_concurrent_trials=MOST,  # the searcher keeps to fewer
            reuse_actors=True,
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(
            name=directory.name,
            storage_path=str(directory.parent),
            callbacks=[Watch(searcher.interrupt)],
            failure_config=tune.FailureConfig(max_failures=0),
            # Ray's own would hold nothing, and fails on a node without the run directory before that is told.
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            verbose=0,
        ),
    )


def orders_of(batch: Batch) -> Orders:
    config = batch.session.config
    minutes = config.search.timeout_minutes
    return Orders(
        splits=batch.splits,
        tables=config.evaluate,
        checkpoint_every=config.checkpoint_every,
        seconds=None if minutes is None else 60 * minutes,
        modules=tuple(config.modules),
        kept_modules=kept_modules(config, batch.session.name),
        module_texts=shipped_texts(config),
        marker=batch.session.placement.marker,
    )
