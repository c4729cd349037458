"""What the sweep engine costs per trial: trials that do nothing, with MLflow on, in reused worker processes.

    python benchmarks/bench_overhead.py [--trials 10 100] [--quick]

Prints seconds per trial for several numbers of trials, and how long delivery to MLflow went on after the last one.
The first trials carry the start of the workers, so the growth between two rows is given as well. Writes
benchmarks/results/overhead.json.
"""

import tempfile
import time
from pathlib import Path
from typing import Any

from measure import parser, print_table, write
from ray import tune
from rich.console import Console

from sweep.cluster import connected
from sweep.compose import load
from sweep.recorder import Ended
from sweep.runner import run_works
from sweep.search import Search
from sweep.session import Session
from sweep.tracking import delivering


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
    made = parser(__doc__)
    made.add_argument("--trials", type=int, nargs="+", default=[10, 100])
    made.add_argument("--sampler", default="random", choices=["random", "tpe"])
    options = made.parse_args()
    trials = [10] if options.quick else sorted(options.trials)
    with tempfile.TemporaryDirectory(prefix="o") as directory, connected(load([]).cluster, Path(directory)):
        rows = [measure(count, Path(directory), options.sampler) for count in trials]
    lines, before = [], {"trials": 0.0, "seconds": 0.0}
    for row in rows:
        further = (row["seconds"] - before["seconds"]) / (row["trials"] - before["trials"])
        numbers = (row["seconds"], row["seconds"] / row["trials"], further, row["delivery_lag"])
        lines.append([f"{row['trials']:.0f}", *(f"{number:.3f}" for number in numbers)])
        before = row
    title = f"sampler {options.sampler}, MLflow on (sqlite), workers reused, n = 1 sweep per row; seconds"
    print_table(title, ["trials", "in all", "a trial", "a further trial", "delivery lag"], lines)
    write("overhead", {"sampler": options.sampler, "rows": rows}, peers=["ray", "mlflow"])


if __name__ == "__main__":
    main()
