"""What a scheduler is worth: best validation accuracy against training GFLOP, on equal budgets, over several seeds.

    python benchmarks/schedulers.py [--seeds 5] [--gflops 300] [--pbt-seeds 3] [--output F] [KEY=VALUE ...]

Random search without a scheduler, asha and depth_asha propose at random from the same space and end when their trials
have spent the budget; population-based training with and without changes of the integrator has as many members as the
budget pays for. All sweeps run as one, side by side. Printed are means over seeds with 95 % intervals of the mean
(Student's t), at the budget and at fractions of it; the best counts only trials that are done. Writes JSON.
"""

import argparse
import json
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from measure import RESULTS, print_table
from rich.console import Console
from scipy.stats import t as student

from sweep.cluster.connect import connected
from sweep.cluster.placement import Placement
from sweep.cluster.resources import trial_resources
from sweep.config.compose import load
from sweep.execution.run import run_works
from sweep.execution.session import Session
from sweep.records.outcome import Outcome
from sweep.records.rows import CurveRow, TrialRow
from sweep.records.tables import read_rows
from sweep.stages.search import Search, prepare_search
from sweep.tracking.outbox import delivering

FRACTIONS = (0.25, 0.5, 0.75, 1.0)
TASK = ["space=continuous", "data.per_class=20", "model.width=8", "training.epochs=27", "search.sampler=random"]
RULES = ["search.grace=0.111", "search.reduction=3"]
VARIANTS: dict[str, list[str]] = {
    "random": ["search.scheduler=none"],
    "asha": ["search.scheduler=asha", *RULES],
    "depth_asha": ["search.scheduler=depth_asha", *RULES],
    "pbt": ["search.scheduler=pbt", "search.pbt.quantile=0.34"],
    "pbt, integrator fixed": ["search.scheduler=pbt", "search.pbt.quantile=0.34", "search.pbt.integrator=false"],
}


def sweeps(options: argparse.Namespace) -> dict[str, list[str]]:
    """Their names, which tell variant and seed, and their configurations."""
    found = {}
    for variant, arguments in VARIANTS.items():
        population = variant.startswith("pbt")
        ends = [f"search.trials={options.members}"] if population else [f"search.budget.gflops={options.gflops}"]
        for seed in range(options.pbt_seeds if population else options.seeds):
            name = f"{variant.replace(', ', '-').replace(' ', '-')}-{seed}"
            more = ["search.trials=1000", *TASK, *arguments, *ends, f"search.seed={seed}", *options.overrides]
            found[name] = more
    return found


def run(configurations: dict[str, list[str]], directory: Path) -> None:
    """All of them as one Ray Tune experiment, which goes on where it was cut short."""
    configs = {name: load([*words, f"runtime.runs_dir={directory}"]) for name, words in configurations.items()}
    first = next(iter(configs.values()))
    with connected(first.cluster, directory), delivering(directory, None) as tracker:
        per_trial = trial_resources(first.runtime.resources)
        sessions = [Session(config, name, tracker, Console(), Placement(per_trial)) for name, config in configs.items()]
        searches = [Search(session, prepare_search(session.config)) for session in sessions]
        run_works(searches, "schedulers", directory / "ray")


def history(directory: Path) -> list[tuple[float, float]]:
    """(GFLOP spent by all trials, best objective of a trial done by then) after every epoch, as they came."""
    last = {row.number: row for row in read_rows(directory / "trials.csv", TrialRow) if row.outcome is Outcome.done}
    spent: dict[int, float] = {}
    best, points = 0.0, []
    for curve in read_rows(directory / "curves.csv", CurveRow):
        spent[curve.number] = curve.cost_train_gflops
        row = last.get(curve.number)
        if row is not None and curve.epoch == row.epochs:
            best = max(best, row.objective or 0.0)
        points.append((sum(spent.values()), best))
    return points


def at(points: Sequence[tuple[float, float]], gflops: float) -> float:
    return max((best for spent, best in points if spent <= gflops), default=0.0)


def interval(values: Sequence[float]) -> str:
    mean = statistics.mean(values)
    if len(values) < 2:
        return f"{100 * mean:.1f}"
    half = student.ppf(0.975, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
    return f"{100 * mean:.1f} +- {100 * half:.1f}"


def summary(directory: Path, names: Sequence[str], gflops: float) -> dict[str, Any]:
    """One variant over its seeds."""
    histories = [history(directory / name) for name in names]
    rows = [read_rows(directory / name / "trials.csv", TrialRow) for name in names]
    return {
        "n": len(names),
        "best": {str(part): [at(points, part * gflops) for points in histories] for part in FRACTIONS},
        "in all": [max(best for _, best in points) for points in histories],
        "gflops": [points[-1][0] for points in histories],
        "trials": [len(found) for found in rows],
        "done": [sum(row.outcome is Outcome.done for row in found) for found in rows],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--pbt-seeds", type=int, default=3)
    parser.add_argument("--members", type=int, default=6, help="of a population")
    parser.add_argument("--gflops", type=float, default=300.0, help="budget of a sweep")
    parser.add_argument("--directory", type=Path, help="of the sweeps; a temporary one, if not given")
    parser.add_argument("--output", type=Path, default=RESULTS / "schedulers.json")
    options, options.overrides = parser.parse_known_args()
    with tempfile.TemporaryDirectory(prefix="s") as temporary:
        directory = (options.directory or Path(temporary)).resolve()
        directory.mkdir(parents=True, exist_ok=True)
        configurations = sweeps(options)
        run(configurations, directory)
        results = {
            variant: summary(
                directory, [name for name in configurations if name.rsplit("-", 1)[0] == key], options.gflops
            )
            for variant in VARIANTS
            for key in [variant.replace(", ", "-").replace(" ", "-")]
        }
    lines = [
        [name, str(one["n"]), *(interval(one["best"][str(part)]) for part in FRACTIONS), interval(one["in all"])]
        + [f"{statistics.mean(one[key]):.0f}" for key in ("gflops", "trials", "done")]
        for name, one in results.items()
    ]
    heads = ["", "n", *(f"at {part:.0%}" for part in FRACTIONS), "in the end", "GFLOP", "trials", "done"]
    print_table(f"best validation accuracy (%), budget {options.gflops:g} GFLOP a sweep", heads, lines)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
