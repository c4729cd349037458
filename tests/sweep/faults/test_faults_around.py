"""Nothing is lost where what is around a sweep fails, really: the MLflow server, the disk, the memory."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from search_spaces import SPACES, Choice, Space, fixed
from sweep.records.outcome import Outcome
from sweep.records.rows import TrialRow
from sweep.records.tables import read_rows
from tests.sweep.faults.fault_drivers import (
    EPOCHS,
    SEARCH,
    TINY,
    Place,
    differences,
    endings,
    lines,
    place,
    rows_of,
    undisturbed,
)
from tests.sweep.small_disk import covered, mounted
from tests.sweep.store_server import StoreServer

# Of MLflow's own making: its use of SQLAlchemy.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated"),
    pytest.mark.timeout(900),
]

# One worker runs what several tests look at.


@pytest.fixture(scope="module")
def here() -> Iterator[Place]:
    with place() as made:
        yield made


# --- two sweeps at once on a server that dies ---------------------------------------------------------------------


@dataclass
class Outage:
    """How two sweeps went whose MLflow server was away for a while."""

    uri: str
    here: Place
    away: int  # epochs that were trained meanwhile
    extended: list[TrialRow]  # rows of the one that was extended afterwards


@pytest.fixture(scope="module")
def outage(here: Place, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outage]:
    server = StoreServer(tmp_path_factory.mktemp("server"))
    server.start()
    rungs = ["search.scheduler=depth_asha", "search.grace=0.34", "search.trials=6", "training.epochs=9"]
    volatile = ["search.trials=5", "training.epochs=40"]
    try:
        drivers = [
            here.start("search", "deep", *TINY, *rungs, f"tracking.uri={server.uri}"),
            here.start("search", "wild", *TINY, *volatile, f"tracking.uri={server.uri}", before=diverging),
        ]
        curves = [here.run(name) / "curves.csv" for name in ("deep", "wild")]
        drivers[0].until(lambda: lines(curves[0]) >= 3)
        drivers[1].until(lambda: lines(curves[1]) >= 3)
        server.kill()
        before = sum(map(lines, curves))
        time.sleep(3)
        away = sum(map(lines, curves)) - before
        server.start()
        for driver in drivers:
            driver.finish()
        here.start("extend", "deep", "search.more=3").finish()
        yield Outage(server.uri, here, away, rows_of(here.run("deep")))
    finally:
        server.kill()


def diverging() -> None:
    SPACES["smoke"] = Space({"model.network": fixed("continuous"), "optim.lr": Choice((0.1, 1e30))})


def test_trials_go_on_while_mlflow_is_away_and_it_hears_all_of_it_afterwards(outage: Outage) -> None:
    assert outage.away > 0
    for name in ("deep", "wild"):
        assert differences(outage.here.run(name), outage.uri) == []


def test_what_diverges_is_not_tried_again(outage: Outage) -> None:
    rows = rows_of(outage.here.run("wild"))
    assert {row.outcome for row in rows} == {Outcome.done, Outcome.diverged}
    assert {row.legs for row in rows} == {1}


def test_a_sweep_that_refines_at_rungs_is_extended_and_its_rungs_stay_filled(outage: Outage) -> None:
    rows = outage.extended
    assert [row.number for row in rows] == list(range(9))
    assert Counter(row.outcome for row in rows).keys() == {Outcome.done, Outcome.pruned}
    for row in rows:
        last, legs = (9, 2) if row.outcome is Outcome.done else (3, 1)
        assert (row.epochs, row.legs) == (last, legs)


# --- storage ------------------------------------------------------------------------------------------------------


@dataclass
class Stored:
    """How a sweep went whose disk was full, then had space again, then could not be written, then could."""

    directory: Path
    full: tuple[int, str]  # exit code and what was said
    read_only: tuple[int, str]
    kept: list[list[TrialRow]]  # rows of the ledger after each of them


@pytest.fixture(scope="module")
def stored(here: Place) -> Iterator[Stored]:
    disk = here.path / "disk"
    with mounted(disk, kib=8192):
        directory, ballast, where, kept = disk / "stored", disk / "ballast", f"runtime.runs_dir={disk}", []
        driver = here.start("search", "stored", *SEARCH, "search.trials=4", where)
        driver.until(lambda: lines(directory / "curves.csv") >= EPOCHS + 2)
        fill(ballast)
        full = driver.wait(), driver.said
        kept.append(read_rows(directory / "ledger.csv", TrialRow))

        ballast.unlink()
        epochs = lines(directory / "curves.csv")
        driver = here.start("resume", "stored", where)
        driver.until(lambda: lines(directory / "curves.csv") >= epochs + 4)
        with covered(disk):
            read_only = driver.wait(), driver.said
        kept.append(read_rows(directory / "ledger.csv", TrialRow))

        here.start("resume", "stored", where).finish()
        yield Stored(directory, full, read_only, kept)


def fill(ballast: Path) -> None:
    with suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(b"0" * 512)


def test_a_full_disk_and_read_only_storage_end_the_command_at_once_with_what_to_do(stored: Stored) -> None:
    for (code, said), reason in ((stored.full, "No space left"), (stored.read_only, "Read-only file system")):
        assert code == 1, said
        assert reason in said
        assert "Traceback" not in said


def test_what_was_written_before_the_disk_was_full_stays_and_the_sweep_is_completed_later(stored: Stored) -> None:
    assert len(stored.kept[0]) > 0
    assert stored.kept[1][: len(stored.kept[0])] == stored.kept[0]
    found = [(row.number, row.parameters, row.objective) for row in rows_of(stored.directory)]
    assert found == undisturbed([*SEARCH, "search.trials=4"])
    assert endings(stored.directory) == dict.fromkeys(range(4), 1)
    assert differences(stored.directory) == []


# --- memory -------------------------------------------------------------------------------------------------------


def test_a_trial_that_the_machine_has_no_memory_for_is_not_tried_again(here: Place) -> None:
    options = [*TINY, "search.trials=2", "training.epochs=2000"]
    driver = here.start(
        "search", "large", *options, RAY_memory_usage_threshold="0.01", RAY_memory_monitor_refresh_ms="100"
    )
    assert driver.wait() == 1, driver.said
    rows = rows_of(here.run("large"))
    assert [(row.outcome, row.legs) for row in rows] == [(Outcome.host_oom, 1)] * 2
    assert differences(here.run("large")) == []
