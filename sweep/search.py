"""`sweep search NAME`: Optuna proposes, Ray Tune runs, MLflow records; writes trials.csv, curves.csv, best.yaml."""

import json
from pathlib import Path

from odenet.config import to_plain
from odenet.data import Splits, load_data
from search_spaces import Space
from sweep.best import Best, provenance, write_best
from sweep.config import AppConfig, override, save
from sweep.errors import InputError, WorkError
from sweep.export import TrialRow, ranked, read_rows, write_text
from sweep.outcome import Outcome
from sweep.recorder import Ended
from sweep.runner import Batch, Work, run_works
from sweep.schedulers import build_scheduler
from sweep.searcher import OptunaSearcher, open_study
from sweep.session import Session
from sweep.tracking import Run


def check(config: AppConfig) -> Splits:
    """Refuses, before anything is started, what could only fail later; returns the data.

    Raises:
        InputError: a corner of the space is no possible experiment, or the device or the data is not there.
    """
    experiment = config.experiment
    try:
        config.check_device()
        for corner in config.space.build().corners():
            config.runtime.check(override(experiment, corner).model)
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
            f"{directory.name} exists already in {directory.parent}: choose another name, or remove {directory}."
        ) from None
    except OSError as error:
        raise InputError(
            f"The run directory {directory} cannot be made: {error.strerror}; choose another by runtime.runs_dir=DIR."
        ) from error


class Search(Work):
    """One sweep's trials. Interrupted or not, the best of what is done is written."""

    def __init__(self, session: Session) -> None:
        """Raises InputError as `check`."""
        config, files = session.config, session.files
        splits, self._space = check(config), config.space.build()
        session.directory.mkdir(parents=True, exist_ok=True)
        write_text(files.config, save(config))
        start_run(session, self._space)
        study = open_study(session.directory, session.name)
        self._searcher = OptunaSearcher(study, self._space, config.experiment, config.search, 1 / splits.classes)
        scheduler = build_scheduler(config.search, config.training.epochs)
        total, portion = config.search.trials, config.data.portion
        self.batch = Batch(session, self._searcher, total, {portion: splits}, files, scheduler)

    def conclude(self, ended: list[Ended]) -> None:
        session = self.batch.session
        if not any(end.row.outcome is Outcome.done for end in ended):
            self.stopped("FAILED")
            raise WorkError(
                f"None of the {len(ended)} trials of {session.name} ended done; `sweep status {session.name}` says why."
            )
        _write_best(session, self._space)
        session.tracker.end(session.run_key, "FINISHED")

    def stopped(self, status: str) -> None:
        self._searcher.end_running(Outcome.interrupted)
        _write_best(self.batch.session, self._space)
        self.batch.session.tracker.end(self.batch.session.run_key, status)


def search(session: Session) -> None:
    """Runs the sweep and writes its files.

    Raises:
        InputError: as `check`. WorkError: no trial ended done. Interrupted: the user stopped it.
    """
    run_works([Search(session)], f"search {session.name}", session.directory / "ray")


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


def _write_best(session: Session, space: Space) -> None:
    candidates = ranked(read_rows(session.files.trials, TrialRow))
    if candidates:
        row = candidates[0]
        experiment = override(session.config.experiment, {**row.parameters, "training.seed": row.seed})
        write_best(session.files.best, Best(experiment, provenance(row, space)))
        session.tracker.artifact(session.run_key, session.files.best)
        session.tracker.metrics(session.run_key, {"objective": row.objective or 0.0}, 0)
