"""The report's tables but those of the search: families, differences, configurations, failures, files."""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from odenet.training.config import OBJECTIVE_EPOCHS
from sweep.console import short_names
from sweep.records.outcome import Outcome
from sweep.records.rows import TrialRow, ranked
from sweep.report import sentences, statistics
from sweep.report.elements import (
    NONE,
    Block,
    Link,
    Table,
    count,
    listing,
    parameter_value,
    percent,
    percent_interval,
)
from sweep.report.hyperparameters.parameters import varied_parameters
from sweep.report.load import FILES, OPTIONAL, Sweep
from sweep.report.results import (
    Family,
    Study,
    TaskResults,
    best_objective,
    confirmations,
    confirmed_objective,
)

VALUES = (
    f"Mean validation accuracy of the last {OBJECTIVE_EPOCHS} epochs, in percent: when confirmed, mean and sd over so "
    "many fresh seeds; in the search, of the one seed by which it was chosen, which is too high where it is the best "
    "of many."
)


def trials_by_outcome(study: Study) -> Table:
    """Count, in a row per family, what became of its search trials, and what they cost."""
    by_family = {name: [r for s in study.sweeps if s.family == name for r in s.trials] for name in study.families}
    seen = {row.outcome for rows in by_family.values() for row in rows}
    shown = [outcome for outcome in Outcome if outcome in seen]
    body = []
    for name, rows in by_family.items():
        counted = Counter(row.outcome for row in rows)
        spent = [count(sum(row.gflops for row in rows)), count(sum(row.seconds for row in rows))]
        body.append([name, str(len(rows)), *(str(counted[outcome]) for outcome in shown), *spent])
    columns = ["family", "trials", *(outcome.value for outcome in shown), "GFLOP", "seconds"]
    return Table("Search trials by outcome, over all sweeps of a family.", columns, body, ("family",))


def families(results: TaskResults) -> Table:
    caption = (
        "Final networks on the test set at the manifestation they were trained with, in percent. Mean over draws of "
        "the mean over seeds; interval: Student's t over draws (over seeds where there is one draw) and test images, "
        "none for n = 1; sd: over all n runs, and between the means of draws. Validation accuracies are means ± sd "
        "over draws: of the crowned configuration over its confirm seeds, and of the best search trial, of one seed. "
        "Parameters and cost are means per final training."
    )
    columns = [
        "family", "draws", "n runs", "test accuracy", statistics.INTERVAL, "sd runs", "sd draws", "val confirmed",
        "val best search trial", "parameters", "rate evaluations", "GFLOP", "seconds",
    ]  # fmt: skip
    return Table(caption, columns, [_family(family) for family in results.families], ("family",))


def _family(family: Family) -> list[str]:
    sample = family.by_draw()
    measured = [percent(family.mean), percent_interval(family.interval)] if sample else [NONE, NONE]
    return [
        family.name,
        str(len(sample)),
        str(len(family.runs)),
        *measured,
        percent(statistics.spread([run.accuracy for run in family.runs])),
        percent(statistics.spread([float(seeds.mean()) for seeds in sample])),
        _over_draws(family, confirmed_objective),
        _over_draws(family, best_objective),
        count(family.final_mean(lambda row: row.model_parameters)),
        count(family.final_mean(lambda row: row.rate_evaluations)),
        count(family.final_mean(lambda row: row.gflops)),
        count(family.final_mean(lambda row: row.seconds)),
    ]


def _over_draws(family: Family, value: Callable[[Sweep], float | None]) -> str:
    known = [one for sweep in family.sweeps if (one := value(sweep)) is not None]
    sd = statistics.spread(known)
    return percent(family.sweep_mean(value)) + ("" if sd is None else f" ± {percent(sd)}")


def failures(study: Study) -> Table:
    rows = [
        [
            study.short(sweep),
            sweep.family,
            row.phase.value,
            str(row.number),
            str(row.epochs),
            row.outcome.value,
            row.reason,
        ]
        for sweep, row in sentences.failures(study)
    ]
    columns = ["sweep", "family", "phase", "trial", "epochs", "outcome", "reason"]
    caption = (
        f"Trials that ended without a result (n = {len(rows)}); statistics of configurations count them as chance, "
        "a search trial that ran out of time by its last value, and those lost with their worker or node not at all."
    )
    return Table(caption, columns, rows, ("sweep", "family", "phase", "outcome", "reason"))


STAGES = ("search", "final", "evaluate")


def files(study: Study) -> Table:
    """Link the files relative to the report, so that both can be moved together."""
    rows: list[list[str | Sequence[Link]]] = []
    for sweep in study.sweeps:
        home = Path(os.path.relpath(sweep.directory.resolve(), study.home.resolve())).as_posix()
        rows.append([[Link(study.short(sweep), quote(home))], *(_links(sweep, stage, home) for stage in STAGES)])
    caption = "Files of each sweep by the stage that writes them, relative to this report; MLflow mirrors them."
    columns = ["sweep", *STAGES]
    return Table(caption, columns, rows, columns)


def _links(sweep: Sweep, stage: str, home: str) -> str | list[Link]:
    names = [name for name, its in {**FILES, **OPTIONAL}.items() if its == stage and name not in sweep.missing]
    return [Link(name, quote(f"{home}/{name}")) for name in names] or NONE


def provenance(study: Study) -> Table:
    rows = []
    for sweep in study.sweeps:
        document = sweep.crowned or sweep.best
        known = document.provenance if document else {}
        data = sorted({row.data_hash for row in sweep.trials})
        final = sorted({row.config_hash for row in sweep.evaluations})
        told = [str(known.get(name) or NONE) for name in ("git_commit", "created")]
        rows.append([study.short(sweep), ", ".join(data), ", ".join(final) or NONE, *told])
    columns = ["sweep", "data hash", "config hash of the final networks", "git commit", "created"]
    return Table("What each sweep was made from.", columns, rows, columns)


def versions(study: Study) -> Table:
    """List the versions recorded in the configuration files; a package with several values had several."""
    found: dict[str, set[str]] = {}
    for sweep in study.sweeps:
        for document in (sweep.best, sweep.crowned):
            for package, version in (document.provenance.get("versions", {}) if document else {}).items():
                found.setdefault(str(package), set()).add(str(version))
    rows = [[package, ", ".join(sorted(values))] for package, values in sorted(found.items())]
    columns = ["package", "version"]
    return Table("Versions the sweeps ran with.", columns, rows, columns)


@dataclass(frozen=True, slots=True)
class CandidateRow:
    """A configuration of a sweep: a search trial, and what it reached over the seeds of the confirm phase."""

    sweep: Sweep
    number: int
    searched: float | None  # objective of the search trial: one seed
    confirmed: list[float]
    parameters: dict[str, Any]

    @property
    def mean(self) -> float | None:
        return sum(self.confirmed) / len(self.confirmed) if self.confirmed else None

    @property
    def crowned(self) -> bool:
        return self.number == self.sweep.crowned_candidate


def candidates(sweep: Sweep) -> list[CandidateRow]:
    """List the confirmed candidates of a sweep, the crowned and then the best means first; before confirmation the
    best trial of the search."""
    confirmed = confirmations(sweep)
    trials: dict[int, TrialRow] = {row.number: row for row in sweep.trials}
    parameters = {row.candidate: row.parameters for row in [*sweep.final_trials, *sweep.trials]}
    numbers = list(confirmed) or [row.number for row in ranked(sweep.trials)[:1]]
    found = [
        CandidateRow(
            sweep, n, trials[n].objective if n in trials else None, confirmed.get(n, []), parameters.get(n, {})
        )
        for n in numbers
    ]
    return sorted(found, key=lambda one: (not one.crowned, -(one.mean or 0.0), one.number))


def configurations(family: Family) -> list[Block]:
    """Build the table of the first candidate of every draw, and the folded one of the others."""
    found = [candidates(sweep) for sweep in family.sweeps]
    varied = varied_parameters(family) or sorted({name for own in found for one in own for name in one.parameters})
    first, others = [own[0] for own in found if own], [one for own in found for one in own[1:]]
    blocks: list[Block] = []
    if first:
        blocks.append(_candidate_table(family, first, varied))
    if others:
        blocks.append(_candidate_table(family, others, varied, f"The other {len(others)} candidates of {family.name}"))
    return blocks


def written(value: Any) -> str:
    """Write a parameter's value; a dash where it did not apply."""
    return NONE if value is None else parameter_value(value)


def fixed(family: Family, varied: list[str]) -> dict[str, Any]:
    """Return the parameters that have one value in all trials of a family."""
    rows = [row.parameters for sweep in family.sweeps for row in sweep.trials]
    return {name: value for row in rows for name, value in row.items() if name not in varied}


def _candidate_table(family: Family, found: list[CandidateRow], varied: list[str], folded: str = "") -> Table:
    several = len(family.sweeps) > 1
    short = short_names(varied)
    columns = [
        *(["draw"] if several else []), "trial", "confirmed ± sd (seeds)", "search, 1 seed",
        *(short[name] for name in varied),
    ]  # fmt: skip
    rows = [
        [
            *([str(one.sweep.draw)] if several else []),
            str(one.number),
            _confirmation(one),
            percent(one.searched),
            *(written(one.parameters.get(name)) for name in varied),
        ]
        for one in found
    ]
    same = [f"{name} = {parameter_value(value)}" for name, value in sorted(fixed(family, varied).items())]
    caption = f"{_what(found)} of {family.name}. Parameters: {_grouped(varied)}."
    caption = f"{folded}." if folded else caption
    caption += f" The same in all trials: {listing(same)}." if same and not folded else ""
    return Table(caption, columns, rows, (), {short[name]: name for name in varied}, folded)


def _what(found: list[CandidateRow]) -> str:
    if all(one.crowned for one in found):
        return "Crowned configurations" if len(found) > 1 else "The crowned configuration"
    return "Best configurations" if len(found) > 1 else "The best configuration"


def _confirmation(one: CandidateRow) -> str:
    if not one.confirmed:
        return NONE
    return f"{percent(one.mean)} ± {percent(statistics.spread(one.confirmed))} ({len(one.confirmed)})"


def _grouped(names: list[str]) -> str:
    """Write dotted names as in "optim: lr, momentum; model: steps"."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(name.rpartition(".")[0], []).append(name.rpartition(".")[2])
    return "; ".join(f"{group}: {', '.join(ends)}" if group else ", ".join(ends) for group, ends in groups.items())
