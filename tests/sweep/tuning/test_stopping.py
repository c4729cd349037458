"""What a sweep has spent, and what of it is enough."""

import json
from dataclasses import replace

import pytest

from sweep.config.search_config import Budget
from sweep.errors import InputError
from sweep.records.outcome import Outcome
from sweep.records.progress import SweepProgress
from sweep.tuning.stopping import exhausted
from tests.sweep.sweep_files import trial

HOUR = 3600.0
ROWS = [trial(n, objective=value, gflops=10.0, gpu_seconds=HOUR) for n, value in enumerate((0.5, 0.7, 0.6))]


@pytest.mark.parametrize(
    ("budget", "reason"),
    [
        (Budget(), ""),
        (Budget(hours=2.1), ""),
        (Budget(hours=2.0), "search.budget.hours=2 is spent (2)"),
        (Budget(gflops=30.1), ""),
        (Budget(gflops=30.0), "search.budget.gflops=30 is spent (30)"),
        (Budget(gpu_hours=3.1), ""),
        (Budget(gpu_hours=3), "search.budget.gpu_hours=3 is spent (3)"),
        (Budget(money=6.1, gpu_hour_price=2.0), ""),
        (Budget(money=6.0, gpu_hour_price=2.0), "search.budget.money=6 is spent (6)"),
        (Budget(target=0.71), ""),
        (Budget(target=0.7), "search.budget.target=0.7 is reached (0.7)"),
        (Budget(plateau=2), ""),
        (Budget(plateau=1), "search.budget.plateau=1: as many trials were done without a new best"),
        (Budget(hours=1, gflops=1), "search.budget.hours=1 is spent (2)"),
    ],
)
def test_a_budget_is_spent_when_as_much_was_used_and_the_reason_names_it(budget, reason):
    assert exhausted(budget, ROWS, 2 * HOUR) == reason


def test_what_is_not_within_the_limits_is_neither_the_target_nor_a_new_best():
    rows = [*ROWS, trial(3, objective=0.9, feasible=False)]
    assert exhausted(Budget(target=0.8), rows, 0.0) == ""
    assert exhausted(Budget(plateau=2), rows, 0.0)


def test_trials_that_failed_count_as_without_gain_and_those_that_run_do_not():
    running = [trial(n, outcome=Outcome.running, objective=0.1) for n in (3, 4)]
    assert exhausted(Budget(plateau=2), [*ROWS, *running], 0.0) == ""
    assert exhausted(Budget(plateau=2), [*ROWS, replace(running[0], outcome=Outcome.diverged)], 0.0)


def test_wall_clock_and_the_end_survive_a_restart(tmp_path):
    file = tmp_path / "progress.json"
    assert SweepProgress.read(file).seconds == 0.0
    progress = SweepProgress(seconds=100.0, finished=True)
    progress.started -= 20.0  # as if begun then
    progress.write(file)
    again = SweepProgress.read(file)
    assert again.finished
    assert 120.0 <= again.seconds <= again.wall_clock
    assert json.loads(file.read_text())["seconds"] == again.seconds


@pytest.mark.parametrize("text", ["", "[1]", "{}", '{"seconds": "long", "finished": true}', '{"seconds": null'])
def test_a_damaged_file_is_refused_with_what_is_lost_by_removing_it(tmp_path, text):
    file = tmp_path / "progress.json"
    file.write_text(text)
    with pytest.raises(InputError, match=r"progress\.json is damaged: .*\. Remove it; only the wall clock is lost\."):
        SweepProgress.read(file)
