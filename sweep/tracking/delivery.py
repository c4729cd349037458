"""The process that delivers an outbox: `python -m sweep.tracking.delivery DIRECTORY URI EXPERIMENT TOKEN PID MODULES`.

One line of the outbox after the other, each exactly once: how far it got is in delivered.json, so a restart goes on
there. A line whose process was killed before it could write that down, or whose answer was lost, is delivered again,
which changes nothing (`calls`). Where delivered.json is lost, or is not of this outbox, all lines are gone through
again beside what MLflow has. A line that cannot be delivered is set aside, and those that follow it are delivered.
"""

import gc
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

if __name__ == "__main__":
    os.nice(19)  # trials come first, already while MLflow is imported; a delivery that lags loses nothing
    gc.disable()  # of MLflow nothing is garbage: looking for it takes a seventh of loading it

from sweep.config.modules import import_kept
from sweep.errors import InputError, WorkError
from sweep.records.run_directory import MODULES
from sweep.tracking.calls import Delivery, UnknownRunError
from sweep.tracking.lines import OUTBOX, Line, lines_from, parse_line, standing
from sweep.tracking.outbox import DELIVERY_LOCK, HOPELESS
from sweep.tracking.state import (
    DeliveryState,
    LostStateError,
    SetAside,
    keep_aside,
    read_set_aside,
    read_state,
    set_aside,
)
from sweep.tracking.store import PatientStore, first_line, locked

POLL_SECONDS = 0.2
PATHS = ("path", "card")  # fields of a line that name files


def main(directory: Path, uri: str, experiment: str, token: str, driver: int) -> None:
    """Deliver until all is read and the tracker of this token has closed, or its process `driver`, which started this
    one, is gone. Ask a store that is away again every two seconds.

    Raises:
        InputError: the store is damaged. WorkError: the driver is gone, and the store was away for minutes; or the disk
        is full.
    """
    store = PatientStore(directory, uri, driver)
    outbox = Outbox(directory, store.open(experiment), store)
    while True:
        left = store.left  # before the last look: all that the driver wrote is then there
        if outbox.deliver_next():
            continue
        if left or outbox.closed(token):
            return
        time.sleep(POLL_SECONDS)


class Outbox:
    """The outbox of a directory as its delivery sees it. Several processes may serve it, as when two sweeps of a study
    are evaluated at once: a lock lets one do so at a time, and no line is delivered twice."""

    def __init__(self, directory: Path, deliver: Delivery, store: PatientStore) -> None:
        self._directory, self._deliver, self._store = directory, deliver, store
        self._recalled = False  # MLflow's runs were looked up by this process
        self._checked = False  # the store is the one that was told what is delivered
        self._durable = 0  # bytes of the outbox that a power loss leaves

    def closed(self, token: str) -> bool:
        """Tell whether all that this tracker wrote was delivered."""
        with locked(self._directory / DELIVERY_LOCK):
            return token in self._state().closed

    def deliver_next(self) -> bool:
        """Deliver one line, or set it aside; False if there is no whole one."""
        with locked(self._directory / DELIVERY_LOCK):
            state = self._state()
            text = self._line_at(state.offset)
            if text is None:
                return False
            try:
                self._take(text, state)
            except UnknownRunError as error:
                if not self._recalled:  # the store may be another one
                    self._recover(str(error), {})
                    return True
                self._set_aside(text, error)
            except (InputError, WorkError):  # of the store, or of the disk
                raise
            except Exception as error:  # noqa: BLE001 - no line must keep back those that follow it
                self._set_aside(text, error)
            state.advance(text)
            state.write(self._directory)
            return True

    def _state(self) -> DeliveryState:
        try:
            state = read_state(self._directory)
        except LostStateError as lost:
            return self._recover(str(lost), lost.runs)
        if not self._checked:
            self._checked = True
            if self._lacks_runs(list(state.runs.values())):
                return self._recover("the store lacks runs that were delivered", {})
        if state.recalled and not self._recalled:
            self._recall()
        return state

    def _lacks_runs(self, ids: list[str]) -> bool:
        """Tell whether the store, which may be another one, lacks the first or the last run."""
        return not self._store.ask(lambda _: all(map(self._deliver.knows, [*ids[:1], *ids[-1:]])))

    def _recover(self, why: str, runs: dict[str, str]) -> DeliveryState:
        """Go through the outbox from its beginning, knowing what MLflow has. `runs`: ids that are worth a look."""
        self._recall()
        self._durable = 0
        stored = self._deliver.stored.ids
        if stored:
            say(f"{why}; what MLflow has was looked up: {len(stored)} runs")
        known = {key: run_id for key, run_id in runs.items() if run_id in stored}
        state = DeliveryState(runs=known, recalled=bool(stored))
        state.write(self._directory)
        return state

    def _recall(self) -> None:
        self._store.ask(lambda _: self._deliver.recall())
        self._recalled = True

    def _line_at(self, offset: int) -> bytes | None:
        """Read the whole line at an offset once it is durable: MLflow is never ahead of the outbox."""
        with (self._directory / OUTBOX).open("rb") as outbox:
            outbox.seek(offset)
            text = outbox.readline()
            if not text.endswith(b"\n"):
                return None
            if offset + len(text) > self._durable:
                size = os.fstat(outbox.fileno()).st_size
                os.fsync(outbox.fileno())
                self._durable = size
        return text

    def _take(self, text: bytes, state: DeliveryState) -> None:
        line = self._parsed(text)
        if line["op"] == "close":
            state.closed.append(line["token"])
        elif line["op"] == "retry":
            self._retry(state.runs)
        elif not (state.recalled and text in {one.text for one in read_set_aside(self._directory)}):
            self._tell(line, state)

    def _parsed(self, text: bytes) -> Line:
        """Read a line whose paths are relative to the outbox, which may have been moved."""
        line = parse_line(text)
        return line | {name: str(self._directory / line[name]) for name in PATHS if name in line}

    def _tell(self, line: Line, state: DeliveryState) -> None:
        doubtful = state.doubtful or state.recalled
        if self._deliver.makes(line) and not doubtful:
            state.doubtful = True
            state.write(self._directory)
        self._store.ask(lambda again: self._deliver(line, state.runs, doubtful or again))

    def _retry(self, runs: dict[str, str]) -> None:
        """Deliver what was set aside; what is refused again stays there."""
        tried = read_set_aside(self._directory)
        found = [SetAside(one.text, self._refusal(one.text, self._deliver.again, runs)) for one in tried]
        self._settle({one.text for one in tried}, runs)
        keep_aside(self._directory, [one for one in found if one.reason])

    def _settle(self, tried: set[bytes], runs: dict[str, str]) -> None:
        """Let the runs of lines that came out of turn end, or go on, as the last of their lines says."""
        keys, last = {standing(text) for text in tried} - {None}, dict[str, bytes]()
        for text in lines_from(self._directory / OUTBOX, 0):
            if (key := standing(text)) in keys:
                last[str(key)] = text
        for text in set(last.values()) - tried:
            self._refusal(text, self._deliver.stand, runs)

    def _refusal(self, text: bytes, call: Callable[[Line, dict[str, str]], None], runs: dict[str, str]) -> str:
        """Deliver a line out of turn, and return why that cannot be; empty where it was delivered."""
        try:
            line = self._parsed(text)
            self._store.ask(lambda _: call(line, runs))
        except (InputError, WorkError):
            raise
        except Exception as error:  # noqa: BLE001 - as above
            return first_line(error)
        return ""

    def _set_aside(self, text: bytes, error: Exception) -> None:
        say(f"set aside: {text[:100]!r}: {first_line(error)}")
        set_aside(self._directory, SetAside(text, first_line(error)))


def say(text: str) -> None:
    """Write a line to the delivery's log."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def outlive_driver(driver: int) -> None:
    """Ignore SIGTERM until the driver is gone: who stops a Ray job sends it to every process below the command, and the
    driver still has to say how the trials ended."""

    def hear(number: int, _: object) -> None:
        if os.getppid() != driver:
            sys.exit(128 + number)

    signal.signal(signal.SIGTERM, hear)


if __name__ == "__main__":
    outlive_driver(int(sys.argv[5]))
    gc.enable()
    try:
        import_kept(sys.argv[6:], Path(sys.argv[1]) / MODULES)
        main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4], int(sys.argv[5]))
    except (InputError, WorkError) as error:
        say(str(error))
        sys.exit(HOPELESS if isinstance(error, InputError) else 1)
    except Exception as error:  # noqa: BLE001 - the last line of the log is what the user is told
        traceback.print_exc()
        say(f"{type(error).__name__}: {first_line(error)}")
        sys.exit(1)
