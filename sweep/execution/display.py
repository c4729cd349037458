"""The display while trials run: live in a terminal, plain lines elsewhere."""

import time
from collections.abc import Collection, Iterator, Sequence
from datetime import timedelta

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from sweep.console import fitted, is_live, printable, short_names, short_value, varying, wrapped
from sweep.execution.observers import Observer
from sweep.records.outcome import Outcome
from sweep.records.rows import CurveRow, Phase, TrialRow, best_so_far, counted, standing_of
from sweep.worker.segment import Segment

SHOWN = 8  # running trials listed at most
BAR = 60  # columns at most
SILENT = (Outcome.running, Outcome.paused)  # a line for each of these would be one for every segment


class ShownTrials(Observer):
    """An observer that shows one sweep's trials on a display shared with others. `epochs`: of a whole trial."""

    def __init__(self, display: "ProgressDisplay", epochs: int) -> None:
        self._display, self._epochs = display, epochs
        self._epochs_of: dict[int, int] = {}

    def take_up(self, rows: Sequence[TrialRow], curves: Sequence[CurveRow]) -> None:  # noqa: ARG002
        for row in rows:
            self._display.update(row, self._epochs, heard=False)

    def began(self, row: TrialRow, segment: Segment) -> None:
        self._epochs_of[row.number] = segment.epochs
        self._show(row)

    def placed(self, row: TrialRow) -> None:
        self._show(row)

    def epoch(self, row: TrialRow, curve: CurveRow) -> None:  # noqa: ARG002
        self._show(row)

    def stands(self, row: TrialRow, segment: Segment | None) -> None:  # noqa: ARG002
        self._show(row)

    def _show(self, row: TrialRow) -> None:
        self._display.update(row, self._epochs_of.get(row.number, self._epochs))


class ProgressDisplay:
    """A display of what this session has done of its share, the time left, the best trial, and the running trials
    below. What earlier sessions have done counts as a beginning, not as progress."""

    def __init__(self, console: Console, title: str, total: int) -> None:
        self._console, self._title, self._total = console, title, total
        self._rows: dict[str, TrialRow] = {}
        self._before: dict[str, TrialRow] = {}  # as earlier sessions have left them
        self._epochs: dict[str, int] = {}  # of the whole trial
        self._started = time.monotonic()
        self._began: float | None = None  # when the first trial of this session did
        self._live = Live(console=console, refresh_per_second=4, transient=True, get_renderable=self._render)

    def __enter__(self) -> "ProgressDisplay":
        if is_live(self._console):
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()
        for line in wrapped(self._console, self.summary()):
            self._console.print(line, highlight=False)

    def update(self, row: TrialRow, epochs: int, *, heard: bool = True) -> None:
        """Show a trial as it is now. `epochs`: how many it has in all; `heard` False: nothing new has happened to
        it."""
        before = self._rows.get(row.trial_id)
        self._rows[row.trial_id], self._epochs[row.trial_id] = row, epochs
        if not heard:
            self._before[row.trial_id] = row
        elif self._began is None:
            self._began = time.monotonic()
        changed = heard and (before is None or before.outcome is not row.outcome)
        if changed and row.outcome not in SILENT and not is_live(self._console):
            self._console.print(self._line(row), highlight=False)

    def say(self, text: str) -> None:
        """Print a line above the live display."""
        for line in wrapped(self._console, f"  {text}"):
            self._console.print(line, highlight=False)

    def summary(self) -> str:
        """Sum up everything so far in one line; time and cost are this session's."""
        spent = f"{time.monotonic() - self._started:.0f} s, {self._gflops():,.0f} GFLOP"
        again = " in this session" if self._before else ""
        counts = counted(self._known()) or "no trial yet"
        return f"{self._title}: {counts} of {self._total}; {best_so_far(self._known())}; {spent}{again}"

    def _known(self) -> list[TrialRow]:
        """Copy the rows at once: the thread that draws would stumble over a trial that is added meanwhile."""
        return list(self._rows.values())

    def _gflops(self) -> float:
        return sum(row.gflops for row in self._known()) - sum(row.gflops for row in self._before.values())

    def _line(self, row: TrialRow) -> str:
        value = "-" if row.objective is None else f"{row.objective:.1%}"
        reason = f" ({row.reason})" if row.reason and row.outcome is not Outcome.pruned else ""
        head = f"  {row.sweep} {row.phase.value} trial {row.number}: {row.outcome.value} {value}"
        return f"{head}, {row.epochs} epochs, {row.seconds:.1f} s{reason}"

    def _render(self) -> RenderableType:
        return Group(*(Text(line, no_wrap=True) for line in self._lines()))

    def _lines(self) -> Iterator[str]:
        found = sum(map(self._share, self._before.values()))
        passed = sum(map(self._share, self._known())) - found
        ended = _ended(self._known()) - _ended(self._before.values())
        earlier = f" after {_ended(self._before.values())} before" if self._before else ""
        of = f"{ended} of {self._total - _ended(self._before.values())} trials{earlier}"
        yield from wrapped(self._console, f"{self._title}: {of}; {self._time(passed, self._total - found)}")
        yield self._bar(passed / (self._total - found) if self._total > found else 1.0)
        if self._rows:
            yield from wrapped(
                self._console, f"{counted(self._known())}; {best_so_far(self._known())}; {self._gflops():,.0f} GFLOP"
            )
        yield from self._running()

    def _share(self, row: TrialRow) -> float:
        """Return how much of a trial is over; one that waits may never go on."""
        if row.outcome.ended or row.outcome is Outcome.paused:
            return 1.0
        return min(1.0, row.epochs / self._epochs[row.trial_id])

    def _time(self, passed: float, whole: float) -> str:
        now = time.monotonic()
        spent = timedelta(seconds=round(now - self._started))
        if passed <= 0:
            return f"{spent}, workers load PyTorch"
        left = (now - (self._began or self._started)) / passed * max(0.0, whole - passed)
        return f"{spent}, about {timedelta(seconds=round(left))} left"

    def _bar(self, part: float) -> str:
        width = min(BAR, self._console.width - len(" 100 %"))
        full, rest = "━─" if self._console.encoding.startswith("utf") else "#-"
        done = round(width * max(0.0, min(1.0, part)))
        return f"{full * done}{rest * (width - done)} {100 * part:.0f} %"

    def _running(self) -> Iterator[str]:
        """Describe each running trial on a line of its own: as many of its parameters as fit, whole ones only."""
        rows = [row for row in self._known() if standing_of(row) == Outcome.running.value]
        keys = varying([row.parameters for row in self._known()])
        names, several = short_names(keys), len({row.sweep for row in self._known()}) > 1
        room = max(1, min(SHOWN, self._console.height - 8))
        for row in rows[:room]:
            epochs = self._epochs[row.trial_id]
            head = f"  {_name(row, several)}  epoch {row.epochs:>{len(str(epochs))}}/{epochs}"
            value = "" if row.objective is None else f"{row.objective:.1%}"
            params = (f"{names[key]}={short_value(row.parameters[key])}" for key in keys if key in row.parameters)
            yield fitted([f"{head}  {value:>6} ", *map(printable, params)], self._console.width)
        if len(rows) > room:
            yield f"  and {len(rows) - room} more"


def _name(row: TrialRow, several: bool) -> str:
    """Name a trial, in a study by the part of the sweep's name that tells it from others."""
    kind = "trial" if row.phase is Phase.search else row.phase.value
    sweep = f"{row.sweep.rsplit('/', 1)[-1]} " if several else ""
    return f"{sweep}{kind} {row.number}"


def _ended(rows: Collection[TrialRow]) -> int:
    return sum(row.outcome.ended or row.outcome is Outcome.paused for row in rows)
