"""The files in which stages meet: what is written is what is read, to the bit, and nothing is ever half-written."""

import csv
import json
import string
from dataclasses import astuple, replace
from pathlib import Path

import pytest
import yaml

from odenet.training.config import ExperimentConfig
from sweep.errors import InputError
from sweep.records.best import Best, git_commit, read_best, write_best
from sweep.records.outcome import Outcome
from sweep.records.rows import SCHEMA, CurveRow, EvaluationRow, ManifestationRow, Phase, TrialRow, best_so_far, ranked
from sweep.records.tables import append_row, read_rows, write_rows
from tests.sweep.sweep_files import best_of, trial

CURVE = CurveRow(
    number=3, epoch=1, train_loss=1 / 3, val_loss=None, val_accuracy=None, objective=None, cost_train_gflops=1e-9,
    cost_seconds=0.1, cost_rate_evaluations=2**40, depth_steps=2, depth_nodes=4,
)  # fmt: skip
EVALUATION = EvaluationRow(
    family="resnet", dataset="digits", per_class=None, draw=0, seed=2**31 - 1, scheme="rk4", steps=8, condition="clean",
    severity=0.0, split="test", metric="accuracy", value=2 / 3, n=594, trained_scheme="euler", trained_steps=4,
    config_hash="c0ffee", data_hash="da7a",
)  # fmt: skip
MEASURED = ManifestationRow(
    number=3, scheme="rk4", steps=4, trained=True, accuracy=2 / 3, loss=1 / 3, n=99, gflops=1e-9, rate_evaluations=16
)
REASONS = [
    "",
    " ",
    'quoted "word", comma',
    "a bar that\rreturns",
    "two\nlines",
    "carriage\r\nreturn\r",
    "tab\tπ ∂h/∂t 🦆",
    "=1+1",
    "[/red]",
    "0",
]
TABLES = {
    TrialRow: [
        *(trial(n, reason=reason) for n, reason in enumerate(REASONS)),
        *(trial(n, outcome=outcome, phase=phase) for n, outcome in enumerate(Outcome) for phase in Phase),
        trial(objective=None, per_class=None, epochs=0),
        trial(objective=0.1 + 0.2, gflops=5e-324, seconds=1e300),
        trial(parameters={"a": None, "b": True, "c": 1, "d": 1.0, "e": 'x"y,z', "f": 0.1 + 0.2, "π": []}),
        trial(parameters={}),
        trial(proposed_by="tpe", ray="TERMINATED", legs=3, feasible=False, gpu_seconds=0.1 + 0.2),
        trial(objectives={"gflops": 0.1 + 0.2, "accuracy": 1.0}, constraints={"latency_ms": 1 / 3, "parameters": 7}),
        trial(schedule=[{"epoch": 2, "parameters": {"a": 0.1}, "parent": None}]),
    ],
    ManifestationRow: [MEASURED, replace(MEASURED, trained=False)],
    CurveRow: [CURVE, replace(CURVE, val_loss=0.1, val_accuracy=1.0, objective=0.0)],
    EvaluationRow: [EVALUATION, replace(EVALUATION, per_class=20, metric="loss")],
}
tables = pytest.mark.parametrize(("row_type", "rows"), TABLES.items(), ids=[kind.__name__ for kind in TABLES])


@tables
def test_rows_come_back_to_the_bit(tmp_path, row_type, rows):
    write_rows(tmp_path / "rows.csv", row_type, rows)
    back = read_rows(tmp_path / "rows.csv", row_type)
    assert back == rows
    assert [type(value) for row in back for value in row_values(row)] == [
        type(v) for row in rows for v in row_values(row)
    ]


def row_values(row: object) -> list[object]:
    return [getattr(row, name) for name in type(row).__slots__]


@tables
def test_a_table_that_grows_line_by_line_equals_one_written_at_once(tmp_path, row_type, rows):
    for row in rows:
        append_row(tmp_path / "grown.csv", row)
    write_rows(tmp_path / "whole.csv", row_type, rows)
    assert (tmp_path / "grown.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


@tables
def test_an_empty_table_has_its_header_and_the_schema_in_front(tmp_path, row_type, rows):
    write_rows(tmp_path / "rows.csv", row_type, [])
    assert read_rows(tmp_path / "rows.csv", row_type) == []
    assert (tmp_path / "rows.csv").read_text() == ",".join(["schema", *row_type.__slots__]) + "\n"


def test_a_table_of_one_kind_is_not_read_as_another(tmp_path):
    write_rows(tmp_path / "rows.csv", CurveRow, [CURVE])
    with pytest.raises(InputError, match=r"rows\.csv: the columns must be schema, sweep.*; the file has schema, num"):
        read_rows(tmp_path / "rows.csv", TrialRow)


TYPED = (
    "phase", "number", "candidate", "outcome", "parameters", "objective", "epochs", "gflops", "per_class", "seed",
    "legs", "objectives", "constraints", "feasible", "schedule", "gpu_seconds",
)  # fmt: skip


@pytest.mark.parametrize("name", TYPED)
def test_a_wrong_cell_is_named_by_file_line_and_column(tmp_path, name):
    path = tmp_path / "wrong.csv"
    write_rows(path, TrialRow, [trial(0), trial(1)])
    lines = list(csv.reader(path.read_text().splitlines()))
    lines[2][lines[0].index(name)] = "no such value"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(lines)
    with pytest.raises(InputError, match=rf"wrong\.csv, line 3, column {name}: 'no such value' cannot be read: "):
        read_rows(path, TrialRow)


def test_the_key_of_an_evaluation_is_everything_before_its_value():
    assert EVALUATION.key == astuple(EVALUATION)[:11]
    assert EVALUATION.key == replace(EVALUATION, value=0.0, n=1).key
    assert EVALUATION.key != replace(EVALUATION, steps=9).key


def test_only_done_trials_are_ranked_the_best_first_and_ties_by_number():
    rows = [
        trial(0, objective=0.5), trial(1, objective=0.9, outcome=Outcome.pruned), trial(2, objective=0.7),
        trial(3, objective=0.7), trial(4, objective=None), trial(5, objective=0.95, outcome=Outcome.diverged),
    ]  # fmt: skip
    assert [row.number for row in ranked(rows)] == [2, 3, 0]


def test_a_trial_beyond_a_limit_is_not_ranked():
    assert [row.number for row in ranked([trial(0, objective=0.9, feasible=False), trial(1, objective=0.1)])] == [1]


def test_the_best_so_far_is_said_with_its_phase_and_the_seeds_that_it_is_over():
    search = [trial(0, objective=0.5), trial(1, objective=0.9), trial(2, objective=0.95, feasible=False)]
    assert best_so_far([]) == best_so_far([trial(0, outcome=Outcome.running)]) == "no best yet"
    assert best_so_far([trial(0, phase=Phase.sensitivity)]) == "nothing is chosen by these"
    assert best_so_far(search) == "best x search trial 1 at 90.0%, one seed"
    confirm = {0: (1, 0.85), 1: (1, 0.45), 2: (0, 0.7), 3: (0, 0.7)}
    rows = [trial(n, phase=Phase.confirm, candidate=which, objective=value) for n, (which, value) in confirm.items()]
    assert best_so_far([*search, rows[0]]) == "best x trial 1 at 85.0% confirmed, one seed"
    assert best_so_far([*search, *rows]) == "best x trial 0 at 70.0% confirmed, mean of 2 seeds"


# --- best.yaml --------------------------------------------------------------------------------------------------------


def test_best_yaml_is_a_complete_experiment_with_its_origin(tmp_path):
    row = trial(4, objective=0.875, data_hash="da7a")
    best = best_of(row, ExperimentConfig())
    write_best(tmp_path / "best.yaml", best)
    assert read_best(tmp_path / "best.yaml") == best
    plain = yaml.safe_load((tmp_path / "best.yaml").read_text())
    assert plain["schema"] == SCHEMA
    assert set(plain["experiment"]) == set(ExperimentConfig.__slots__)
    origin = plain["provenance"]
    assert (origin["sweep"], origin["family"], origin["trial"], origin["objective"]) == ("x", "smoke", 4, 0.875)
    assert (origin["phase"], origin["seeds"]) == ("search", 1)
    assert (origin["parameters"], origin["data_hash"], origin["git_commit"]) == (row.parameters, "da7a", git_commit())
    assert {"python", "torch", "ray", "optuna", "mlflow"} <= set(origin["versions"])
    assert json.loads(json.dumps(origin)) == origin


def test_the_commit_is_forty_hex_digits_with_a_mark_where_files_differ():
    commit, _, mark = git_commit().partition("-")
    assert set(commit) <= set(string.hexdigits)
    assert (len(commit), mark) in {(40, ""), (40, "dirty"), (0, "")}


def test_what_a_best_yaml_leaves_out_keeps_its_default(tmp_path):
    path: Path = tmp_path / "best.yaml"
    path.write_text(f"{{schema: {SCHEMA}, experiment: {{model: {{scheme: rk4}}, optim: {{lr: 1}}}}, provenance: {{}}}}")
    best = read_best(path)
    assert best.experiment.model.scheme.value == "rk4"
    assert (best.experiment.optim.lr, type(best.experiment.optim.lr)) == (1.0, float)
    assert best == Best(best.experiment, {})
