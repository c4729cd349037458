"""`sweep search NAME`: let Optuna propose, Ray Tune run and MLflow record; write tables, best.yaml, candidates.yaml.

A search is begun and taken up again by the same code: what is recorded in the run directory is where it begins.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from odenet.data.subsets import Splits, load_data
from odenet.networks.model_config import ModelConfig
from odenet.training.config import ExperimentConfig
from sweep.config.schema import AppConfig, save
from sweep.config.search_config import SchedulerKind
from sweep.config.study_config import Arm
from sweep.console import PlainConsole, say
from sweep.errors import InputError, WorkError
from sweep.execution.mlflow_runs import SweepRun
from sweep.execution.population_source import PopulationSource
from sweep.execution.run import Batch, Work, run_works
from sweep.execution.session import Session, new_session
from sweep.execution.trial_log import TrialLog
from sweep.execution.trial_source import SearchSource, Trials, TrialSource
from sweep.records.best import write_best, write_candidates
from sweep.records.files import write_text
from sweep.records.provenance import check_origin, origin
from sweep.records.rows import ranked, reasons
from sweep.records.run_directory import BEST, CONFIG, FORMER, STAGE, SweepFiles
from sweep.records.stage_record import BegunStage, record_stage
from sweep.study.frozen import record_allowed
from sweep.tuning.arms import equal_terms
from sweep.tuning.ask_and_tell import Proposals
from sweep.tuning.optuna_study import open_study
from sweep.tuning.problem import (
    DECIDED,
    Problem,
    build_problem,
    check_decided,
    check_objectives,
    copies_of_enqueued,
    enqueued,
)
from sweep.tuning.reconcile import reconciled
from sweep.tuning.schedulers import build_scheduler

FEWEST_CANDIDATES = 10  # written for `sweep final`, whose final.top may be more than was thought of when searching


@dataclass(frozen=True, slots=True)
class PreparedSearch:
    """A search that nothing stands in the way of: all corners of its space are possible, and the data is here."""

    problem: Problem
    corners: list[ExperimentConfig]
    enqueued: list[dict[str, Any]]
    splits: Splits


def prepare_new_search(config: AppConfig) -> PreparedSearch:
    """Prepare a search that is begun. InputError: as `prepare_search`, or a key is set that a search decides itself."""
    check_decided(config, DECIDED)
    if config.study.arm is not Arm.equal_epochs:
        raise InputError(
            f"study.arm={config.study.arm.value} is for `sweep study`: a search alone is compared to none."
        )
    return prepare_search(config)


def prepare_search(config: AppConfig, store: Path | None = None) -> PreparedSearch:
    """Refuse, before anything is started, what could only fail later. `store`: as for `enqueued`.

    Raises:
        InputError: a corner of the space is no possible experiment, what is asked for cannot be searched so, a file to
            enqueue is no good, or the device or the data is not there.
    """
    try:
        config.check_device()
        problem = build_problem(config)
        corners = problem.corners()
        for corner in corners:
            config.runtime.check(corner.model)
            check_objectives(config, corner)
        first = enqueued(config, problem.space, store)
        splits = load_data(problem.experiment.data, config.runtime.data_dir)
        if config.modules:
            _check_runs(corners[0].model, splits)
        if problem.experiment.model.initial is not None:
            _check_weights([corner.model for corner in corners], splits)
        problem = replace(problem, terms=equal_terms(config.study, splits))
        return PreparedSearch(problem, corners, first, splits)
    except ValueError as error:
        raise InputError(str(error)) from error


def _check_runs(model: ModelConfig, splits: Splits) -> None:
    """Build a network that may be of the user's own and run it once. InputError: it cannot be, or fails."""
    import torch

    from odenet.networks.model import build_model

    pixels_BCHW = torch.tensor(splits.train.pixels_BCHW[:2]) / 255
    try:
        build_model(model, channels=pixels_BCHW.shape[1], classes=splits.classes)(pixels_BCHW)
    except Exception as error:
        raise InputError(
            f"model.network={model.network.value} cannot be built and run: {type(error).__name__}: {error}"
        ) from error


def _check_weights(models: Sequence[ModelConfig], splits: Splits) -> None:
    """Begin each network of the corners with its weights. ValueError: they are of another."""
    from odenet.networks.model import build_model
    from odenet.pretrained.initial import begin_with

    for model in (one for place, one in enumerate(models) if one not in models[:place]):
        network = build_model(model, channels=splits.train.pixels_BCHW.shape[1], classes=splits.classes)
        begin_with(network, str(model.initial), sha256=model.initial_sha256)


class Search(Work):
    """The trials of one sweep, begun or taken up again. Interrupted or not, the best of what is done is written."""

    def __init__(self, session: Session, prepared: PreparedSearch) -> None:
        """Begin the sweep's records. InputError: what the sweep began with has changed."""
        config, files, splits = session.config, session.files, prepared.splits
        self._problem, self._run = prepared.problem, SweepRun(session)
        session.directory.mkdir(parents=True, exist_ok=True)
        now = origin(self._problem.space, splits, config.modules)
        check_origin(files.origin, now, config.search.accept_changes, session.run_key)
        record_allowed(config, session.name)
        record_stage(files.stage, BegunStage.search)
        write_text(files.config, save(config))
        self._run.searches(self._problem.space, splits)
        data = {config.data.portion: splits}
        log = TrialLog(session, files, data)
        self.batch = Batch(session, self._source(prepared, log), log, data)

    def _source(self, prepared: PreparedSearch, log: TrialLog) -> TrialSource:
        session, files, problem, chance = log.session, log.files, prepared.problem, 1 / prepared.splits.classes
        config = session.config
        opened = open_study(files.journal, session.run_key, config.search.objectives)
        study = reconciled(opened, log.in_order(), problem.space)
        log.notices += study.notices
        proposals = Proposals(problem.space, config.search, study, chance, prepared.enqueued)
        trials = Trials(proposals, problem.experiment, config.search, session.folders(files), terms=problem.terms)
        if config.search.scheduler is SchedulerKind.pbt:
            return PopulationSource(trials, problem.space)
        return SearchSource(trials, build_scheduler(config.search, config.training.epochs))

    def conclude(self) -> None:
        session, rows = self.batch.session, self.batch.log.in_order()
        if not ranked(rows):
            self.stopped("FAILED")
            limits = session.config.search.constraints.limits()
            within = f" within {limits}" if limits else ""
            raise WorkError(
                f"None of the {len(rows)} trials of {session.name} ended done{within}; `sweep status "
                f"{session.name}` says why."
            )
        self.stopped("FINISHED")
        failed = [row for row in rows if row.outcome.failed]
        for line in reasons(failed):
            say(f"{session.name} {line}", session.console)
        tolerated = session.config.search.tolerated
        if len(failed) > tolerated * len(rows):
            raise WorkError(
                f"{len(failed)} of the {len(rows)} trials of {session.name} ended by defects or losses, more than "
                f"search.tolerated={tolerated:g} allows. The others are kept, and {BEST} is of them."
            )

    def stopped(self, status: str) -> None:
        self._write_best()
        self._run.end(status)

    def _write_best(self) -> None:
        session, rows = self.batch.session, ranked(self.batch.log.in_order())
        if not rows:
            return
        best = [self._problem.best(row) for row in rows[: max(session.config.final.top, FEWEST_CANDIDATES)]]
        write_best(session.files.best, best[0])
        write_candidates(session.files.candidates, best)
        self._run.found()


def search(session: Session, prepared: PreparedSearch) -> None:
    """Run the sweep, or what is left of it, and write its files.

    Raises:
        InputError: as `Search`. WorkError: no trial ended done. Interrupted: the user stopped it.
    """
    run_works([Search(session, prepared)], f"search {session.name}", session.directory / "ray")


def search_anew(config: AppConfig, name: str, console: Console | None = None) -> Path:
    """Run a new sweep and return its run directory.

    Raises:
        InputError: as `prepare_new_search`, or the name is taken. WorkError, Interrupted: as `search`.
    """
    prepared = prepare_new_search(config)
    begun = {CONFIG: save(config), STAGE: BegunStage.search.text, **copies_of_enqueued(config)}
    with new_session(config, name, console or PlainConsole(), begun) as session:
        search(session, prepared)
        return session.directory


def extended(config: AppConfig, name: str, files: SweepFiles, again: bool = False) -> AppConfig:
    """Return the configuration of a sweep with `search.more` trials more. `name`: of what is extended, the sweep or its
    study; `again`: final training that was done will be put away.

    Raises:
        InputError: nothing to add, or a population, whose members live side by side; or final training is done.
    """
    if not config.search.more:
        raise InputError("How many trials more? `sweep extend NAME search.more=50`.")
    if config.search.scheduler is SchedulerKind.pbt:
        raise InputError(
            "search.scheduler=pbt: a population cannot be extended once it has trained; begin a new sweep."
        )
    if files.final.directory.exists() and not again:
        raise InputError(
            f"{files.directory.name} was confirmed and retrained already. `sweep extend {name} "
            f"search.more={config.search.more} --again` goes on with its search all the same: final training is put "
            f"away, to {FORMER}{len(files.former_finals) + 1} with rows.csv, where it stays known what was tested."
        )
    more = config.search.trials + config.search.more
    return replace(config, search=replace(config.search, trials=more, more=0))
