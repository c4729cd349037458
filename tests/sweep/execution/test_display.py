"""The display: a live one in a terminal, plain lines elsewhere, and whatever a reason holds comes out as it is."""

import io
import re
from dataclasses import replace

import pytest
from rich.console import Console

from sweep.console import PlainConsole
from sweep.execution.display import SHOWN, SILENT, ProgressDisplay
from sweep.records.outcome import Outcome
from tests.sweep.sweep_files import trial


def shown(rows: list, *, terminal: bool, total: int = 5) -> str:
    """All that is written while these updates come, in order, and at the end."""
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=200, markup=False, color_system=None)
    with ProgressDisplay(console, "search x", total) as display:
        for row in rows:
            display.update(row, epochs=9)
    return file.getvalue()


def picture(rows: list, total: int = 5) -> str:
    """The live display at this moment."""
    console = Console(file=io.StringIO(), width=200, markup=False)
    display = ProgressDisplay(console, "search x", total)
    for row in rows:
        display.update(row, epochs=9)
    file = io.StringIO()
    Console(file=file, width=200, markup=False).print(display._live.get_renderable())
    return file.getvalue()


RUNNING = trial(0, outcome=Outcome.running, objective=None, epochs=3, gflops=1.0)


@pytest.mark.parametrize("outcome", [outcome for outcome in Outcome if outcome not in SILENT])
def test_without_a_terminal_every_ended_trial_is_one_plain_line_with_its_reason(outcome):
    row = trial(2, outcome=outcome, reason="KeyError: [/red] '[b]'", objective=0.25, epochs=7)
    ended, summary = shown([RUNNING, row], terminal=False).splitlines()
    reason = "" if outcome is Outcome.pruned else " (KeyError: [/red] '[b]')"
    assert ended == f"  x search trial 2: {outcome.value} 25.0%, 7 epochs, 2.5 s{reason}"
    assert summary.startswith(f"search x: 1 running, 1 {outcome.value} of 5; ")


@pytest.mark.parametrize("outcome", SILENT, ids=str)
def test_a_trial_that_goes_on_or_waits_has_no_line_of_its_own(outcome):
    assert len(shown([RUNNING, trial(0, outcome=outcome)], terminal=False).splitlines()) == 1


def test_what_was_so_before_and_what_is_heard_again_has_no_line_but_counts():
    file = io.StringIO()
    with ProgressDisplay(Console(file=file, width=200), "search x", 5) as display:
        display.update(trial(0), epochs=9, heard=False)
        for _ in range(2):
            display.update(trial(1), epochs=9)
        display.say("trial 1: attempt 2 follows")
    ended, said, summary = file.getvalue().splitlines()
    assert ended.startswith("  x search trial 1: done")
    assert said == "  trial 1: attempt 2 follows"
    assert summary.startswith("search x: 2 done of 5")


def test_a_trial_without_an_objective_has_a_dash():
    assert "trial 0: code -, 3 epochs" in shown(
        [trial(0, outcome=Outcome.code, objective=None, epochs=3)], terminal=False
    )


def test_the_last_line_counts_outcomes_once_per_trial_names_the_best_done_one_and_adds_costs():
    rows = [
        RUNNING, trial(0, objective=0.5, gflops=2.0), trial(1, objective=0.75), trial(2, objective=0.25),
        trial(3, objective=0.9, outcome=Outcome.pruned, gflops=1000.0),
    ]  # fmt: skip
    summary = shown(rows, terminal=False).splitlines()[-1]
    assert re.fullmatch(
        r"search x: 3 done, 1 pruned of 5; best x search trial 1 at 75\.0%, one seed; \d+ s, 1,005 GFLOP", summary
    )


def test_before_the_first_result_it_says_so():
    assert shown([], terminal=False).startswith("search x: no trial yet of 5; no best yet; 0 s, 0 GFLOP")
    waiting = trial(0, outcome=Outcome.running, objective=None, epochs=0)
    assert re.match(r"search x: 0 of 5 trials; 0:00:0\d, workers load PyTorch\n", picture([waiting]))


def test_a_terminal_shows_progress_and_keeps_only_the_summary():
    text = shown([RUNNING, trial(1)], terminal=True)
    assert "x search trial 1: done" not in text
    assert text.rstrip().splitlines()[-1].endswith("GFLOP")


def test_the_live_display_has_running_trials_with_epochs_value_and_parameters_and_the_time_left():
    running = trial(
        3, outcome=Outcome.running, objective=0.5, epochs=4, parameters={"optim.lr": 1 / 3, "model.nodes": 2}
    )
    text = picture([running, trial(1)])
    head, bar, counts, line = text.splitlines()
    assert re.fullmatch(r"search x: 1 of 5 trials; 0:00:0\d, about 0:00:0\d left", head)
    assert re.fullmatch(r"━{17}─{43} 29 %", bar)
    assert counts == "1 running, 1 done; best x search trial 1 at 50.0%, one seed; 3 GFLOP"
    assert line == "  trial 3  epoch 4/9   50.0%  nodes=2 lr=0.333"


def test_a_picture_that_takes_long_is_drawn_more_rarely(monkeypatch):
    now, drawn = 0.0, []
    monkeypatch.setattr("time.monotonic", lambda: now)
    display = ProgressDisplay(Console(file=io.StringIO(), width=80), "search x", 1)

    def slowly() -> list[str]:
        nonlocal now
        drawn.append(now)
        now += 0.3
        return [f"picture {len(drawn)}"]

    monkeypatch.setattr(display, "_lines", slowly)
    for now in (0.0, 0.5, 1.0, 2.9, 3.0):  # noqa: B007 - the clock
        display._render()
    assert drawn == [0.0, 3.0]


def test_what_earlier_sessions_have_done_is_no_progress_and_makes_no_time_left(monkeypatch):
    """Ten trials were done when two more were asked for: the time left is that of the two."""
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    console = Console(file=(file := io.StringIO()), width=200)
    display = ProgressDisplay(console, "search x", 12)
    for number in range(10):
        display.update(trial(number, gflops=100.0), epochs=9, heard=False)
    now = 20.0  # Ray has started
    running = trial(10, outcome=Outcome.running, objective=None, epochs=0, gflops=0.0)
    display.update(running, epochs=8)
    assert next(display._lines()) == "search x: 0 of 2 trials after 10 before; 0:00:20, workers load PyTorch"
    now = 30.0
    display.update(replace(running, objective=0.4, epochs=4, gflops=5.0), epochs=8)
    display.update(trial(11, gflops=10.0), epochs=8)
    head, bar, counts, _ = display._lines()
    assert head == "search x: 1 of 2 trials after 10 before; 0:00:30, about 0:00:03 left"
    assert bar.endswith(" 75 %") and counts.endswith("; 15 GFLOP")
    with display:
        pass
    assert file.getvalue().splitlines()[-1].endswith("; 30 s, 15 GFLOP in this session")


def test_a_trial_that_was_cut_short_goes_on_from_the_part_it_had():
    display = ProgressDisplay(Console(file=io.StringIO(), width=80), "search x", 2)
    cut = trial(0, outcome=Outcome.interrupted, epochs=4)
    display.update(cut, epochs=8, heard=False)
    assert " 0 %" in " ".join(display._lines())
    display.update(replace(cut, outcome=Outcome.done, epochs=8), epochs=8)
    assert " 33 %" in " ".join(display._lines())  # half a trial of one and a half


@pytest.mark.parametrize("variable", [{"TERM": "dumb"}, {"TERM": "xterm", "NO_COLOR": "1"}], ids=str)
def test_a_terminal_that_cannot_or_shall_not_be_drawn_on_gets_plain_lines(variable):
    console = PlainConsole(file=(file := io.StringIO()), force_terminal=True, width=200, _environ=variable)
    with ProgressDisplay(console, "search x", 5) as display:
        display.update(trial(1), epochs=9)
    assert "\x1b" not in file.getvalue()
    assert [line.split(":")[0] for line in file.getvalue().splitlines()] == ["  x search trial 1", "search x"]


def test_the_live_display_has_room_for_the_first_running_trials_only():
    running = [trial(n, outcome=Outcome.running) for n in range(SHOWN + 3)]
    text = picture(running, total=20)
    assert text.count("epoch ") == SHOWN
    assert text.splitlines()[-1] == "  and 3 more"
