"""What a sweep has found, from its tables: which value, of what phase, over how many seeds."""

from statistics import stdev

import pytest

from sweep.records.outcome import Outcome
from sweep.records.rows import CLEAN, MANIFESTATION, EvaluationRow, Phase, TrialRow
from sweep.records.run_directory import SweepFiles
from sweep.records.summary import SweepSummary
from sweep.records.tables import write_rows
from tests.sweep.sweep_files import trial

SEARCH = [
    trial(0, objective=0.6),
    trial(1, objective=0.8),
    trial(2, objective=0.9, outcome=Outcome.diverged),
    trial(3, objective=0.7, outcome=Outcome.interrupted),
]
CONFIRM = [(0, 0.95), (0, 0.45), (1, 0.9), (1, 0.7)]  # candidate 0 has the best single seed, 1 the best mean
FINAL = [
    *(trial(n, phase=Phase.confirm, candidate=one, objective=value) for n, (one, value) in enumerate(CONFIRM)),
    *(trial(n, phase=Phase.final, candidate=1, objective=None, gpu_seconds=2.0, seed=n) for n in (4, 5)),
    trial(6, seed=6, phase=Phase.final, candidate=1, objective=None, outcome=Outcome.diverged),
]


def measured(seed: int, value: float, condition: str = CLEAN, metric: str = "accuracy") -> EvaluationRow:
    return EvaluationRow(
        family="smoke", dataset="digits", per_class=5, draw=0, seed=seed, scheme="euler", steps=2, condition=condition,
        severity=0.0, split="test", metric=metric, value=value, n=596, trained_scheme="euler", trained_steps=2,
        config_hash="c0ffee", data_hash="da7a",
    )  # fmt: skip


TEST = [
    *(measured(seed, value) for seed, value in ((4, 0.9), (5, 0.8))),
    *(measured(seed, 1.5, metric="loss") for seed in (4, 5)),
    *(measured(4, 0.2, MANIFESTATION, metric) for metric in ("accuracy", "loss")),
]


def test_the_figures_are_those_of_the_phase_they_are_named_after():
    metrics = SweepSummary(SEARCH, FINAL, TEST).metrics()
    assert (metrics["best/objective"], metrics["best/seeds"]) == (0.8, 1), "of done trials only"
    assert {name: value for name, value in metrics.items() if name.startswith("trials/")} == {
        "trials/done": 2, "trials/diverged": 1, "trials/waiting": 1,
    }  # fmt: skip
    assert (metrics["confirmed/seeds"], metrics["confirmed/objective_mean"]) == (2, pytest.approx(0.8))
    assert metrics["confirmed/objective_sd"] == pytest.approx(stdev([0.9, 0.7]))
    assert metrics["test/accuracy_mean"] == pytest.approx((0.9 + 0.8 + 0.1) / 3), "a failed seed counts as chance"
    assert (metrics["test/seeds"], metrics["test/accuracy_sd"]) == (3, pytest.approx(stdev([0.9, 0.8, 0.1])))
    assert (metrics["cost/train_gflops"], metrics["cost/gpu_seconds"]) == (11 * 1.5, 4.0)


def test_what_is_not_done_yet_has_no_figure_and_a_single_seed_no_deviation():
    assert SweepSummary([], [], []).table() == ""
    assert SweepSummary([], [], []).metrics().keys() == {
        "cost/train_gflops", "cost/seconds", "cost/gpu_seconds", "trials/waiting",
    }  # fmt: skip
    assert SweepSummary(SEARCH, FINAL[:4], []).confirmed is None, "nothing is crowned yet"
    alone = SweepSummary(SEARCH, FINAL[4:5], TEST[:1]).metrics()
    assert alone["test/accuracy_mean"] == 0.9
    assert {"test/accuracy_sd", "confirmed/objective_mean"}.isdisjoint(alone)


def test_the_table_says_of_each_value_its_phase_and_its_seeds(tmp_path):
    files = SweepFiles(tmp_path)
    for file, row_type, rows in (
        (files.trials, TrialRow, SEARCH), (files.final.trials, TrialRow, FINAL), (files.rows, EvaluationRow, TEST),
    ):  # fmt: skip
        write_rows(file, row_type, rows)
    summary = SweepSummary.read(files)
    assert summary.table().splitlines()[2:] == [
        "| best objective | 80.0% | search trial 1, one seed: the best of 4 is partly luck |",
        "| confirmed objective | 80.0%, sd 14.1 | mean over 2 seeds of the crowned configuration, of search trial 1 |",
        "| test accuracy | 60.0%, sd 43.6 | mean over 3 fresh seeds, trained on train and val |",
    ]
