"""The display while trials run: live in a terminal, plain lines elsewhere."""

import time
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sweep.console import printable
from sweep.execution.observers import Observer
from sweep.execution.segment import Segment
from sweep.records.outcome import Outcome
from sweep.records.rows import CurveRow, TrialRow, best_so_far

SHOWN = 8  # running trials listed at most
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

    def epoch(self, row: TrialRow, curve: CurveRow) -> None:  # noqa: ARG002
        self._show(row)

    def stands(self, row: TrialRow, segment: Segment | None) -> None:  # noqa: ARG002
        self._show(row)

    def _show(self, row: TrialRow) -> None:
        self._display.update(row, self._epochs_of.get(row.number, self._epochs))


class ProgressDisplay:
    """A display of outcomes, the best trial, time and cost spent, time left, and the running trials below."""

    def __init__(self, console: Console, title: str, total: int) -> None:
        self._console, self._title, self._total = console, title, total
        self._rows: dict[str, TrialRow] = {}
        self._epochs: dict[str, int] = {}  # of the whole trial
        self._started = time.monotonic()
        self._live = Live(console=console, refresh_per_second=4, transient=True, get_renderable=self._render)

    def __enter__(self) -> "ProgressDisplay":
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()
        self._console.print(self.summary(), highlight=False)

    def update(self, row: TrialRow, epochs: int, *, heard: bool = True) -> None:
        """Show a trial as it is now. `epochs`: how many it has in all; `heard` False: nothing new has happened to
        it."""
        before = self._rows.get(row.trial_id)
        self._rows[row.trial_id], self._epochs[row.trial_id] = row, epochs
        changed = heard and (before is None or before.outcome is not row.outcome)
        if changed and row.outcome not in SILENT and not self._console.is_terminal:
            self._console.print(self._line(row), highlight=False)

    def say(self, text: str) -> None:
        """Print a line above the live display."""
        self._console.print(f"  {text}", highlight=False)

    def summary(self) -> str:
        """Sum up everything so far in one line."""
        rows = self._rows.values()
        counts = Counter(row.outcome for row in rows)
        text = ", ".join(f"{counts[outcome]} {outcome.value}" for outcome in Outcome if counts[outcome])
        spent = f"{time.monotonic() - self._started:.0f} s, {sum(row.gflops for row in rows):,.0f} GFLOP"
        return f"{self._title}: {text or 'no trial yet'} of {self._total}; {best_so_far(rows)}; {spent}"

    def _line(self, row: TrialRow) -> str:
        value = "-" if row.objective is None else f"{row.objective:.1%}"
        reason = f" ({row.reason})" if row.reason and row.outcome is not Outcome.pruned else ""
        head = f"  {row.sweep} {row.phase.value} trial {row.number}: {row.outcome.value} {value}"
        return f"{head}, {row.epochs} epochs, {row.seconds:.1f} s{reason}"

    def _render(self) -> RenderableType:
        ended = sum(row.outcome is not Outcome.running for row in self._rows.values())
        head = Text(f"{self.summary()}; {self._time_left(ended)}")
        bar = ProgressBar(total=self._total, completed=ended, width=60)
        return Group(head, bar, self._running())

    def _time_left(self, ended: int) -> str:
        if not ended:
            return "time left unknown"
        left = (time.monotonic() - self._started) / ended * (self._total - ended)
        return f"about {timedelta(seconds=round(left))} left"

    def _running(self) -> Table:
        table = Table(box=None, padding=(0, 2), show_header=False)
        running = [row for row in self._rows.values() if row.outcome is Outcome.running]
        for row in running[:SHOWN]:
            value = "-" if row.objective is None else f"{row.objective:.1%}"
            params = " ".join(
                f"{k.split('.')[-1]}={v:.3g}" if isinstance(v, float) else f"{k.split('.')[-1]}={v}"
                for k, v in row.parameters.items()
            )
            table.add_row(
                f"{row.sweep} {row.phase.value} trial {row.number}",
                f"epoch {row.epochs}/{self._epochs[row.trial_id]}",
                value,
                Text(printable(params), style="dim"),
            )
        return table
