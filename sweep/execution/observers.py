"""Observers of a sweep's trials: MLflow (`mlflow_runs`), the user's display (`display`), and the cleaning of
checkpoints."""

from collections.abc import Sequence
from functools import partial

from sweep.records.outcome import Outcome
from sweep.records.rows import CurveRow, TrialRow
from sweep.storage.folders import open_folder
from sweep.storage.mirror import Mirror
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
    one. `mirror`: not before their end is in storage."""

    def __init__(self, mirror: Mirror | None = None) -> None:
        self._mirror = mirror

    def stands(self, row: TrialRow, segment: Segment | None) -> None:
        if segment is None or not row.outcome.ended:
            return
        clean = partial(_clean, segment.folder, row.outcome)
        if self._mirror is None:
            clean()
        else:
            self._mirror.after_next(clean)


def _clean(place: str, outcome: Outcome) -> None:
    folder = open_folder(place, patience=0.0)  # the mirror asks again
    if outcome is Outcome.done:
        folder.delete(folder.names()[1:])
    else:
        folder.remove()
