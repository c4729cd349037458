"""Runs trials on Ray Tune: searching and final training both come through here, one sweep or all sweeps of a study at
once, so that a cluster is never idle between two sweeps and worker processes start once."""

import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import ray
from ray import tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from odenet.data import Portion, Splits
from sweep.cluster import slots, trial_resources
from sweep.errors import WorkError
from sweep.progress import ProgressDisplay
from sweep.recorder import Book, Ended, Recorder
from sweep.schedulers import RoutedScheduler
from sweep.searcher import ChainSearcher
from sweep.session import Session, SweepFiles
from sweep.trial import Trial


class Interrupted(KeyboardInterrupt):
    """The user stopped the sweep; what was done is on disk."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Trials to run for one sweep: who proposes and stops them, how many, on what data, where their rows go."""

    session: Session
    searcher: Searcher
    total: int
    splits: dict[Portion, Splits]
    files: SweepFiles
    scheduler: TrialScheduler = field(default_factory=FIFOScheduler)


class Work(ABC):
    """A batch and what becomes of it."""

    batch: Batch

    @abstractmethod
    def conclude(self, ended: list[Ended]) -> None:
        """Writes the results. Raises WorkError: there is nothing to go on with."""

    @abstractmethod
    def stopped(self, status: str) -> None:
        """Keeps what is done when trials were cut short; `status` is MLflow's word for it."""


def run_works(works: Sequence[Work], title: str, directory: Path, trainable: type[tune.Trainable] = Trial) -> None:
    """Runs all batches as one Ray Tune experiment, kept in `directory`, and concludes each.

    Raises:
        Interrupted: the user pressed Ctrl-C; the rows written say which trials were cut short.
        WorkError: Ray Tune failed, or nothing came of a batch; the other batches are concluded all the same.
    """
    batches = [work.batch for work in works]
    books = [Book(batch.session, batch.files, batch.splits) for batch in batches]
    with ProgressDisplay(batches[0].session.console, title, sum(batch.total for batch in batches)) as display:
        recorder = Recorder(books, display)
        tuner = _tuner(batches, recorder, directory, trainable)
        try:
            tuner.fit()
        except (ray.exceptions.RayError, tune.TuneError, OSError, EOFError) as error:
            recorder.finish()
            _stop(works, "FAILED")
            raise WorkError(f"Ray Tune stopped: {error}. What was done is kept in {directory.parent}.") from error
        cut_short = recorder.finish()
    if cut_short:
        _stop(works, "KILLED")
        raise Interrupted(f"{cut_short} trials were cut short; what is done is kept in {directory.parent}.")
    _conclude(works, books)


def _stop(works: Sequence[Work], status: str) -> None:
    for work in works:
        work.stopped(status)


def _conclude(works: Sequence[Work], books: list[Book]) -> None:
    failures = []
    for work, book in zip(works, books, strict=True):
        try:
            work.conclude(book.ended())
        except WorkError as error:
            failures.append(str(error))
    if failures:
        raise WorkError(" ".join(failures))


def _tuner(batches: list[Batch], recorder: Recorder, directory: Path, trainable: type[tune.Trainable]) -> tune.Tuner:
    config = batches[0].session.config
    per_trial = trial_resources(config.runtime.resources, config.cluster.autoscaling)
    bound = tune.with_parameters(
        trainable, runtime=config.runtime.for_training(), splits=[batch.splits for batch in batches]
    )
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # what went wrong is in the rows
    os.environ |= {"RAY_AIR_NEW_OUTPUT": "0", "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1", "RAY_CHDIR_TO_TRIAL_DIR": "0"}
    return tune.Tuner(
        tune.with_resources(bound, tune.PlacementGroupFactory([per_trial])),
        tune_config=tune.TuneConfig(
            search_alg=ChainSearcher([batch.searcher for batch in batches]),
            scheduler=RoutedScheduler([batch.scheduler for batch in batches])
            if len(batches) > 1
            else batches[0].scheduler,
            num_samples=sum(batch.total for batch in batches),
            max_concurrent_trials=config.search.concurrency or slots(per_trial),
            reuse_actors=True,
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(
            name=directory.name,
            storage_path=str(directory.parent),
            callbacks=[recorder],
            failure_config=tune.FailureConfig(max_failures=config.search.retries),
            checkpoint_config=tune.CheckpointConfig(
                checkpoint_frequency=config.search.checkpoint_every, num_to_keep=2, checkpoint_at_end=True
            ),
            verbose=0,
        ),
    )
