"""What the sweep engine costs per trial: trials that do nothing, with MLflow on, in reused worker processes.

    python benchmarks/bench_overhead.py [--trials 10 100]

Prints seconds per trial for several numbers of trials, and how long delivery to MLflow went on after the last one.
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

from sweep.cluster import connected
from sweep.compose import load
from sweep.recorder import Ended
from sweep.runner import run_works
from sweep.search import Search
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


class DoingNothing(Search):
    """A search whose end is not looked at."""

    def conclude(self, ended: list[Ended]) -> None:
        self.batch.session.tracker.end(self.batch.session.run_key, "FINISHED")


def measure(trials: int, directory: Path, sampler: str) -> dict[str, float]:
    """Seconds of a sweep of trials that do nothing, inside a Ray that runs already."""
    arguments = [f"runtime.runs_dir={directory}", f"search.sampler={sampler}", f"search.trials={trials}"]
    config, name = (
        load([*arguments, "training.epochs=1", "refinement.count=0", "space=resnet"]),
        f"none-{sampler}-{trials}",
    )
    with delivering(directory / name, None) as tracker:
        session = Session(config, name, tracker, Console(quiet=True))
        work = DoingNothing(session)
        started = time.perf_counter()
        run_works([work], name, session.directory / "ray", Nothing)
        seconds = time.perf_counter() - started
        ended = time.perf_counter()
    return {"trials": trials, "seconds": seconds, "delivery_lag": time.perf_counter() - ended}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, nargs="+", default=[10, 100])
    parser.add_argument("--sampler", default="random", choices=["random", "tpe"])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="o") as directory, connected(load([]).cluster, Path(directory)):
        rows = [measure(trials, Path(directory), arguments.sampler) for trials in sorted(arguments.trials)]
    print(f"sampler {arguments.sampler}, MLflow on (sqlite), workers reused, n = 1 sweep per row")
    print(f"{'trials':>7} {'s in all':>9} {'s / trial':>10} {'s / further trial':>18} {'delivery lag s':>15}")
    before = {"trials": 0.0, "seconds": 0.0}
    for row in rows:
        further = (row["seconds"] - before["seconds"]) / (row["trials"] - before["trials"])
        each, lag = row["seconds"] / row["trials"], row["delivery_lag"]
        print(f"{row['trials']:>7.0f} {row['seconds']:>9.1f} {each:>10.3f} {further:>18.3f} {lag:>15.1f}")
        before = row
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({"sampler": arguments.sampler, "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
