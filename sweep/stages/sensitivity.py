"""`sweep sensitivity NAME`: train the selected configuration of a search and its neighbours -> sensitivity/trials.csv.

Each is an ordinary trial, trained on train and judged on val; nothing is chosen by it, and no test image is read. All
have the same seeds, other ones than the search, so that the selected configuration has no luck that others lack.
"""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from statistics import fmean
from typing import Any

from odenet.data.config import Portion
from odenet.data.subsets import Splits
from odenet.seeding import derive
from odenet.training.config import identity
from sweep.config.overrides import override
from sweep.config.schema import AppConfig, save
from sweep.config.sensitivity_config import SensitivityConfig
from sweep.console import say
from sweep.errors import InputError, WorkError
from sweep.execution.list_source import Job, ListSource
from sweep.execution.mlflow_runs import SweepRun
from sweep.execution.run import Batch, Work, run_works
from sweep.execution.session import Session
from sweep.execution.trial_log import TrialLog
from sweep.records.best import Best, read_best, write_best
from sweep.records.files import write_text
from sweep.records.outcome import Outcome
from sweep.records.progress import SweepProgress
from sweep.records.protocol import record_deviation
from sweep.records.rows import Phase, TrialRow
from sweep.records.run_directory import FORMER_SENSITIVITY, SweepFiles, run_directory
from sweep.records.stage_record import BegunStage, record_stage
from sweep.records.tables import read_rows
from sweep.stages.final import load_splits
from sweep.stages.resume import check_records
from sweep.study.frozen import check_frozen, record_allowed
from sweep.tuning.local_grid import LocalGrid, local_grid


@dataclass(frozen=True, slots=True)
class PreparedSensitivity:
    """The selected configuration, all trainings around it, how many of them are to be done, the data, and how many
    seconds the selected one took in its search, if that is known."""

    center: Best
    grid: LocalGrid
    jobs: list[Job]
    left: int
    splits: dict[Portion, Splits]
    seconds: float | None

    def announced(self, asked: SensitivityConfig) -> Iterator[str]:
        """Say what is going to be trained, what is not, and about how long it takes."""
        epochs = self.center.experiment.training.epochs
        each = "" if self.seconds is None else (
            f", as the selected configuration took {self.seconds:.0f} s in its search about "
            f"{timedelta(seconds=round(self.left * self.seconds))} one after another"
        )  # fmt: skip
        yield (
            f"{len(self.grid.points)} configurations, n={asked.seeds} (the selected one, trial "
            f"{self.center.provenance.get('trial', 0)}, n={asked.center_seeds}): {self.left} trainings of {epochs} "
            f"epochs are left{each}"
        )
        yield from (f"left out: {reason}" for reason in self.grid.left_out)


class Sensitivity(Work):
    """The trainings around the selected configuration of one sweep."""

    def __init__(self, session: Session, prepared: PreparedSensitivity) -> None:
        self._run = SweepRun(session)
        files, jobs = session.files.sensitivity, prepared.jobs
        files.directory.mkdir(parents=True, exist_ok=True)
        record_stage(session.files.stage, BegunStage.sensitivity)
        _record(session, prepared)
        write_text(files.config, save(session.config))
        write_best(files.best, prepared.center)
        self._run.varies(prepared.splits[Portion.train])
        source = ListSource(jobs, lambda _: [], len(jobs), session.folders(files))
        self.batch = Batch(session, source, TrialLog(session, files, prepared.splits), prepared.splits)

    @property
    def resumed_as(self) -> str:
        return self.batch.session.name  # the study of a sweep has no part in this

    def conclude(self) -> None:
        session, rows = self.batch.session, self.batch.log.in_order()
        files = session.files.sensitivity
        shutil.rmtree(files.checkpoints, ignore_errors=True)  # nothing is made of them
        if not any(row.outcome is Outcome.done for row in rows):
            self.stopped("FAILED")
            reasons = "; ".join(sorted({f"{row.outcome.value}: {row.reason}" for row in rows}))
            raise WorkError(f"No training around {session.name} ended done ({reasons}); {files.trials} lists them.")
        self.stopped("FINISHED")
        say(f"{session.name}: {_summary(rows)}; {files.trials} has all", session.console)

    def stopped(self, status: str) -> None:
        self._run.end(status)


def sensitivity(session: Session, prepared: PreparedSensitivity) -> None:
    """Write sensitivity/trials.csv, sensitivity/curves.csv and sensitivity/best.yaml, the configuration around which.

    Raises:
        InputError: a file that an earlier session left is damaged. Interrupted, StorageError, WorkError: as
            `run_works`.
    """
    directory = session.files.sensitivity.directory / "ray"
    run_works([Sensitivity(session, prepared)], f"sensitivity {session.name}", directory)


def _record(session: Session, prepared: PreparedSensitivity) -> None:
    """Record what is trained beyond the protocol of a study."""
    record_allowed(session.config, session.name)
    if protocol := check_frozen(session.config, session.name):
        trial, asked = prepared.center.provenance.get("trial", 0), session.config.sensitivity
        what = (
            f"local sensitivity around trial {trial}: {len(prepared.grid.points)} configurations, n={asked.seeds} "
            f"(the selected one n={asked.center_seeds}), on validation images"
        )
        record_deviation(protocol, session.name, what)


def _summary(rows: list[TrialRow]) -> str:
    done = [row.objective for row in rows if row.outcome is Outcome.done and row.objective is not None]
    reached = f", objectives {min(done):.1%} to {max(done):.1%}, mean {fmean(done):.1%}" if done else ""
    return f"{len(rows)} trainings around the selected configuration, {len(done)} done{reached}"


def prepare_sensitivity(config: AppConfig, name: str) -> PreparedSensitivity:
    """Read the selected configuration, the data, and what was trained around it before; write nothing.

    Raises:
        InputError: nothing is selected yet, it was changed in mid-training, all was trained already, or around another
            configuration; a file is damaged, or the data is not there.
    """
    files = SweepFiles(run_directory(config, name))
    center = _selected(files, name)
    splits = load_splits(config)
    check_frozen(config, name, splits[Portion.train].hash)
    grid = local_grid(config.sensitivity, center.experiment)
    known = {row.number: row for row in check_records(files.sensitivity)}
    if known:
        _check_center(files, name, center)
    jobs = _jobs(config, center, grid, known)
    left = sum(job.number not in known or not known[job.number].outcome.ended for job in jobs)
    if not left and SweepProgress.read(files.sensitivity.progress).finished:
        raise InputError(
            f"All {len(jobs)} trainings around the selected configuration of {name} were done; "
            f"{files.sensitivity.trials} has them. More are asked for by sensitivity.lr_factors=[...], "
            "sensitivity.weight_decay_factors, step_factors, batch_factors, seeds."
        )
    return PreparedSensitivity(center, grid, jobs, left, splits, _seconds(files, center))


def _selected(files: SweepFiles, name: str) -> Best:
    """Read the crowned configuration, or before there is one the best of the search."""
    if files.study.exists():
        parts = sorted(path.parent.name for path in files.directory.glob("*/config.yaml"))
        raise InputError(
            f"{name} is a study: name one of its sweeps, such as {name}/{parts[0] if parts else 'FAMILY-dDRAW'}; it "
            f"has {', '.join(parts) or 'none yet'}."
        )
    if files.trials.exists() and not SweepProgress.read(files.progress).finished:
        raise InputError(f"The search of {name} has not ended: `sweep resume {name}` goes on, then ask again.")
    chosen = next((file for file in (files.crowned, files.best) if file.exists()), None)
    if chosen is None:
        raise InputError(f"{name} has no selected configuration: no trial of its search ended done.")
    center = read_best(chosen)
    if center.schedule:
        raise InputError(
            f"{chosen} was changed in mid-training by its population, so that it has no one learning rate or weight "
            "decay to vary; possible are configurations of other schedulers."
        )
    return center


def _check_center(files: SweepFiles, name: str, center: Best) -> None:
    """Raise InputError where the trainings on record are around another configuration."""
    former = read_best(files.sensitivity.best)
    if identity(former.experiment) != identity(center.experiment):
        trials = [one.provenance.get("trial", 0) for one in (former, center)]
        raise InputError(
            f"{files.sensitivity.directory} is around trial {trials[0]}, and the selected configuration of {name} is "
            f"trial {trials[1]} by now. Rename that folder to {FORMER_SENSITIVITY}1 to train around the present one."
        )


def _jobs(config: AppConfig, center: Best, grid: LocalGrid, known: dict[int, TrialRow]) -> list[Job]:
    """List the trainings: those asked for, and those begun before. One on record keeps its number, whatever else is
    asked for by now."""
    asked, numbers = config.sensitivity, {row.config_hash: number for number, row in known.items()}
    jobs = {number: _job(center, row.parameters, row.seed, number) for number, row in known.items()}
    jobs = {number: job for number, job in jobs.items() if not known[number].outcome.ended}
    for index in range(asked.center_seeds):
        seed = derive(config.search.seed, Phase.sensitivity.value, index) % 2**31
        for point in grid.points if index < asked.seeds else grid.points[:1]:
            job = _job(center, point, seed, max([*known, *jobs], default=-1) + 1)
            number = numbers.get(identity(job.experiments[0][1]), job.number)
            jobs[number] = replace(job, number=number)
    return [jobs[number] for number in sorted(jobs)]


def _job(center: Best, point: dict[str, Any], seed: int, number: int) -> Job:
    changes = {**point, "training.seed": seed, "data.portion": Portion.train.value}
    return Job(
        number=number,
        phase=Phase.sensitivity,
        candidate=center.provenance.get("trial", 0),
        parameters=point,
        experiments=[(0, override(center.experiment, changes))],
    )


def _seconds(files: SweepFiles, center: Best) -> float | None:
    rows = read_rows(files.trials, TrialRow) if files.trials.exists() else []
    return next((row.seconds for row in rows if row.number == center.provenance.get("trial")), None)
