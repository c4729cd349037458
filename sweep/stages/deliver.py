"""`sweep deliver NAME`: tell MLflow the rest of the outbox, and try again what was set aside; and attach a report."""

from functools import partial
from pathlib import Path

from rich.console import Console

from sweep.config.compose import load
from sweep.config.schema import AppConfig
from sweep.console import say
from sweep.errors import InputError, WorkError
from sweep.records.locks import alone, is_alive
from sweep.records.provenance import name_begun_with
from sweep.records.run_directory import SweepFiles, run_directory, store_directory
from sweep.tracking.absence import absence_said
from sweep.tracking.lines import OUTBOX, KnownRuns
from sweep.tracking.outbox import Tracker, check_store, delivering, store_uri
from sweep.tracking.state import aside_sentence, lag, read_set_aside

REPORT_SECONDS = 30.0  # that a report waits for MLflow


def undelivered(directory: Path) -> int:
    """Count the lines of this directory's outbox that MLflow was not told, or refused."""
    return lag(directory).lines + len(read_set_aside(directory))


def deliver(config: AppConfig, name: str, console: Console) -> None:
    """Deliver what is left, and say how much that was.

    Raises:
        InputError: a command is at work on it, or the store is damaged. WorkError: something is left.
    """
    directory = store_directory(config, name)
    check_store(store_uri(directory, config.tracking.uri))
    before, told = undelivered(directory), absence_said(directory, partial(say, console=console))
    with alone(config, name), told, delivering(directory, config.tracking.uri, modules=config.modules) as tracker:
        if read_set_aside(directory):
            tracker.retry()
    if refused := aside_sentence(directory):
        raise WorkError(refused)
    console.print(f"MLflow has been told everything about {directory.name}; lines just now: {before}.", highlight=False)


def attach_report(config: AppConfig, name: str, report: Path, console: Console) -> None:
    """Attach a report to the run of its sweep or study, where MLflow has that; while another command is at work on it,
    its delivery takes the report along. The report is made, whatever becomes of this: what goes wrong is printed."""
    directory, files = store_directory(config, name), SweepFiles(run_directory(config, name))
    key = name_begun_with(files.origin) or name
    try:
        if key not in KnownRuns.read(directory / OUTBOX):
            return
        console.print("Attaching it to its run in MLflow.", highlight=False)
        if is_alive(files.directory):
            Tracker(directory / OUTBOX).artifact(key, report)
            return
        saved = files.study if files.study.exists() else files.config
        uri = config.tracking.uri or load([], saved).tracking.uri
        with alone(config, name), delivering(directory, uri, REPORT_SECONDS) as tracker:
            tracker.artifact(key, report)
    except (InputError, WorkError) as error:
        console.print(f"MLflow does not have the report: {error}", highlight=False)
