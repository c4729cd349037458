"""Crash images: the power of a sweep's disk fails at random moments, the disk is checked, and the sweep is resumed.

    python benchmarks/power_loss.py [--images 24] [--each 6] [--seed 0] [--kind KIND] [--quick]

The disk is ext4 in a file, stopped by EXT4_IOC_SHUTDOWN without a flush of its log, then checked by e2fsck -fy and
mounted again; so it needs root. Each sweep is cut off `each` times, and taken up every time. A sweep is stuck where it
could not be resumed; lost are trials that it had asked for, or was to train, without an ending; doubled are trials that
ended twice. Ends with code 1 if there was one. Writes benchmarks/results/power_loss.json.
"""

import random
import shutil
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context

from faults import KINDS, random_moment, tally
from measure import parser, print_table, write

from tests.sweep.crash_disk import CrashDisk, crash_disk
from tests.sweep.faults.fault_drivers import Driver, Place, asked, place


@dataclass(frozen=True)
class Cut:
    """What became of one sweep whose power failed so many times."""

    kind: str
    images: int
    trials: int
    stuck: int
    lost: int
    doubled: int
    disagreements: int  # of files, study and MLflow

    @property
    def good(self) -> bool:
        return not (self.stuck or self.lost or self.doubled or self.disagreements)


def cut_power(disk: CrashDisk, driver: Driver, name: str) -> dict:
    """What the sweep has asked for is on the disk a moment later; then the power fails and its processes end."""
    known = asked(disk.place / name)
    time.sleep(0.1)
    disk.cut_power()
    driver.end()
    disk.recover()
    return known


def cut_off(here: Place, disk: CrashDisk, kind: str, name: str, times: int) -> Cut:
    """Run one sweep to its end, with so many failures of power."""
    where, directory, known = f"runtime.runs_dir={disk.place}", disk.place / name, []
    begin = ("search", name, *KINDS[kind], where)
    driver = here.start(*begin)
    while len(known) < times and random_moment(driver, directory / "curves.csv"):
        known.append(cut_power(disk, driver, name))
        if (directory / "config.yaml").exists():
            driver = here.start("resume", name, where)
        else:  # cut off before it had said what it would do: given again
            shutil.rmtree(directory, ignore_errors=True)
            driver = here.start(*begin)
    code = driver.wait()
    if code:
        print(driver.said)
        return Cut(kind, len(known), 0, 1, 0, 0, 0)
    with ProcessPoolExecutor(1, get_context("spawn")) as other:  # MLflow's client never closes the store
        found = other.submit(tally, kind, directory, known, 8).result()
    return Cut(kind, len(known), found.trials, 0, found.lost, found.duplicates, found.disagreements)


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--images", type=int, default=24)
    made.add_argument("--each", type=int, default=6, help="of one sweep")
    made.add_argument("--seed", type=int, default=0, help="of the random moments")
    made.add_argument("--kind", choices=KINDS, help="of sweep; all in turn where none is named")
    options = made.parse_args()
    random.seed(options.seed)
    images, each = (2, 2) if options.quick else (options.images, options.each)
    cuts: list[Cut] = []
    with place() as here, crash_disk(here.path) as disk:
        while (done := sum(cut.images for cut in cuts)) < images and not any(cut.stuck for cut in cuts):
            kind = options.kind or list(KINDS)[len(cuts) % len(KINDS)]
            cuts.append(cut_off(here, disk, kind, f"sweep{len(cuts)}", min(each, images - done)))
            print(cuts[-1])
    columns = ["sweep", "images", "trials", "stuck", "lost", "doubled", "disagreements"]
    print_table(
        f"power cut at random moments, seed {options.seed}", columns, [list(asdict(cut).values()) for cut in cuts]
    )
    write(
        "power_loss", {"seed": options.seed, "sweeps": [asdict(cut) for cut in cuts]}, peers=["ray", "mlflow", "optuna"]
    )
    sys.exit(not all(cut.good for cut in cuts))


if __name__ == "__main__":
    main()
