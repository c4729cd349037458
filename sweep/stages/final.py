"""`sweep final NAME` or `sweep final path/to/best.yaml`: confirm the top trials over seeds, retrain the crowned one.

Confirm trains on train and is judged on val. Final trains the crowned configuration on train+val over fresh seeds, for
the same number of epochs; nothing is chosen there. The first final seed, fixed beforehand, is the registered model.
"""

import shutil
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from odenet.config import ExperimentConfig
from odenet.data import Portion, Splits, load_data
from odenet.seeding import derive
from sweep.config.overrides import override
from sweep.config.schema import AppConfig, save
from sweep.errors import InputError, WorkError
from sweep.execution.list_source import Ended, Job, ListSource
from sweep.execution.run import Batch, Work, run_works
from sweep.execution.session import Session
from sweep.execution.trial_log import Book, mlflow_key
from sweep.records.best import Best, changed, read_best, write_best
from sweep.records.checkpoints import checkpoint_file
from sweep.records.files import write_text
from sweep.records.outcome import Outcome
from sweep.records.progress import Progress
from sweep.records.rows import Phase, TrialRow, ranked
from sweep.records.run_directory import SweepFiles, run_directory
from sweep.records.tables import read_rows
from sweep.tracking.outbox import Run
from sweep.tuning.problem import question


@dataclass(frozen=True, slots=True)
class Candidate:
    """A configuration to confirm; `number` is the search trial it comes from. `schedule`: how a population changed its
    parameters in mid-training, from epoch 0 on; empty for all others."""

    number: int
    parameters: dict[str, Any]
    experiment: ExperimentConfig
    schedule: list[Any]

    def segments(self, changes: dict[str, Any]) -> list[tuple[int, ExperimentConfig]]:
        """Experiments in turn, each from an epoch on. Raises ValueError: the schedule sets what cannot be."""
        parts = [(one["epoch"], one["parameters"]) for one in self.schedule] or [(0, {})]
        return [(epoch, override(self.experiment, {**parameters, **changes})) for epoch, parameters in parts]

    def job(self, session: Session, phase: Phase, index: int, number: int) -> Job:
        """The seeds depend on phase and index only: families and candidates are compared on the same ones."""
        seed = derive(session.config.search.seed, phase.value, index) % 2**31
        portion = Portion.trainval if phase is Phase.final else Portion.train
        return Job(
            number=number,
            phase=phase,
            candidate=self.number,
            parameters=self.parameters,
            segments=self.segments({"training.seed": seed, "data.portion": portion.value}),
        )


class Final(Work):
    """The confirming trials and, once they have ended, those of the crowned configuration."""

    def __init__(self, session: Session) -> None:
        """Raises InputError as `check_final`."""
        self._candidates, splits = check_final(session.config, session.name)
        self._chance = 1 / splits[Portion.train].classes
        files, seeds = session.files.final, session.config.final
        files.directory.mkdir(parents=True, exist_ok=True)
        write_text(files.config, save(session.config))
        session.tracker.start(Run(session.run_key, session.name), tags={"kind": "sweep"}, params={})
        pairs = [(candidate, index) for candidate in self._candidates for index in range(seeds.confirm_seeds)]
        if len(self._candidates) == 1:
            pairs = []  # nothing to choose between
        self._confirm = [one.job(session, Phase.confirm, index, n) for n, (one, index) in enumerate(pairs)]
        source = ListSource(
            self._confirm, self._follow_up, len(self._confirm) + seeds.seeds, files.directory / "checkpoints"
        )
        self.batch = Batch(session, source, Book(session, files, splits), splits)

    def _follow_up(self, told: Ended) -> list[Job]:
        session, crowned = self.batch.session, crown(self._candidates, self._confirm, told, self._chance)
        _write_crowned(session, crowned, self.batch.splits)
        first = len(self._confirm)
        seeds = range(session.config.final.seeds)
        return [crowned.job(session, Phase.final, index, first + index) for index in seeds]

    def conclude(self) -> None:
        session, rows = self.batch.session, self.batch.book.in_order()
        try:
            _keep_checkpoints(session, [row for row in rows if row.phase is Phase.final])
        except WorkError:
            self.stopped("FAILED")
            raise
        session.tracker.end(session.run_key, "FINISHED")

    def stopped(self, status: str) -> None:
        self.batch.session.tracker.end(self.batch.session.run_key, status)


def final(session: Session) -> None:
    """Writes final/trials.csv, final/curves.csv, final/crowned.yaml and one checkpoint per final seed.

    Raises:
        InputError: nothing to confirm, done already, or the data is not there. WorkError: no final seed ended done.
    """
    run_works([Final(session)], f"final {session.name}", session.files.final.directory / "ray")


def crown(candidates: list[Candidate], jobs: list[Job], told: Ended, chance: float) -> Candidate:
    """The candidate with the best mean objective over the confirming seeds; a failed one counts as chance, ties go to
    the better search rank."""
    if not jobs:
        return candidates[0]
    values: dict[int, list[float]] = {candidate.number: [] for candidate in candidates}
    for job in jobs:
        row = told[job.number]
        counts = row.outcome is Outcome.done and row.objective is not None
        values[job.candidate].append((row.objective or 0.0) if counts else chance)
    return max(candidates, key=lambda candidate: fmean(values[candidate.number]))


def check_final(config: AppConfig, name: str) -> tuple[list[Candidate], dict[Portion, Splits]]:
    """What is to be confirmed, on what data. Raises InputError, before anything is started."""
    files = SweepFiles(run_directory(config, name))
    if Progress.read(files.final.progress).finished:
        raise InputError(f"{name} has final trials already; remove {files.final.directory} to train again.")
    return _candidates(config, name), load_splits(config)


def _candidates(config: AppConfig, name: str) -> list[Candidate]:
    files = SweepFiles(run_directory(config, name))
    try:
        found = _of_best(files) if not files.trials.exists() else _of_trials(config, files)
        for one in found:
            one.segments({})
    except ValueError as error:
        raise InputError(f"{files.directory}: {error}") from error
    if not found:
        raise InputError(f"{name} has no trial that ended done: there is nothing to retrain.")
    return found


def _of_best(files: SweepFiles) -> list[Candidate]:
    """A best.yaml alone, copied here by the command."""
    best = read_best(files.best)
    origin = best.provenance
    return [Candidate(origin.get("trial", 0), origin.get("parameters", {}), best.experiment, best.schedule)]


def _of_trials(config: AppConfig, files: SweepFiles) -> list[Candidate]:
    _, experiment = question(config)
    return [
        Candidate(row.number, row.parameters, override(experiment, row.parameters), changed(row))
        for row in ranked(read_rows(files.trials, TrialRow))[: config.final.top]
    ]


def load_splits(config: AppConfig) -> dict[Portion, Splits]:
    """The data of both phases. InputError where it, or the device, is not there."""
    try:
        config.check_device()
        return {
            portion: load_data(replace(config.data, portion=portion), config.runtime.data_dir) for portion in Portion
        }
    except ValueError as error:
        raise InputError(str(error)) from error


def _write_crowned(session: Session, crowned: Candidate, splits: dict[Portion, Splits]) -> None:
    origin = read_best(session.files.best).provenance
    mine = {"trial": crowned.number, "parameters": crowned.parameters, "data_hash": splits[Portion.train].hash}
    origin = {**origin, **mine, "phase": Phase.confirm.value}
    write_best(session.files.crowned, Best(crowned.experiment, origin, crowned.schedule))
    session.tracker.artifact(session.run_key, session.files.crowned)


def _keep_checkpoints(session: Session, rows: list[TrialRow]) -> None:
    done, folder = [row for row in rows if row.outcome is Outcome.done], session.files.final.directory / "checkpoints"
    if not done:
        reasons = "; ".join(sorted({f"{row.outcome.value}: {row.reason}" for row in rows}))
        raise WorkError(
            f"No final seed of {session.name} ended done ({reasons}); {session.files.final.trials} lists them."
        )
    for row in done:
        shutil.copyfile(checkpoint_file(folder / f"{row.number:06d}", row.epochs), session.files.checkpoint(row.number))
    first = min(done, key=lambda row: row.number)
    session.tracker.model(mlflow_key(first), session.files.checkpoint(first.number), session.name.replace("/", "."))
    shutil.rmtree(folder)
