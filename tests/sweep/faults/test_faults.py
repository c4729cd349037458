"""Nothing is lost where a command or its workers are killed or stopped: really done to commands that the tests started.

`make faults` repeats the kills at random moments (benchmarks/faults.py). Sweeps are shared between tests: each fixture
tells how one went, and the tests look at what it left. What else can fail is in test_faults_around.py.
"""

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from search_spaces import SPACES, Choice, Space
from sweep.records.checkpoints import checkpoint_files
from sweep.records.outcome import Outcome
from sweep.records.rows import CurveRow, Phase, TrialRow
from sweep.records.run_directory import SweepFiles
from sweep.records.tables import read_rows
from tests.sweep.faults.fault_drivers import (
    EPOCHS,
    SEARCH,
    Place,
    asked,
    differences,
    endings,
    lines,
    place,
    rows_of,
    undisturbed,
)

FINAL = ["final.top=2", "final.confirm_seeds=1", "final.seeds=2"]
# Of MLflow's own making: its use of SQLAlchemy.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated"),
    pytest.mark.timeout(900),
]


@pytest.fixture(scope="module")
def here() -> Iterator[Place]:
    with place() as made:
        yield made


# --- one sweep that is killed wherever it can be ------------------------------------------------------------------


@dataclass
class Killed:
    """How a sweep went that was killed and taken up again until it was done, and extended, and retrained."""

    directory: Path
    asked: list[dict[int, tuple[str, Any]]]  # before each of the driver's deaths
    worker: int  # number of the trial whose worker was killed
    refusals: list[tuple[int, str]]  # of taking it up although something had changed: exit code and what was said
    said: str  # while it was taken up for the last time
    rows: list[TrialRow]  # when the search was done
    differences: list[str]


@pytest.fixture(scope="module")
def killed(here: Place) -> Killed:
    directory, before = here.run("killed"), []
    driver = here.start("search", "killed", *SEARCH, *FINAL, "search.trials=4")
    driver.until(lambda: lines(directory / "ledger.csv") > 0)
    assert not (directory / "curves.csv").exists(), "it was to be killed before the first result"
    driver.kill()
    before.append(asked(directory))

    driver = here.start("resume", "killed")
    driver.until(lambda: lines(directory / "curves.csv") >= EPOCHS + 2)
    worker = read_rows(directory / "curves.csv", CurveRow)[-1].number
    os.kill(driver.workers()[-1], signal.SIGKILL)
    driver.until(lambda: "attempt 2 follows" in driver.said)
    driver.until(lambda: lines(directory / "curves.csv") >= 2 * EPOCHS + 6)
    driver.kill()
    before.append(asked(directory))

    refusals = refused_with_changes(here, directory)
    damage_newest_checkpoint(directory)
    said = here.start("resume", "killed", "search.accept_changes=true").finish()
    return Killed(directory, before, worker, refusals, said, rows_of(directory), differences(directory))


def damage_newest_checkpoint(directory: Path) -> None:
    newest = [checkpoint_files(folder) for folder in (directory / "checkpoints").iterdir()]
    (first, *_) = next(files for files in newest if len(files) == 2)  # of a trial that has not ended
    first.write_bytes(first.read_bytes()[:1000])


def refused_with_changes(here: Place, directory: Path) -> list[tuple[int, str]]:
    """Tries to take the sweep up in another space and with another code; leaves the record of another code."""
    refusals = []
    driver = here.start("resume", "killed", before=in_another_space)
    refusals.append((driver.wait(), driver.said))
    origin = json.loads((directory / "origin.json").read_text())
    (directory / "origin.json").write_text(json.dumps(origin | {"code": {"odenet": "0", "search_spaces": "0"}}))
    driver = here.start("resume", "killed")
    refusals.append((driver.wait(), driver.said))
    return refusals


def in_another_space() -> None:
    entries = SPACES["smoke"].entries
    SPACES["smoke"] = Space({**entries, "model.scheme": Choice(("euler", "heun"))})


def test_each_trial_asked_for_before_a_kill_keeps_its_id_and_parameters(killed: Killed) -> None:
    assert [len(known) for known in killed.asked] == sorted(len(known) for known in killed.asked)
    assert len(killed.asked[0]) > 0
    now = {row.number: (row.trial_id, row.parameters) for row in killed.rows}
    for known in killed.asked:
        assert known.items() <= now.items()


def test_a_killed_sweep_reaches_its_number_of_trials_and_each_ends_once(killed: Killed) -> None:
    assert [(row.number, row.outcome) for row in killed.rows] == [(number, Outcome.done) for number in range(4)]
    assert endings(killed.directory) == dict.fromkeys(range(len(endings(killed.directory))), 1)


def test_a_killed_sweep_ends_with_the_trials_of_an_undisturbed_one(killed: Killed) -> None:
    found = [(row.number, row.parameters, row.objective) for row in killed.rows]
    assert found == undisturbed([*SEARCH, "search.trials=4"])


def test_files_study_and_mlflow_agree_after_kills(killed: Killed) -> None:
    assert killed.differences == []


def test_a_lost_worker_is_followed_by_another_leg(killed: Killed) -> None:
    assert killed.rows[killed.worker].legs >= 2
    assert killed.rows[3].legs == 1, "nothing happened to the last trial"


def test_from_a_damaged_checkpoint_a_trial_goes_back_to_the_one_before_and_says_so(killed: Killed) -> None:
    assert "is damaged" in killed.said
    assert "Going on from epoch" in killed.said


def test_another_space_or_code_is_refused_with_what_changed_unless_asked_for(killed: Killed) -> None:
    (space_code, space_said), (code_code, code_said) = killed.refusals
    assert (space_code, code_code) == (2, 2)
    assert "killed began with something else: space model.scheme was" in space_said
    assert "heun" in space_said
    assert "code of odenet was 0, is" in code_said
    assert "search.accept_changes=true" in code_said
    assert json.loads((killed.directory / "origin.json").read_text())["code"]["odenet"] != "0"


def test_changes_once_accepted_are_not_accepted_for_ever(killed: Killed) -> None:
    assert "accept_changes: false" in SweepFiles(killed.directory).config.read_text()


# --- stopped by hand ----------------------------------------------------------------------------------------------


@dataclass
class Stopped:
    """How that sweep went on: extended, stopped once, taken up, stopped twice, taken up, retrained with a kill."""

    directory: Path
    code_once: int
    said_once: str
    standing_once: list[TrialRow]
    code_twice: int
    said_twice: str
    rows: list[TrialRow]
    differences: list[str]
    final_ids: dict[int, str]  # before the final's driver was killed


@pytest.fixture(scope="module")
def stopped(here: Place, killed: Killed) -> Stopped:
    directory = killed.directory
    epochs = lines(directory / "curves.csv")
    once = here.start("extend", "killed", "search.more=3")
    once.until(lambda: lines(directory / "curves.csv") >= epochs + 4)
    once.interrupt()
    code_once, standing = once.wait(), rows_of(directory)

    epochs = lines(directory / "curves.csv")
    twice = here.start("resume", "killed")
    twice.until(lambda: lines(directory / "curves.csv") >= epochs + 2)
    twice.interrupt()
    twice.until(lambda: "Once more" in twice.said)
    twice.interrupt()
    code_twice = twice.wait()
    here.start("resume", "killed").finish()
    rows, found = rows_of(directory), differences(directory)

    ledger = directory / "final" / "ledger.csv"
    driver = here.start("final", "killed")
    driver.until(lambda: lines(directory / "final" / "curves.csv") >= 2 * EPOCHS + 4)
    driver.kill()
    ids = {row.number: row.trial_id for row in read_rows(ledger, TrialRow)}
    here.start("resume", "killed").finish()
    return Stopped(directory, code_once, once.said, standing, code_twice, twice.said, rows, found, ids)


def test_ctrl_c_once_lets_running_trials_keep_their_last_epoch(stopped: Stopped) -> None:
    assert stopped.code_once == 130, stopped.said_once
    assert "What is done is kept; `sweep resume killed` goes on." in stopped.said_once
    waiting = [row for row in stopped.standing_once if row.outcome is Outcome.interrupted]
    assert len(waiting) == 1
    assert waiting[0].epochs > 0
    assert waiting[0].number >= 4, "an extended sweep leaves its former trials alone"


def test_ctrl_c_twice_stops_at_once_and_loses_no_more_than_a_kill(stopped: Stopped) -> None:
    assert stopped.code_twice == 130, stopped.said_twice
    assert "Once more to stop at once" in stopped.said_twice
    assert "`sweep resume killed` goes on" in stopped.said_twice


def test_a_finished_sweep_is_extended_by_the_trials_that_an_undisturbed_one_would_have(stopped: Stopped) -> None:
    found = [(row.number, row.parameters, row.objective) for row in stopped.rows]
    assert found == undisturbed([*SEARCH, "search.trials=7"])
    assert stopped.differences == []
    assert endings(stopped.directory) == dict.fromkeys(range(7), 1)


def test_final_training_that_was_killed_goes_on_with_the_same_trials(stopped: Stopped) -> None:
    rows = rows_of(stopped.directory / "final")
    assert [row.phase for row in rows] == [Phase.confirm, Phase.confirm, Phase.final, Phase.final]
    assert {row.outcome for row in rows} == {Outcome.done}
    assert stopped.final_ids.items() <= {row.number: row.trial_id for row in rows}.items()
    assert endings(stopped.directory / "final") == dict.fromkeys(range(4), 1)
    assert differences(stopped.directory) == []
