"""The MLflow runs of a sweep: its own run, and below it one run for every trial."""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from odenet.data.config import Portion
from odenet.data.subsets import Splits
from odenet.training.config import to_plain
from search_spaces import Space
from sweep.execution.observers import Observer
from sweep.execution.segment import Segment
from sweep.execution.session import Session
from sweep.records.files import write_text
from sweep.records.outcome import STATES
from sweep.records.rows import METRICS, CurveRow, TrialRow
from sweep.tracking.lines import KnownRuns
from sweep.tracking.outbox import Described, TrackedRun


class SweepRun:
    """The sweep's own run, parent of its trials': what was searched, what was found, and how each stage ended."""

    def __init__(self, session: Session) -> None:
        self._session, self._tracker, self._key = session, session.tracker, session.run_key

    def searches(self, space: Space) -> None:
        """Show configuration and space of a search that begins or goes on."""
        config, files = self._session.config, self._session.files
        tags = {"family": config.space.name, "kind": "sweep", "sampler": config.search.sampler.value}
        tags["directory"] = str(self._session.directory)  # tells sweeps of one name in one store apart
        params = {
            f"{part}.{key}": value
            for part, values in to_plain(config.experiment).items()
            for key, value in values.items()
        }
        self._tracker.start(TrackedRun(self._key, self._session.name), tags=tags, params=params)
        self._tracker.artifact(self._key, files.config)
        write_text(files.space, json.dumps(space.to_dict(), indent=2) + "\n")
        self._tracker.artifact(self._key, files.space)

    def found(self, objective: float) -> None:
        """Show the best trial of the search."""
        self._tracker.artifact(self._key, self._session.files.best)
        self._tracker.metrics(self._key, {"objective": objective}, 0)

    def retrains(self) -> None:
        self._tracker.start(TrackedRun(self._key, self._session.name), tags={"kind": "sweep"}, params={})

    def crowned(self) -> None:
        """Show which configuration was confirmed."""
        self._tracker.artifact(self._key, self._session.files.crowned)

    def registers(self, row: TrialRow, checkpoint: Path, card: Described) -> None:
        """Register the network of this trial as the sweep's model."""
        key = self._tracker.told().attempt(trial_key(row), row.trial_id)
        self._tracker.model(key, checkpoint, model_name(self._session.name), card)
        self._tracker.artifact(key, card.file)

    def describes(self, row: TrialRow, card: Described) -> None:
        """Describe the model anew that was registered from this trial."""
        key = self._tracker.told().attempt(trial_key(row), row.trial_id)
        self._tracker.describe(key, model_name(self._session.name), card)
        self._tracker.artifact(key, card.file)

    def evaluated(self, scores: Iterable[tuple[TrialRow, dict[str, float]]]) -> None:
        """Show what the final networks have reached on the test set, and the table with all of it."""
        told = self._tracker.told()
        for row, metrics in scores:
            key = told.attempt(trial_key(row), row.trial_id)
            if key not in told:  # its runs were tracked elsewhere
                tags = {"trial_id": row.trial_id, "phase": row.phase.value}
                self._tracker.start(TrackedRun(key, f"final-{row.number}", self._key), tags=tags, params={})
            self._tracker.metrics(key, metrics, row.epochs)
            if key not in told:
                self._tracker.end(key, "FINISHED")
        self._tracker.artifact(self._key, self._session.files.rows)

    def end(self, status: str) -> None:
        """End the run with MLflow's word for it: FINISHED, FAILED or KILLED."""
        self._tracker.end(self._key, status)


class TrialRuns(Observer):
    """An observer that keeps one MLflow run per trial. A resumed sweep adds what a killed driver had recorded and not
    yet passed on; a trial that has the number of an earlier one, trained again, has a run of its own."""

    def __init__(self, session: Session, splits: dict[Portion, Splits]) -> None:
        self._parent, self._tracker = session.run_key, session.tracker
        self._portions = {data.hash: portion for portion, data in reversed(splits.items())}
        self._told = KnownRuns()  # by earlier sessions

    def take_up(self, rows: Sequence[TrialRow], curves: Sequence[CurveRow]) -> None:
        told, by_number = self._tracker.told(), defaultdict(list)
        self._told = told
        for curve in curves:
            by_number[curve.number].append(curve)
        for row in rows:
            key = self._key(row)
            if key not in told:
                self._start(row)
            for curve in by_number[row.number]:
                if curve.epoch > told.step(key):
                    self.epoch(row, curve)
            if told.status(key) != STATES[row.outcome].mlflow:
                self.cut_short(row)

    def began(self, row: TrialRow, segment: Segment) -> None:  # noqa: ARG002
        self._start(row)

    def epoch(self, row: TrialRow, curve: CurveRow) -> None:
        key = self._key(row)
        if curve.epoch > self._told.step(key):  # else a loss of power took it from the curves, not from the outbox
            self._tracker.metrics(key, curve_metrics(curve), curve.epoch)

    def stands(self, row: TrialRow, segment: Segment | None) -> None:  # noqa: ARG002
        self.cut_short(row)

    def cut_short(self, row: TrialRow) -> None:
        tags = {"outcome": row.outcome.value, "reason": row.reason}
        self._tracker.end(self._key(row), STATES[row.outcome].mlflow, tags)

    def _key(self, row: TrialRow) -> str:
        return self._told.attempt(trial_key(row), row.trial_id)

    def _start(self, row: TrialRow) -> None:
        key = self._key(row)
        run = TrackedRun(key=key, name=key.rpartition("/")[2], parent=self._parent)
        tags = {name: getattr(row, name) for name in ("trial_id", "family", "config_hash", "proposed_by")}
        params = {**row.parameters, "training.seed": row.seed}
        self._tracker.start(run, tags={**tags, "phase": row.phase.value}, params=params)
        if row.legs <= 1:
            self._tracker.dataset(key, row.dataset, row.data_hash, self._portions[row.data_hash].value)


def trial_key(row: TrialRow) -> str:
    """Return the outbox's key for the run of this trial, where no other one had it before."""
    return f"{row.sweep}/{row.phase.value}-{row.number}"


def model_name(sweep: str) -> str:
    """Return the name of a sweep's model in MLflow's registry, where the network to use has the alias champion."""
    return sweep.replace("/", ".")


def curve_metrics(curve: CurveRow) -> dict[str, float]:
    values = {name: getattr(curve, name.replace("/", "_")) for name in METRICS}
    return {name: float(value) for name, value in values.items() if value is not None}
