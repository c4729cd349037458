"""The learning curves of part f of `gpu.py` as the run directory of a search, which `sweep replay` searches again.

    PYTHONPATH=. python benchmarks/gpu_recording.py benchmarks/results/gpu.jsonl runs/recorded
    sweep replay recorded search.scheduler=asha

The search is what part f did: random configurations of the space `continuous`, none stopped. Of rows with one number
the last one counts.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from odenet.training.config import ExperimentConfig, identity
from sweep.config.compose import load
from sweep.config.overrides import override
from sweep.config.schema import AppConfig, save
from sweep.records.files import write_text
from sweep.records.outcome import Outcome
from sweep.records.progress import SweepProgress
from sweep.records.rows import CurveRow, Phase, TrialRow
from sweep.records.run_directory import SweepFiles
from sweep.records.tables import write_rows

PER_CLASS = 50


def record(rows: list[dict[str, Any]], directory: Path) -> int:
    """Write config.yaml, trials.csv, curves.csv and progress.json; the number of trials."""
    trials = sorted({row["number"]: row for row in rows if "curve" in row}.values(), key=lambda row: row["number"])
    if not trials:
        raise SystemExit("error: no row of part f with a curve: run `gpu.py --only f` first.")
    if directory.exists():
        raise SystemExit(f"error: {directory} exists: name another one.")
    config = load(
        [
            "space=continuous", "data=cifar10", f"data.per_class={PER_CLASS}", "data.order=file",
            f"training.epochs={max(len(row['curve']) for row in trials)}", "search.sampler=random",
            f"search.trials={len(trials)}",
        ]
    )  # fmt: skip
    files = SweepFiles(directory)
    directory.mkdir(parents=True)
    write_text(files.config, save(config))
    write_rows(files.trials, TrialRow, [_trial(row, config, directory.name) for row in trials])
    write_rows(
        files.curves, CurveRow, [CurveRow(number=row["number"], **one) for row in trials for one in row["curve"]]
    )
    SweepProgress(sum(row["curve"][-1]["cost_seconds"] for row in trials if row["curve"]), True).write(files.progress)
    return len(trials)


def _trial(row: dict[str, Any], config: AppConfig, name: str) -> TrialRow:
    experiment: ExperimentConfig = override(config.experiment, row["parameters"])
    last = row["curve"][-1] if row["curve"] else {}
    return TrialRow(
        sweep=name, family="continuous", phase=Phase.search, number=row["number"], trial_id=f"f{row['number']:03}",
        candidate=row["number"], outcome=Outcome(row["outcome"]), reason="", parameters=row["parameters"],
        objective=last.get("objective"), epochs=len(row["curve"]), gflops=last.get("cost_train_gflops", 0.0),
        seconds=last.get("cost_seconds", 0.0), rate_evaluations=int(last.get("cost_rate_evaluations", 0)),
        model_parameters=row.get("weights", 0), dataset=config.data.name, per_class=PER_CLASS, draw=0,
        seed=experiment.training.seed, config_hash=identity(experiment), data_hash="packed", proposed_by="random",
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path, help="what gpu.py has written")
    parser.add_argument("directory", type=Path, help="the run directory to be made, runs/NAME")
    options = parser.parse_args()
    count = record([json.loads(line) for line in options.rows.read_text().splitlines()], options.directory)
    print(f"{options.directory}: {count} trials")


if __name__ == "__main__":
    main()
