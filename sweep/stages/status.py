"""`sweep status [NAME]`: show all sweeps, or the trials of one, with outcomes, reasons, cost and best so far."""

import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from sweep.console import say
from sweep.errors import InputError
from sweep.records.files import read_bytes
from sweep.records.locks import is_alive
from sweep.records.progress import SweepProgress
from sweep.records.rows import EvaluationRow, Phase, TrialRow, counted
from sweep.records.run_directory import CONFIG, FINAL, SENSITIVITY, SweepFiles, is_former
from sweep.records.summary import Sifted, SweepSummary, not_counted, sift
from sweep.records.tables import read_rows
from sweep.stages.listing import (
    Column,
    View,
    print_csv,
    print_json,
    print_record,
    say_left_out,
    show,
    show_trials,
    trial_record,
)
from sweep.tracking.lines import OUTBOX
from sweep.tracking.state import aside_sentence, lag

FOR_PEOPLE = (View.window, View.wide)


def status(runs: Path, name: str | None, console: Console, view: View = View.window) -> None:
    """Print one table, from files alone.

    Raises:
        InputError: there is no sweep of that name; or one of several cannot be read, and the others were printed.
    """
    found = sweeps_below(runs if name is None else runs / name)
    waiting = without_trials(runs, found) if name is None and view in FOR_PEOPLE else []
    if name is None or len(found) > 1:
        records, refusals = _records(runs, found)
        if records or not (waiting or refusals):
            _show_sweeps(runs, records, console, view)
        if waiting:
            say(f"Without a trial yet: {', '.join(waiting)}; `sweep resume NAME` goes on.", console)
        for line in _delivery(runs / Path(name).parts[0]) if name and view in FOR_PEOPLE else ():
            say(line, console)
        if refusals:
            raise InputError(" ".join(refusals))
    elif not found:
        raise missing(runs, name or "")
    else:
        _show_sweep(name or "", runs, SweepFiles(found[0]), console, view)


def show_trial(runs: Path, name: str, number: int, console: Console, view: View = View.window) -> None:
    """Print all about one trial, in each phase that has one of this number, and what is known of its failure.

    Raises:
        InputError: there is no such sweep or trial.
    """
    files = SweepFiles(runs / name)
    found, numbers = [], set()
    for part in files.parts:
        rows = read_rows(part.trials, TrialRow) if part.trials.exists() else []
        numbers |= {row.number for row in rows}
        found += [{**trial_record(row), "failure": _failure(part, row)} for row in rows if row.number == number]
    if not numbers:
        raise missing(runs, name)
    if not found:
        raise InputError(f"{name} has no trial {number}; its trials are {min(numbers)} to {max(numbers)}.")
    if view is View.csv:
        print_csv(found, console)
    elif view is View.json:
        print_json(found, console)
    else:
        for record in found:
            print_record(record, console)


def _failure(files: SweepFiles, row: TrialRow) -> str:
    """Read what is known of a trial's failure; empty where it did not fail, or did so in a version that kept none."""
    file = files.failure(row.number)
    return read_bytes(file).decode(errors="replace") if file.exists() and row.outcome.ended else ""


def _show_sweep(name: str, runs: Path, files: SweepFiles, console: Console, view: View) -> None:
    standing = list(_standing(name, runs, files))
    tables = {part.directory: read_rows(part.trials, TrialRow) for part in files.parts if part.trials.exists()}
    records = [trial_record(row) for rows in tables.values() for row in rows]
    if view is View.csv:
        print_csv(records, console)
    elif view is View.json:
        part = files if files.trials.exists() else files.final
        finished, at_work = SweepProgress.read(part.progress).finished, is_alive(files.directory)
        print_json({"sweep": name, "at_work": at_work, "finished": finished, "trials": records}, console)
    else:
        for directory, rows in tables.items():
            show_trials(name if directory == files.directory else f"{name}/{directory.name}", rows, console, view)
            console.print()
        if confirmed := SweepSummary([], tables.get(files.final.directory, []), []).confirmed:
            say(f"{name}: the crowned configuration has {confirmed} (confirmed, mean of {confirmed.n} seeds)", console)
        for line in standing:
            say(line, console)


def _standing(name: str, runs: Path, files: SweepFiles) -> Iterator[str]:
    """Say what was spent, whether the sweep runs, and what MLflow was not told yet."""
    for part in files.parts:
        if not part.trials.exists():
            continue
        rows, progress = read_rows(part.trials, TrialRow), SweepProgress.read(part.progress)
        gpus = sum(row.gpu_seconds for row in rows) / 3600
        yield (
            f"{'search' if part is files else part.directory.name}: {sum(row.gflops for row in rows):,.0f} GFLOP, "
            f"{sum(row.seconds for row in rows):,.0f} s of training, {gpus:.2f} GPU hours; "
            f"{progress.seconds:,.0f} s in all; {sum(row.legs for row in rows)} segments"
        )
        if not progress.finished and not is_alive(files.directory):
            yield f"Nothing is at work on it, and it is not finished: `sweep resume {name}` goes on."
    yield from not_counted(_sifted(files), files.rows, name)
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
    its_own = [path for path in candidates if path.name not in (FINAL, SENSITIVITY) and not is_former(path)]
    files = {path: SweepFiles(path) for path in its_own}
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
    if files.config.is_file() or files.study.is_file():
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


def _records(runs: Path, found: list[Path]) -> tuple[list[dict[str, Any]], list[str]]:
    """Describe the sweeps that can be read, and say why the others cannot."""
    records, refusals = [], []
    for path in found:
        try:
            records.append(_record(path, runs))
        except InputError as error:
            refusals.append(str(error))
    return records, refusals


def _show_sweeps(runs: Path, records: list[dict[str, Any]], console: Console, view: View) -> None:
    if view is View.csv:
        print_csv(records, console)
    elif view is View.json:
        print_json(records, console)
    elif not records:
        console.print(f"No sweep in {runs}.")
    else:
        console.print(f"Sweeps in {runs}", highlight=False)
        say_left_out(show(_columns(records), console, view), console)


def _record(path: Path, runs: Path) -> dict[str, Any]:
    files = SweepFiles(path)
    tables = [read_rows(part.trials, TrialRow) if part.trials.exists() else [] for part in files.parts[:2]]
    rows = tables[0] or tables[1]
    return {
        "sweep": str(path.relative_to(runs)),
        "family": rows[0].family if rows else "",
        "trials": len(rows),
        "outcomes": counted(rows),
        **_best(SweepSummary(rows, tables[1], [])),
        "gflops": sum(row.gflops for row in rows),
        "seconds": sum(row.seconds for row in rows),
        "final": _yes(files.final.trials),
        "tested": _tested(files),
    }


def _best(found: SweepSummary) -> dict[str, Any]:
    """Return the objective that a sweep is known by, of which phase and over how many seeds it is: that of the crowned
    configuration, or of the best search trial until there is one."""
    if (mean := found.confirmed) is not None:
        return {"best": mean.mean, "best_phase": Phase.confirm.value, "best_seeds": mean.n}
    if found.best is not None:
        return {"best": found.best.objective, "best_phase": Phase.search.value, "best_seeds": 1}
    return {"best": None, "best_phase": "", "best_seeds": 0}


def _best_cell(one: dict[str, Any]) -> str:
    return "-" if one["best"] is None else f"{one['best']:.1%} {one['best_phase']}, n={one['best_seeds']}"


def _columns(records: list[dict[str, Any]]) -> list[Column]:
    """List what there is to say of sweeps, the most important first."""
    return [
        Column("sweep", [one["sweep"] for one in records], right=False),
        Column("outcomes", [one["outcomes"] for one in records], right=False),
        Column("best", [_best_cell(one) for one in records], right=False),
        Column("final", [one["final"] for one in records], right=False),
        Column("tested", [one["tested"] for one in records], right=False),
        Column("GFLOP", [f"{one['gflops']:,.0f}" for one in records]),
        Column("seconds", [f"{one['seconds']:,.0f}" for one in records]),
        Column("family", [one["family"] for one in records], right=False),
    ]


def _tested(files: SweepFiles) -> str:
    uses, sifted = sum(one.rows.exists() for one in (files, *files.former_finals)), _sifted(files)
    if sifted.foreign:
        return "stale"
    return "partly" if sifted.partial else "no" if not uses else "yes" if uses == 1 else f"{uses} times"


def _sifted(files: SweepFiles) -> Sifted:
    """Tell what of rows.csv counts."""
    try:
        final = read_rows(files.final.trials, TrialRow) if files.final.trials.exists() else []
        return sift(read_rows(files.rows, EvaluationRow) if files.rows.exists() else [], final)
    except InputError:
        return Sifted()  # a list of all sweeps is no place to refuse one: its report says what is damaged


def _yes(path: Path) -> str:
    return "yes" if path.exists() else "no"
