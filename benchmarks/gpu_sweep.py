"""The second half of `gpu_sweep.sh`: a search on CIFAR-10 whose trials share a GPU, disturbed and resumed.

    PYTHONPATH=PLACE/site:. python benchmarks/gpu_sweep.py PLACE [--only STEP,...] [KEY=VALUE ...]

16 trials of the space `continuous` with an eighth of a GPU each, 16 epochs of 300 images a class, 200 more to validate;
KEY=VALUE changes that. Once two trials report epochs a worker is killed, and once a quarter of the trials is done the
driver; `sweep resume` does the rest. Then files, Optuna's study and MLflow are compared. What a step leaves is in
PLACE, so that the next one may be another command's. Without a GPU one is made up for Ray, the trials run on CPUs, and
the times say nothing.
"""

import argparse
import os
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from gpu_pack import read
from gpu_steps import Found, StepFailed, step
from PIL import Image

from sweep.records.rows import CurveRow
from sweep.records.tables import read_rows
from tests.sweep.faults import fault_drivers as drivers

NAME = "gpu"
PER_CLASS, TESTED = 500, 20
SEARCH = (
    "space=continuous", "data=folder", f"data.per_class={PER_CLASS}", "training.epochs=16", "search.trials=16",
    "search.checkpoint_every=2", "cluster.gpus=1", "runtime.resources.gpus=0.125",
)  # fmt: skip


@dataclass(slots=True)
class Disturbed:
    """A search, and what was done to it."""

    place: drivers.Place
    overrides: list[str]
    killed: list[int] = field(default_factory=list)  # process ids of workers

    @property
    def directory(self) -> Path:
        return self.place.run(NAME)

    def begin(self) -> Found:
        """Search until a worker and then the driver has been killed."""
        for former in (self.directory, self._clock):
            shutil.rmtree(former) if former.is_dir() else former.unlink(missing_ok=True)
        started = time.monotonic()
        driver = self.place.start("search", NAME, *self.overrides)
        driver.until(lambda: self._trials_begun() >= 2)
        for worker in driver.workers()[-1:]:
            with suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)
                self.killed.append(worker)
        wanted = self._asked_for()
        driver.until(lambda: sum(drivers.endings(self.directory).values()) >= wanted / 4)
        driver.kill()
        self._took(time.monotonic() - started)
        return {"killed_workers": self.killed, "killed_driver": driver.pid, "ended": self._ended()}

    def resume(self) -> Found:
        started, before = time.monotonic(), self._ended()
        said = self.place.start("resume", NAME).finish()
        self._took(time.monotonic() - started)
        return {"ended_before": before, "ended": self._ended(), "said": said.strip().splitlines()[-2:]}

    def outcomes(self) -> Found:
        """Trials by outcome and their number per hour, starts of Ray and what was lost by the kills counted in."""
        rows, seconds = drivers.rows_of(self.directory), sum(map(float, self._clock.read_text().split()))
        return {
            "outcomes": dict(Counter(row.outcome.value for row in rows)),
            "taken_up_again": sum(row.legs > 1 for row in rows),
            "ended_twice": sum(count > 1 for count in drivers.endings(self.directory).values()),
            "search_seconds": round(seconds, 1),
            "trials_per_hour": round(3600 * len(rows) / seconds, 1),
            "side_by_side": round(sum(row.seconds for row in rows) / seconds, 2),
            "best": max((row.objective for row in rows if row.objective is not None), default=None),
        }

    def verify(self) -> Found:
        found = drivers.differences(self.directory)
        if found:
            raise StepFailed("; ".join(found))
        return {"differences": 0}

    @property
    def _clock(self) -> Path:
        """The seconds of each command, a line each."""
        return self.place.path / "seconds"

    def _took(self, seconds: float) -> None:
        with self._clock.open("a") as file:
            file.write(f"{seconds}\n")

    def _trials_begun(self) -> int:
        """Trials that have reported an epoch."""
        curves = self.directory / "curves.csv"
        return len({row.number for row in read_rows(curves, CurveRow, growing=True)}) if curves.exists() else 0

    def _asked_for(self) -> int:
        return int(next(text for text in reversed(self.overrides) if text.startswith("search.trials=")).split("=")[1])

    def _ended(self) -> int:
        return sum(drivers.endings(self.directory).values())


def write_images(packed: Path, folder: Path, per_class: int) -> Found:
    """CIFAR-10's first images of each class as files; the further ones stand for test images, which no search sees."""
    images = read(packed, "train-1")
    for label in range(10):
        members = np.flatnonzero(images.labels_B == label)[: per_class + TESTED]
        for split, part in (("train", members[:per_class]), ("test", members[per_class:])):
            place = folder / split / str(label)
            place.mkdir(parents=True, exist_ok=True)
            for index in part:
                Image.fromarray(images.pixels_BCHW[index].transpose(1, 2, 0)).save(place / f"{index:05}.png")
    return {"images": sum(1 for _ in folder.rglob("*.png")), "gpu": gpu()}


def gpu() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "none"


def said(place: drivers.Place, *words: str) -> Callable[[], Found]:
    """What a command prints; its code is no failure of the step."""

    def run() -> Found:
        driver = place.start(*words)
        return {"code": driver.wait(), "said": driver.said.strip().splitlines()}

    return run


@contextmanager
def working(path: Path) -> Iterator[drivers.Place]:
    """A place that stays; what was started there ends with the block."""
    path.mkdir(parents=True, exist_ok=True)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "TUNE_"))}
    own = {"HOME": str(path), "RAY_TMPDIR": str(path), "RAY_raylet_start_wait_time_s": "120", "OMP_NUM_THREADS": "1"}
    made = drivers.Place(path, kept | own)
    try:
        yield made
    finally:
        for driver in made.drivers:
            driver.end()


def steps(place: drivers.Place, folder: Path, more: list[str]) -> dict[str, tuple[float, Callable[[], Found]]]:
    """By name: the seconds that it may take, and what it does."""
    overrides = [*SEARCH, f"data.path={folder / 'cifar10'}", *more]
    search = Disturbed(place, overrides)
    return {
        "images": (60, lambda: write_images(folder / "packed", folder / "cifar10", PER_CLASS)),
        "doctor": (60, said(place, "doctor", *overrides)),
        "search": (150, search.begin),
        "resume": (150, search.resume),
        "verify": (30, search.verify),
        "outcomes": (10, search.outcomes),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("place", type=Path, help="where gpu_carry.py has unpacked")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="of the search")
    parser.add_argument("--only", metavar="STEP,...", help="of images, doctor, search, resume, verify, outcomes")
    parser.add_argument("--patience", type=float, default=1, help="a step may take so many times its seconds")
    options = parser.parse_intermixed_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends Ray, too
    with working(options.place / "w") as here:
        every = steps(here, options.place, options.overrides)
        chosen = options.only.split(",") if options.only else list(every)
        if unknown := [name for name in chosen if name not in every]:
            parser.error(f"no such step: {', '.join(unknown)}; there are {', '.join(every)}")
        try:
            for name in chosen:
                seconds, work = every[name]
                step(name, options.patience * seconds, work)
        except StepFailed as error:
            raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()
