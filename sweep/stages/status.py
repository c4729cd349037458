"""`sweep status [NAME]`: show all sweeps, or the trials of one, with outcomes, reasons, cost and best so far."""

import os
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from sweep.errors import InputError
from sweep.records.locks import is_alive
from sweep.records.outcome import Outcome
from sweep.records.progress import SweepProgress
from sweep.records.rows import TrialRow, ranked
from sweep.records.run_directory import CONFIG, SweepFiles, is_former
from sweep.records.tables import read_rows
from sweep.tracking.lines import OUTBOX
from sweep.tracking.state import aside_sentence, lag


def status(runs: Path, name: str | None, console: Console) -> None:
    """Print one table, from files alone.

    Raises:
        InputError: there is no sweep of that name.
    """
    found = sweeps_below(runs if name is None else runs / name)
    waiting = without_trials(runs, found) if name is None else []
    if name is None and not found and not waiting:
        console.print(f"No sweep in {runs}.")
    elif name is None or len(found) > 1:
        if found:
            console.print(_overview(runs, found))
        if waiting:
            console.print(f"Without a trial yet: {', '.join(waiting)}; `sweep resume NAME` goes on.", highlight=False)
        for line in _delivery(runs / Path(name).parts[0]) if name else ():
            console.print(line, highlight=False)
    elif not found:
        raise missing(runs, name or "")
    else:
        files = SweepFiles(found[0])
        standing = list(_standing(name or "", runs, files))
        for row_file in (files.trials, files.final.trials):
            if row_file.exists():
                console.print(_trials(name or "", read_rows(row_file, TrialRow)))
        for line in standing:
            console.print(line, highlight=False)


def _standing(name: str, runs: Path, files: SweepFiles) -> Iterator[str]:
    """Say what was spent, whether the sweep runs, and what MLflow was not told yet."""
    for part in (files, files.final):
        if not part.trials.exists():
            continue
        rows, progress = read_rows(part.trials, TrialRow), SweepProgress.read(part.progress)
        gpus = sum(row.gpu_seconds for row in rows) / 3600
        yield (
            f"{'search' if part is files else 'final'}: {sum(row.gflops for row in rows):,.0f} GFLOP, "
            f"{sum(row.seconds for row in rows):,.0f} s of training, {gpus:.2f} GPU hours; "
            f"{progress.seconds:,.0f} s in all; {sum(row.legs for row in rows)} segments"
        )
        if not progress.finished and not is_alive(files.directory):
            yield f"Nothing is at work on it, and it is not finished: `sweep resume {name}` goes on."
    yield from _delivery(runs / Path(name).parts[0])


def _delivery(store: Path) -> Iterator[str]:
    """Say what MLflow was not told yet, and what it refused."""
    behind = lag(store)
    if behind.lines:
        since = "" if behind.away_since is None else f" since {datetime.fromtimestamp(behind.away_since):%H:%M:%S}"
        away = f"; the store does not answer{since}: {behind.reason}" if behind.reason else ""
        doubt = f"; {behind.doubt}, the next delivery looks up what MLflow has" if behind.doubt else ""
        yield f"MLflow was not told {behind.lines} lines of {store / OUTBOX} yet{away}{doubt}"
    yield from filter(None, [aside_sentence(store)])


def sweeps_below(directory: Path) -> list[Path]:
    """List the run directories of sweeps: this one, and those one or two levels below (a study's members)."""
    candidates = [directory, *sorted(directory.glob("*")), *sorted(directory.glob("*/*"))]
    files = {path: SweepFiles(path) for path in candidates if path.name != "final" and not is_former(path)}
    # os.path: others' directories, which may not be looked into, hold no sweep of ours.
    return [path for path, its in files.items() if any(map(os.path.exists, (its.trials, its.final.trials)))]


def without_trials(runs: Path, found: list[Path]) -> list[str]:
    """List the names of sweeps and studies that were begun and have no trial, where `found` have."""
    begun = [SweepFiles(path) for path in sorted(runs.glob("*"))]
    named = [files.directory for files in begun if any(map(os.path.exists, (files.config, files.study)))]
    return [path.name for path in named if not any(path in (one, *one.parents) for one in found)]


def missing(runs: Path, name: str) -> InputError:
    """Say why nothing can be said of this sweep: it has no run directory, no configuration there, or no trial yet."""
    files = SweepFiles(runs / name)
    if files.config.exists() or files.study.exists():
        return InputError(
            f"{name} in {runs} has no trial yet; where no command is at work on it, `sweep resume {name}` goes on."
        )
    if files.directory.is_dir():
        return InputError(
            f"{files.directory} has no {CONFIG}, which a sweep or study has from its beginning: bring back a copy, or "
            f"remove the directory and begin anew."
        )
    found = sweeps_below(runs)
    known = [*(str(path.relative_to(runs)) for path in found), *without_trials(runs, found)]
    return InputError(f"There is no sweep {name} in {runs}; there are: {', '.join(known) or 'none'}.")


def _overview(runs: Path, found: list[Path]) -> Table:
    table = Table(title=f"Sweeps in {runs}")
    for column in ("sweep", "family", "trials", "outcomes", "best", "GFLOP", "seconds", "final", "tested"):
        table.add_column(column, justify="right" if column in {"trials", "best", "GFLOP", "seconds"} else "left")
    for path in found:
        files = SweepFiles(path)
        rows = read_rows(files.trials if files.trials.exists() else files.final.trials, TrialRow)
        best = ranked(rows)
        table.add_row(
            str(path.relative_to(runs)),
            rows[0].family if rows else "",
            str(len(rows)),
            _counts(rows),
            f"{best[0].objective:.1%}" if best else "-",
            f"{sum(row.gflops for row in rows):,.0f}",
            f"{sum(row.seconds for row in rows):,.0f}",
            _yes(files.final.trials),
            _tested(files),
        )
    return table


def _counts(rows: list[TrialRow]) -> str:
    counts = Counter(row.outcome for row in rows)
    return ", ".join(f"{counts[outcome]} {outcome.value}" for outcome in Outcome if counts[outcome])


def _tested(files: SweepFiles) -> str:
    uses = sum(one.rows.exists() for one in (files, *files.former_finals))
    return "no" if not uses else "yes" if uses == 1 else f"{uses} times"


def _yes(path: Path) -> str:
    return "yes" if path.exists() else "no"


def _trials(name: str, rows: list[TrialRow]) -> Table:
    table = Table(title=f"{name}: {_counts(rows)}")
    for column in ("trial", "phase", "outcome", "objective", "epochs", "GFLOP", "seconds", "parameters", "reason"):
        table.add_column(
            column, justify="right" if column in {"trial", "objective", "epochs", "GFLOP", "seconds"} else "left"
        )
    best = ranked(rows)[:1]
    for row in rows:
        objective = "-" if row.objective is None else f"{row.objective:.1%}"
        table.add_row(
            str(row.number),
            row.phase.value,
            row.outcome.value,
            objective,
            str(row.epochs),
            f"{row.gflops:,.1f}",
            f"{row.seconds:,.1f}",
            " ".join(
                f"{key}={value:.3g}" if isinstance(value, float) else f"{key}={value}"
                for key, value in row.parameters.items()
            ),
            row.reason,
            style="bold" if row in best else None,
        )
    return table
