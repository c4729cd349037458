"""Ray itself dies under a sweep that has started it, or its driver does: said at once, nothing lost, nothing left."""

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sweep.cluster.session_directory import MARK
from sweep.records.outcome import Outcome
from tests.sweep.faults.fault_drivers import (
    SEARCH,
    Driver,
    Place,
    command_of,
    descendants,
    differences,
    endings,
    lines,
    place,
    rows_of,
    undisturbed,
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("ray_dies"),  # one sweep loses its Ray, for all of these
    pytest.mark.timeout(900),
]
TRIALS = [*SEARCH, "search.trials=3", "training.epochs=40"]


@dataclass
class Death:
    """How a driver took the death of one of Ray's processes."""

    code: int
    said: str
    seconds: float
    outcomes: list[Outcome]
    left: list[str]  # names of processes and of marked directories, when it had ended


@dataclass
class Deaths:
    """How a sweep went whose Ray died twice and whose driver died once, until it was done."""

    directory: Path
    ray: list[Death]
    agents_seconds: float  # until the last of Ray's processes was gone after the driver's death
    marked: list[int]  # session directories after the driver's death, after the end


@pytest.fixture(scope="module")
def deaths() -> Iterator[Deaths]:
    with place() as here:
        directory, found = here.run("x"), []
        for name, command in (("gcs_server", ("search", "x", *TRIALS)), ("raylet", ("resume", "x"))):
            found.append(killed(here, here.start(*command), name, directory))
        driver = under_way(here.start("resume", "x"), directory)
        family = [pid for pid in descendants(driver.pid) if "sweep.tracking" not in command_of(pid)]
        driver.kill()
        began = time.monotonic()
        while any(map(command_of, family)) and time.monotonic() - began < 60:
            time.sleep(0.1)
        seconds, marked = time.monotonic() - began, [len(session_directories(here))]
        here.start("resume", "x").finish()
        yield Deaths(directory, found, seconds, [*marked, len(session_directories(here))])


def under_way(driver: Driver, directory: Path) -> Driver:
    before = lines(directory / "curves.csv")
    driver.until(lambda: lines(directory / "curves.csv") >= before + 4)
    return driver


def killed(here: Place, driver: Driver, name: str, directory: Path) -> Death:
    """Kills that process of Ray's and waits for the driver's end."""
    under_way(driver, directory)
    family = descendants(driver.pid)
    (pid,) = [pid for pid in family if Path(command_of(pid).split(" ")[0]).name == name]
    os.kill(pid, signal.SIGKILL)
    began = time.monotonic()
    code = driver.wait()
    seconds = time.monotonic() - began
    time.sleep(1.0)  # in which the system takes killed processes away
    left = [command for pid in family if (command := command_of(pid)) and "sweep.tracking" not in command]
    left += map(str, session_directories(here))
    return Death(code, driver.said, seconds, [row.outcome for row in rows_of(directory)], left)


def session_directories(here: Place) -> list[Path]:
    return list(here.path.glob(f"*/{MARK}"))


def test_a_driver_whose_ray_died_says_so_in_one_line_with_the_resume_command(deaths: Deaths) -> None:
    for death, name in zip(deaths.ray, ("gcs_server", "raylet"), strict=True):
        assert death.code == 1, death.said
        assert f"sweep: Ray Tune stopped: Ray's process {name} ended by itself, with code -9." in death.said
        assert death.said.endswith("What is done is kept; `sweep resume x` goes on.\n")
        assert len(death.said.splitlines()) <= 5, death.said  # three lines of what is done, the sums, and this


def test_it_notices_within_15_seconds_and_trials_under_way_wait_to_be_taken_up(deaths: Deaths) -> None:
    for death in deaths.ray:
        assert death.seconds < 15
        assert Outcome.interrupted in death.outcomes
        assert Outcome.running not in death.outcomes


def test_nothing_of_a_ray_that_died_is_left(deaths: Deaths) -> None:
    assert [death.left for death in deaths.ray] == [[], []]


def test_nothing_is_lost_with_ray(deaths: Deaths) -> None:
    found = [(row.number, row.parameters, row.objective) for row in rows_of(deaths.directory)]
    assert found == undisturbed(TRIALS)
    assert endings(deaths.directory) == dict.fromkeys(range(3), 1)
    assert differences(deaths.directory) == []


def test_after_a_killed_driver_ray_is_gone_and_the_next_command_removes_its_session_directory(
    deaths: Deaths,
) -> None:
    assert deaths.agents_seconds < 20
    assert deaths.marked == [1, 0]
