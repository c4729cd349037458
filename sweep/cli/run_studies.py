"""What `sweep plan` and `sweep study` run, and `sweep extend` of a study; libraries are loaded as in `run_stages`."""

from typing import TYPE_CHECKING

from rich.console import Console

from sweep.cli import announce
from sweep.cli.command_line import Command
from sweep.console import say
from sweep.errors import InputError

if TYPE_CHECKING:
    from sweep.config.schema import AppConfig


def run_plan(command: Command, console: Console) -> None:
    from sweep.config.compose import is_study, load

    of_study = is_study(command.overrides)
    config = load(command.overrides, study=of_study)
    if command.names:
        from sweep.records.run_directory import free_directory

        free_directory(config, command.names[0])
    if of_study:
        _check_sizes(command, config)
    say(f"plan: {announce.described('study' if of_study else 'plan', config)}", console)
    announce.loads_torch("plan", console)
    from sweep.stages.plan import plan, plan_study

    (plan_study if of_study else plan)(config, console)


def _check_sizes(command: Command, config: "AppConfig") -> None:
    """Refuse a number of images per class beside those of the study."""
    from sweep.config.own import sort_words

    given = sort_words(command.overrides).settings.get("data.per_class")
    if given and config.study.sizes:
        raise InputError(
            f"{given} would have no effect: the study has study.sizes={list(config.study.sizes)}; set that, or "
            "study.sizes=[] for data.per_class alone."
        )


def run_study(command: Command, console: Console) -> None:
    from sweep.config.compose import load
    from sweep.config.schema import save
    from sweep.records.run_directory import PROTOCOL, STAGE, STUDY, check_study_name
    from sweep.records.stage_record import BegunStage

    config, name = load(command.overrides, study=True), command.names[0]
    _check_sizes(command, config)
    announce.begin("study", check_study_name(name), config, console)
    announce.loads_torch(f"study {name}", console)
    from sweep.execution.session import new_session
    from sweep.stages.study import prepare_study, study
    from sweep.tuning.problem import copies_of_enqueued

    prepared = prepare_study(config, name)
    begun = {STUDY: save(config), PROTOCOL: prepared.protocol, STAGE: BegunStage.study.text}
    begun |= copies_of_enqueued(config)
    with new_session(config, name, console, begun) as session:
        report = study(session, prepared)
    announce.say_report(report, name, console)


def resume(config: "AppConfig", name: str, console: Console) -> bool:
    """Go on with a study; return whether there was something to go on with, which is told without starting Ray."""
    from sweep.execution.session import open_session
    from sweep.records.run_directory import SweepFiles, run_directory
    from sweep.stages.study import nothing_left, report_study, resume_study, study

    if nothing_left(config, name):
        if SweepFiles(run_directory(config, name)).report.exists():
            return False
        announce.say_report(report_study(config, name), name, console)
        return True
    prepared = resume_study(config, name)
    with open_session(config, name, console) as session:
        announce.say_report(study(session, prepared), name, console)
    return True


def extend(config: "AppConfig", name: str, console: Console, again: bool) -> None:
    """Add trials to the searches of all sweeps of a study alike, and run them. `again`: puts final training away."""
    from sweep.execution.session import open_session
    from sweep.stages.study import extend_study, extended_study, resume_study

    longer = extended_study(config, name, again)
    resume_study(config, name)  # refuses before anything is started
    with open_session(longer, name, console) as session:
        announce.say_report(extend_study(session), name, console)


def evaluate_all(config: "AppConfig", name: str, console: Console) -> None:
    """Measure the final networks of all sweeps of a study under the conditions that are asked for."""
    from sweep.execution.session import open_session
    from sweep.stages.study import evaluate_study, prepare_evaluation

    left = prepare_evaluation(config, name)
    with open_session(config, name, console) as session:
        evaluate_study(session, left)
    console.print(f"Next: sweep report {name}", highlight=False)
