"""`sweep status`: read from files only, also while a sweep runs, and as wide as it needs where no window limits it."""

import csv
import io
import json
import re
from pathlib import Path

import pytest

from search_spaces import SPACES
from sweep.console import PlainConsole
from sweep.records.outcome import Outcome
from sweep.records.rows import Phase, TrialRow
from sweep.records.tables import write_rows
from sweep.stages.listing import View, show_trials
from sweep.stages.status import sweeps_below
from tests.sweep.sweep_command import Command, in_empty_directory
from tests.sweep.sweep_files import trial, write_sweep

RUNS = Path("runs")


@pytest.fixture
def sweep(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    return in_empty_directory(monkeypatch, tmp_path, capsys)


def test_one_trial_is_shown_with_what_is_known_of_its_failure(sweep):
    rows = [trial(0), trial(1, outcome=Outcome.code, reason="KeyError: 1", ray="ERROR", objective=None)]
    write_sweep(RUNS, rows)
    failure = RUNS / "x" / "failures" / "trial-1.txt"
    failure.parent.mkdir()
    failure.write_text("Traceback\n  KeyError: 1\n\nLast on standard error:\nwarned\n")
    shown = sweep("status", "x", "--trial", "1")
    assert shown.code == 0
    assert "  outcome        code\n" in shown.out and shown.out.endswith("standard error:\nwarned\n\n")
    (record,) = json.loads(sweep("status", "x", "--trial=1", "--json").out)
    assert (record["reason"], record["failure"]) == ("KeyError: 1", failure.read_text())
    assert "failure" not in sweep("status", "x", "--trial=0").out
    assert "x has no trial 7; its trials are 0 to 1" in sweep("status", "x", "--trial", "7").err


def cells(line: str) -> list[str]:
    """Columns are two blanks apart, and no cell holds two."""
    return re.split(r" {2,}", line.strip())


def lists(text: str) -> list[list[str]]:
    """The cells of all lists in a text, without heads; empty cells at the end of a line are not written."""
    rows, within = [], False
    for line in text.splitlines():
        if "──" in line:
            within = True
        elif not line or not re.match(r"\S.* {2}|  +\d", line):
            within = False
        elif within:
            rows.append(cells(line))
    return rows


def table(sweep: Command, *words: str) -> list[list[str]]:
    answer = sweep("status", *words)
    assert (answer.code, answer.err) == (0, "")
    return lists(answer.out)


def test_without_a_sweep_it_says_where_it_looked(sweep):
    assert sweep("status").out == f"No sweep in {Path.cwd() / 'runs'}.\n"
    assert sweep("status", "runtime.runs_dir=other").out == f"No sweep in {Path.cwd() / 'other'}.\n"


def test_all_sweeps_have_outcomes_best_cost_and_stages(sweep):
    rows = [trial(0, objective=0.5), trial(1, objective=0.75), trial(2, outcome=Outcome.pruned, objective=0.9)]
    write_sweep(RUNS, rows, "a")
    write_sweep(RUNS, [trial(0, outcome=Outcome.diverged, objective=None)], "study/continuous-d0")
    write_rows(RUNS / "study/continuous-d0/final/trials.csv", TrialRow, [trial(0, phase=Phase.final)])
    (RUNS / "study/continuous-d0/rows.csv").touch()
    (RUNS / "no-sweep").mkdir()
    assert table(sweep) == [
        ["a", "2 done, 1 pruned", "75.0% search, n=1", "no", "no", "4", "8", "smoke"],
        ["study/continuous-d0", "1 diverged", "-", "yes", "yes", "2", "2", "smoke"],
    ]
    assert table(sweep, "study")[0][0] == "0"
    seeds = [trial(number, phase=Phase.confirm, candidate=1, objective=0.5 + number / 10) for number in range(2)]
    write_rows(RUNS / "a/final/trials.csv", TrialRow, [*seeds, trial(2, phase=Phase.final, candidate=1)])
    assert table(sweep)[0][2] == "55.0% confirm, n=2"
    assert "a: the crowned configuration has 55.0%, sd 7.1 (confirmed, mean of 2 seeds)" in sweep("status", "a").out
    assert [path.name for path in sweeps_below(RUNS)] == ["a", "continuous-d0"]


def test_one_sweep_has_every_trial_with_what_varies_and_below_them_why_some_failed(sweep):
    reason = "ValueError: size [64, 3] and [/red] do not match"
    fast = {"model.network": "continuous", "model.scheme": "rk4", "optim.lr": 1 / 3}
    rows = [trial(0), trial(1, parameters=fast, outcome=Outcome.code, reason=reason, objective=None)]
    write_sweep(RUNS, [*rows, trial(2, outcome=Outcome.pruned, reason="stopped by the scheduler after epoch 2")])
    confirmed = [trial(0, phase=Phase.confirm, candidate=2), trial(1, phase=Phase.final, candidate=2, objective=None)]
    write_rows(RUNS / "x/final/trials.csv", TrialRow, confirmed)
    answer = sweep("status", "x")
    assert lists(answer.out) == [
        ["0", "done", "50.0%", "2", "1.5", "euler", "0.05"],
        ["1", "code", "-", "2", "1.5", "rk4", "0.333"],
        ["2", "pruned", "50.0%", "2", "1.5", "euler", "0.05"],
        ["0", "confirm", "2", "done", "50.0%", "2", "1.5"],
        ["1", "final", "2", "done", "-", "2", "1.5"],
    ]
    lines = answer.out.splitlines()
    assert lines[0] == "x: 1 done, 1 pruned, 1 code; best is trial 0 at 50.0% (search, one seed)"
    assert cells(lines[1]) == ["trial", "outcome", "objective", "epochs", "GFLOP", "scheme", "lr"]
    assert f"trial 1: {reason}" in lines
    assert not [line for line in lines if "stopped by" in line]
    assert "x/final: 2 done" in lines, "nothing is best among seeds of one configuration"
    assert reason in sweep("status", "x", "--wide").out
    assert cells(sweep("status", "x", "--wide").out.splitlines()[1])[-3:] == ["scheme", "lr", "reason"]


def test_other_programs_read_csv_and_json_with_every_parameter_in_full(sweep):
    rows = [trial(0), trial(1, parameters={"optim.lr": 1 / 3}, outcome=Outcome.code, reason='KeyError: "a,b"\n')]
    write_sweep(RUNS, rows, "a")
    write_rows(RUNS / "a/final/trials.csv", TrialRow, [trial(0, phase=Phase.final, candidate=1)])
    found = list(csv.DictReader(io.StringIO(sweep("status", "a", "--csv").out)))
    assert [(one["phase"], one["trial"], one["outcome"]) for one in found] == [
        ("search", "0", "done"), ("search", "1", "code"), ("final", "0", "done"),
    ]  # fmt: skip
    assert [float(one["optim.lr"]) for one in found] == [0.05, 1 / 3, 0.05]
    assert (found[1]["model.scheme"], found[1]["reason"]) == ("", rows[1].reason)
    content = json.loads(sweep("status", "a", "--json").out)
    assert (content["sweep"], content["finished"], content["at_work"]) == ("a", False, False)
    assert [one["parameters"] for one in content["trials"][:2]] == [row.parameters for row in rows]
    (only,) = json.loads(sweep("status", "--json").out)
    assert (only["sweep"], only["best"], only["final"]) == ("a", 0.5, "yes")
    assert (only["best_phase"], only["best_seeds"]) == ("search", 1)
    assert next(csv.DictReader(io.StringIO(sweep("status", "--csv").out)))["outcomes"] == "1 done, 1 code"
    assert json.loads(sweep("status", "runtime.runs_dir=none", "--json").out) == []


def test_in_a_window_of_80_columns_no_line_is_longer_and_what_has_no_room_is_named():
    """All that the largest space searches, in a sweep of a long name."""
    corners = SPACES["continuous"].corners()
    rows = [trial(number, parameters=corner) for number, corner in enumerate(corners)]
    rows += [trial(len(rows), outcome=Outcome.code, reason=f"ValueError: {'very ' * 30}long", parameters=corners[0])]
    console = PlainConsole(file=(file := io.StringIO()), force_terminal=True, color_system=None, width=80)
    show_trials("a-study-of-a-long-name/continuous-d0", rows, console, View.window)
    lines = file.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert len(lines) < len(rows) + 12
    assert lists(file.getvalue())[1][:5] == ["1", "done", "50.0%", "2", "1.5"]
    rule = next(number for number, line in enumerate(lines) if "──" in line)
    heads = {head for line in lines[:rule] for head in cells(line)}
    left_out = " ".join(file.getvalue().split()).partition("No room for ")[2].partition(":")[0].split(", ")
    assert {"scheme", "nodes", "substeps", "lr"} <= heads
    assert {key.split(".")[-1] for key in set().union(*corners)} - {"network"} - heads == set(left_out)
    assert " ".join(map(str.strip, lines[-3:])).endswith(f"{'very ' * 9}long")


def test_a_retrained_best_yaml_counts_as_a_sweep_with_its_final_trials(sweep):
    write_rows(RUNS / "x-retrained/final/trials.csv", TrialRow, [trial(0, phase=Phase.final, objective=None)])
    assert table(sweep) == [["x-retrained", "1 done", "-", "yes", "no", "2", "2", "smoke"]]
    assert [row[:4] for row in table(sweep, "x-retrained")] == [["0", "final", "0", "done"]]


def test_former_final_training_is_no_sweep_and_its_use_of_the_test_set_counts(sweep):
    write_sweep(RUNS, [trial(0)])
    for folder in ("final", "final~1"):
        write_rows(RUNS / f"x/{folder}/trials.csv", TrialRow, [trial(0, phase=Phase.final)])
    (RUNS / "x/final~1/rows.csv").touch()
    assert [(row[0], row[4]) for row in table(sweep)] == [("x", "yes")]
    (RUNS / "x/rows.csv").touch()
    assert [(row[0], row[4]) for row in table(sweep)] == [("x", "2 times")]


def test_a_sweep_without_trials_or_without_its_configuration_is_not_called_absent(sweep):
    write_sweep(RUNS, [trial(0)])
    (RUNS / "x/trials.csv").unlink()
    for stage in ("status", "report"):
        assert "x in " in (err := sweep(stage, "x").err) and "has no trial yet; " in err
    assert "Without a trial yet: x; `sweep resume NAME` goes on." in sweep("status").out
    assert "there are: x." in sweep("status", "y").err
    assert "go on with it by `sweep resume x`" in sweep("search", "x").err
    (RUNS / "x/config.yaml").unlink()
    write_rows(RUNS / "x/trials.csv", TrialRow, [trial(0)])
    for stage in ("resume", "final", "extend", "deliver"):
        assert "runs/x has no config.yaml, which a sweep or study has" in sweep(stage, "x").err
    assert "There is no sweep y in" in sweep("status", "y").err


def told(*words: object) -> str:
    return "".join(json.dumps(word) + "\n" for word in words)


METRICS = {"op": "metrics", "key": "x", "time": 1, "metrics": {}, "step": 1}


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("outbox.jsonl", told(METRICS, METRICS), "MLflow was not told 2 lines of "),
        ("outbox.jsonl", told(METRICS) + "\x00\xffno line\n", "MLflow was not told 2 lines of "),
        ("delivered.json", "{", "delivered.json cannot be relied on (Expecting"),
        (
            "delivered.json",
            '{"offset": 10000}',
            "cannot be relied on (the outbox is another, or shorter than the 10000",
        ),
        ("delivered.json", '{"offset": 5}', "cannot be relied on (the outbox is another, or shorter than the 5"),
        ("away.json", "{", "; the store does not answer: "),
        ("away.json", '{"away_since": 1e300, "reason": "no route"}', "; the store does not answer: no route"),
        ("away.json", '{"away_since": NaN, "reason": "no route"}', "; the store does not answer: no route"),
        (
            "set_aside.jsonl",
            told({"line": "{}", "reason": "it is odd"}),
            "Lines that could not be delivered to MLflow: 1, kept in ",
        ),
        (
            "set_aside.jsonl",
            "no line\n",
            "(the first: this line of set_aside.jsonl is damaged); `sweep deliver x` tries",
        ),
    ],
)
def test_what_mlflow_was_not_told_is_said_although_its_files_are_damaged(sweep, file, content, said):
    write_sweep(RUNS, [trial(0)])
    (RUNS / "x/outbox.jsonl").write_text(told(METRICS))
    (RUNS / f"x/{file}").write_text(content, encoding="latin-1")
    answer = sweep("status", "x")
    assert (answer.code, answer.err) == (0, "")
    assert said in answer.out


def test_a_damaged_sweep_among_others_is_refused_after_these_were_shown(sweep):
    write_sweep(RUNS, [trial(0)])
    write_sweep(RUNS, [trial(0)], "y")
    (RUNS / "x/trials.csv").write_text("?")
    answer = sweep("status", "--json")
    assert answer.code == 2
    assert [one["sweep"] for one in json.loads(answer.out)] == ["y"]
    assert "x/trials.csv: the columns must be" in answer.err


def test_a_sweep_that_has_just_begun_is_shown(sweep):
    write_sweep(RUNS, [trial(0)])
    write_rows(RUNS / "x/trials.csv", TrialRow, [])
    assert table(sweep) == [["x", "-", "no", "no", "0", "0"]]
    assert table(sweep, "x") == []
    assert sweep("status", "x").out.startswith("x: no trial yet\n")


def test_a_pipe_is_as_wide_as_columns_says(sweep: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    write_sweep(RUNS, [trial(number, objective=0.7) for number in range(3)])
    monkeypatch.delenv("COLUMNS", raising=False)
    whole = max(map(len, sweep("status", "x").out.splitlines()))
    monkeypatch.setenv("COLUMNS", "40")
    narrow = sweep("status", "x").out
    assert max(len(line) for line in narrow.splitlines() if "─" in line) <= 40 < whole
