"""Observers of a sweep's trials: MLflow (`mlflow_runs`), the user's display (`display`), and the cleaning of
checkpoints."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from sweep.records.checkpoints import checkpoint_files
from sweep.records.outcome import Outcome
from sweep.records.rows import CurveRow, TrialRow
from sweep.worker.segment import Segment


class Observer:
    """The base of all observers. The trial log tells them after it has written down; a killed driver may not have got
    so far."""

    def take_up(self, rows: Sequence[TrialRow], curves: Sequence[CurveRow]) -> None:
        """Take up what earlier sessions have recorded; called first of all."""

    def began(self, row: TrialRow, segment: Segment) -> None:
        """Hear that a trial begins or goes on."""

    def placed(self, row: TrialRow) -> None:
        """Hear that a trial's segment runs, on the host that the row names."""

    def epoch(self, row: TrialRow, curve: CurveRow) -> None:
        """Hear that a trial has trained an epoch."""

    def stands(self, row: TrialRow, segment: Segment | None) -> None:
        """Hear that a trial waits or has ended. `segment` is what ended; None for a trial that waited for another
        one."""

    def cut_short(self, row: TrialRow) -> None:
        """Hear that a trial still ran when the session ended."""


class CheckpointCleaner(Observer):
    """An observer that deletes checkpoints nobody will need: all of a failed trial, all but the newest of a done
    one."""

    def stands(self, row: TrialRow, segment: Segment | None) -> None:
        if segment is None or not row.outcome.ended:
            return
        folder = Path(segment.folder)
        if row.outcome is not Outcome.done:
            shutil.rmtree(folder, ignore_errors=True)
            return
        for file in checkpoint_files(folder)[1:]:
            file.unlink(missing_ok=True)
