"""The report's tables."""

import os
from collections import Counter
from pathlib import Path
from urllib.parse import quote

from sweep.records.outcome import Outcome
from sweep.records.rows import ranked
from sweep.report import sentences, statistics
from sweep.report.elements import (
    NONE,
    Link,
    Table,
    count,
    percent,
    percent_interval,
    points,
    points_interval,
    written_parameters,
)
from sweep.report.load import FILES, OPTIONAL, Sweep
from sweep.report.results import (
    Family,
    Study,
    TaskResults,
    best_objective,
    confirmations,
    confirmed_objective,
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
        f"{results.task}: final networks on the test set at the manifestation they were trained with, in percent. Mean "
        "over draws of the mean over seeds; interval: two-level bootstrap (draws, then seeds; 10,000 resamples; none "
        "for n = 1); sd: over all n runs, and between the means of draws. Validation objectives: of the crowned "
        "configuration when confirmed, and of the best search trial. Parameters and cost are means per final training."
    )
    columns = [
        "family", "draws", "n runs", "test accuracy", "95 % interval", "sd runs", "sd draws", "val confirmed",
        "val best trial", "parameters", "rate evaluations", "GFLOP", "seconds",
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
        percent(family.sweep_mean(confirmed_objective)),
        percent(family.sweep_mean(best_objective)),
        count(family.final_mean(lambda row: row.model_parameters)),
        count(family.final_mean(lambda row: row.rate_evaluations)),
        count(family.final_mean(lambda row: row.gflops)),
        count(family.final_mean(lambda row: row.seconds)),
    ]


def differences(results: TaskResults) -> Table:
    base = results.baseline.name
    rows = []
    for difference in results.differences:
        found = difference.comparison
        improvement = difference.improvement_interval
        rows.append([
            difference.family.name,
            str(found.draws),
            str(found.pairs),
            points(found.delta),
            points_interval(difference.delta_interval),
            f"{found.improvement:.2f}",
            NONE if improvement is None else f"{improvement.low:.2f} to {improvement.high:.2f}",
            f"{found.p:.3g}",
            f"{difference.p_holm:.3g}",
            found.verdict.value,
        ])  # fmt: skip
    unmatched = sum(difference.unmatched for difference in results.differences)
    draws = sorted({difference.comparison.draws for difference in results.differences})
    caption = (
        f"{results.task}: against {base}, over runs of the same draw and seed ({unmatched} runs without a partner left "
        f"out). Δ in points; both intervals 95 %, by the paired two-level bootstrap (none for one pair). p: exact "
        f"sign-flip test on the draws' mean differences, two-sided; Holm: adjusted over the families of this table. "
        f"{' '.join(map(sentences.smallest_p, draws))}"
    )
    columns = ["family", "draws", "pairs", "Δ", "Δ interval", f"P(> {base})", "P interval", "p", "p Holm", "verdict"]
    return Table(caption, columns, rows, ("family", "verdict"))


def best_configurations(study: Study) -> Table:
    """List per sweep every confirmed candidate, best first; before confirmation the best trial of the search."""
    rows = [row for sweep in study.sweeps for row in _candidates(sweep)]
    columns = [
        "sweep", "family", "draw", "trial", "search objective", "confirmed", "sd", "n", "crowned", "parameters",
    ]  # fmt: skip
    caption = (
        "Candidates by sweep, objectives in percent: mean validation accuracy of the last 5 epochs. Confirmed: mean "
        "and sd over n fresh seeds; the search objective of a best trial is biased upwards: it was chosen for it."
    )
    return Table(caption, columns, rows, ("sweep", "family", "crowned", "parameters"))


def _candidates(sweep: Sweep) -> list[list[str]]:
    confirmed = confirmations(sweep)
    best = ranked(sweep.trials)[:1]
    ordered = sorted(confirmed, key=lambda number: (-sum(confirmed[number]) / len(confirmed[number]), number))
    ordered = ordered or [row.number for row in best]
    trials = {row.number: row for row in sweep.trials}
    parameters = {row.candidate: row.parameters for row in [*sweep.final_trials, *sweep.trials]}
    rows = []
    for number in ordered:
        trial, values = trials.get(number), confirmed.get(number, [])
        rows.append([
            sweep.name,
            sweep.family,
            str(sweep.draw),
            str(number),
            percent(trial.objective if trial else None),
            percent(sum(values) / len(values) if values else None),
            percent(statistics.spread(values)),
            str(len(values)),
            "crowned" if number == sweep.crowned_candidate else "",
            written_parameters(parameters[number]),
        ])  # fmt: skip
    return rows


def failures(study: Study) -> Table:
    rows = [
        [sweep.name, sweep.family, row.phase.value, str(row.number), str(row.epochs), row.outcome.value, row.reason]
        for sweep, row in sentences.failures(study)
    ]
    columns = ["sweep", "family", "phase", "trial", "epochs", "outcome", "reason"]
    caption = (
        f"Trials that ended without a result (n = {len(rows)}); statistics of configurations count them as chance, "
        "a search trial that ran out of time by its last value."
    )
    return Table(caption, columns, rows, ("sweep", "family", "phase", "outcome", "reason"))


def files(study: Study) -> Table:
    """Link the files relative to the report, so that both can be moved together."""
    names = [*FILES, *OPTIONAL]
    rows: list[list[str | Link]] = []
    for sweep in study.sweeps:
        home = Path(os.path.relpath(sweep.directory.resolve(), study.home.resolve())).as_posix()
        links = ["–" if name in sweep.missing else Link(name, quote(f"{home}/{name}")) for name in names]
        rows.append([sweep.name, Link(home, quote(home)), *links])
    caption = "Files of each sweep, relative to this report; the files are the source, MLflow mirrors them."
    columns = ["sweep", "directory", *names]
    return Table(caption, columns, rows, columns)


def provenance(study: Study) -> Table:
    rows = []
    for sweep in study.sweeps:
        document = sweep.crowned or sweep.best
        known = document.provenance if document else {}
        data = sorted({row.data_hash for row in sweep.trials})
        final = sorted({row.config_hash for row in sweep.evaluations})
        told = [str(known.get(name) or NONE) for name in ("git_commit", "created")]
        rows.append([sweep.name, ", ".join(data), ", ".join(final) or NONE, *told])
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
