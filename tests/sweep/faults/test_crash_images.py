"""The power fails while a sweep runs, really: its ext4 is stopped without a flush, checked, mounted, and resumed.

`benchmarks/power_loss.py` does it at random moments and more often.
"""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sweep.records.outcome import Outcome
from sweep.records.rows import CurveRow
from sweep.records.tables import read_rows
from tests.sweep.crash_disk import CrashDisk, crash_disk
from tests.sweep.faults.fault_drivers import (
    EPOCHS,
    SEARCH,
    Driver,
    Place,
    asked,
    differences,
    endings,
    lines,
    place,
    rows_of,
    undisturbed,
)

# Of MLflow's own making: its use of SQLAlchemy.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated"),
    pytest.mark.timeout(900),
]


@pytest.fixture
def here() -> Iterator[Place]:
    with place() as made:
        yield made


@pytest.fixture
def disk(here: Place) -> Iterator[CrashDisk]:
    with crash_disk(here.path) as made:
        yield made


def cut_power(disk: CrashDisk, driver: Driver, directory: Path) -> dict:
    """What the sweep had asked for is on the disk a moment later; then the power fails and the driver ends."""
    known = asked(directory)
    time.sleep(0.1)
    disk.cut_power()
    driver.end()
    disk.recover()
    return known


def test_a_sweep_whose_power_fails_twice_ends_with_the_trials_of_an_undisturbed_one(here: Place, disk: CrashDisk):
    directory, where = disk.place / "cut", f"runtime.runs_dir={disk.place}"
    driver = here.start("search", "cut", *SEARCH, "search.trials=4", where)
    driver.until(lambda: lines(directory / "curves.csv") >= EPOCHS + 2)
    known = cut_power(disk, driver, directory)
    driver = here.start("resume", "cut", where)
    driver.until(lambda: lines(directory / "curves.csv") >= 2 * EPOCHS + 5)
    known |= cut_power(disk, driver, directory)
    here.start("resume", "cut", where).finish()
    rows = rows_of(directory)
    assert known.items() <= {row.number: (row.trial_id, row.parameters) for row in rows}.items()
    assert {row.outcome for row in rows} == {Outcome.done}
    assert [(row.number, row.parameters, row.objective) for row in rows] == undisturbed([*SEARCH, "search.trials=4"])
    assert endings(directory) == dict.fromkeys(range(4), 1)
    curves = read_rows(directory / "curves.csv", CurveRow)
    assert sorted((one.number, one.epoch) for one in curves) == [
        (number, epoch) for number in range(4) for epoch in range(1, EPOCHS + 1)
    ]
    assert differences(directory) == []
