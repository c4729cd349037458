"""`sweep study NAME`: search, confirm and evaluate every family on every draw, on the terms of its arm, then write
one report."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from odenet.robustness.config import Attack
from sweep.config.evaluate_config import ConditionKind
from sweep.config.schema import AppConfig, save
from sweep.errors import InputError, StorageError, WorkError
from sweep.execution.mlflow_runs import study_run
from sweep.execution.run import run_works
from sweep.execution.session import Session
from sweep.records.files import write_text
from sweep.records.progress import SweepProgress
from sweep.records.protocol import read_protocol, record_deviation
from sweep.records.rows import Phase, TrialRow
from sweep.records.run_directory import SweepFiles, check_study_name, run_directory
from sweep.records.stage_record import BegunStage, record_stage
from sweep.records.tables import read_rows
from sweep.stages.evaluate import check_measurable, evaluate, final_networks, is_measured, prepare_evaluate
from sweep.stages.final import Final, check_again, prepare_final, put_away
from sweep.stages.resume import prepare_resume
from sweep.stages.search import PreparedSearch, Search, extended, prepare_search
from sweep.study.frozen import check_frozen, check_study, freeze, record_again, record_allowed
from sweep.study.members import check_attacks, check_draws, members
from sweep.tuning.problem import DECIDED, OF_A_STUDY, check_decided


@dataclass(frozen=True, slots=True)
class PreparedStudy:
    """The searches of a study by the names of its sweeps, and the text of its protocol; "" for one that goes on."""

    searches: dict[str, PreparedSearch]
    protocol: str = ""


def prepare_study(config: AppConfig, name: str) -> PreparedStudy:
    """Prepare the search of every member and freeze what is planned; write nothing.

    Raises:
        InputError: a name that cannot have members, keys that a study decides itself, draws that share images, test
            images that do not suffice, or as `prepare_search`.
    """
    check_study_name(name)
    check_decided(config, {**DECIDED, **OF_A_STUDY})
    overlapping, parts = check_draws(config), members(config)
    check_measurable(config)
    searches = {part: prepare_search(member) for part, member in parts.items()}
    check_attacks(config, {part: one.corners for part, one in searches.items()})
    data = {part: one.splits.hash for part, one in searches.items()}
    return PreparedStudy(searches, freeze(config, parts, data, overlapping))


def resume_study(config: AppConfig, name: str) -> PreparedStudy:
    """Prepare a study that goes on, and check it against its protocol. InputError as `prepare_resume`."""
    parts = members(config)
    check_study(config, name, parts)
    return PreparedStudy({part: prepare_resume(member, f"{name}/{part}") for part, member in parts.items()})


def extended_study(config: AppConfig, name: str, again: bool = False) -> AppConfig:
    """Return the configuration of a study whose searches all have `search.more` trials more. `again`: final training
    that was done will be put away.

    Raises:
        InputError: as `extended` and `check_again`; or it has no protocol, and so no record of what was planned.
    """
    if read_protocol(run_directory(config, name)) is None:
        raise InputError(f"{name} is a study without a protocol: extend one of its sweeps, {name}/FAMILY-dDRAW.")
    sweeps = [SweepFiles(run_directory(config, f"{name}/{part}")) for part in members(config)]
    if again:
        check_again(config, name, sweeps)
    (longer, *_) = [extended(config, name, files, again) for files in sweeps]
    return longer


def study(session: Session, prepared: PreparedStudy) -> Path:
    """Run the members stage by stage, each stage of all members at once, and return the report's path. What was done
    by an earlier session is not done again.

    Raises:
        WorkError: the work of a member failed; the others went on, and the report on them is written.
    """
    write_text(session.files.study, save(session.config))
    record_stage(session.files.stage, BegunStage.study)
    with study_run(session):
        return _run_members(session, prepared.searches)


def extend_study(session: Session) -> Path:
    """Record that all searches of a study get more trials, put final training away where it was done, and run all
    again from there. Raises as `study`."""
    trials, protocol = session.config.search.trials, read_protocol(session.directory)
    assert protocol is not None, "`extended_study` refuses a study without one"
    record_deviation(protocol, session.name, f"all searches extended to {trials} trials", trials=trials)
    for part, member in members(session.config).items():
        files = SweepFiles(run_directory(member, f"{session.name}/{part}"))
        if files.final.directory.exists():
            record_again(member, f"{session.name}/{part}", put_away(files))
    return study(session, resume_study(session.config, session.name))


def _run_members(session: Session, prepared: dict[str, PreparedSearch]) -> Path:
    sweeps = {part: session.member(config, part) for part, config in members(session.config).items()}
    failures: list[str] = []
    searches = [
        Search(sweep, prepared[part]) for part, sweep in sweeps.items() if not _is_searched(sweep.config, sweep.files)
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
    failures += _evaluate(session, unmeasured(session.config, session.name))
    for sweep in sweeps.values():
        _record_retries(sweep)
    report = report_study(session.config, session.name)
    if failures:
        raise WorkError(f"{' '.join(failures)} The report {report} has what there is.")
    return report


def _is_searched(config: AppConfig, files: SweepFiles) -> bool:
    """Tell whether a member's search has ended with as many trials as it is to have; as many as now where nothing is
    saved of those that it was asked for."""
    content = yaml.safe_load(files.config.read_text(encoding="utf-8")) if files.config.exists() else {}
    asked = int(content.get("search", {}).get("trials", config.search.trials))
    return SweepProgress.read(files.progress).finished and asked >= config.search.trials


def nothing_left(config: AppConfig, name: str) -> bool:
    """Tell whether all of a study was done but its report, so that nothing is to be started to go on with it.

    Raises:
        InputError: as `check_study`, or a file is damaged.
    """
    parts = members(config)
    check_study(config, name, parts)
    for part, member in parts.items():
        files = SweepFiles(run_directory(member, f"{name}/{part}"))
        retrained = not files.best.exists() or SweepProgress.read(files.final.progress).finished
        if not retrained or not _is_searched(member, files):
            return False
    return not unmeasured(config, name)


def report_study(config: AppConfig, name: str) -> Path:
    """Write the report of a study, and return its path."""
    from sweep.report.page import write_report

    sweeps = [SweepFiles(run_directory(config, f"{name}/{part}")) for part in members(config)]
    output = SweepFiles(run_directory(config, name)).report
    return write_report([files.directory for files in sweeps if files.trials.exists()], output, name)


def _record_retries(sweep: Session) -> None:
    """Record how many trainings were begun again: after a lost worker or node, a kill or Ctrl-C."""
    protocol = read_protocol(sweep.directory.parent)
    for files in sweep.files.parts:
        rows = read_rows(files.trials, TrialRow) if files.trials.exists() else []
        again = {phase: sum(row.legs > 1 for row in rows if row.phase is phase) for phase in Phase}
        for phase, count in again.items():
            if protocol is not None and count:
                what = f"{phase.value}: {count} of {len(rows)} trainings went on after a loss or an interruption"
                record_deviation(protocol, sweep.name, what)


def unmeasured(config: AppConfig, name: str) -> list[str]:
    """List the sweeps of a study with final networks of which something that is asked for is not measured.
    InputError: a file is damaged."""
    return [part for part, member in members(config).items() if not is_measured(member, f"{name}/{part}")]


def prepare_evaluation(config: AppConfig, name: str) -> list[str]:
    """Prepare to measure the final networks of a study, and return the sweeps with something left.

    Raises:
        InputError: it is another study than its protocol says, nothing is left to measure, or a sweep's networks cannot
            be measured so.
    """
    check_study(config, name, members(config))
    left = unmeasured(config, name)
    if not left:
        asked = ", ".join(kind.value for kind in config.evaluate.conditions)
        possible = ", ".join(kind.value for kind in ConditionKind)
        raise InputError(
            f"No final network of {name} is left to be measured ({asked}), and test data is used once. Other "
            f"conditions can be added by evaluate.conditions=[...] of {possible}."
        )
    for part in left:
        member = _attacked_as_baseline(members(config)[part], name, part)
        check_frozen(member, f"{name}/{part}")
        prepare_evaluate(member, f"{name}/{part}")
    return left


def evaluate_study(session: Session, left: list[str]) -> None:
    """Measure the final networks of these sweeps of a study. WorkError: a worker failed; the others went on."""
    if failures := _evaluate(session, left):
        raise WorkError(" ".join(failures))


def _evaluate(session: Session, left: list[str]) -> list[str]:
    failures, configs = list[str](), members(session.config)
    for part in left:
        config = configs[part]
        with _collecting(failures):
            check_frozen(config, f"{session.name}/{part}")
            record_allowed(config, f"{session.name}/{part}")
            sweep = session.member(_attacked_as_baseline(config, session.name, part), part)
            evaluate(sweep, prepare_evaluate(sweep.config, sweep.name))
    return failures


def _attacked_as_baseline(config: AppConfig, name: str, part: str) -> AppConfig:
    """Have attacks on the baseline's network of the same data tried on this one, too, where it is attacked at all."""
    family, baseline, asked = config.space.name, config.study.baseline, config.evaluate
    other = f"{name}/{baseline}{part.removeprefix(family)}"
    attacked = ConditionKind.attack in asked.conditions and Attack.transfer in asked.attack.attacks
    if not attacked or family == baseline or other in asked.transfer:
        return config
    if not final_networks(SweepFiles(run_directory(config, other))):
        return config
    return replace(config, evaluate=replace(asked, transfer=[*asked.transfer, other]))


@contextmanager
def _collecting(failures: list[str]) -> Iterator[None]:
    try:
        yield
    except StorageError:
        raise  # nothing that follows could be written either
    except (WorkError, InputError) as error:
        failures.append(str(error))
