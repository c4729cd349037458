"""Run a stage from a parsed command line, a function for each.

Each function imports what it needs when it runs, and a stage only after the configuration was composed: stages load
torch, Ray and Optuna, while help, completion, refusals of a word and what is about to be done are to be there at once.
A stage first prepares, which refuses what the user got wrong before anything is started, and then works.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from sweep.cli import announce, run_studies
from sweep.cli.command_line import AGAIN, Command
from sweep.cli.run_jobs import is_remote, submit_resume
from sweep.console import say
from sweep.errors import InputError

if TYPE_CHECKING:
    from sweep.config.schema import AppConfig


def run_search(command: Command, console: Console) -> None:
    from sweep.config.compose import load

    config, name = load(command.overrides), command.names[0]
    announce.begin("search", name, config, console)
    from sweep.stages.search import search_anew

    search_anew(config, name, console)
    announce.say_next(name, console)


def run_resume(command: Command, console: Console) -> None:
    if is_remote(command):
        submit_resume(command, console)
        return
    from sweep.cli.existing import existing, here
    from sweep.config.compose import GOES_ON, load
    from sweep.records.run_directory import SweepFiles, run_directory
    from sweep.records.stage_record import BegunStage

    config, name = existing(command, GOES_ON)
    files = SweepFiles(run_directory(config, name))
    from sweep.stages.resume import part_of, stage_cut_short

    stage = stage_cut_short(files)
    if stage in (BegunStage.final, BegunStage.sensitivity) and (saved := part_of(files, stage).config).exists():
        config = here(load(command.overrides, saved, GOES_ON), config)
    if stage is BegunStage.study:
        if not run_studies.resume(config, name, console):
            _deliver_rest(config, name, console)
    elif stage is BegunStage.search:
        _go_on(config, name, console)
    elif stage is BegunStage.final:
        _confirm(config, name, console)
    elif stage is BegunStage.sensitivity:
        _vary(config, name, console)
    else:
        _deliver_rest(config, name, console)


def _deliver_rest(config: "AppConfig", name: str, console: Console) -> None:
    """Write tables again that cannot be read, and tell MLflow what it was not told of a sweep, or a study, that is
    done. InputError: there is nothing of that either."""
    from sweep.records.locks import alone
    from sweep.records.run_directory import SweepFiles, run_directory, store_directory
    from sweep.stages.deliver import deliver, undelivered
    from sweep.stages.resume import unreadable_tables, write_table_again

    if damaged := unreadable_tables(SweepFiles(run_directory(config, name))):
        with alone(config, name):
            for part in damaged:
                write_table_again(part)
                say(f"{part.trials} could not be read: it was written again from {part.ledger.name}.", console)
        return
    if not undelivered(store_directory(config, name)):
        is_study = SweepFiles(run_directory(config, name)).study.exists()
        follows = (
            f"all its searches, `sweep evaluate {name} evaluate.conditions=[...]` measures more of its networks, and"
            if is_study
            else f"its search, `sweep final {name}`, `sweep evaluate {name}` and"
        )
        raise InputError(
            f"Nothing of {name} was cut short. `sweep extend {name} search.more=10` adds trials to {follows} `sweep "
            f"report {name}` {'writes its report again' if is_study else 'follow it'}."
        )
    console.print(f"Nothing of {name} was cut short but its delivery to MLflow.", highlight=False)
    deliver(config, name, console)


def run_deliver(command: Command, console: Console) -> None:
    from sweep.cli.existing import existing
    from sweep.config.compose import GOES_ON

    config, name = existing(command, GOES_ON)
    from sweep.stages.deliver import deliver

    deliver(config, name, console)


def _go_on(config: "AppConfig", name: str, console: Console, again: bool = False) -> None:
    """Go on with a search. `again`: after final training was put away."""
    from sweep.execution.session import open_session
    from sweep.stages.resume import prepare_resume
    from sweep.stages.search import search

    prepared = prepare_resume(config, name)
    with open_session(config, name, console) as session:
        if again:
            _put_away(config, name, console)
        search(session, prepared)
    announce.say_next(name, console)


def _confirm(config: "AppConfig", name: str, console: Console, again: bool = False) -> None:
    """Begin final training in an existing run directory, or go on with it, or put it away and do it again."""
    from sweep.execution.session import open_session
    from sweep.records.run_directory import SweepFiles, run_directory
    from sweep.stages.final import final, prepare_final
    from sweep.stages.resume import check_records

    prepared = prepare_final(config, name, again)
    if not again:
        check_records(SweepFiles(run_directory(config, name)).final)
    with open_session(config, name, console) as session:
        if again:
            _put_away(config, name, console)
        final(session, prepared)
    console.print(f"Next: sweep evaluate {name}; sweep export {name}", highlight=False)


def _put_away(config: "AppConfig", name: str, console: Console) -> None:
    from sweep.records.run_directory import SweepFiles, run_directory
    from sweep.stages.final import put_away
    from sweep.study.frozen import record_again

    former = put_away(SweepFiles(run_directory(config, name)))
    record_again(config, name, former)
    console.print(f"The former final training is kept in {former}", highlight=False)


def run_extend(command: Command, console: Console) -> None:
    from sweep.cli.existing import existing
    from sweep.config.compose import GOES_ON
    from sweep.records.run_directory import SweepFiles, run_directory

    config, name = existing(command, GOES_ON)
    files = SweepFiles(run_directory(config, name))
    again = AGAIN in command.flags
    if files.study.exists():
        run_studies.extend(config, name, console, again)
        return
    from sweep.stages.final import check_again
    from sweep.stages.search import extended
    from sweep.study.frozen import check_alone

    check_alone(config, name)
    if again:
        check_again(config, name, [files])
    _go_on(extended(config, name, files, again), name, console, again)


def run_final(command: Command, console: Console) -> None:
    from sweep.cli.existing import existing, from_best
    from sweep.config.schema import save
    from sweep.records.run_directory import BEST, CONFIG, STAGE
    from sweep.records.stage_record import BegunStage

    if not command.names[0].endswith((".yaml", ".yml")):
        _confirm(*existing(command), console, AGAIN in command.flags)
        return
    if AGAIN in command.flags:
        raise InputError(f"{AGAIN} is for `sweep final NAME`: a best.yaml is retrained in a new run directory.")
    path = Path(command.names[0])
    config, name, best = from_best(path, command.overrides)
    from sweep.execution.session import new_session
    from sweep.stages.final import final, prepare_retraining

    prepared = prepare_retraining(config, best)
    begun = {CONFIG: save(config), BEST: path.read_text(encoding="utf-8"), STAGE: BegunStage.final.text}
    with new_session(config, name, console, begun) as session:
        final(session, prepared)
    console.print(f"Next: sweep evaluate {name}", highlight=False)


def run_sensitivity(command: Command, console: Console) -> None:
    from sweep.cli.existing import existing

    _vary(*existing(command), console)


def _vary(config: "AppConfig", name: str, console: Console) -> None:
    """Train around the selected configuration of a search, or go on with it."""
    from sweep.execution.session import open_session
    from sweep.stages.sensitivity import prepare_sensitivity, sensitivity

    prepared = prepare_sensitivity(config, name)
    for line in prepared.announced(config.sensitivity):
        say(f"sensitivity {name}: {line}", console)
    with open_session(config, name, console) as session:
        sensitivity(session, prepared)
    console.print(f"Next: sweep report {name}", highlight=False)


def run_evaluate(command: Command, console: Console) -> None:
    from sweep.cli.existing import existing
    from sweep.records.run_directory import SweepFiles, run_directory

    config, name = existing(command)
    announce.loads_torch(f"evaluate {name}", console)
    if SweepFiles(run_directory(config, name)).study.exists():
        run_studies.evaluate_all(config, name, console)
        return
    from sweep.execution.session import open_session
    from sweep.stages.evaluate import evaluate, prepare_evaluate
    from sweep.study.frozen import check_frozen, record_allowed

    check_frozen(config, name)
    prepared = prepare_evaluate(config, name)
    with open_session(config, name, console) as session:
        record_allowed(config, name)
        evaluate(session, prepared)
    console.print(f"Next: sweep report {name}", highlight=False)


def run_export(command: Command, console: Console) -> None:
    from sweep.cli.existing import existing

    config, name = existing(command)
    from sweep.stages.export import export, prepare_export

    export(prepare_export(config, name), console)
