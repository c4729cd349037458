"""What happens to trials, written down as it happens: trials.csv, curves.csv, the outbox, the display."""

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial as TuneTrial

from odenet.config import ExperimentConfig, from_plain, identity
from odenet.data import Portion, Splits
from sweep.export import CurveRow, Phase, TrialRow, append_row, write_rows
from sweep.outcome import STATES, Outcome
from sweep.progress import ProgressDisplay
from sweep.searcher import ending
from sweep.session import Session, SweepFiles
from sweep.tracking import Run
from sweep.trial import CHECKPOINT

WRITE_SECONDS = 2.0  # trials.csv is rewritten at most so often while trials run


@dataclass(frozen=True, slots=True)
class Ended:
    """A trial after its end; `checkpoint` is the last one it wrote."""

    row: TrialRow
    checkpoint: Path | None


@dataclass(slots=True)
class Book:
    """The trials of one sweep and where they are written down."""

    session: Session
    files: SweepFiles
    splits: dict[Portion, Splits]
    rows: dict[str, TrialRow] = field(default_factory=dict)  # by Ray's trial id
    trials: dict[str, TuneTrial] = field(default_factory=dict)
    written: float = 0.0

    def write(self) -> None:
        write_rows(self.files.trials, TrialRow, self.in_order())
        self.written = time.monotonic()

    def in_order(self) -> list[TrialRow]:
        return sorted(self.rows.values(), key=lambda row: row.number)

    def ended(self) -> list[Ended]:
        """In order of numbers."""
        return [Ended(row, _last_checkpoint(self.trials[row.trial_id])) for row in self.in_order()]


class Recorder(Callback):
    """Keeps one row per trial, in step with Ray, and passes every event on. A trial's `batch` says in which book."""

    def __init__(self, books: list[Book], display: ProgressDisplay) -> None:
        self._books, self._display = books, display

    def __getstate__(self) -> dict[str, Any]:
        """Ray's snapshots keep nothing of it: what it knows is on disk."""
        return {}

    def on_trial_start(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        self._book(trial)

    def on_trial_result(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, result: dict[str, Any], **info: Any
    ) -> None:
        if result.get("outcome") == Outcome.code.value:
            trial.max_failures = 0  # a defect is not retried
        book = self._book(trial)
        row = book.rows[trial.trial_id]
        if result.get("epoch", 0) <= row.epochs:
            return  # no epoch, or one that was reported before its worker was lost
        row = with_result(row, result)
        append_row(book.files.curves, curve_row(row.number, result))
        metrics = {name: float(result[name]) for name in METRICS if name in result}
        book.session.tracker.metrics(mlflow_key(row), metrics, row.epochs)
        self._changed(book, row)

    def on_trial_complete(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        self._end(trial, failed=False)

    def on_trial_error(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        self._end(trial, failed=True)

    def finish(self) -> int:
        """Writes the last state; trials that still ran were cut short. Returns how many."""
        cut_short = 0
        for book in self._books:
            for row in [row for row in book.rows.values() if row.outcome is Outcome.running]:
                ended = replace(row, outcome=Outcome.interrupted, reason="the sweep was stopped")
                book.rows[row.trial_id] = ended
                _tell_end(book, ended)
                cut_short += 1
            book.write()
        return cut_short

    def _book(self, trial: TuneTrial) -> Book:
        """The trial's book, with the trial in it: also one whose process could not be made, or that goes on after a
        lost worker, has one row and one MLflow run."""
        book = self._books[trial.config["batch"]]
        if trial.trial_id not in book.rows:
            book.trials[trial.trial_id] = trial
            row = first_row(book, trial)
            _tell_start(book, row, _experiment(trial).data.portion)
            self._changed(book, row)
        return book

    def _end(self, trial: TuneTrial, *, failed: bool) -> None:
        book = self._book(trial)
        outcome, reason = ending(trial.last_result, failed)
        row = replace(book.rows[trial.trial_id], outcome=outcome, reason=reason)
        _tell_end(book, row)
        self._changed(book, row)

    def _changed(self, book: Book, row: TrialRow) -> None:
        book.rows[row.trial_id] = row
        self._display.update(row, _experiment(book.trials[row.trial_id]).training.epochs)
        if time.monotonic() - book.written > WRITE_SECONDS:
            book.write()


def _tell_start(book: Book, row: TrialRow, portion: Portion) -> None:
    run = Run(key=mlflow_key(row), name=f"{row.phase.value}-{row.number}", parent=book.session.run_key)
    tags = {name: getattr(row, name) for name in ("trial_id", "family", "config_hash")} | {"phase": row.phase.value}
    book.session.tracker.start(run, tags=tags, params={**row.parameters, "training.seed": row.seed})
    book.session.tracker.dataset(run.key, row.dataset, row.data_hash, portion.value)


def _tell_end(book: Book, row: TrialRow) -> None:
    tags = {"outcome": row.outcome.value, "reason": row.reason}
    book.session.tracker.end(mlflow_key(row), STATES[row.outcome].mlflow, tags)


METRICS = (
    "train/loss", "val/loss", "val/accuracy", "objective", "cost/train_gflops", "cost/seconds", "cost/rate_evaluations",
    "depth/steps", "depth/nodes", "gradient/drift",
)  # fmt: skip


def mlflow_key(row: TrialRow) -> str:
    """What the outbox calls a trial's run."""
    return f"{row.sweep}/{row.phase.value}-{row.number}"


def _experiment(trial: TuneTrial) -> ExperimentConfig:
    return from_plain(ExperimentConfig, trial.config["experiment"])


def first_row(book: Book, trial: TuneTrial) -> TrialRow:
    """The row of a trial that has not reported yet."""
    experiment, job = _experiment(trial), trial.config
    return TrialRow(
        sweep=book.session.name,
        family=book.session.config.space.name,
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
        data_hash=book.splits[experiment.data.portion].hash,
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
    values: dict[str, Any] = {name.replace("/", "_"): result.get(name) for name in METRICS}
    for count in ("cost_rate_evaluations", "depth_steps", "depth_nodes"):
        values[count] = int(values[count])
    return CurveRow(number=number, epoch=result["epoch"], **values)


def _last_checkpoint(trial: TuneTrial) -> Path | None:
    return Path(trial.checkpoint.path) / CHECKPOINT if trial.checkpoint else None
