"""What the sweep engine costs per trial: trials that do nothing, with MLflow on, in reused worker processes.

    python benchmarks/bench_overhead.py [--trials 10 100 1000] [--sampler tpe] [--quick]

Prints seconds per trial for several numbers of trials, how long delivery to MLflow went on after the last one, and the
memory of the driver when a tenth of the trials had ended and when all had. The first trials carry the start of the
workers, so the growth between two rows is given as well. Writes benchmarks/results/overhead.json.
"""

import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from measure import parser, print_table, write
from ray import tune
from rich.console import Console

from sweep.cluster.connect import connected
from sweep.cluster.resources import trial_resources
from sweep.config.compose import load
from sweep.execution.run import run_works
from sweep.execution.session import Session
from sweep.execution.trial_log import TrialLog
from sweep.stages.search import Search, prepare_search
from sweep.tracking.outbox import delivering

PAGE = 4096 / 2**20  # MiB
PATIENCE = 3600.0  # that the delivery may go on after the last trial


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
        return {**metrics, **costs, **depth, "epoch": 1, "weights": 0, "outcome": "done", "done": True}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Ray keeps none."""


class DoingNothing(Search):
    """A search whose end is not looked at."""

    def conclude(self) -> None:
        self.batch.session.tracker.end(self.batch.session.run_key, "FINISHED")


def resident() -> float:
    """MiB of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


def resident_at(trials: int, log: TrialLog) -> float:
    """Waits until so many trials have begun."""
    while len(log.rows) < trials:
        time.sleep(0.02)
    return resident()


def measure(trials: int, directory: Path, sampler: str) -> dict[str, float]:
    """Seconds of a sweep of trials that do nothing, inside a Ray that runs already."""
    asked = [f"runtime.runs_dir={directory}", f"search.sampler={sampler}", f"search.trials={trials}"]
    config, name = load([*asked, "training.epochs=1", "refinement.count=0", "space=resnet"]), f"none-{sampler}-{trials}"
    with delivering(directory / name, None, PATIENCE) as tracker, ThreadPoolExecutor(1) as beside:
        session = Session(config, name, tracker, Console(quiet=True), trial_resources(config.runtime.resources))
        work = DoingNothing(session, prepare_search(config))
        early = beside.submit(resident_at, trials // 10, work.batch.log)
        started = time.perf_counter()
        run_works([work], name, session.directory / "ray", Nothing)
        ended = time.perf_counter()
        memory = {"mib_at_a_tenth": early.result(), "mib": resident()}
    lag = time.perf_counter() - ended
    return {"trials": trials, "seconds": ended - started, "delivery_lag": lag, **memory}


def overhead(trials: Sequence[int], sampler: str) -> list[dict[str, float]]:
    """Measures and prints; one sweep for each number of trials."""
    with tempfile.TemporaryDirectory(prefix="o") as directory, connected(load([]).cluster, Path(directory)):
        rows = [measure(count, Path(directory), sampler) for count in trials]
    lines, before = [], {"trials": 0.0, "seconds": 0.0}
    for row in rows:
        further = (row["seconds"] - before["seconds"]) / (row["trials"] - before["trials"])
        numbers = (row["seconds"], row["seconds"] / row["trials"], further, row["delivery_lag"])
        memory = (row["mib_at_a_tenth"], row["mib"])
        lines.append([f"{row['trials']:.0f}", *(f"{one:.3f}" for one in numbers), *(f"{one:.0f}" for one in memory)])
        before = row
    columns = ["trials", "in all", "a trial", "a further trial", "delivery lag", "MiB at a tenth", "MiB at the end"]
    print_table(f"sampler {sampler}, MLflow on (sqlite), workers reused, n = 1 sweep per row; seconds", columns, lines)
    return rows


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--trials", type=int, nargs="+", default=[10, 100])
    made.add_argument("--sampler", default="random", choices=["random", "tpe"])
    options = made.parse_args()
    rows = overhead([10] if options.quick else sorted(options.trials), options.sampler)
    write("overhead", {"sampler": options.sampler, "rows": rows}, peers=["ray", "mlflow"])


if __name__ == "__main__":
    main()
