"""`sweep deliver NAME`: tell MLflow the rest of the outbox, and try again what was set aside."""

from pathlib import Path

from rich.console import Console

from sweep.config.schema import AppConfig
from sweep.errors import WorkError
from sweep.records.locks import alone
from sweep.records.run_directory import store_directory
from sweep.tracking.outbox import check_store, delivering, store_uri
from sweep.tracking.state import aside_sentence, lag, read_set_aside


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
    before = undelivered(directory)
    with alone(config, name), delivering(directory, config.tracking.uri, modules=config.modules) as tracker:
        if read_set_aside(directory):
            tracker.retry()
    if refused := aside_sentence(directory):
        raise WorkError(refused)
    console.print(f"MLflow has been told everything about {directory.name}; lines just now: {before}.", highlight=False)
