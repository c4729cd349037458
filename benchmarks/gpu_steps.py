"""What the steps of `gpu_sweep.sh` share: each has a limit, and a row that is printed and appended once it is over."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Found = dict[str, Any]


class StepFailed(RuntimeError):
    """A step did not do what the next ones need."""


def step(name: str, seconds: float, work: Callable[[], Found]) -> Found:
    """Do it within its seconds, and print and keep what was found.

    Raises:
        StepFailed: it raised, or took too long; the row says so.
    """
    started, found = time.monotonic(), Found()
    try:
        with _within(seconds):
            found = work()
    except Exception as error:
        found = {"error": f"{type(error).__name__}: {error}"}
        raise StepFailed(f"{name}: {found['error']}") from error
    finally:
        _emit({"step": name, "seconds": round(time.monotonic() - started, 1), **found})
    return found


@contextmanager
def _within(seconds: float) -> Iterator[None]:
    def late(*_: object) -> None:
        raise TimeoutError(f"not done after {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _emit(row: Found) -> None:
    print(row["step"], "|", "; ".join(f"{key} {value}" for key, value in row.items() if key != "step"), flush=True)
    place = Path(os.environ.get("OUT", Path(__file__).parent / "results"))
    place.mkdir(parents=True, exist_ok=True)
    with (place / "gpu_sweep.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")
