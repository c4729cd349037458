"""`sweep study NAME`: search, confirm and evaluate every family on every draw, on equal budgets, then write one
report."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from odenet.seeding import derive
from search_spaces import SPACES
from sweep.config.overrides import flat
from sweep.config.own import whole
from sweep.config.schema import AppConfig, SpaceConfig, save
from sweep.errors import InputError, StorageError, WorkError
from sweep.execution.mlflow_runs import study_run
from sweep.execution.run import run_works
from sweep.execution.session import Session
from sweep.records.files import write_text
from sweep.records.progress import SweepProgress
from sweep.records.run_directory import check_study_name
from sweep.records.stage_record import BegunStage, record_stage
from sweep.stages.evaluate import evaluate, is_measured, prepare_evaluate
from sweep.stages.final import Final, prepare_final
from sweep.stages.search import PreparedSearch, Search, prepare_search
from sweep.tuning.problem import DECIDED, OF_A_STUDY, check_decided


def members(config: AppConfig) -> dict[str, AppConfig]:
    """Derive the sweeps of a study by name. Draws are outermost: after the first all families can be compared.

    A parameter fixed or narrowed holds in the families that have it.

    Raises:
        InputError: no family has it.
    """
    return {
        f"{family}-d{draw}": replace(
            config,
            space=_space_of(family, config),
            data=replace(config.data, draw=draw),
            # Each draw proposes other configurations and trains from other seeds; families share both on a draw.
            search=replace(config.search, seed=derive(config.search.seed, "draw", draw) % 2**31),
        )
        for draw in config.study.draws
        for family in config.study.families
    }


def _space_of(family: str, config: AppConfig) -> SpaceConfig:
    searched = {name: set(SPACES[name].parameters) for name in config.study.families}
    fix, narrowed = flat(config.space.fix), flat(config.space.range)
    for key in {**fix, **narrowed}:
        if not any(key in keys for keys in searched.values()):
            choices = ", ".join(sorted(set().union(*searched.values())))
            raise InputError(f"{key} is searched in no family of the study; searched are {choices}.")
    mine = searched[family]
    chosen = SpaceConfig(
        name=family,
        fix={key: value for key, value in fix.items() if key in mine},
        range={key: value for key, value in narrowed.items() if key in mine},
    )
    return whole(chosen)


PreparedStudy = dict[str, PreparedSearch]  # by the names of its sweeps


def prepare_study(config: AppConfig, name: str) -> PreparedStudy:
    """Prepare the search of every member, and refuse a name that cannot have members, and keys that a study decides
    itself. InputError as `prepare_search`."""
    check_study_name(name)
    check_decided(config, {**DECIDED, **OF_A_STUDY})
    return {part: prepare_search(member) for part, member in members(config).items()}


def study(session: Session, prepared: PreparedStudy) -> Path:
    """Run the members stage by stage, each stage of all members at once, and return the report's path. What was done
    by an earlier session is not done again.

    Raises:
        WorkError: the work of a member failed; the others went on, and the report on them is written.
    """
    write_text(session.files.study, save(session.config))
    record_stage(session.files.stage, BegunStage.study)
    with study_run(session):
        return _run_members(session, prepared)


def _run_members(session: Session, prepared: PreparedStudy) -> Path:
    sweeps = {part: session.member(config, part) for part, config in members(session.config).items()}
    failures: list[str] = []
    searches = [
        Search(sweep, prepared[part])
        for part, sweep in sweeps.items()
        if not SweepProgress.read(sweep.files.progress).finished
    ]
    with _collecting(failures):
        run_works(searches, f"search {session.name}", session.directory / "ray-search")
    found = [sweep for sweep in sweeps.values() if sweep.files.best.exists()]
    finals = [
        Final(sweep, prepare_final(sweep.config, sweep.name))
        for sweep in found
        if not SweepProgress.read(sweep.files.final.progress).finished
    ]
    with _collecting(failures):
        run_works(finals, f"final {session.name}", session.directory / "ray-final")
    for sweep in found:
        if not is_measured(sweep.config, sweep.name):
            with _collecting(failures):
                evaluate(sweep, prepare_evaluate(sweep.config, sweep.name))
    report = _report(session, list(sweeps.values()))
    if failures:
        raise WorkError(f"{' '.join(failures)} The report {report} has what there is.")
    return report


@contextmanager
def _collecting(failures: list[str]) -> Iterator[None]:
    try:
        yield
    except StorageError:
        raise  # nothing that follows could be written either
    except WorkError as error:
        failures.append(str(error))


def _report(session: Session, sweeps: list[Session]) -> Path:
    from sweep.report.page import write_report

    tried = [sweep.directory for sweep in sweeps if sweep.files.trials.exists()]
    return write_report(tried, session.files.report, session.name)
