"""`sweep search NAME`: Optuna proposes, Ray Tune runs, MLflow records; writes trials.csv, curves.csv, best.yaml.

A search is begun and taken up again by the same code: what is recorded in the run directory is where it begins.
"""

import json
from dataclasses import replace
from pathlib import Path

from odenet.config import to_plain
from odenet.data import Splits, load_data
from search_spaces import Space
from sweep.config.overrides import override
from sweep.config.schema import AppConfig, save
from sweep.config.search_config import SchedulerKind
from sweep.errors import InputError, WorkError
from sweep.execution.population_source import PopulationSource
from sweep.execution.run import Batch, Work, run_works
from sweep.execution.session import Session
from sweep.execution.trial_log import Book
from sweep.execution.trial_source import SearchSource, Source, Trials
from sweep.records.best import Best, changed, provenance, write_best
from sweep.records.files import write_text
from sweep.records.provenance import check_origin, origin
from sweep.records.rows import ranked
from sweep.records.run_directory import SweepFiles
from sweep.tracking.outbox import Run
from sweep.tuning.ask_and_tell import STUDY_FILE, Proposals
from sweep.tuning.optuna_study import open_study
from sweep.tuning.problem import check_objectives, enqueued, question
from sweep.tuning.schedulers import build_scheduler


def check(config: AppConfig) -> Splits:
    """Refuses, before anything is started, what could only fail later; returns the data.

    Raises:
        InputError: a corner of the space is no possible experiment, what is asked for cannot be searched so, a file to
            enqueue is no good, or the device or the data is not there.
    """
    try:
        config.check_device()
        space, experiment = question(config)
        corners = [override(experiment, corner) for corner in space.corners()]
        for corner in corners:
            config.runtime.check(corner.model)
            check_objectives(config, corner)
        enqueued(config, space)
        return load_data(experiment.data, config.runtime.data_dir)
    except ValueError as error:
        raise InputError(str(error)) from error


def claim_directory(directory: Path) -> None:
    """Makes the run directory.

    Raises:
        InputError: it exists already, or cannot be made.
    """
    try:
        directory.mkdir(parents=True)
    except FileExistsError:
        raise InputError(
            f"{directory.name} exists already in {directory.parent}: choose another name, go on with it by `sweep "
            f"resume {directory.name}`, or remove {directory}."
        ) from None
    except OSError as error:
        raise InputError(
            f"The run directory {directory} cannot be made: {error.strerror}; choose another by runtime.runs_dir=DIR."
        ) from error


class Search(Work):
    """One sweep's trials, begun or taken up again. Interrupted or not, the best of what is done is written."""

    def __init__(self, session: Session) -> None:
        """Raises InputError as `check`, and where what the sweep began with has changed."""
        config, files = session.config, session.files
        splits = check(config)
        self._space, self._experiment = question(config)
        session.directory.mkdir(parents=True, exist_ok=True)
        check_origin(files.origin, origin(self._space, splits), config.search.accept_changes)
        once = replace(config.search, accept_changes=False)  # said now, and not of the next session
        write_text(files.config, save(replace(config, search=once)))
        start_run(session, self._space)
        book = Book(session, files, {config.data.portion: splits})
        self.batch = Batch(session, self._source(session, 1 / splits.classes), book, {config.data.portion: splits})

    def _source(self, session: Session, chance: float) -> Source:
        config, files = session.config, session.files
        proposals = Proposals(
            self._space,
            config.search,
            open_study(session.directory / STUDY_FILE, session.name, config.search.objectives),
            chance,
            enqueued(config, self._space),
        )
        trials = Trials(proposals, self._experiment, config.search, files.checkpoints)
        if config.search.scheduler is SchedulerKind.pbt:
            return PopulationSource(trials, self._space)
        return SearchSource(trials, build_scheduler(config.search, config.training.epochs))

    def conclude(self) -> None:
        session, rows = self.batch.session, self.batch.book.in_order()
        if not ranked(rows):
            self.stopped("FAILED")
            raise WorkError(
                f"None of the {len(rows)} trials of {session.name} ended done{_within(session)}; `sweep status "
                f"{session.name}` says why."
            )
        self._write_best()
        session.tracker.end(session.run_key, "FINISHED")

    def stopped(self, status: str) -> None:
        self._write_best()
        self.batch.session.tracker.end(self.batch.session.run_key, status)

    def _write_best(self) -> None:
        session, candidates = self.batch.session, ranked(self.batch.book.in_order())
        if not candidates:
            return
        row = candidates[0]
        schedule = changed(row)
        parameters = schedule[0]["parameters"] if schedule else row.parameters
        experiment = override(self._experiment, {**parameters, "training.seed": row.seed})
        write_best(session.files.best, Best(experiment, provenance(row, self._space), schedule))
        session.tracker.artifact(session.run_key, session.files.best)
        session.tracker.metrics(session.run_key, {"objective": row.objective or 0.0}, 0)


def _within(session: Session) -> str:
    limits = session.config.search.constraints.limits()
    return f" within {limits}" if limits else ""


def search(session: Session) -> None:
    """Runs the sweep, or what is left of it, and writes its files.

    Raises:
        InputError: as `Search`. WorkError: no trial ended done. Interrupted: the user stopped it.
    """
    run_works([Search(session)], f"search {session.name}", session.directory / "ray")


def extended(config: AppConfig, files: SweepFiles) -> AppConfig:
    """The configuration of a sweep with `search.more` trials more.

    Raises:
        InputError: nothing to add, or a population, whose members live side by side.
    """
    if not config.search.more:
        raise InputError("How many trials more? `sweep extend NAME search.more=50`.")
    if config.search.scheduler is SchedulerKind.pbt:
        raise InputError(
            "search.scheduler=pbt: a population cannot be extended once it has trained; begin a new sweep."
        )
    if files.final.directory.exists():
        raise InputError(
            f"{files.directory.name} was confirmed and retrained already; remove {files.final.directory} before its "
            "search goes on."
        )
    more = config.search.trials + config.search.more
    return replace(config, search=replace(config.search, trials=more, more=0))


def start_run(session: Session, space: Space) -> None:
    """The sweep's own run in MLflow, with its configuration and space."""
    config = session.config
    tags = {"family": config.space.name, "kind": "sweep", "sampler": config.search.sampler.value}
    params = {
        f"{part}.{key}": value for part, values in to_plain(config.experiment).items() for key, value in values.items()
    }
    session.tracker.start(Run(session.run_key, session.name), tags=tags, params=params)
    session.tracker.artifact(session.run_key, session.files.config)
    write_text(session.directory / "space.json", json.dumps(space.to_dict(), indent=2) + "\n")
    session.tracker.artifact(session.run_key, session.directory / "space.json")
