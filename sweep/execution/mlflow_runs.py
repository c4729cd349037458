"""The MLflow runs of a sweep: its own run, and below it one run for every trial."""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from odenet.data.config import Portion
from odenet.data.subsets import Splits
from search_spaces import Space
from sweep.errors import StorageError
from sweep.execution.observers import Observer
from sweep.execution.session import Session
from sweep.records.files import write_text
from sweep.records.outcome import STATES
from sweep.records.provenance import sweep_id
from sweep.records.rows import METRICS, CurveRow, Phase, TrialRow
from sweep.records.run_directory import SweepFiles
from sweep.records.summary import SweepSummary
from sweep.tracking.description import NOTE, description, searched_params, source_tags
from sweep.tracking.lines import IDENTITY, KnownRuns
from sweep.tracking.outbox import Described, TrackedRun
from sweep.worker.segment import Segment


class SweepRun:
    """The sweep's own run, parent of its trials': what was searched, what was found, and how each stage ended."""

    def __init__(self, session: Session) -> None:
        self._session, self._tracker, self._key = session, session.tracker, session.run_key

    def searches(self, space: Space, splits: Splits) -> None:
        """Show configuration and space of a search that begins or goes on."""
        config, files = self._session.config, self._session.files
        self._begins("search", {"sampler": config.search.sampler.value}, searched_params(config, space))
        self._reads(splits, config.data.portion)
        self._tracker.artifact(self._key, files.config)
        write_text(files.space, json.dumps(space.to_dict(), indent=2) + "\n")
        self._tracker.artifact(self._key, files.space)

    def retrains(self, splits: Splits) -> None:
        """Show that configurations are confirmed and retrained, in the run of their search where it was tracked."""
        self._begins("final", {}, {})
        self._reads(splits, Portion.trainval)

    def varies(self, splits: Splits) -> None:
        """Show that neighbours of the selected configuration are trained, in the run of its search."""
        self._begins("sensitivity", {}, {})
        self._reads(splits, Portion.train)

    def found(self) -> None:
        """Show the best configuration of the search."""
        self._tracker.artifact(self._key, self._session.files.best)

    def crowned(self) -> None:
        """Show which configuration was confirmed."""
        self._tracker.artifact(self._key, self._session.files.crowned)

    def keeps(self, rows: Iterable[TrialRow]) -> None:
        """Attach the checkpoint that each of these trials ended with."""
        told = self._tracker.told()
        for row in rows:
            file = self._session.files.checkpoint(row.number)
            self._tracker.artifact(told.attempt(trial_key(row), row.trial_id), file, "checkpoint")

    def registers(self, row: TrialRow, checkpoint: Path, card: Described) -> None:
        """Register the network of this trial as the sweep's model."""
        key = self._tracker.told().attempt(trial_key(row), row.trial_id)
        self._tracker.model(key, checkpoint, model_name(self._key), card)
        self._tracker.artifact(key, card.file)

    def describes(self, row: TrialRow, card: Described) -> None:
        """Describe the model anew that was registered from this trial."""
        key = self._tracker.told().attempt(trial_key(row), row.trial_id)
        self._tracker.describe(key, model_name(self._key), card)
        self._tracker.artifact(key, card.file)

    def evaluated(self, scores: Iterable[tuple[TrialRow, dict[str, float]]]) -> None:
        """Show what the final networks have reached on the test set, and the table with all of it."""
        told = self._tracker.told()
        for row, metrics in scores:
            key = told.attempt(trial_key(row), row.trial_id)
            if key not in told:  # its runs were tracked elsewhere
                run = TrackedRun(key, f"final {row.candidate}, trial {row.number}", self._key)
                tags = {"trial_id": row.trial_id, "phase": row.phase.value}
                self._tracker.start(run, tags=tags, params={})
            self._tracker.metrics(key, metrics, row.epochs)
            if key not in told:
                self._tracker.end(key, "FINISHED")
        self._tracker.artifact(self._key, self._session.files.rows)
        self._tracker.tags(self._key, self._results())

    def end(self, status: str) -> None:
        """End the run with MLflow's word for it, FINISHED, FAILED or KILLED, and with the results so far."""
        files = self._session.files
        for part in files.parts:
            if part.trials.exists():
                folder = "" if part is files else part.directory.name
                self._tracker.artifact(self._key, part.trials, folder)
        self._tracker.end(self._key, status, self._results())

    def _begins(self, stage: str, tags: dict[str, str], params: dict[str, str]) -> None:
        """Begin the run, or take it up again as it is: parameters are those that the sweep began with."""
        session, family = self._session, self._session.config.space.label
        tags |= {"family": family, "kind": "sweep", "directory": str(session.directory)}  # tells sweeps of a name apart
        tags |= {NOTE: description(session.config, SweepSummary([], [], [])), **source_tags(stage, self._key)}
        tags |= _identity(session)
        known = self._key in self._tracker.told()
        run = TrackedRun(self._key, self._key)
        self._tracker.start(run, tags=tags, params={} if known else params)

    def _reads(self, splits: Splits, portion: Portion) -> None:
        name = self._session.config.data.dataset.value
        self._tracker.dataset(self._key, name, splits.hash, portion.value, images(splits))

    def _results(self) -> dict[str, str]:
        """Log the figures so far, and return the tags that say them in words."""
        summary = SweepSummary.read(self._session.files)
        step = (
            self._tracker.told().step(self._key) + 1
        )  # after all others, whatever the clock says, also where less is known
        self._tracker.metrics(self._key, summary.metrics(), step)
        return {NOTE: description(self._session.config, summary)}


class TrialRuns(Observer):
    """An observer that keeps one MLflow run per trial. A resumed sweep adds what a killed driver had recorded and not
    yet passed on; a trial that has the number of an earlier one, trained again, has a run of its own."""

    def __init__(self, session: Session, splits: dict[Portion, Splits]) -> None:
        self._session, self._tracker = session, session.tracker
        self._data = {data.hash: (portion, data) for portion, data in reversed(splits.items())}
        self._told = KnownRuns()  # by earlier sessions
        self._unclaimed: dict[int, list[CurveRow]] = {}  # of trials that a damaged ledger lacks
        self._alike: dict[tuple[Phase, int], set[int]] = defaultdict(set)  # numbers of one configuration's trials

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
        known = {row.number for row in rows}
        self._unclaimed = {number: found for number, found in by_number.items() if number not in known}

    def began(self, row: TrialRow, segment: Segment) -> None:  # noqa: ARG002
        self._start(row)
        for curve in self._unclaimed.pop(row.number, []):
            self.epoch(row, curve)

    def epoch(self, row: TrialRow, curve: CurveRow) -> None:
        key = self._key(row)
        if curve.epoch > self._told.step(key):  # else a loss of power took it from the curves, not from the outbox
            self._tracker.metrics(key, curve_metrics(curve), curve.epoch)

    def stands(self, row: TrialRow, segment: Segment | None) -> None:  # noqa: ARG002
        self.cut_short(row)

    def cut_short(self, row: TrialRow) -> None:
        tags = {"outcome": row.outcome.value, "reason": row.reason}
        tags |= {name: text for name in ("host", "gpu") if (text := getattr(row, name))}
        files = self._files_of(row.phase)
        if (failure := files.failure(row.number)).exists() and STATES[row.outcome].mlflow == "FAILED":
            self._tracker.artifact(self._key(row), failure)
        self._tracker.end(self._key(row), STATES[row.outcome].mlflow, tags)

    def _files_of(self, phase: Phase) -> SweepFiles:
        files = self._session.files
        return {Phase.search: files, Phase.sensitivity: files.sensitivity}.get(phase, files.final)

    def _key(self, row: TrialRow) -> str:
        return self._told.attempt(trial_key(row), row.trial_id)

    def _start(self, row: TrialRow) -> None:
        key = self._key(row)
        run = TrackedRun(key=key, name=self._name(row, key), parent=self._session.run_key)
        named = ("trial_id", "family", "config_hash", "proposed_by")
        tags = {name: text for name in named if (text := getattr(row, name))}
        stage = "final" if row.phase is Phase.confirm else row.phase.value
        tags |= {"phase": row.phase.value, **source_tags(stage, self._session.name)}
        self._tracker.start(run, tags=tags, params={**row.parameters, "training.seed": row.seed})
        if row.legs <= 1:
            portion, splits = self._data[row.data_hash]
            self._tracker.dataset(key, row.dataset, row.data_hash, portion.value, images(splits))

    def _name(self, row: TrialRow, key: str) -> str:
        """Name a run so that a narrow table shows which it is: trial 7, final 3 seed 1."""
        again = key.partition("#")[2]
        again = f" #{again}" if again else ""
        if row.phase in (Phase.search, Phase.sensitivity):
            return f"{'trial' if row.phase is Phase.search else row.phase.value} {row.number}{again}"
        alike = self._alike[row.phase, row.candidate]
        alike.add(row.number)
        return f"{row.phase.value} {row.candidate} seed {sum(number <= row.number for number in alike)}{again}"


@contextmanager
def study_run(session: Session) -> Iterator[None]:
    """Keep a run of the study beside those of its sweeps, with its configuration and its report, while it is at
    work."""
    config, key, files = session.config, session.run_key, session.files
    families, draws = ", ".join(config.study.families), ", ".join(map(str, config.study.draws))
    note = f"A study of {families} on {config.data.dataset.value}, draws {draws}; each sweep has a run of its own."
    tags = {"kind": "study", NOTE: note, **source_tags("study", session.name), **_identity(session)}
    session.tracker.start(TrackedRun(key, key), tags=tags, params={})
    session.tracker.artifact(key, files.study)
    try:
        yield
    except BaseException as error:
        with suppress(StorageError):  # what went wrong inside is to be said
            session.tracker.end(key, "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
        raise
    session.tracker.artifact(key, files.report)
    session.tracker.end(key, "FINISHED")


def _identity(session: Session) -> dict[str, str]:
    """Return the tag by which the run is found again where outbox and delivered.json are both lost."""
    found = sweep_id(session.files.origin)
    return {IDENTITY: found} if found else {}


def trial_key(row: TrialRow) -> str:
    """Return the outbox's key for the run of this trial, where no other one had it before."""
    return f"{row.sweep}/{row.phase.value}-{row.number}"


def images(splits: Splits) -> dict[str, int]:
    """Count the images of each part of the data."""
    return {"train": len(splits.train)} | ({} if splits.val is None else {"val": len(splits.val)})


def model_name(sweep: str) -> str:
    """Return the name of a sweep's model in MLflow's registry, where the network to use has the alias champion."""
    return sweep.replace("/", ".")


def curve_metrics(curve: CurveRow) -> dict[str, float]:
    values = {name: getattr(curve, name.replace("/", "_")) for name in METRICS}
    return {name: float(value) for name, value in values.items() if value is not None}
