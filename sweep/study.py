"""`sweep study NAME`: search, final and evaluate for every family on every draw, on equal budgets, then one report."""

from dataclasses import replace
from pathlib import Path

from sweep.config import AppConfig, SpaceConfig
from sweep.errors import InputError, WorkError
from sweep.evaluate import evaluate
from sweep.final import final
from sweep.search import check, search
from sweep.session import Session, check_name


def members(config: AppConfig) -> dict[str, AppConfig]:
    """The sweeps of a study by name. Draws are outermost: after the first all families can be compared."""
    return {
        f"{family}-d{draw}": replace(
            config,
            space=SpaceConfig(name=family, fix=config.space.fix, range=config.space.range),
            data=replace(config.data, draw=draw),
        )
        for draw in config.study.draws
        for family in config.study.families
    }


def check_study(config: AppConfig, name: str) -> None:
    """Refuses what could only fail later: a name that cannot have members; as `search.check`, for every member."""
    if "/" in check_name(name):
        raise InputError(f"The name {name!r} is a sweep's within a study; a study's own name has no '/'.")
    for member in members(config).values():
        check(member)


def study(session: Session) -> Path:
    """Runs every member and returns the report's path. A member whose work fails is said so; the others go on.

    Raises:
        WorkError: the work of a member failed; the report on the others is written.
    """
    failures = []
    for part, config in members(session.config).items():
        member = session.member(config, part)
        try:
            for stage in (search, final, evaluate):
                stage(member)
        except WorkError as error:
            failures.append(f"{part}: {error}")
            session.console.print(f"{part} failed: {error}", style="red", highlight=False)
    from sweep.report import write_report  # plotting loads when there is something to plot

    directories = [session.directory / part for part in members(session.config)]
    report = write_report(
        [path for path in directories if (path / "trials.csv").exists()],
        session.directory / "report.html",
        session.name,
    )
    if failures:
        raise WorkError(
            f"{len(failures)} of {len(directories)} sweeps failed. {' '.join(failures)} "
            f"The report {report} has the others."
        )
    return report
