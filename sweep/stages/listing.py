"""Lists of sweeps and of trials: as wide as the window, as wide as they are, as CSV or as JSON."""

import csv
import io
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from sweep.console import printable, say, short_names, short_value, varying
from sweep.records.outcome import Outcome
from sweep.records.rows import WAITING, Phase, TrialRow, counted, ranked, reasons, standing_of

if TYPE_CHECKING:
    from sweep.cluster.nodes import NodeReport

GAP = 2  # blanks between columns
OF_COURSE = (Outcome.pruned, Outcome.paused)  # what their reasons say can be seen
_ANSWERS = {True: "yes", False: "no", None: "-"}


class View(Enum):
    """The form of a list; the values are the flags of the command."""

    window = ""  # whole columns only, as many as the window has room for
    wide = "--wide"  # all columns, however wide
    csv = "--csv"
    json = "--json"


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a list; a head that is wider than all cells is broken after its underscores."""

    head: str
    cells: Sequence[str]
    right: bool = True

    @property
    def heads(self) -> list[str]:
        room, lines = max(map(len, self.cells), default=0), [""]
        for part in self.head.replace("_", "_ ").split(" "):
            blank = " " if lines[-1] and not lines[-1].endswith("_") else ""
            if lines[-1] and len(lines[-1] + blank + part) > room:
                lines.append(part)
            else:
                lines[-1] += blank + part
        return lines

    @property
    def width(self) -> int:
        return max(map(len, [*self.heads, *self.cells]))

    def placed(self, cell: str) -> str:
        return cell.rjust(self.width) if self.right else cell.ljust(self.width)


def show(columns: Sequence[Column], console: Console, view: View, marked: int | None = None) -> list[str]:
    """Print the columns that there is room for; return the heads of the others. `marked`: a row that is bold."""
    columns = [Column(printable(one.head), [*map(printable, one.cells)], one.right) for one in columns]
    shown = columns if view is View.wide else _fitting(columns, console.width)
    depth = max(len(one.heads) for one in shown)
    for line in range(depth):
        _print_row([one.placed(["", *one.heads][max(0, line + 1 - depth + len(one.heads))]) for one in shown], console)
    _print_row(["─" * one.width for one in shown], console)
    for number in range(len(shown[0].cells)):
        _print_row([one.placed(one.cells[number]) for one in shown], console, "bold" if number == marked else "")
    return [one.head for one in columns if one not in shown]


def _fitting(columns: Sequence[Column], width: int) -> list[Column]:
    """Take whole columns from the left, leaving out those that do not fit, but never the first one."""
    shown, taken = [columns[0]], columns[0].width
    for one in columns[1:]:
        if taken + GAP + one.width <= width:
            shown.append(one)
            taken += GAP + one.width
    return shown


def _print_row(cells: Sequence[str], console: Console, style: str = "") -> None:
    console.print(Text((" " * GAP).join(cells).rstrip(), style=style), highlight=False)


# --- trials -----------------------------------------------------------------------------------------------------------


def show_trials(name: str, rows: Sequence[TrialRow], console: Console, view: View) -> None:
    """Print the trials of one phase, or of the two final ones, and below them why some of them failed."""
    best = next(iter(ranked([row for row in rows if row.phase is Phase.search])), None)
    chosen = f"; best is trial {best.number} at {best.objective:.1%} (search, one seed)" if best else ""
    say(f"{name}: {counted(rows) or 'no trial yet'}{chosen}", console)
    if not rows:
        return
    left_out = show(list(_columns(rows, view)), console, view, rows.index(best) if best else None)
    say_left_out(left_out, console)
    told = [row for row in rows if row.outcome not in OF_COURSE and standing_of(row) != WAITING]
    for line in reasons(told) if view is View.window else ():
        say(line, console)


def _columns(rows: Sequence[TrialRow], view: View) -> Iterator[Column]:
    yield Column("trial", [str(row.number) for row in rows])
    if any(row.phase is not Phase.search for row in rows):
        yield Column("phase", [row.phase.value for row in rows], right=False)
        yield Column("of trial", [str(row.candidate) for row in rows])
    yield Column("outcome", [standing_of(row) for row in rows], right=False)
    yield Column("objective", ["-" if row.objective is None else f"{row.objective:.1%}" for row in rows])
    yield Column("epochs", [str(row.epochs) for row in rows])
    yield Column("GFLOP", [f"{row.gflops:,.1f}" for row in rows])
    if view is View.wide:
        yield Column("seconds", [f"{row.seconds:,.1f}" for row in rows])
        for name in ("host", "gpu"):
            yield Column(name, [getattr(row, name) for row in rows], right=False)
    for key, name in short_names(varying([row.parameters for row in rows])).items():
        cells = [short_value(row.parameters[key]) if key in row.parameters else "" for row in rows]
        yield Column(name, cells, right=not any(isinstance(row.parameters.get(key), str) for row in rows))
    if view is View.wide:
        yield Column("reason", [row.reason for row in rows], right=False)


def say_left_out(heads: Sequence[str], console: Console) -> None:
    if heads:
        say(f"No room for {', '.join(heads)}: --wide, --csv and --json have all.", console)


def trial_record(row: TrialRow) -> dict[str, Any]:
    """Describe a trial for other programs."""
    return {
        "sweep": row.sweep,
        "phase": row.phase.value,
        "trial": row.number,
        "candidate": row.candidate,
        "outcome": row.outcome.value,
        "reason": row.reason,
        "objective": row.objective,
        "epochs": row.epochs,
        "gflops": row.gflops,
        "seconds": row.seconds,
        "gpu_seconds": row.gpu_seconds,
        "host": row.host,
        "gpu": row.gpu,
        "seed": row.seed,
        "parameters": row.parameters,
    }


def print_record(record: dict[str, Any], console: Console) -> None:
    """Print a line for each value of a trial, and below them what is known of its failure."""
    values = _flat({key: value for key, value in record.items() if key != "failure"})
    width = max(map(len, values))
    for key, value in values.items():
        if value not in ("", None):
            say(f"  {key.ljust(width)}  {value}", console)
    for line in record["failure"].splitlines():
        console.print(line, highlight=False)
    console.print()


# --- other programs ---------------------------------------------------------------------------------------------------


def print_json(content: object, console: Console) -> None:
    console.print(json.dumps(content, indent=1), highlight=False)


def print_csv(records: Sequence[dict[str, Any]], console: Console) -> None:
    """Print records as CSV, a column for each key of a record or of a dictionary within it."""
    flat = [_flat(record) for record in records]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(key for one in flat for key in one)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    console.print(text.getvalue(), end="", highlight=False)


def _flat(record: dict[str, Any]) -> dict[str, Any]:
    cells: dict[str, Any] = {}
    for key, value in record.items():
        cells |= value if isinstance(value, dict) else {key: value}
    return cells


def show_nodes(nodes: Sequence["NodeReport"], versions: Sequence[str], console: Console, view: View) -> None:
    """Print a row for each node of a cluster. Of `versions`, what is the same everywhere stands in a line above."""
    if not nodes:
        return
    values = {name: [str(getattr(node, name)) or "-" for node in nodes] for name in versions}
    same = {name: cells[0] for name, cells in values.items() if len(set(cells)) == 1}
    if same:
        say(f"On each node: {', '.join(f'{name} {text}' for name, text in same.items())}", console)
    columns = [Column("node", [node.host for node in nodes], right=False)]
    columns += [Column(name, cells, right=False) for name, cells in values.items() if name not in same]
    cells = {
        "GPUs": [" + ".join(f"{n} {gpu}" for gpu, n in Counter(node.gpus).items()) or "-" for node in nodes],
        "driver": [node.driver or "-" for node in nodes],
        "MPS": ["on" if node.mps else "off" for node in nodes],
        "token": [node.token or "-" for node in nodes],
        "storage": ["no" if node.storage or node.obstacle else "yes" for node in nodes],
        "free": [f"{node.free_gib:,.0f} GiB" for node in nodes],
        "clock": [f"{node.skew:+.2f} s" for node in nodes],
        "data": [_ANSWERS[node.data] for node in nodes],
        "MLflow": [_ANSWERS[node.tracking] for node in nodes],
    }
    columns += [Column(head, texts, right=False) for head, texts in cells.items()]
    say_left_out(show(columns, console, view), console)
