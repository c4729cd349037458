"""Tell the user of a store that is away or refuses who asks, while there is time to do something about it."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sweep.tracking.state import read_away

POLL_SECONDS = 1.0
LONG_SECONDS = 5.0  # that a server may take to start again without a word


@contextmanager
def absence_said(directory: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Say once, while the block lasts, that the store of this directory's outbox takes nothing, and once that it does
    again."""
    over = threading.Event()
    watch = threading.Thread(target=_watch, args=(directory, say, over), daemon=True)
    watch.start()
    try:
        yield
    finally:
        over.set()
        watch.join()


def _watch(directory: Path, say: Callable[[str], None], over: threading.Event) -> None:
    begun, said = time.time(), False
    while not over.wait(POLL_SECONDS):
        since, reason = read_away(directory)
        away = since is not None and since >= begun  # else an earlier session has left it
        if away and not said and time.time() - (since or 0.0) > LONG_SECONDS:
            said = True
            say(f"MLflow is told nothing: {reason}. It is kept, and tried again every two seconds; trials go on.")
        elif said and not away:
            said = False
            say("MLflow is told again.")
