"""What happens to the trials of one sweep, written down as it happens, so that any moment is a good one to be killed.

ledger.csv and curves.csv are append-only: a line whenever a trial begins, waits or ends, and one for every epoch. They
are the truth; trials.csv, the Optuna study and MLflow follow, and catch up when a sweep is taken up again.
"""

import shutil
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

from odenet.config import ExperimentConfig, from_plain, identity
from odenet.data import Portion, Splits
from sweep.config.search_config import Objective, SearchConfig
from sweep.execution.display import ProgressDisplay
from sweep.execution.segment import Leg
from sweep.execution.session import Session
from sweep.records.checkpoints import checkpoint_files
from sweep.records.outcome import STATES, Outcome
from sweep.records.progress import Progress
from sweep.records.rows import CurveRow, ManifestationRow, Row, TrialRow
from sweep.records.run_directory import SweepFiles
from sweep.records.tables import append_row, cut_half_row, read_rows, write_rows
from sweep.tracking.outbox import Run

WRITE_SECONDS = 2.0  # trials.csv is rewritten at most so often while trials run


class Book:
    """The rows of one sweep (of its search, or of its final phases), in step with Ray, Optuna and MLflow."""

    def __init__(self, session: Session, files: SweepFiles, splits: dict[Portion, Splits]) -> None:
        """Reads what an earlier session has recorded. InputError: a file of it is damaged."""
        self.session, self.files, self._splits = session, files, splits
        self.rows: dict[int, TrialRow] = {}
        self.curves: list[CurveRow] = []
        self.progress = Progress.read(files.progress)
        self._gpus = 0.0  # that a trial has
        self._uncounted: dict[int, float] = {}  # seconds of epochs that came after a trial's last line in the ledger
        self._tables: set[tuple[int, str, int]] = set()  # number, scheme, steps in manifestations.csv
        self._display: ProgressDisplay | None = None
        self._written = 0.0
        self._read()

    def _read(self) -> None:
        self.rows = {row.number: row for row in recorded(self.files.ledger, TrialRow)}
        self.curves = recorded(self.files.curves, CurveRow)
        for curve in self.curves:
            row = self.rows.get(curve.number)
            if row is not None and curve.epoch > row.epochs:
                seconds = self._uncounted.get(curve.number, 0.0) + max(0.0, curve.cost_seconds - row.seconds)
                self._uncounted[curve.number] = seconds
                self.rows[curve.number] = with_curve(row, curve)
        for row in [row for row in self.rows.values() if row.outcome is Outcome.running]:
            ray = STATES[Outcome.interrupted].ray
            self.rows[row.number] = replace(row, outcome=Outcome.interrupted, reason="its driver was lost", ray=ray)
        tables = recorded(self.files.manifestations, ManifestationRow)
        self._tables = {(table.number, table.scheme, table.steps) for table in tables}

    def price(self, gpus: float) -> None:
        """Says how many GPUs a trial has. What a killed driver had not counted counts with as many."""
        self._gpus = gpus
        for number, seconds in self._uncounted.items():
            row = self.rows[number]
            self.rows[number] = replace(row, gpu_seconds=row.gpu_seconds + seconds * gpus)
        self._uncounted = {}

    def retell(self) -> None:
        """MLflow hears what the killed driver had recorded and not yet passed on."""
        if not self.rows:
            return
        told, curves = self.session.tracker.told(), defaultdict(list)
        for curve in self.curves:
            curves[curve.number].append(curve)
        for row in self.in_order():
            key = mlflow_key(row)
            if key not in told:
                self._tell_start(row)
            for curve in [curve for curve in curves[row.number] if curve.epoch > told.step(key)]:
                self.session.tracker.metrics(key, curve_metrics(curve), curve.epoch)
            if told.status(key) != STATES[row.outcome].mlflow:
                self._tell_state(row)

    def show_on(self, display: ProgressDisplay) -> None:
        self._display = display
        for row in self.in_order():
            display.update(row, self.session.config.training.epochs, heard=False)

    def say(self, text: str) -> None:
        """A line for the user, beside the live display."""
        if self._display is not None:
            self._display.say(f"{self.session.name} {text}")

    # --- what happens -------------------------------------------------------------------------------------------------

    def begin(self, leg: Leg) -> None:
        """A leg is about to run: its trial's first, or another."""
        known = self.rows.get(leg.number)
        row = first_row(self.session, leg, self._data_hash(leg)) if known is None else known
        row = replace(row, outcome=Outcome.running, reason="", ray="RUNNING", legs=row.legs + 1, schedule=leg.schedule)
        self._note(row, leg.epochs)
        self._tell_start(row)

    def epoch(self, leg: Leg, result: dict[str, Any]) -> bool:
        """An epoch was reported; False where it was before, by a worker that was lost."""
        row = self.rows[leg.number]
        if result["parameters"] != row.model_parameters:  # its first epoch, or it was refined
            row = self.rows[leg.number] = replace(row, model_parameters=result["parameters"])
            append_row(self.files.ledger, row)
        if result["epoch"] <= row.epochs:
            return False
        curve = curve_row(leg.number, result)
        append_row(self.files.curves, curve)
        gpu_seconds = (curve.cost_seconds - row.seconds) * self._gpus
        row = replace(with_curve(row, curve), gpu_seconds=row.gpu_seconds + max(0.0, gpu_seconds))
        self.session.tracker.metrics(mlflow_key(row), curve_metrics(curve), curve.epoch)
        self.rows[row.number] = row
        self._shown(row, leg.epochs)
        return True

    def stand(self, leg: Leg, outcome: Outcome, reason: str, ray: str) -> TrialRow:
        """A leg ended, and this is how the trial stands now."""
        row = replace(self.rows[leg.number], outcome=outcome, reason=reason, ray=ray)
        self._note(row, leg.epochs)
        self._tell_state(row)
        if outcome.ended:
            self._drop_checkpoints(leg, keep=int(outcome is Outcome.done))
        return row

    def measured(self, leg: Leg, result: dict[str, Any], config: SearchConfig) -> None:
        """What a trial that is done has measured at its end."""
        for table in [ManifestationRow(number=leg.number, **table) for table in result.get("manifestations", [])]:
            if (table.number, table.scheme, table.steps) not in self._tables:
                append_row(self.files.manifestations, table)
        limits = config.constraints.limits()
        measured = {name: float(result[f"footprint/{name}"]) for name in limits}
        values = {}
        if len(config.objectives) > 1:
            row = self.rows[leg.number]
            values = {one.value: objective_value(one, row, result) for one in config.objectives}
        self.rows[leg.number] = replace(
            self.rows[leg.number],
            objectives=values,
            constraints=measured,
            feasible=all(measured[name] <= limit for name, limit in limits.items()),
        )

    def end_waiting(self, number: int, reason: str) -> TrialRow:
        """A trial that waits will not go on."""
        row = replace(self.rows[number], outcome=Outcome.pruned, reason=reason)
        append_row(self.files.ledger, row)
        self.rows[number] = row
        self._shown(row, self.session.config.training.epochs)
        self._tell_state(row)
        return row

    def finish(self, reason: str) -> int:
        """Writes the last state; trials that still run were cut short. Returns how many wait to be taken up."""
        for row in [row for row in self.rows.values() if row.outcome is Outcome.running]:
            ended = replace(row, outcome=Outcome.interrupted, reason=reason, ray=STATES[Outcome.interrupted].ray)
            append_row(self.files.ledger, ended)
            self.rows[row.number] = ended
            self._tell_state(ended)
        self.write()
        return sum(row.outcome is Outcome.interrupted for row in self.rows.values())

    def write(self) -> None:
        write_rows(self.files.trials, TrialRow, self.in_order())
        self.progress.write(self.files.progress)
        self._written = time.monotonic()

    def in_order(self) -> list[TrialRow]:
        return [self.rows[number] for number in sorted(self.rows)]

    def _data_hash(self, leg: Leg) -> str:
        return self._splits[Portion[leg.experiment["data"]["portion"]]].hash

    # --- how it is passed on ------------------------------------------------------------------------------------------

    def _note(self, row: TrialRow, epochs: int) -> None:
        append_row(self.files.ledger, row)
        self.rows[row.number] = row
        self._shown(row, epochs)

    def _shown(self, row: TrialRow, epochs: int) -> None:
        if self._display is not None:
            self._display.update(row, epochs)
        if time.monotonic() - self._written > WRITE_SECONDS:
            self.write()

    def _tell_start(self, row: TrialRow) -> None:
        key = mlflow_key(row)
        run = Run(key=key, name=f"{row.phase.value}-{row.number}", parent=self.session.run_key)
        tags = {name: getattr(row, name) for name in ("trial_id", "family", "config_hash", "proposed_by")}
        params = {**row.parameters, "training.seed": row.seed}
        self.session.tracker.start(run, tags={**tags, "phase": row.phase.value}, params=params)
        if row.legs <= 1:
            portion = next(portion for portion, splits in self._splits.items() if splits.hash == row.data_hash)
            self.session.tracker.dataset(key, row.dataset, row.data_hash, portion.value)

    def _tell_state(self, row: TrialRow) -> None:
        tags = {"outcome": row.outcome.value, "reason": row.reason}
        self.session.tracker.end(mlflow_key(row), STATES[row.outcome].mlflow, tags)

    def _drop_checkpoints(self, leg: Leg, keep: int) -> None:
        folder = Path(leg.folder)
        for file in checkpoint_files(folder)[keep:]:
            file.unlink(missing_ok=True)
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


def recorded(file: Path, row_type: type[Row]) -> list[Row]:
    """The whole rows of a table that grows; none where it is not there. InputError: it is damaged."""
    if not file.exists():
        return []
    cut_half_row(file)
    return read_rows(file, row_type)


METRICS = (
    "train/loss", "val/loss", "val/accuracy", "objective", "cost/train_gflops", "cost/seconds", "cost/rate_evaluations",
    "depth/steps", "depth/nodes", "gradient/drift",
)  # fmt: skip


def mlflow_key(row: TrialRow) -> str:
    """What the outbox calls a trial's run."""
    return f"{row.sweep}/{row.phase.value}-{row.number}"


def first_row(session: Session, leg: Leg, data_hash: str) -> TrialRow:
    """The row of a trial that has not reported yet."""
    experiment = from_plain(ExperimentConfig, leg.experiment)
    return TrialRow(
        sweep=session.name,
        family=session.config.space.name,
        phase=leg.phase,
        number=leg.number,
        trial_id=leg.trial_id,
        candidate=leg.candidate,
        outcome=Outcome.running,
        reason="",
        parameters=leg.parameters,
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
        proposed_by=leg.proposed_by,
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


def curve_row(number: int, result: dict[str, Any]) -> CurveRow:
    values: dict[str, Any] = {name.replace("/", "_"): result.get(name) for name in METRICS}
    for count in ("cost_rate_evaluations", "depth_steps", "depth_nodes"):
        values[count] = int(values[count])
    return CurveRow(number=number, epoch=result["epoch"], **values)


def curve_metrics(curve: CurveRow) -> dict[str, float]:
    values = {name: getattr(curve, name.replace("/", "_")) for name in METRICS}
    return {name: float(value) for name, value in values.items() if value is not None}


def objective_value(objective: Objective, row: TrialRow, result: dict[str, Any]) -> float:
    """One of several objectives of a trial that is done."""
    if objective is Objective.accuracy:
        return row.objective or 0.0
    if objective is Objective.robustness:
        others = [table["accuracy"] for table in result["manifestations"] if not table["trained"]]
        return sum(others) / len(others)
    return float(result[f"footprint/{objective.value}"])
