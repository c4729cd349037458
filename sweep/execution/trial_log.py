"""Write down what happens to the trials of one sweep as it happens, so that a kill at any moment loses nothing.

ledger.csv and curves.csv are append-only: a line whenever a trial begins, waits or ends, and one for every epoch. They
are the truth; trials.csv follows, and so do the observers, which are told after it was written down.

After a loss of power one file may be ahead of another. Curves are believed before the ledger: a trial that has not
ended goes on from the last epoch that they know, and its worker reports again what its checkpoint has beyond that. An
ending is on the disk, and the curves before it, before anybody is told of it or a checkpoint is deleted.
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from odenet.data.config import Portion
from odenet.data.subsets import Splits
from odenet.training.config import identity
from sweep.config.search_config import Objective, SearchConfig
from sweep.execution.observers import Observer
from sweep.execution.session import Session
from sweep.records.files import cut_sentence, make_directory, sync, write_text
from sweep.records.outcome import STATES, Outcome
from sweep.records.progress import SweepProgress
from sweep.records.rows import METRICS, WAITS, CurveRow, ManifestationRow, RowT, TrialRow
from sweep.records.run_directory import SweepFiles
from sweep.records.tables import append_row, cut_half_row, take_up_rows, write_rows
from sweep.worker.segment import EpochResult, Segment, TrialEnded, WorkerPlace

WRITE_SECONDS = 2.0  # trials.csv is rewritten at most so often while trials run,
WRITE_PART = 0.05  # and for at most this part of the time: with 10,000 trials it takes 0.8 s


class TrialLog:
    """The rows of one sweep: of its search, or of its final phases."""

    def __init__(self, session: Session, files: SweepFiles, splits: dict[Portion, Splits]) -> None:
        """Read what an earlier session has recorded. InputError: one of its files is damaged."""
        self.session, self.files, self._splits = session, files, splits
        self.notices: list[str] = []  # what was cut off, and what goes back
        self.progress = SweepProgress.read(files.progress)
        self.curves = self._recorded(files.curves, CurveRow)
        self._newest = {curve.number: curve for curve in sorted(self.curves, key=lambda curve: curve.epoch)}
        self.rows = {row.number: row for row in self._recorded(files.ledger, TrialRow)}
        self._believe_curves()
        tables = self._recorded(files.manifestations, ManifestationRow)
        self._tables = {(table.number, table.scheme, table.steps) for table in tables}
        self._observers: list[Observer] = []
        self._write_next = 0.0

    def attach(self, observers: Sequence[Observer]) -> None:
        """Tell these observers what was recorded so far, and from now on what happens."""
        for observer in observers:
            observer.take_up(self.in_order(), self.curves)
            self._observers.append(observer)

    def _recorded(self, file: Path, row_type: type[RowT]) -> list[RowT]:
        """Read the whole rows of a table that grows; none where there is no file. InputError: it is damaged."""
        removed = cut_half_row(file)
        if removed:
            self.notices.append(cut_sentence(file, removed))
        return take_up_rows(file, row_type) if file.exists() else []

    def _believe_curves(self) -> None:
        """Find how each trial stood when the last session ended; one that has ended keeps its result."""
        behind = []
        for number, row in self.rows.items():
            curve = self._newest.get(number)
            known = curve.epoch if curve else 0
            behind += [number] if known < row.epochs else []
            if known > row.epochs or not row.outcome.ended:
                self.rows[number] = as_curves_know(row, curve, self.session.gpus_per_trial)
            if row.outcome is Outcome.running:
                lost, ray = Outcome.interrupted, STATES[Outcome.interrupted].ray
                self.rows[number] = replace(self.rows[number], outcome=lost, reason="its driver was lost", ray=ray)
        if behind:
            which = f"trial {behind[0]}" + (f" and {len(behind) - 1} others" if len(behind) > 1 else "")
            self.notices.append(
                f"{self.files.curves.name} lacks epochs of {which} that {self.files.ledger.name} knows: "
                "what has not ended goes on from there, and is not trained again as far as its checkpoint goes."
            )

    # --- what happens -------------------------------------------------------------------------------------------------

    def begin(self, segment: Segment) -> TrialRow:
        """Record that a segment is about to run, its trial's first or another."""
        row = self.rows.get(segment.number)
        if row is None:
            splits = self._splits[segment.experiment.data.portion]
            first, curve = first_row(self.session, segment, splits), self._newest.get(segment.number)
            row = as_curves_know(first, curve, self.session.gpus_per_trial)
        row = replace(row, outcome=Outcome.running, reason=WAITS, ray="RUNNING", legs=row.legs + 1, host="", gpu="")
        row = replace(row, schedule=segment.schedule)
        self._note(row)
        if row.legs == 1:
            sync(self.files.ledger)  # its id
        for observer in self._observers:
            observer.began(row, segment)
        return row

    def placed(self, number: int, place: WorkerPlace) -> None:
        """Hear that a trial's segment runs, and where. The ledger says it when the segment ends."""
        row = self.rows[number] = replace(self.rows[number], reason="", host=place.host, gpu=place.gpu)
        for observer in self._observers:
            observer.placed(row)
        self._write_at_times()

    def epoch(self, segment: Segment, result: EpochResult) -> bool:
        """Record an epoch; False where a worker that was lost had reported it before."""
        row = self.rows[segment.number]
        if result.weights != row.model_parameters:  # its first epoch, or it was refined
            row = self.rows[segment.number] = replace(row, model_parameters=result.weights)
            append_row(self.files.ledger, row)
            sync(self.files.ledger)  # a trial that waits at its rung has no other segment that would say it again
        if result.epoch <= row.epochs:
            return False
        curve = curve_row(segment.number, result)
        append_row(self.files.curves, curve)
        gpu_seconds = (curve.cost_seconds - row.seconds) * self.session.gpus_per_trial
        row = replace(with_curve(row, curve), reason="", gpu_seconds=row.gpu_seconds + max(0.0, gpu_seconds))
        self.rows[row.number] = row
        for observer in self._observers:
            observer.epoch(row, curve)
        self._write_at_times()
        return True

    def failed(self, segment: Segment, details: str) -> None:
        """Keep what is known of a failure; a later one of the same trial replaces it."""
        make_directory(self.files.failures)
        write_text(self.files.failure(segment.number), details)

    def stand(self, segment: Segment, outcome: Outcome, reason: str, ray: str) -> TrialRow:
        """Record how a trial stands now that its segment has ended."""
        row = replace(self.rows[segment.number], outcome=outcome, reason=reason, ray=ray)
        self._note(row)
        self._sync()
        for observer in self._observers:
            observer.stands(row, segment)
        return row

    def measured(self, number: int, ended: TrialEnded, config: SearchConfig) -> None:
        """Write down what a trial that is done has measured at its end."""
        for measured in ended.manifestations:
            table = ManifestationRow(number=number, **measured)
            if (table.number, table.scheme, table.steps) not in self._tables:
                append_row(self.files.manifestations, table)
        limits, row = config.constraints.limits(), self.rows[number]
        footprint = {name: float(ended.footprint[name]) for name in limits}
        values = {}
        if len(config.objectives) > 1:
            values = {one.value: objective_value(one, row, ended) for one in config.objectives}
        within = all(footprint[name] <= limit for name, limit in limits.items())
        self.rows[number] = replace(row, objectives=values, constraints=footprint, feasible=within)

    def end_waiting(self, number: int, reason: str) -> TrialRow:
        """Record that a waiting trial will not go on."""
        row = replace(self.rows[number], outcome=Outcome.pruned, reason=reason)
        self._note(row)
        self._sync()
        for observer in self._observers:
            observer.stands(row, None)
        return row

    def finish(self, reason: str) -> int:
        """Write the last state; trials that still run were cut short. Returns how many wait to be taken up."""
        self.progress.finished = False
        for row in self._running():
            cut = replace(row, outcome=Outcome.interrupted, reason=reason, ray=STATES[Outcome.interrupted].ray)
            append_row(self.files.ledger, cut)
            self.rows[row.number] = cut
            for observer in self._observers:
                observer.cut_short(cut)
        self._sync()
        self.write()
        return sum(row.outcome is Outcome.interrupted for row in self.rows.values())

    def mark_finished(self) -> None:
        """Record that nothing is left to do, which ends what `sweep resume` goes on with."""
        self.progress.finished = True
        self.progress.write(self.files.progress)

    def write(self) -> None:
        began = time.monotonic()
        write_rows(self.files.trials, TrialRow, self.in_order())
        self.progress.write(self.files.progress)
        ended = time.monotonic()
        self._write_next = ended + max(WRITE_SECONDS, (ended - began) / WRITE_PART)

    def in_order(self) -> list[TrialRow]:
        return [self.rows[number] for number in sorted(self.rows)]

    def _running(self) -> list[TrialRow]:
        return [row for row in self.rows.values() if row.outcome is Outcome.running]

    def _sync(self) -> None:
        sync(self.files.curves, self.files.manifestations, self.files.ledger)

    def _note(self, row: TrialRow) -> None:
        append_row(self.files.ledger, row)
        self.rows[row.number] = row
        self._write_at_times()

    def _write_at_times(self) -> None:
        if time.monotonic() > self._write_next:
            self.write()


def as_curves_know(row: TrialRow, curve: CurveRow | None, gpus: float) -> TrialRow:
    """Set what a row says of its trial's epochs to the last one in the curves, None where they have none of it. The
    seconds between count as GPU time, which a killed driver left out of the ledger, or a loss of power out of the
    curves."""
    known = _BEFORE_ALL if curve is None else curve
    seconds = known.cost_seconds - row.seconds
    if known.epoch >= row.epochs:
        seconds = max(0.0, seconds)
    return replace(with_curve(row, known), gpu_seconds=max(0.0, row.gpu_seconds + seconds * gpus))


def first_row(session: Session, segment: Segment, splits: Splits) -> TrialRow:
    """Build the row of a trial that has not reported yet."""
    experiment = segment.experiment
    return TrialRow(
        sweep=session.run_key,
        family=session.config.space.label,
        phase=segment.phase,
        number=segment.number,
        trial_id=segment.trial_id,
        candidate=segment.candidate,
        outcome=Outcome.running,
        reason="",
        parameters=segment.parameters,
        objective=None,
        epochs=0,
        gflops=0.0,
        seconds=0.0,
        rate_evaluations=0,
        model_parameters=0,
        dataset=experiment.data.name,
        per_class=experiment.data.per_class,
        draw=experiment.data.draw,
        seed=experiment.training.seed,
        config_hash=identity(experiment),
        data_hash=splits.hash,
        classes=splits.classes,
        proposed_by=segment.proposed_by,
    )


def with_curve(row: TrialRow, curve: CurveRow) -> TrialRow:
    return replace(
        row,
        objective=curve.objective,
        epochs=curve.epoch,
        gflops=curve.cost_train_gflops,
        seconds=curve.cost_seconds,
        rate_evaluations=curve.cost_rate_evaluations,
    )


_BEFORE_ALL = CurveRow(
    number=0, epoch=0, train_loss=0.0, val_loss=None, val_accuracy=None, objective=None, cost_train_gflops=0.0,
    cost_seconds=0.0, cost_rate_evaluations=0, depth_steps=0, depth_nodes=0,
)  # fmt: skip


def curve_row(number: int, result: EpochResult) -> CurveRow:
    values = {name.replace("/", "_"): result.metrics.get(name) for name in METRICS}
    counts = {name: int(values.pop(name) or 0) for name in ("cost_rate_evaluations", "depth_steps", "depth_nodes")}
    return CurveRow(number=number, epoch=result.epoch, **values, **counts)  # type: ignore[arg-type]  # by name


def objective_value(objective: Objective, row: TrialRow, ended: TrialEnded) -> float:
    """Return one of several objectives of a trial that is done."""
    if objective is Objective.accuracy:
        return row.objective or 0.0
    if objective is Objective.robustness:
        others = [table["accuracy"] for table in ended.manifestations if not table["trained"]]
        return sum(others) / len(others)
    return float(ended.footprint[objective.value])
