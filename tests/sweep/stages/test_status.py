"""`sweep status`: read from files only, also while a sweep runs, and as wide as it needs where no window limits it."""

import json
from pathlib import Path

import pytest

from sweep.records.outcome import Outcome
from sweep.records.rows import Phase, TrialRow
from sweep.records.tables import write_rows
from sweep.stages.status import sweeps_below
from tests.sweep.sweep_command import Command, in_empty_directory
from tests.sweep.sweep_files import trial, write_sweep

RUNS = Path("runs")


@pytest.fixture
def sweep(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    return in_empty_directory(monkeypatch, tmp_path, capsys)


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip()[1:-1].split("│")]


def table(sweep: Command, *words: str) -> list[list[str]]:
    """The cells of all tables, without heads."""
    answer = sweep("status", *words)
    assert (answer.code, answer.err) == (0, "")
    return [cells(line) for line in answer.out.splitlines() if line.startswith("│")]


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
        ["a", "smoke", "3", "2 done, 1 pruned", "75.0%", "4", "8", "no", "no"],
        ["study/continuous-d0", "smoke", "1", "1 diverged", "-", "2", "2", "yes", "yes"],
    ]
    assert table(sweep, "study")[0][0] == "0"
    assert [path.name for path in sweeps_below(RUNS)] == ["a", "continuous-d0"]


def test_one_sweep_has_every_trial_with_parameters_and_reason_in_full(sweep):
    reason = "ValueError: size [64, 3] and [/red] do not match"
    write_sweep(RUNS, [trial(0), trial(1, outcome=Outcome.code, reason=reason, objective=None)])
    write_rows(RUNS / "x/final/trials.csv", TrialRow, [trial(0, phase=Phase.confirm), trial(1, phase=Phase.final)])
    parameters = "model.network=continuous model.scheme=euler optim.lr=0.05"
    assert table(sweep, "x") == [
        ["0", "search", "done", "50.0%", "2", "1.5", "2.5", parameters, ""],
        ["1", "search", "code", "-", "2", "1.5", "2.5", parameters, reason],
        ["0", "confirm", "done", "50.0%", "2", "1.5", "2.5", parameters, ""],
        ["1", "final", "done", "50.0%", "2", "1.5", "2.5", parameters, ""],
    ]


def test_a_retrained_best_yaml_counts_as_a_sweep_with_its_final_trials(sweep):
    write_rows(RUNS / "x-retrained/final/trials.csv", TrialRow, [trial(0, phase=Phase.final, objective=None)])
    assert table(sweep) == [["x-retrained", "smoke", "1", "1 done", "-", "2", "2", "yes", "no"]]
    assert [row[:3] for row in table(sweep, "x-retrained")] == [["0", "final", "done"]]


def test_former_final_training_is_no_sweep_and_its_use_of_the_test_set_counts(sweep):
    write_sweep(RUNS, [trial(0)])
    for folder in ("final", "final~1"):
        write_rows(RUNS / f"x/{folder}/trials.csv", TrialRow, [trial(0, phase=Phase.final)])
    (RUNS / "x/final~1/rows.csv").touch()
    assert [(row[0], row[-1]) for row in table(sweep)] == [("x", "yes")]
    (RUNS / "x/rows.csv").touch()
    assert [(row[0], row[-1]) for row in table(sweep)] == [("x", "2 times")]


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


def test_a_sweep_that_has_just_begun_is_shown(sweep):
    write_sweep(RUNS, [trial(0)])
    write_rows(RUNS / "x/trials.csv", TrialRow, [])
    assert table(sweep) == [["x", "", "0", "", "-", "0", "0", "no", "no"]]
    assert table(sweep, "x") == []
