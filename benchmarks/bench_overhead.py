"""What the sweep engine costs per trial: trials that do nothing, with MLflow on, in reused worker processes.

    python benchmarks/bench_overhead.py [--trials 10 100]

Prints seconds per trial for several numbers of trials, and how long the delivery to MLflow still took after the last one.
The first trials carry the start of the workers, so the growth between two rows is given as well. Writes
benchmarks/results/overhead.json.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from ray import tune
from rich.console import Console

from odenet.data import load_data
from sweep.cluster import connected
from sweep.compose import load
from sweep.runner import Batch, run_batch
from sweep.search import start_run
from sweep.searcher import OptunaSearcher, open_study
from sweep.session import Session
from sweep.tracking import delivering

RESULTS = Path(__file__).parent / "results" / "overhead.json"


class Nothing(tune.Trainable):
    """Reports one epoch that took no time."""

    def setup(self, config: dict[str, Any], **_: object) -> None:
        """Nothing to prepare."""

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        return True

    def step(self) -> dict[str, Any]:
        costs = {"cost/train_gflops": 0.0, "cost/seconds": 0.0, "cost/rate_evaluations": 0}
        depth = {"depth/steps": 1, "depth/nodes": 1}
        metrics = {"train/loss": 1.0, "val/loss": 1.0, "val/accuracy": 0.5, "objective": 0.5}
        return {**metrics, **costs, **depth, "epoch": 1, "parameters": 0, "outcome": "done", "done": True}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        (Path(checkpoint_dir) / "nothing").touch()


def measure(trials: int, directory: Path, sampler: str) -> dict[str, float]:
    """Seconds of a sweep of trials that do nothing, inside a Ray that runs already."""
    arguments = [f"runtime.runs_dir={directory}", f"search.sampler={sampler}", f"search.trials={trials}"]
    config, name = load([*arguments, "training.epochs=1", "refinement.count=0", "space=resnet"]), f"none-{sampler}-{trials}"
    splits, space = load_data(config.data), config.space.build()
    with delivering(directory / name, None) as tracker:
        session = Session(config, name, tracker, Console(quiet=True))
        start_run(session, space)
        study = open_study(session.directory, name)
        searcher = OptunaSearcher(study, space, config.experiment, config.search, chance=0.1)
        batch = Batch(
            title=name,
            searcher=searcher,
            total=trials,
            splits={config.data.portion: splits},
            files=session.files,
            trainable=Nothing,
        )
        started = time.perf_counter()
        run_batch(session, batch)
        seconds = time.perf_counter() - started
        ended = time.perf_counter()
    return {"trials": trials, "seconds": seconds, "delivery_lag": time.perf_counter() - ended}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, nargs="+", default=[10, 100])
    parser.add_argument("--sampler", default="random", choices=["random", "tpe"])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="o") as directory:
        with connected(load([]).cluster, Path(directory)):
            rows = [measure(trials, Path(directory), arguments.sampler) for trials in sorted(arguments.trials)]
    print(f"sampler {arguments.sampler}, MLflow on (sqlite), workers reused, n = 1 sweep per row")
    print(f"{'trials':>7} {'s in all':>9} {'s / trial':>10} {'s / further trial':>18} {'delivery lag s':>15}")
    before = {"trials": 0.0, "seconds": 0.0}
    for row in rows:
        further = (row["seconds"] - before["seconds"]) / (row["trials"] - before["trials"])
        print(f"{row['trials']:>7.0f} {row['seconds']:>9.1f} {row['seconds'] / row['trials']:>10.3f} {further:>18.3f} {row['delivery_lag']:>15.1f}")
        before = row
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({"sampler": arguments.sampler, "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
