"""Runs in a terminal: searches without Ray or training, which wait for a key wherever their screen is to be read."""

import os
import sys
import termios
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from sweep.console import PlainConsole
from sweep.execution.display import ProgressDisplay
from sweep.worker.segment import Segment, WorkerResult
from tests.sweep.pretended import Sweep, Worker, configured, opened
from tests.sweep.sweep_files import session_on

EPOCHS = 8
WORDS = ["space=continuous", f"training.epochs={EPOCHS}"]


def search(runs: Path, trials: int) -> Sweep:
    session = session_on(configured(*WORDS, f"search.trials={trials}", runs=runs))
    return opened(replace(session, console=PlainConsole()))


def wait(display: ProgressDisplay, mark: str) -> None:
    """Draw the display, put a mark into the window's title, and wait for a key."""
    if display._live.is_started:
        display._live.refresh()
    os.write(1, f"\x1b]0;{mark}\x07".encode())
    os.read(0, 1)


class Running:
    """Trials side by side, an epoch at a time."""

    def __init__(self, sweep: Sweep) -> None:
        self._sweep = sweep
        self._at_work: list[tuple[Segment, Iterator[WorkerResult]]] = []

    def start(self, trials: int) -> None:
        for _ in range(trials):
            segment = self._sweep.controller.next_segment()
            if isinstance(segment, Segment):
                self._at_work.append((segment, Worker().results(segment)))

    def epoch(self) -> None:
        for pair in list(self._at_work):
            segment, results = pair
            result = next(results)
            self._sweep.controller.result(segment, result)
            if result.done:
                self._sweep.controller.segment_ended(segment, result, "TERMINATED")
                self._at_work.remove(pair)

    def finish(self) -> None:
        self.start(2)
        while self._at_work:
            self.epoch()
            self.start(2 - len(self._at_work))
        self._sweep.controller.finish("")


def play(runs: Path) -> None:
    """A search of 4 trials, cut short in its third and fourth, resumed, and extended by 2."""
    for name, trials in (("new", 4), ("resumed", 4), ("extended", 6)):
        sweep = search(runs, trials)
        with sweep.display:
            running = Running(sweep)
            wait(sweep.display, f"{name} start")
            running.start(2)
            for _ in range(EPOCHS if name == "new" else 2):
                running.epoch()
            if name == "new":
                running.start(2)
                running.epoch()
            wait(sweep.display, f"{name} middle")
            if name != "new":
                running.finish()
        sweep.session.console.print("$ next", highlight=False)
        wait(sweep.display, f"{name} end")


if __name__ == "__main__":
    settings = termios.tcgetattr(sys.stdin)
    settings[3] &= ~(termios.ECHO | termios.ICANON)
    termios.tcsetattr(sys.stdin, termios.TCSANOW, settings)
    for place in sys.argv[1:]:
        play(Path(place))
