"""What the driver of a large sweep costs: the real controller, sampler, scheduler, records and outbox, and workers that
train nothing, in simulated time.

    python benchmarks/driver.py [--trials 10000] [--workers 500] [--epochs 9] [--quick] [KEY=VALUE ...]

Each trial is proposed, written down, and judged after every epoch as in a sweep on Ray; an epoch takes a random time
between 50 and 150 simulated seconds. Printed for each tenth of the trials: processor seconds of the driver for a trial,
milliseconds for a proposal and for the report of an epoch (mean, and what one in a hundred exceeds), memory, and bytes
on disk. What Ray adds is measured by bench_overhead.py. Writes benchmarks/results/driver.json.
"""

import heapq
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, quantiles

from bench_overhead import resident
from measure import parser, print_table, write

sys.path.insert(0, str(Path(__file__).parents[1]))  # a sweep without Ray is put together for the tests
from sweep.execution.trial_source import FINISHED
from sweep.worker.segment import Segment
from tests.sweep.pretended import Sweep, begun, ended, reported

TENTHS = 10
DONE = {"search.sampler": "random", "search.scheduler": "asha"}


class Workers:
    """So many workers of simulated time on one sweep, and what each call into the driver took, in seconds."""

    def __init__(self, sweep: Sweep, workers: int, seed: int = 0) -> None:
        self._sweep, self._workers, self._random = sweep, workers, random.Random(seed)
        self._events: list[tuple[float, int, Segment, int]] = []  # when, in which order, of what, after which epoch
        self._clock, self._order = 0.0, 0
        self.began = 0
        self.proposals: list[float] = []
        self.reports: list[float] = []

    def run(self, until: int) -> None:
        """Go on until so many trials have begun, or to the end where there are no more."""
        while self.began < until or (self._events and until >= self._sweep.source.total):
            self._hand_out(until)
            if not self._events:
                return
            self._clock, _, segment, epoch = heapq.heappop(self._events)
            self._report(segment, epoch)

    def _hand_out(self, until: int) -> None:
        while len(self._events) < self._workers and self.began < until:
            start = time.perf_counter()
            segment = self._sweep.controller.next_segment()
            self.proposals.append(time.perf_counter() - start)
            if segment is FINISHED or not isinstance(segment, Segment):
                return
            self.began += segment.heard == 0
            self._await(segment, segment.heard + 1)

    def _await(self, segment: Segment, epoch: int) -> None:
        self._order += 1
        when = self._clock + self._random.uniform(50, 150)
        heapq.heappush(self._events, (when, self._order, segment, epoch))

    def _report(self, segment: Segment, epoch: int) -> None:
        quality = random.Random(segment.number).random()
        make = ended if epoch == segment.epochs else reported
        result = make(epoch, quality * epoch / segment.epochs)
        start = time.perf_counter()
        goes_on = self._sweep.controller.result(segment, result)
        if goes_on and epoch < segment.until:
            self._await(segment, epoch + 1)
        else:
            self._sweep.controller.segment_ended(segment, result, "TERMINATED")
        self.reports.append(time.perf_counter() - start)


def measured(words: Sequence[str], trials: int, workers: int) -> list[dict[str, float]]:
    rows = []
    with tempfile.TemporaryDirectory() as runs:
        sweep = begun(Path(runs), f"search.trials={trials}", *words)
        driven = Workers(sweep, workers)
        for tenth in range(1, TENTHS + 1):
            driven.proposals, driven.reports = [], []
            spent, began = time.process_time(), driven.began
            driven.run(trials * tenth // TENTHS)
            rows.append(
                {
                    "trials": driven.began,
                    "cpu_ms_per_trial": 1000 * (time.process_time() - spent) / max(1, driven.began - began),
                    **timings("proposal", driven.proposals),
                    **timings("report", driven.reports),
                    "memory_mib": resident(),
                    "disk_mib": sum(file.stat().st_size for file in Path(runs).rglob("*") if file.is_file()) / 2**20,
                    "files": sum(file.is_file() for file in Path(runs).rglob("*")),
                }
            )
            print(rows[-1], flush=True)
    return rows


def timings(name: str, seconds: list[float]) -> dict[str, float]:
    last = quantiles(seconds, n=100)[-1] if len(seconds) > 1 else seconds[0]
    return {f"{name}_ms": 1000 * fmean(seconds), f"{name}_ms_p99": 1000 * last}


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--trials", type=int, default=10_000)
    made.add_argument("--workers", type=int, default=500)
    made.add_argument("--epochs", type=int, default=9)
    made.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    options = made.parse_args()
    trials = 200 if options.quick else options.trials
    words = [f"{key}={value}" for key, value in DONE.items()]
    words += [f"training.epochs={options.epochs}", *options.overrides]
    rows = measured(words, trials, min(options.workers, trials))
    title = f"{trials} trials on {options.workers} workers, {' '.join(words)}"
    print_table(title, list(rows[0]), [[f"{value:.4g}" for value in row.values()] for row in rows])
    write("driver", {"words": words, "workers": options.workers, "rows": rows})


if __name__ == "__main__":
    main()
