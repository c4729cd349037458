"""Who is told what happens to the trials of a sweep: MLflow (`mlflow_runs`), the user (`display`), the checkpoints."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from sweep.execution.segment import Segment
from sweep.records.checkpoints import checkpoint_files
from sweep.records.outcome import Outcome
from sweep.records.rows import CurveRow, TrialRow


class Observer:
    """Told by the trial log, after it has written down what happened. A killed driver may not have come to that."""

    def take_up(self, rows: Sequence[TrialRow], curves: Sequence[CurveRow]) -> None:
        """What earlier sessions have recorded, first of all."""

    def began(self, row: TrialRow, segment: Segment) -> None:
        """A trial begins or goes on."""

    def epoch(self, row: TrialRow, curve: CurveRow) -> None:
        """A trial has trained an epoch."""

    def stands(self, row: TrialRow, segment: Segment | None) -> None:
        """A trial waits, or has ended. `segment` is what ended; None for a trial that waited for another one."""

    def cut_short(self, row: TrialRow) -> None:
        """A trial still ran when the session ended."""


class CheckpointCleaner(Observer):
    """Deletes the checkpoints that nobody will need: those of a trial that ended, but the newest where it is done."""

    def stands(self, row: TrialRow, segment: Segment | None) -> None:
        if segment is None or not row.outcome.ended:
            return
        folder = Path(segment.folder)
        if row.outcome is not Outcome.done:
            shutil.rmtree(folder, ignore_errors=True)
            return
        for file in checkpoint_files(folder)[1:]:
            file.unlink(missing_ok=True)
