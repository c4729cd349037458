"""`sweep final NAME` or `sweep final path/to/best.yaml`: confirm the top trials over seeds, retrain the crowned one.

Confirm trains on train and is judged on val. Final trains the crowned configuration on train+val over fresh seeds, for
the same number of epochs; nothing is chosen there. The first final seed, fixed beforehand, is the registered model.
"""

import shutil
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from odenet.config import ExperimentConfig, to_plain
from odenet.data import Portion, Splits, load_data
from odenet.seeding import derive
from sweep.best import Best, read_best, write_best
from sweep.config import AppConfig, override
from sweep.errors import InputError, WorkError
from sweep.export import Phase, TrialRow, ranked, read_rows
from sweep.outcome import Outcome
from sweep.recorder import Ended, mlflow_key
from sweep.runner import Batch, Work, run_works
from sweep.searcher import ListSearcher, Told
from sweep.session import Session, SweepFiles, run_directory
from sweep.tracking import Run


@dataclass(frozen=True, slots=True)
class Candidate:
    """A configuration to confirm; `number` is the search trial it comes from."""

    number: int
    parameters: dict[str, Any]
    experiment: ExperimentConfig


class Final(Work):
    """The confirming trials and, once they have ended, those of the crowned configuration."""

    def __init__(self, session: Session) -> None:
        """Raises InputError as `check_final`."""
        self._candidates, splits = check_final(session.config, session.name)
        self._chance = 1 / splits[Portion.train].classes
        files, seeds = session.files.final, session.config.final
        files.directory.mkdir(parents=True, exist_ok=True)
        session.tracker.start(Run(session.run_key, session.name), tags={"kind": "sweep"}, params={})
        pairs = [(candidate, index) for candidate in self._candidates for index in range(seeds.confirm_seeds)]
        if len(self._candidates) == 1:
            pairs = []  # nothing to choose between
        self._confirm = _numbered([_job(session, Phase.confirm, *pair) for pair in pairs], 0)
        searcher, total = ListSearcher(self._confirm, self._follow_up), len(self._confirm) + seeds.seeds
        self.batch = Batch(session, searcher, total, splits, files)

    def _follow_up(self, told: Told) -> list[dict[str, Any]]:
        session, crowned = self.batch.session, crown(self._candidates, self._confirm, told, self._chance)
        _write_crowned(session, crowned, self.batch.splits)
        jobs = [_job(session, Phase.final, crowned, index) for index in range(session.config.final.seeds)]
        return _numbered(jobs, len(self._confirm))

    def conclude(self, ended: list[Ended]) -> None:
        session = self.batch.session
        try:
            _keep_checkpoints(session, [end for end in ended if end.row.phase is Phase.final])
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


def crown(candidates: list[Candidate], jobs: list[dict[str, Any]], told: Told, chance: float) -> Candidate:
    """The candidate with the best mean objective over the confirming seeds; a failed one counts as chance, ties go to
    the better search rank."""
    if not jobs:
        return candidates[0]
    values: dict[int, list[float]] = {candidate.number: [] for candidate in candidates}
    for number, job in enumerate(jobs):
        outcome, objective = told[number]
        values[job["candidate"]].append(objective if outcome is Outcome.done and objective is not None else chance)
    return max(candidates, key=lambda candidate: fmean(values[candidate.number]))


def check_final(config: AppConfig, name: str) -> tuple[list[Candidate], dict[Portion, Splits]]:
    """What is to be confirmed, on what data. Raises InputError, before anything is started."""
    files = SweepFiles(run_directory(config, name))
    if files.final.trials.exists():
        raise InputError(f"{name} has final trials already; remove {files.final.directory} to train again.")
    return _candidates(config, name), load_splits(config)


def _candidates(config: AppConfig, name: str) -> list[Candidate]:
    files = SweepFiles(run_directory(config, name))
    if not files.trials.exists():  # retrained from a best.yaml, copied here by the command
        best = read_best(files.best)
        return [Candidate(best.provenance.get("trial", 0), best.provenance.get("parameters", {}), best.experiment)]
    rows = ranked(read_rows(files.trials, TrialRow))[: config.final.top]
    if not rows:
        raise InputError(f"{name} has no trial that ended done: there is nothing to retrain.")
    try:
        return [Candidate(row.number, row.parameters, override(config.experiment, row.parameters)) for row in rows]
    except ValueError as error:
        raise InputError(f"{files.trials}: {error}") from error


def load_splits(config: AppConfig) -> dict[Portion, Splits]:
    """The data of both phases. InputError where it, or the device, is not there."""
    try:
        config.check_device()
        return {
            portion: load_data(replace(config.data, portion=portion), config.runtime.data_dir) for portion in Portion
        }
    except ValueError as error:
        raise InputError(str(error)) from error


def _job(session: Session, phase: Phase, candidate: Candidate, index: int) -> dict[str, Any]:
    """The seeds depend on phase and index only: families and candidates are compared on the same ones."""
    seed = derive(session.config.search.seed, phase.value, index) % 2**31
    portion = Portion.trainval if phase is Phase.final else Portion.train
    experiment = override(candidate.experiment, {"training.seed": seed, "data.portion": portion.value})
    return {
        "phase": phase.value,
        "candidate": candidate.number,
        "parameters": candidate.parameters,
        "experiment": to_plain(experiment),
    }


def _numbered(jobs: list[dict[str, Any]], first: int) -> list[dict[str, Any]]:
    return [{**job, "number": number} for number, job in enumerate(jobs, start=first)]


def _write_crowned(session: Session, crowned: Candidate, splits: dict[Portion, Splits]) -> None:
    origin = read_best(session.files.best).provenance
    mine = {"trial": crowned.number, "parameters": crowned.parameters, "data_hash": splits[Portion.train].hash}
    write_best(session.files.crowned, Best(crowned.experiment, {**origin, **mine, "phase": Phase.confirm.value}))
    session.tracker.artifact(session.run_key, session.files.crowned)


def _keep_checkpoints(session: Session, ended: list[Ended]) -> None:
    done = [end for end in ended if end.row.outcome is Outcome.done]
    if not done:
        reasons = "; ".join(sorted({f"{end.row.outcome.value}: {end.row.reason}" for end in ended}))
        raise WorkError(
            f"No final seed of {session.name} ended done ({reasons}); {session.files.final.trials} lists them."
        )
    for end in done:
        assert end.checkpoint is not None, "a trial that is done has written its last epoch"
        shutil.copyfile(end.checkpoint, session.files.checkpoint(end.row.number))
    first = min(done, key=lambda end: end.row.number)
    session.tracker.model(
        mlflow_key(first.row), session.files.checkpoint(first.row.number), session.name.replace("/", ".")
    )
