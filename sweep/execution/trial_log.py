"""Write down what happens to the trials of one sweep as it happens, so that a kill at any moment loses nothing.

ledger.csv and curves.csv are append-only: a line whenever a trial begins, waits or ends, and one for every epoch. They
are the truth; trials.csv follows, and so do the observers, which are told after it was written down.
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
from sweep.execution.segment import EpochResult, Segment, TrialEnded
from sweep.execution.session import Session
from sweep.records.outcome import STATES, Outcome
from sweep.records.progress import SweepProgress
from sweep.records.rows import METRICS, CurveRow, ManifestationRow, RowT, TrialRow
from sweep.records.run_directory import SweepFiles
from sweep.records.tables import append_row, cut_half_row, read_rows, write_rows

WRITE_SECONDS = 2.0  # trials.csv is rewritten at most so often while trials run


class TrialLog:
    """The rows of one sweep: of its search, or of its final phases."""

    def __init__(self, session: Session, files: SweepFiles, splits: dict[Portion, Splits]) -> None:
        """Read what an earlier session has recorded. InputError: one of its files is damaged."""
        self.session, self.files, self._splits = session, files, splits
        self.progress = SweepProgress.read(files.progress)
        self.curves = recorded(files.curves, CurveRow)
        self.rows = _standing(recorded(files.ledger, TrialRow), self.curves, session.gpus_per_trial)
        tables = recorded(files.manifestations, ManifestationRow)
        self._tables = {(table.number, table.scheme, table.steps) for table in tables}
        self._observers: list[Observer] = []
        self._written = 0.0

    def attach(self, observers: Sequence[Observer]) -> None:
        """Tell these observers what was recorded so far, and from now on what happens."""
        for observer in observers:
            observer.take_up(self.in_order(), self.curves)
            self._observers.append(observer)

    # --- what happens -------------------------------------------------------------------------------------------------

    def begin(self, segment: Segment) -> None:
        """Record that a segment is about to run, its trial's first or another."""
        known = self.rows.get(segment.number)
        data_hash = self._splits[segment.experiment.data.portion].hash
        row = first_row(self.session, segment, data_hash) if known is None else known
        row = replace(
            row, outcome=Outcome.running, reason="", ray="RUNNING", legs=row.legs + 1, schedule=segment.schedule
        )
        self._note(row)
        for observer in self._observers:
            observer.began(row, segment)

    def epoch(self, segment: Segment, result: EpochResult) -> bool:
        """Record an epoch; False where a worker that was lost had reported it before."""
        row = self.rows[segment.number]
        if result.weights != row.model_parameters:  # its first epoch, or it was refined
            row = self.rows[segment.number] = replace(row, model_parameters=result.weights)
            append_row(self.files.ledger, row)
        if result.epoch <= row.epochs:
            return False
        curve = curve_row(segment.number, result)
        append_row(self.files.curves, curve)
        gpu_seconds = (curve.cost_seconds - row.seconds) * self.session.gpus_per_trial
        row = replace(with_curve(row, curve), gpu_seconds=row.gpu_seconds + max(0.0, gpu_seconds))
        self.rows[row.number] = row
        for observer in self._observers:
            observer.epoch(row, curve)
        self._write_at_times()
        return True

    def stand(self, segment: Segment, outcome: Outcome, reason: str, ray: str) -> TrialRow:
        """Record how a trial stands now that its segment has ended."""
        row = replace(self.rows[segment.number], outcome=outcome, reason=reason, ray=ray)
        self._note(row)
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
        for observer in self._observers:
            observer.stands(row, None)
        return row

    def finish(self, reason: str) -> int:
        """Write the last state; trials that still run were cut short. Returns how many wait to be taken up."""
        for row in self._running():
            cut = replace(row, outcome=Outcome.interrupted, reason=reason, ray=STATES[Outcome.interrupted].ray)
            append_row(self.files.ledger, cut)
            self.rows[row.number] = cut
            for observer in self._observers:
                observer.cut_short(cut)
        self.write()
        return sum(row.outcome is Outcome.interrupted for row in self.rows.values())

    def write(self) -> None:
        write_rows(self.files.trials, TrialRow, self.in_order())
        self.progress.write(self.files.progress)
        self._written = time.monotonic()

    def in_order(self) -> list[TrialRow]:
        return [self.rows[number] for number in sorted(self.rows)]

    def _running(self) -> list[TrialRow]:
        return [row for row in self.rows.values() if row.outcome is Outcome.running]

    def _note(self, row: TrialRow) -> None:
        append_row(self.files.ledger, row)
        self.rows[row.number] = row
        self._write_at_times()

    def _write_at_times(self) -> None:
        if time.monotonic() - self._written > WRITE_SECONDS:
            self.write()


def recorded(file: Path, row_type: type[RowT]) -> list[RowT]:
    """Read the whole rows of a table that grows; none where there is no file. InputError: it is damaged."""
    if not file.exists():
        return []
    cut_half_row(file)
    return read_rows(file, row_type)


def _standing(ledger: list[TrialRow], curves: list[CurveRow], gpus: float) -> dict[int, TrialRow]:
    """Find how each trial stood when the last session ended, by number.

    Epochs that a killed driver left out of the ledger are in the curves; their seconds count as GPU time, too.
    """
    rows = {row.number: row for row in ledger}
    for curve in curves:
        row = rows.get(curve.number)
        if row is not None and curve.epoch > row.epochs:
            gpu_seconds = max(0.0, curve.cost_seconds - row.seconds) * gpus
            rows[curve.number] = replace(with_curve(row, curve), gpu_seconds=row.gpu_seconds + gpu_seconds)
    lost, ray = Outcome.interrupted, STATES[Outcome.interrupted].ray
    for number, row in rows.items():
        if row.outcome is Outcome.running:
            rows[number] = replace(row, outcome=lost, reason="its driver was lost", ray=ray)
    return rows


def first_row(session: Session, segment: Segment, data_hash: str) -> TrialRow:
    """Build the row of a trial that has not reported yet."""
    experiment = segment.experiment
    return TrialRow(
        sweep=session.name,
        family=session.config.space.name,
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
        dataset=experiment.data.dataset.value,
        per_class=experiment.data.per_class,
        draw=experiment.data.draw,
        seed=experiment.training.seed,
        config_hash=identity(experiment),
        data_hash=data_hash,
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
