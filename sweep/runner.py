"""Runs trials on Ray Tune and writes down what happens: trials.csv, curves.csv, the outbox, the display.

Both searching and final training come through here; they differ in their searcher.
"""

import logging
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune import Callback
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from odenet.config import ExperimentConfig, from_plain, identity
from odenet.data import Portion, Splits
from sweep.cluster import slots, trial_resources
from sweep.errors import WorkError
from sweep.export import CurveRow, Phase, TrialRow, append_row, write_rows
from sweep.outcome import STATES, Outcome
from sweep.progress import ProgressDisplay
from sweep.searcher import ending
from sweep.session import Session, SweepFiles
from sweep.tracking import Run
from sweep.trial import CHECKPOINT, Trial

WRITE_SECONDS = 2.0  # trials.csv is rewritten at most so often while trials run


class Interrupted(KeyboardInterrupt):
    """The user stopped the sweep; what was done is on disk."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Trials to run: who proposes and stops them, how many, on what data, and where their rows go."""

    title: str
    searcher: Searcher
    total: int
    splits: dict[Portion, Splits]
    files: SweepFiles
    scheduler: TrialScheduler | None = None
    trainable: type[tune.Trainable] = Trial


@dataclass(frozen=True, slots=True)
class Ended:
    """A trial after its end; `checkpoint` is the last one it wrote."""

    row: TrialRow
    checkpoint: Path | None


def run_batch(session: Session, batch: Batch) -> list[Ended]:
    """Runs a batch to its end; what ended is in order of numbers.

    Raises:
        Interrupted: the user pressed Ctrl-C; the rows written say which trials were cut short.
        WorkError: Ray Tune itself failed.
    """
    with ProgressDisplay(session.console, batch.title, batch.total) as display:
        recorder = Recorder(session, batch, display)
        tuner = _tuner(session, batch, recorder)
        try:
            tuner.fit()
        except (ray.exceptions.RayError, tune.TuneError, OSError, EOFError) as error:
            recorder.finish()
            raise WorkError(f"Ray Tune stopped: {error}. What was done is kept in {batch.files.trials}.") from error
        cut_short = recorder.finish()
    if cut_short:
        raise Interrupted(f"{cut_short} trials were cut short; what is done is kept in {batch.files.trials}.")
    return recorder.ended()


def _tuner(session: Session, batch: Batch, recorder: "Recorder") -> tune.Tuner:
    config = session.config
    per_trial = trial_resources(config.runtime.resources, config.cluster.autoscaling)
    runtime = config.runtime.for_training()
    trainable = tune.with_resources(
        tune.with_parameters(batch.trainable, runtime=runtime, splits=batch.splits),
        tune.PlacementGroupFactory([per_trial]),
    )
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    os.environ |= {"RAY_AIR_NEW_OUTPUT": "0", "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1", "RAY_CHDIR_TO_TRIAL_DIR": "0"}
    return tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=batch.searcher,
            scheduler=batch.scheduler or FIFOScheduler(),
            num_samples=batch.total,
            max_concurrent_trials=config.search.concurrency or slots(per_trial),
            reuse_actors=True,
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(
            name="ray",
            storage_path=str(batch.files.directory),
            callbacks=[recorder],
            failure_config=tune.FailureConfig(max_failures=config.search.retries),
            checkpoint_config=tune.CheckpointConfig(
                checkpoint_frequency=config.search.checkpoint_every, num_to_keep=2, checkpoint_at_end=True
            ),
            verbose=0,
        ),
    )


class Recorder(Callback):
    """Keeps one row per trial, in step with Ray, and passes every event on."""

    def __init__(self, session: Session, batch: Batch, display: ProgressDisplay) -> None:
        self._session, self._batch, self._display = session, batch, display
        self._rows: dict[str, TrialRow] = {}
        self._trials: dict[str, TuneTrial] = {}
        self._written = 0.0

    def __getstate__(self) -> dict[str, Any]:
        """Ray's snapshots keep nothing of it: what it knows is on disk."""
        return {}

    @property
    def _in_order(self) -> list[TrialRow]:
        return sorted(self._rows.values(), key=lambda row: row.number)

    def ended(self) -> list[Ended]:
        return [Ended(row, _last_checkpoint(self._trials[row.trial_id])) for row in self._in_order]

    def on_trial_start(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        if trial.trial_id not in self._rows:  # else it goes on after a lost worker
            self._begin(trial)

    def _begin(self, trial: TuneTrial) -> None:
        """Also for a trial whose process could not be made: every trial has its row and its run."""
        row = first_row(self._session, self._batch, trial)
        self._rows[trial.trial_id], self._trials[trial.trial_id] = row, trial
        run = Run(
            key=mlflow_key(self._session, row), name=f"{row.phase.value}-{row.number}", parent=self._session.run_key
        )
        tags = {
            "trial_id": row.trial_id,
            "family": row.family,
            "phase": row.phase.value,
            "config_hash": row.config_hash,
        }
        self._session.tracker.start(run, tags=tags, params={**row.parameters, "training.seed": row.seed})
        data = self._batch.splits[_experiment(trial).data.portion]
        self._session.tracker.dataset(run.key, row.dataset, data.hash, _experiment(trial).data.portion.value)
        self._changed(row, trial)

    def on_trial_result(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, result: dict[str, Any], **info: Any
    ) -> None:
        if result.get("outcome") == Outcome.code.value:
            trial.max_failures = 0  # a defect is not retried
        if "epoch" not in result:
            return
        row = with_result(self._rows[trial.trial_id], result)
        self._rows[trial.trial_id] = row
        append_row(self._batch.files.curves, curve_row(row.number, result))
        metrics = {name: float(result[name]) for name in _METRICS if name in result}
        self._session.tracker.metrics(mlflow_key(self._session, row), metrics, row.epochs)
        self._changed(row, trial)

    def on_trial_complete(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        self._end(trial, *ending(trial.last_result, failed=False))

    def on_trial_error(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        self._end(trial, *ending(trial.last_result, failed=True))

    def finish(self) -> int:
        """Writes the last state; trials that still ran were cut short by the user. Returns how many."""
        running = [row for row in self._rows.values() if row.outcome is Outcome.running]
        for row in running:
            self._rows[row.trial_id] = replace(row, outcome=Outcome.interrupted, reason="the sweep was stopped")
            self._tell_end(self._rows[row.trial_id])
        self._write()
        return len(running)

    def _end(self, trial: TuneTrial, outcome: Outcome, reason: str) -> None:
        if trial.trial_id not in self._rows:
            self._begin(trial)
        row = replace(self._rows[trial.trial_id], outcome=outcome, reason=reason)
        self._rows[trial.trial_id] = row
        self._tell_end(row)
        self._changed(row, trial)

    def _tell_end(self, row: TrialRow) -> None:
        tags = {"outcome": row.outcome.value, "reason": row.reason}
        self._session.tracker.end(mlflow_key(self._session, row), STATES[row.outcome].mlflow, tags)

    def _changed(self, row: TrialRow, trial: TuneTrial) -> None:
        self._display.update(row, _experiment(trial).training.epochs)
        if time.monotonic() - self._written > WRITE_SECONDS:
            self._write()

    def _write(self) -> None:
        write_rows(self._batch.files.trials, TrialRow, self._in_order)
        self._written = time.monotonic()


_METRICS = (
    "train/loss", "val/loss", "val/accuracy", "objective", "cost/train_gflops", "cost/seconds", "cost/rate_evaluations",
    "depth/steps", "depth/nodes",
)  # fmt: skip


def mlflow_key(session: Session, row: TrialRow) -> str:
    return f"{session.name}/{row.phase.value}-{row.number}"


def _experiment(trial: TuneTrial) -> ExperimentConfig:
    return from_plain(ExperimentConfig, trial.config["experiment"])


def first_row(session: Session, batch: Batch, trial: TuneTrial) -> TrialRow:
    """The row of a trial that has not reported yet."""
    experiment, job = _experiment(trial), trial.config
    return TrialRow(
        sweep=session.name,
        family=session.config.space.name,
        phase=Phase[job.get("phase", "search")],
        number=job["number"],
        trial_id=trial.trial_id,
        candidate=job.get("candidate", job["number"]),
        outcome=Outcome.running,
        reason="",
        parameters=job["parameters"],
        objective=None,
        epochs=0,
        gflops=0.0,
        seconds=0.0,
        rate_evaluations=0,
        model_parameters=0,
        dataset=experiment.data.dataset.value,
        per_class=experiment.data.per_class,
        draw=experiment.data.draw,
        seed=experiment.training.seed,
        config_hash=identity(experiment),
        data_hash=batch.splits[experiment.data.portion].hash,
    )


def with_result(row: TrialRow, result: dict[str, Any]) -> TrialRow:
    return replace(
        row,
        objective=result.get("objective"),
        epochs=result["epoch"],
        gflops=result["cost/train_gflops"],
        seconds=result["cost/seconds"],
        rate_evaluations=int(result["cost/rate_evaluations"]),
        model_parameters=result["parameters"],
    )


def curve_row(number: int, result: dict[str, Any]) -> CurveRow:
    values = {name.replace("/", "_"): result.get(name) for name in _METRICS}
    counts = {name: int(values.pop(name)) for name in ("cost_rate_evaluations", "depth_steps", "depth_nodes")}
    return CurveRow(number=number, epoch=result["epoch"], **values, **counts)


def _last_checkpoint(trial: TuneTrial) -> Path | None:
    return Path(trial.checkpoint.path) / CHECKPOINT if trial.checkpoint else None
