"""Tables of how each sweep was searched: what was spent, who proposed what, where trials stopped, what broke a
limit."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from sweep.records.outcome import Outcome
from sweep.records.rows import TrialRow, ranked
from sweep.report.elements import NONE, Block, Heading, Table, Text, count, listing, percent, written_parameters
from sweep.report.load import Sweep
from sweep.report.results import UNFINISHED, WITHOUT_RESULT, Study, best_objective

RUNGS = 12  # rows per sweep; a scheduler that stops at any epoch has more, which are taken together
BEYOND = 10  # rows per sweep of trials beyond a limit; trials.csv has them all


def blocks(study: Study) -> list[Block]:
    """Build the section; tables that would be empty are left out."""
    sweeps = [replace(sweep, name=study.short(sweep)) for sweep in study.sweeps if sweep.trials]
    searched: dict[str, list[str]] = {}
    for sweep in sweeps:
        searched.setdefault(_method(sweep), []).append(sweep.name)
    sentences = " ".join(f"Searched {method}: {listing(names)}." for method, names in searched.items())
    made: list[Block] = [Text(sentences), _spend(sweeps)]
    for title, table in (
        ("Who proposed what", _proposers(sweeps)),
        ("Where trials stopped", _rungs(sweeps)),
        ("Schedules of the best members", _schedules(sweeps)),
        ("Trials beyond a limit", _infeasible(sweeps)),
    ):
        if table.rows:
            made += [Heading(title), table]
    return made


def _method(sweep: Sweep) -> str:
    config = sweep.search
    if config is None:
        return "in a way that no config.yaml tells"
    share = f" with a random share of {config.random_share:.3g}" if config.random_share else ""
    objectives = listing([one.value for one in config.objectives])
    return f"by {config.sampler.value}{share}, scheduler {config.scheduler.value}, for {objectives}"


def _spend(sweeps: Sequence[Sweep]) -> Table:
    seen = {row.outcome for sweep in sweeps for row in sweep.trials}
    shown = [outcome for outcome in Outcome if outcome in seen]
    prices = any(_price(sweep) is not None for sweep in sweeps)
    body = []
    for sweep in sweeps:
        counted = Counter(row.outcome for row in sweep.trials)
        hours, price = sum(row.gpu_seconds for row in sweep.trials) / 3600, _price(sweep)
        body.append([
            sweep.name,
            str(len(sweep.trials)),
            *(str(counted[outcome]) for outcome in shown),
            str(sum(row.legs for row in sweep.trials)),
            count(sum(row.gflops for row in sweep.trials)),
            count(sum(row.seconds for row in sweep.trials)),
            f"{hours:.3g}",
            *([NONE if price is None else f"{hours * price:,.2f}"] if prices else []),
            percent(best_objective(sweep)),
        ])  # fmt: skip
    money = ["money"] if prices else []
    names = [outcome.value for outcome in shown]
    columns = ["sweep", "trials", *names, "segments", "GFLOP", "seconds", "GPU hours", *money, "best objective, 1 seed"]
    caption = (
        "Search trials by outcome and what they cost, per sweep. A trial is trained in segments: it has "
        "more than one after a pause at a rung, a lost worker or a restart. Best objective: validation accuracy in "
        "percent, among done trials within all limits; too high as an estimate of itself, being the best of many."
    )
    return Table(caption, columns, body, ("sweep",))


def _price(sweep: Sweep) -> float | None:
    return None if sweep.search is None else sweep.search.budget.gpu_hour_price


def _proposers(sweeps: Sequence[Sweep]) -> Table:
    body = []
    for sweep in sweeps:
        by_proposer: dict[str, list[TrialRow]] = {}
        for row in sweep.trials:
            by_proposer.setdefault(row.proposed_by, []).append(row)
        body += [_proposer(sweep, name, rows) for name, rows in sorted(by_proposer.items()) if name]
    columns = [
        "sweep", "proposed by", "trials", "done", "pruned", "failed", "not ended", "best objective, 1 seed", "of trial",
    ]  # fmt: skip
    caption = "Trials by who proposed them; best search objective in percent, among done trials within all limits."
    return Table(caption, columns, body, ("sweep", "proposed by"))


def _proposer(sweep: Sweep, name: str, rows: list[TrialRow]) -> list[str]:
    groups = ((Outcome.done,), (Outcome.pruned,), WITHOUT_RESULT, UNFINISHED)
    counts = [str(sum(row.outcome in group for row in rows)) for group in groups]
    best = ranked(rows)[:1]
    told = [percent(best[0].objective), str(best[0].number)] if best else [NONE, NONE]
    return [sweep.name, name, str(len(rows)), *counts, *told]


def _rungs(sweeps: Sequence[Sweep]) -> Table:
    body = [line for sweep in sweeps for line in _rungs_of(sweep)]
    columns = ["sweep", "epoch", "trials that reached it", "pruned", "waiting", "best objective there, 1 seed"]
    caption = (
        "Epochs at which trials were pruned or wait for their promotion, and the last epoch. Pruned and waiting: "
        "after the epoch of the row above and up to this one. Best objective: percent, of all that reached the epoch."
    )
    return Table(caption, columns, body, ("sweep",))


def _rungs_of(sweep: Sweep) -> list[list[str]]:
    """Read from the learning curves where trials stopped; empty where none was."""
    last: dict[int, int] = {}
    for row in sweep.curves:
        last[row.number] = max(row.epoch, last.get(row.number, 0))
    outcomes = {row.number: row.outcome for row in sweep.trials}
    stopped = {number: epoch for number, epoch in last.items() if outcomes.get(number) in _STOPPED}
    if not stopped:
        return []
    lines, below = [], 0
    for epoch in _thinned(sorted({*stopped.values(), max(last.values())})):
        here = Counter(outcomes[number] for number, at in stopped.items() if below < at <= epoch)
        values = [row.objective for row in sweep.curves if row.epoch == epoch and row.objective is not None]
        reached = sum(at >= epoch for at in last.values())
        counts = [str(reached), *(str(here[outcome]) for outcome in _STOPPED)]
        lines.append([sweep.name, str(epoch), *counts, percent(max(values, default=None))])
        below = epoch
    return lines


_STOPPED = (Outcome.pruned, Outcome.paused)


def _thinned(epochs: Sequence[int]) -> list[int]:
    """Keep at most RUNGS of the epochs, evenly, the last one among them."""
    if len(epochs) <= RUNGS:
        return list(epochs)
    return [epochs[(place + 1) * len(epochs) // RUNGS - 1] for place in range(RUNGS)]


def _schedules(sweeps: Sequence[Sweep]) -> Table:
    body = []
    for sweep in sweeps:
        for row in ranked(sweep.trials)[:1]:
            known: Mapping[str, Any] = {}
            for entry in row.schedule:
                parent, parameters = entry.get("parent"), entry["parameters"]
                changed = {name: value for name, value in parameters.items() if known.get(name, _NEW) != value}
                origin = "itself" if parent is None or parent == row.number else f"trial {parent}"
                body.append(
                    [sweep.name, str(row.number), str(entry["epoch"]), origin, written_parameters(changed) or NONE]
                )
                known = {**known, **parameters}
    columns = ["sweep", "trial", "from epoch", "weights of", "parameters that changed"]
    caption = (
        "How the best member of each population was trained: from which epoch, with whose weights, and which "
        "parameters differ from the row above; the first row has all that are scheduled."
    )
    return Table(caption, columns, body, ("sweep", "weights of", "parameters that changed"))


_NEW = object()  # differs from every value, None included


def _infeasible(sweeps: Sequence[Sweep]) -> Table:
    body, total = [], 0
    for sweep in sweeps:
        limits = {} if sweep.search is None else sweep.search.constraints.limits()
        beyond = [row for row in sweep.trials if not row.feasible]
        total += len(beyond)
        for row in sorted(beyond, key=lambda row: (-(row.objective or 0.0), row.number))[:BEYOND]:
            broken = [_measured(name, value, limits.get(name)) for name, value in sorted(row.constraints.items())]
            body.append([sweep.name, str(row.number), percent(row.objective), ", ".join(filter(None, broken))])
    columns = ["sweep", "trial", "objective", "measured"]
    caption = (
        f"Trials that exceeded a limit and so cannot be chosen, whatever their objective (n = {total}; shown: the "
        f"{BEYOND} of each sweep with the best objectives)."
    )
    return Table(caption, columns, body, ("sweep", "measured"))


def _measured(name: str, value: float, limit: float | None) -> str:
    """Write a measured value that is above its limit, or has none; empty for what is within its limit."""
    if limit is None:
        return f"{name} {count(value)}"
    return f"{name} {count(value)} (limit {count(limit)})" if value > limit else ""
