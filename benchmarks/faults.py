"""The long forms of tests/sweep/faults: kills at random moments, an outage of a minute, a thousand trials.

    python benchmarks/faults.py [--seed 0] [--quick] [--only drivers workers outage trials]

Drivers: sweeps of three kinds, and the final training of the first, are killed again and again and taken up each time.
Workers: one sweep, whose workers are killed. Outage: two equal sweeps on an MLflow server, which is away for a minute
during one of them. Trials: bench_overhead. Ends with code 1 where a trial was lost or ran twice, or where the records
do not agree. Writes benchmarks/results/faults.json. Takes about half an hour on two cores.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from bench_overhead import overhead
from measure import parser, print_table, write

sys.path.insert(0, str(Path(__file__).parents[1]))  # they start, kill and read sweeps for the tests as well
from tests.sweep.faults.fault_drivers import TINY, Driver, Place, asked, differences, endings, lines, place, rows_of
from tests.sweep.store_server import StoreServer

SEARCH = [*TINY, "training.epochs=20", "search.checkpoint_every=2", "search.trials=8"]
KINDS = {
    "random": SEARCH,
    "asha, tpe": [*SEARCH, "search.sampler=tpe", "search.scheduler=asha"],
    "depth_asha": [*SEARCH, "search.scheduler=depth_asha", "search.grace=0.3"],
}
FINAL = ["final.top=2", "final.confirm_seeds=2", "final.seeds=2"]


@dataclass(frozen=True)
class Tally:
    """What became of one sweep's trials. `executions`: stretches of training begun."""

    kind: str
    kills: int
    trials: int
    executions: int
    duplicates: int  # trials that ended more than once
    lost: int  # trials asked for or requested that have no ending, or another id or other parameters
    disagreements: int  # of files, study and MLflow

    @property
    def good(self) -> bool:
        return not (self.duplicates or self.lost or self.disagreements)


def tally(kind: str, directory: Path, known: list[dict], requested: int) -> Tally:
    """Of a search, or of a final training. `known`: what had been asked for before each kill."""
    rows, ended = rows_of(directory), endings(directory)
    now = {row.number: (row.trial_id, row.parameters) for row in rows}
    changed = {number for one in known for number, what in one.items() if now.get(number) != what}
    sweep = directory.parent if directory.name == "final" else directory
    found = differences(sweep)
    for difference in found:
        print(difference)
    missing = requested - sum(row.outcome.ended for row in rows)
    twice = sum(count > 1 for count in ended.values())
    legs = sum(row.legs for row in rows)
    return Tally(kind, len(known), len(rows), legs, twice, missing + len(changed), len(found))


# --- kills --------------------------------------------------------------------------------------------------------


def killed_drivers(here: Place, directory: Path, arguments: list[str], kills: int) -> list[dict]:
    """Starts a command, kills it at random moments and takes it up; what had been asked for before each kill.

    `directory` holds what the command writes: the sweep's, or that of its final training.
    """
    known: list[dict] = []
    driver = here.start(*arguments)
    while len(known) < kills and random_moment(driver, directory / "curves.csv"):
        driver.kill()
        known.append(asked(directory))
        if (directory / "config.yaml").exists():
            driver = here.start("resume", arguments[1])
        else:  # killed before it had said what it would do: given again
            shutil.rmtree(directory, ignore_errors=True)
            driver = here.start(*arguments)
    driver.finish()
    return known


def random_moment(driver: Driver, curves: Path) -> bool:
    """Waits for one: in one of four cases soon after the start, else after some epochs. False: it has ended before."""
    if random.random() < 0.25:
        time.sleep(random.uniform(0, 12))
        return driver.alive
    enough = lines(curves) + random.randint(1, 30)
    _until(lambda: lines(curves) >= enough or not driver.alive)
    time.sleep(random.uniform(0, 0.3))
    return driver.alive


def driver_kills(here: Place, kills: int) -> list[Tally]:
    found = []
    for index, (kind, overrides) in enumerate(KINDS.items()):
        directory = here.run(f"sweep{index}")
        known = killed_drivers(here, directory, ["search", directory.name, *overrides, *FINAL], kills)
        found.append(tally(kind, directory, known, 8))
    directory = here.run("sweep0") / "final"
    known = killed_drivers(here, directory, ["final", "sweep0"], kills)
    return [*found, tally("final", directory, known, 6)]


def worker_kills(here: Place, kills: int) -> Tally:
    long = [*TINY, "training.epochs=150", "search.trials=8", "search.retries=100"]
    driver, done = here.start("search", "workers", *long), 0
    while done < kills and random_moment(driver, here.run("workers") / "curves.csv"):
        for worker in driver.workers()[-1:]:
            with suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)
                done += 1
    _until(lambda: not driver.alive)  # for as long as it takes
    driver.finish()
    return tally("workers", here.run("workers"), [{}] * done, 8)


def _until(met: Callable[[], bool]) -> None:
    while not met():
        time.sleep(0.05)


# --- an outage ----------------------------------------------------------------------------------------------------


def outage(here: Place, seconds: float) -> dict[str, float]:
    """Seconds of a sweep whose server is away for so long, and of one without."""
    server = StoreServer(here.path)
    server.start()
    try:
        took = {name: _on_server(here, name, server, away) for name, away in (("without", 0.0), ("with", seconds))}
        differing = [one for name in took for one in differences(here.run(name), server.uri)]
    finally:
        server.kill()
    for difference in differing:
        print(difference)
    return {**took, "away": seconds, "disagreements": len(differing)}


def _on_server(here: Place, name: str, server: StoreServer, away: float) -> float:
    options = [*TINY, "training.epochs=100", "search.trials=40", f"tracking.uri={server.uri}"]
    driver, curves = here.start("search", name, *options), here.run(name) / "curves.csv"
    driver.until(lambda: lines(curves) >= 20)
    if away:
        server.kill()
        time.sleep(away)
        server.start()
    _until(lambda: not driver.alive)
    driver.finish()
    return _first_to_last(driver)


def _first_to_last(driver: Driver) -> float:
    """Seconds that the command itself has counted, from its first trial on."""
    (summary,) = [line for line in driver.said.splitlines() if line.startswith("search ")]
    return float(summary.rsplit(";", 1)[1].split(" s,")[0])


# --- all of it ----------------------------------------------------------------------------------------------------


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--seed", type=int, default=0, help="of the random moments")
    parts = ["drivers", "workers", "outage", "trials"]
    made.add_argument("--only", nargs="+", default=parts, choices=parts)
    options = made.parse_args()
    random.seed(options.seed)
    kills, away, trials = (1, 5.0, [10]) if options.quick else (7, 60.0, [10, 100, 1000])
    with place() as here:
        tallies = driver_kills(here, kills) if "drivers" in options.only else []
        if "workers" in options.only:
            tallies.append(worker_kills(here, 4 if options.quick else 20))
        times = outage(here, away) if "outage" in options.only else {}
    columns = ["killed", "kills", "trials", "executions", "duplicates", "lost", "disagreements"]
    print_table(
        f"kills at random moments, seed {options.seed}", columns, [list(asdict(one).values()) for one in tallies]
    )
    if times:
        print(f"\nMLflow away for {away:.0f} s, n = 1: {json.dumps(times)}")
    rows = overhead(trials, "random") if "trials" in options.only else []
    document = {"seed": options.seed, "kills": [asdict(one) for one in tallies], "outage": times, "overhead": rows}
    write("faults", document, peers=["ray", "mlflow", "optuna"])
    sys.exit(not all(one.good for one in tallies) or bool(times.get("disagreements")))


if __name__ == "__main__":
    main()
