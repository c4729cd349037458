"""`sweep final NAME` or `sweep final path/to/best.yaml`: confirm the top trials over seeds, retrain the crowned one.

Confirm trains on train and is judged on val. Final trains the crowned configuration on train+val over fresh seeds, for
the same number of epochs; nothing is chosen there. The first final seed, fixed beforehand, is the registered model.
It is registered as what leaves: `odenet.Classifier`, which takes images and not normalised ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from statistics import fmean
from typing import Any

from odenet.data.config import Portion
from odenet.data.subsets import Splits, load_data
from odenet.seeding import derive
from odenet.training.config import ExperimentConfig
from sweep.config.overrides import override
from sweep.config.schema import AppConfig, save
from sweep.errors import InputError, WorkError
from sweep.execution.list_source import Ended, Job, ListSource
from sweep.execution.mlflow_runs import SweepRun, model_name
from sweep.execution.run import Batch, Work, run_works
from sweep.execution.session import Session
from sweep.execution.trial_log import TrialLog
from sweep.records.best import Best, crowned, crowned_sentence, read_best, read_candidates, write_best
from sweep.records.checkpoints import checkpoint_name
from sweep.records.files import storing, write_text
from sweep.records.outcome import Outcome
from sweep.records.progress import SweepProgress
from sweep.records.rows import Phase, TrialRow, ranked
from sweep.records.run_directory import FORMER, SweepFiles, run_directory, store_directory
from sweep.records.stage_record import BegunStage, record_stage
from sweep.records.tables import read_rows
from sweep.stages.model_card import model_card
from sweep.storage.folders import open_folder
from sweep.study.frozen import check_frozen, record_allowed
from sweep.tracking.state import lag
from sweep.tuning.arms import equal_terms
from sweep.tuning.problem import build_problem


@dataclass(frozen=True, slots=True)
class Candidate:
    """A configuration to confirm; `number` is the search trial it comes from."""

    number: int
    best: Best

    def experiments(self, changes: dict[str, Any]) -> list[tuple[int, ExperimentConfig]]:
        """List the experiments in turn, each from an epoch on. ValueError: the schedule sets what cannot be."""
        parts = [(one["epoch"], one["parameters"]) for one in self.best.schedule] or [(0, {})]
        return [(epoch, override(self.best.experiment, {**parameters, **changes})) for epoch, parameters in parts]

    def job(self, session: Session, phase: Phase, index: int, number: int) -> Job:
        """Build a job whose seeds depend on phase and index only: families and candidates are compared on the same
        ones."""
        seed = derive(session.config.search.seed, phase.value, index) % 2**31
        portion = Portion.trainval if phase is Phase.final else Portion.train
        return Job(
            number=number,
            phase=phase,
            candidate=self.number,
            parameters=self.best.provenance.get("parameters", {}),
            experiments=self.experiments({"training.seed": seed, "data.portion": portion.value}),
        )


@dataclass(frozen=True, slots=True)
class PreparedFinal:
    """The candidates to be confirmed, the best first, and the data."""

    candidates: list[Candidate]
    splits: dict[Portion, Splits]


class Final(Work):
    """The confirming trials and, once they have ended, those of the crowned configuration."""

    def __init__(self, session: Session, prepared: PreparedFinal) -> None:
        self._candidates, splits, self._run = prepared.candidates, prepared.splits, SweepRun(session)
        self._chance = 1 / splits[Portion.train].classes
        files, seeds = session.files.final, session.config.final
        files.directory.mkdir(parents=True, exist_ok=True)
        record_stage(session.files.stage, BegunStage.final)
        record_allowed(session.config, session.name)
        write_text(files.config, save(session.config))
        self._run.retrains(splits[Portion.trainval])
        pairs = [(candidate, index) for candidate in self._candidates for index in range(seeds.confirm_seeds)]
        if len(self._candidates) == 1:
            pairs = []  # nothing to choose between
        self._confirm = [one.job(session, Phase.confirm, index, n) for n, (one, index) in enumerate(pairs)]
        source = ListSource(self._confirm, self._follow_up, len(self._confirm) + seeds.seeds, session.folders(files))
        self.batch = Batch(session, source, TrialLog(session, files, splits), splits)

    def _follow_up(self, told: Ended) -> list[Job]:
        session, chosen = self.batch.session, crown(self._candidates, self._confirm, told, self._chance)
        values = confirmations(self._confirm, told, self._chance).get(chosen.number, [])
        write_best(session.files.crowned, crowned(chosen.best, values, self.batch.splits[Portion.train].hash))
        self._run.crowned()
        first, seeds = len(self._confirm), range(session.config.final.seeds)
        return [chosen.job(session, Phase.final, index, first + index) for index in seeds]

    def conclude(self) -> None:
        rows = self.batch.log.in_order()
        try:
            self._keep_checkpoints([row for row in rows if row.phase is Phase.final])
        except WorkError:
            self.stopped("FAILED")
            raise
        self.stopped("FINISHED")

        self._say_crowned(min(row.number for row in rows if _is_network(row)))

    def _say_crowned(self, first: int) -> None:
        session, files, seeds = self.batch.session, self.batch.session.files, self.batch.session.config.final.seeds
        said = [
            crowned_sentence(read_best(files.crowned)),
            f"retrained on train and val over {seeds} fresh seed{'s' * (seeds > 1)}, none of them chosen: the first, "
            f"{files.checkpoint(first)}, is the MLflow model {model_name(session.name)}, alias champion",
        ]
        for line in said:
            session.console.print(f"{session.name}: {line}", highlight=False)

    def stopped(self, status: str) -> None:
        self._run.end(status)

    def _keep_checkpoints(self, rows: list[TrialRow]) -> None:
        session, files = self.batch.session, self.batch.session.files
        done, folders = [row for row in rows if _is_network(row)], session.folders(files.final)
        if not done:
            reasons = "; ".join(sorted({f"{row.outcome.value}: {row.reason}" for row in rows}))
            raise WorkError(f"No final seed of {session.name} ended done ({reasons}); {files.final.trials} lists them.")
        for row in done:
            if not files.checkpoint(row.number).exists():  # by a session that was killed here
                folder = open_folder(folders.of(row.number, row.trial_id))
                folder.copy_to(checkpoint_name(row.epochs), files.checkpoint(row.number))
        place = open_folder(folders.place)
        if place.is_there():
            first = min(done, key=lambda row: row.number)
            self._run.keeps(done)
            self._run.registers(first, files.checkpoint(first.number), model_card(session, first, rows))
            if session.mirror is None:
                place.remove()
            else:
                session.mirror.after_next(place.remove)  # not before the copies are in storage


def final(session: Session, prepared: PreparedFinal) -> None:
    """Write final/trials.csv, final/curves.csv, final/crowned.yaml and one checkpoint per final seed.

    Raises:
        InputError: a file that an earlier session left is damaged. WorkError: no final seed ended done.
    """
    run_works([Final(session, prepared)], f"final {session.name}", session.files.final.directory / "ray")


def _is_network(row: TrialRow) -> bool:
    return row.phase is Phase.final and row.outcome is Outcome.done


def confirmations(jobs: list[Job], told: Ended, chance: float) -> dict[int, list[float]]:
    """Return the objectives of the confirming seeds by candidate; a failed one counts as chance, and one that was lost
    with its worker or node says nothing."""
    values: dict[int, list[float]] = {}
    for job in jobs:
        row = told[job.number]
        if row.outcome.retried:
            continue
        counts = row.outcome is Outcome.done and row.objective is not None
        values.setdefault(job.candidate, []).append((row.objective or 0.0) if counts else chance)
    return values


def crown(candidates: list[Candidate], jobs: list[Job], told: Ended, chance: float) -> Candidate:
    """Choose the candidate with the best mean objective over the confirming seeds; ties go to the better search
    rank."""
    if not jobs:
        return candidates[0]
    values = confirmations(jobs, told, chance)
    return max(candidates, key=lambda candidate: fmean(values.get(candidate.number) or [0.0]))


def prepare_final(config: AppConfig, name: str, again: bool = False) -> PreparedFinal:
    """Read what is to be confirmed, and the data. `again`: also where that was done already.

    Raises:
        InputError: nothing to confirm, done already, or the data is not there; before anything is started.
    """
    files = SweepFiles(run_directory(config, name))
    if again:
        check_again(config, name, [files])
    elif SweepProgress.read(files.final.progress).finished:
        raise InputError(
            f"{name} has final trials already; `sweep final {name} --again` puts {files.final.directory} away, with "
            "its results, and trains again."
        )
    splits = load_splits(config)
    check_frozen(config, name, splits[Portion.train].hash)
    try:
        found = _best_few(config, files, splits[Portion.train])
        candidates = [Candidate(best.provenance.get("trial", 0), best) for best in found]
        for one in candidates:
            one.experiments({})
    except ValueError as error:
        raise InputError(f"{files.directory}: {error}") from error
    if not candidates:
        raise InputError(f"{name} has no trial that ended done: there is nothing to retrain.")
    return PreparedFinal(candidates, splits)


def check_again(config: AppConfig, name: str, sweeps: Sequence[SweepFiles]) -> None:
    """Raise InputError where none of these sweeps, `name` or those of it, has final training, or MLflow was not told
    all of it yet."""
    if not any(files.final.directory.exists() for files in sweeps):
        raise InputError(f"{name} has no final training to be done again: `sweep final {name}` begins it.")
    if undelivered := lag(store_directory(config, name)).lines:
        raise InputError(
            f"MLflow was not told {undelivered} lines about {name} yet, and they name files that would be put away: "
            f"run `sweep deliver {name}` first."
        )


def put_away(files: SweepFiles) -> Path:
    """Move final training and what the test set said of it to a directory of its own; that the test set was used stays
    known there.

    Raises:
        StorageError: the directory cannot be moved.
    """
    former = next(path for n in count(1) if not (path := files.directory / f"{FORMER}{n}").exists())
    with storing(former, 0):
        files.final.directory.rename(former)
        for file in (files.rows, files.predictions):
            if file.exists():
                file.rename(former / file.name)
    return former


def prepare_retraining(config: AppConfig, best: Best) -> PreparedFinal:
    """Prepare to retrain the best.yaml of another directory. InputError: the data or the device is not there."""
    return PreparedFinal([Candidate(best.provenance.get("trial", 0), best)], load_splits(config))


def _best_few(config: AppConfig, files: SweepFiles, train: Splits) -> list[Best]:
    """Read the complete experiments that the search wrote when it ended, or a retrained best.yaml.

    They are made from the trials where a search has not ended, or is of a version that wrote none, and where more are
    asked for.
    """
    if not files.trials.exists():
        return [read_best(files.best)]
    ended = SweepProgress.read(files.progress).finished
    written = read_candidates(files.candidates) if ended and files.candidates.exists() else []
    if len(written) >= config.final.top:
        return written[: config.final.top]
    rows = ranked(read_rows(files.trials, TrialRow))[: config.final.top]
    if len(written) == len(rows):
        return written
    problem = replace(build_problem(config), terms=equal_terms(config.study, train))
    return [problem.best(row) for row in rows]


def load_splits(config: AppConfig) -> dict[Portion, Splits]:
    """Load the data of both phases. InputError: it, or the device, is not there."""
    try:
        config.check_device()
        return {
            portion: load_data(replace(config.data, portion=portion), config.runtime.data_dir) for portion in Portion
        }
    except ValueError as error:
        raise InputError(str(error)) from error
