"""Train a segment in a worker, from the newest whole checkpoint to its end. It knows neither Ray nor MLflow."""

import errno
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any

from odenet.training.checkpoint import Checkpoint, DamagedCheckpoint
from odenet.training.config import RuntimeConfig
from odenet.training.evaluation import manifestations
from odenet.training.footprint import footprint
from odenet.training.loop import Progress, Report, Training
from odenet.training.optim_config import OptimizerKind
from odenet.training.transfer import transfer
from sweep.records.checkpoints import KEPT, checkpoint_name
from sweep.records.files import obstacle
from sweep.records.outcome import Outcome
from sweep.storage.folders import load_from, open_folder
from sweep.storage.stop import StopSign
from sweep.worker.cuda import out_of_memory
from sweep.worker.failure import Printed, failure_text
from sweep.worker.segment import EpochResult, Orders, Segment, TrialEnded, WorkerResult

FULL = (errno.ENOSPC, errno.EDQUOT)
STORAGE = (*FULL, errno.EROFS, errno.EACCES, errno.EIO)


class TrialFailed(RuntimeError):
    """The segment failed, which Ray is to see as an error; the outcome was reported in the result before."""


class OutOfTime(Exception):
    """The trial took longer than it may."""


class SegmentTraining:
    """The training of a segment in a worker, one report of `Training` per step.

    After a checkpoint was loaded the reports of its epochs that nobody has on record come first, the last one in any
    case. A defect is reported with its reason, and raised at the next step.
    """

    def __init__(self, segment: Segment, runtime: RuntimeConfig, orders: Orders, stop: StopSign) -> None:
        self._segment, self._orders = segment, orders
        self._runtime, self._stop = runtime, stop
        self._experiment = segment.experiment
        self._training: Training | None = None
        self._unheard: list[Report] = []
        self._failed, self._notice = "", ""
        self._printed = Printed()

    def step(self) -> WorkerResult:
        """Train one epoch. TrialFailed: the step before reported a defect."""
        if self._failed:
            raise TrialFailed(self._failed)
        try:
            with self._limited():
                return self._advance()
        except Exception as error:  # noqa: BLE001 - a defect is reported with its reason, then raised at the next step
            ended = self._ended(error)
            self._failed = ended.reason if ended.outcome is Outcome.code else ""
            return WorkerResult(ended=ended, done=not self._failed)

    def _ended(self, error: Exception) -> TrialEnded:
        """Classify the exception that ended training."""
        if isinstance(error, FloatingPointError):
            return TrialEnded(outcome=Outcome.diverged, reason=str(error))
        if reason := out_of_memory(error):
            return TrialEnded(outcome=Outcome.cuda_oom, reason=reason)
        if isinstance(error, OutOfTime):
            return TrialEnded(outcome=Outcome.timeout, reason=f"longer than {self._orders.seconds:.0f} s")
        if isinstance(error, OSError) and error.errno not in FULL and (unfit := unseen(self._orders.marker)):
            return unfit
        if isinstance(error, OSError) and error.errno in STORAGE:
            return TrialEnded(outcome=Outcome.interrupted, reason=str(error), storage=str(error))
        details = failure_text(error, self._printed)
        return TrialEnded(outcome=Outcome.code, reason=f"{type(error).__name__}: {error}", details=details)

    def _advance(self) -> WorkerResult:
        if self._training is None:
            data = self._orders.splits[self._experiment.data.portion]
            checkpoint, known = self._found()
            self._training = Training(self._experiment, self._runtime, data=data, checkpoint=checkpoint)
            reports = self._training.reports
            self._unheard = [report for report in reports if report.epoch > known] or list(reports[-1:])
        report = self._unheard.pop(0) if self._unheard else next(self._training)
        if report.epoch == self._training.epoch:
            self._keep(report.epoch)
        return self._result(self._training, report)

    def _result(self, training: Training, report: Report) -> WorkerResult:
        ended = None
        if report.epoch == self._segment.epochs:
            ended = self._measured(training)
        elif self._stop.exists() and not self._unheard:
            ended = TrialEnded(outcome=Outcome.interrupted, reason="the sweep was stopped")
        notice, self._notice = self._notice, ""
        epoch = EpochResult(
            epoch=report.epoch, weights=training.model.parameter_count, metrics=report.metrics, notice=notice
        )
        return WorkerResult(epoch=epoch, ended=ended, done=ended is not None or report.epoch >= self._segment.until)

    def _measured(self, training: Training) -> TrialEnded:
        """Measure what the network costs, and how its weights do under other manifestations, on the val set."""
        shape, batches = training.train_batches.shape, training.val_batches
        optim = self._experiment.optim
        moments = 2 if optim.optimizer is OptimizerKind.adamw else 1
        cost = footprint(training.model, shape, optim.batch_size, moments=moments)
        table: list[dict[str, Any]] = []
        if batches is not None:
            asked = self._orders.tables
            table = [
                {"scheme": one.scheme.value, "steps": one.steps, "trained": one.trained, **asdict(one.score)}
                | {"gflops": one.gflops, "rate_evaluations": one.rate_evaluations}
                for one in manifestations(training.model, batches, asked.schemes, asked.step_factors)
            ]
        return TrialEnded(outcome=Outcome.done, footprint=asdict(cost), manifestations=table)

    # --- checkpoints --------------------------------------------------------------------------------------------------

    def _found(self) -> tuple[Checkpoint | None, int]:
        """Load the newest whole checkpoint of this experiment, else the one that the segment goes on from. With it goes
        the epoch after which its reports are of this trial and on no record."""
        start = load_from(self._segment.start) if self._segment.start else None
        since = start.epoch if start else 0  # its own from before are of weights that it has given up
        known = max(since, self._segment.heard)
        whole, refused = [], []
        folder = open_folder(self._segment.folder)
        for name in folder.names():
            try:
                checkpoint = folder.load(name)
            except DamagedCheckpoint as error:
                refused.append(str(error))
                continue
            if _first_report(checkpoint) <= known + 1:
                whole.append(checkpoint)
            else:
                where = f"{folder.path(name)} is ahead of the record, which ends at epoch {known}"
                refused.append(f"{where}, and has no older reports.")
        own = next((one for one in whole if one.experiment == self._experiment and one.epoch > since), None)
        found = own or start or next(iter(whole), None)
        if refused:
            where = f"epoch {found.epoch}" if found else "the beginning"
            self._notice = f"{' '.join(refused)} Going on from {where}."
        if found is None or found.experiment == self._experiment:
            return found, known
        return transfer(found, self._experiment), known

    def _keep(self, epoch: int) -> None:
        """Save this epoch where it is due, and delete checkpoints older than the one before."""
        folder, segment = open_folder(self._segment.folder), self._segment
        if not (
            epoch % self._orders.checkpoint_every == 0
            or epoch in (segment.until, segment.epochs)
            or self._stop.exists()
        ):
            return
        assert self._training is not None
        folder.save(checkpoint_name(epoch), self._training)
        folder.delete(folder.names()[KEPT:])

    # --- time ---------------------------------------------------------------------------------------------------------

    @contextmanager
    def _limited(self) -> Iterator[None]:
        """Interrupt what runs inside when the trial's time is up; the seconds of former segments count."""
        if self._orders.seconds is None:
            yield
            return
        spent = self._training.last.metrics["cost/seconds"] if self._training and self._training.last else 0.0
        before = signal.signal(signal.SIGALRM, _out_of_time)
        signal.setitimer(signal.ITIMER_REAL, max(1e-3, self._orders.seconds - spent))
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            signal.signal(signal.SIGALRM, before)


def unseen(marker: Path | None) -> TrialEnded | None:
    """End a segment whose node does not see the run directory of this marker, or cannot write there; None: it does."""
    if marker is None or not (why := obstacle(marker)):
        return None
    reason = f"{socket.gethostname()} cannot use the run directory {marker.parent}: {why}"
    return TrialEnded(outcome=Outcome.node_unfit, reason=reason)


def _first_report(checkpoint: Checkpoint) -> int:
    """Return the first epoch of which a checkpoint has the report; one of version 0.1.0 has the last at most."""
    reports = Progress.restored(checkpoint.progress).reports
    return reports[0].epoch if reports else checkpoint.epoch + 1


def _out_of_time(_number: int, _frame: FrameType | None) -> None:
    raise OutOfTime
