"""What the report says about how a search went: budgets, proposers, rungs, limits, fronts, and what n = 1 allows."""

import itertools
import re
from dataclasses import replace

import numpy as np
import pytest
import yaml

from sweep.config.schema import AppConfig, save
from sweep.config.search_config import SamplerKind, SchedulerKind, SearchConfig
from sweep.errors import InputError
from sweep.records.outcome import Outcome
from sweep.records.rows import CurveRow, EvaluationRow, ManifestationRow, TrialRow
from sweep.records.tables import read_rows, write_rows
from sweep.report.hyperparameters.parameters import importances
from sweep.report.load import load_sweeps
from sweep.report.page import write_report
from sweep.report.pareto import front
from sweep.report.results import build_study
from tests.sweep.report.test_report import curve, report, study, trial, write_evaluation, write_search

FILES_OF = {"trials.csv": TrialRow, "final/trials.csv": TrialRow, "rows.csv": EvaluationRow}
UNFINISHED = {Outcome.running, Outcome.paused, Outcome.interrupted}


def proposed(number, by="random", objective=0.5, outcome=Outcome.done, **changes):
    return trial("continuous", 0, number, proposed_by=by, objective=objective, outcome=outcome, reason="", **changes)


def sweep(directory, rows, search=None, epochs=None, manifestations=()):
    """`epochs`: of each trial's learning curve, by number; the objective rises by a point per epoch."""
    write_rows(directory / "trials.csv", TrialRow, rows)
    curves = [c for number, n in (epochs or {}).items() for c in curve(number, 0.3, n)]
    curves = [replace(c, objective=0.3 + 0.01 * c.epoch + 0.001 * c.number) for c in curves]
    write_rows(directory / "curves.csv", CurveRow, curves)
    if manifestations:
        write_rows(directory / "manifestations.csv", ManifestationRow, manifestations)
    if search is not None:
        (directory / "config.yaml").write_text(yaml.safe_dump({"search": search}))
    return directory


def manifestation(number, steps, accuracy, gflops, **changes):
    row = ManifestationRow(
        number=number, scheme="euler", steps=steps, trained=steps == 4, accuracy=accuracy, loss=1.0, n=200,
        gflops=gflops, rate_evaluations=4 * steps,
    )  # fmt: skip
    return replace(row, **changes)


def records(found, caption):
    """The rows, as dictionaries, of the first table on the page whose columns include all of `caption`."""
    for tables in found.tables.values():
        for head, *body in tables:
            if set(caption) <= set(head):
                return [dict(zip(head, cells, strict=True)) for cells in body]
    return []


# Random trials


def thick(chart):
    return next(t for t in chart["data"] if t["name"] == "continuous")


def test_a_tuning_curve_takes_random_trials_only_and_counts_failed_and_infeasible_ones_as_chance(tmp_path):
    rows = [proposed(n, objective=0.4 + 0.05 * n, gflops=1.0 + n) for n in range(6)]
    rows += [
        proposed(6, objective=None, outcome=Outcome.diverged, gflops=6.0),
        proposed(7, objective=0.9, feasible=False, gflops=5.0),
        proposed(8, by="tpe", objective=0.8, gflops=50.0),
        proposed(9, objective=None, outcome=Outcome.interrupted),
        proposed(10, objective=None, outcome=Outcome.node_lost),
    ]
    found = report(tmp_path, [sweep(tmp_path / "a", rows)])
    values = [0.1, 0.1, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65]
    median, mean, cost = (thick(found.figures[f"tuning-0-{panel}"]) for panel in range(3))
    assert median["x"] == mean["x"] == [1, 2], "to a quarter of the trials"
    assert median["y"] == pytest.approx([45, 55])  # quantiles 0.5 and 0.71 of one trial: the 4th and the 6th of 8
    assert mean["y"] == pytest.approx(
        [100 * np.mean([max(s) for s in itertools.combinations(values, k)]) for k in (1, 2)]
    )
    assert (cost["x"], cost["y"]) == ([4, 8], median["y"])
    band = found.figures["tuning-bands-0"]["data"][0]
    assert (band["x"], band["y"][0] <= 45 <= band["y"][3]) == ([1, 2, 2, 1], True)
    whole = thick(found.figures["configurations-0"])
    assert (whole["x"], whole["y"][0]) == (pytest.approx([10, 40, 45, 50, 55, 60, 65]), 25)
    assert "Trials by draw: continuous 8." in found.text["best-so-far"]
    assert thick(found.figures["best-0-0"])["y"][-3:] == pytest.approx([80, 80, 80])  # never the infeasible
    assert "No tuning curve" not in found.text["best-so-far"]


def test_robustness_to_hyperparameters_is_told_per_draw_and_against_the_baseline(tmp_path):
    """Two families on two draws; the second family is 10 points lower, twice as spread and fails once a draw."""
    directories = []
    for draw in (0, 1):
        for family, shift, step in (("resnet", 0.0, 0.01), ("continuous", -0.1, 0.02)):
            rows = [
                trial(
                    family, draw, n, proposed_by="random", outcome=Outcome.done, reason="",
                    parameters={"optim.lr": 1.0 + n}, objective=0.9 + shift - step * n + 0.01 * draw,
                )
                for n in range(8)
            ]  # fmt: skip
            if family == "continuous":
                rows[7] = replace(rows[7], outcome=Outcome.diverged, objective=None)
            directories.append(sweep(tmp_path / f"{family}{draw}", rows))
    found = report(tmp_path, directories)
    rows = {row["family"]: row for row in records(found, ["AUTC"])}
    base, other = rows["resnet"], rows["continuous"]
    assert (base["median"], base["within 2 of its best, %"], base["failed, %"]) == ("87.0", "38", "0")
    assert (other["within 2 of its best, %"], other["within 2 of the best of all, %"], other["failed, %"]) == (
        "25", "0", "12",
    )  # fmt: skip
    # medians of the best of 1 and of 2: the 4th and the 6th of 8, in the other family of 7 and a failure
    assert (base["AUTC"], other["AUTC"], other["Δ AUTC"]) == ("87.5", "74.5", "−13.0")
    assert other["Δ interval"] == "−13.0 to −13.0", "both draws differ alike"
    assert base["AUTC interval"] == "81.1 to 93.9"  # 87.5 ± t(1) 12.71 * 0.707 / √2
    assert len(found.figures["tuning-bands-0-1"]["data"]) == 4, "a band and a line for every draw"


def test_what_was_searched_twice_is_compared_within_each_space_and_the_spaces_by_family(tmp_path):
    """Both families on three draws; searched in full continuous is 5 points ahead, at its defaults 3 behind."""
    directories = []
    for name, gain in (("full", 0.05), ("shared", -0.03)):
        made = study(tmp_path / name, [gain] * 3)
        for directory in made:
            for file, kind in FILES_OF.items():
                rows = [replace(row, family=f"{row.family}{'.shared' * (name == 'shared')}")
                        for row in read_rows(directory / file, kind)]  # fmt: skip
                write_rows(directory / file, kind, rows)
            rows = [proposed(n, objective=0.5 + 0.01 * n - 0.1 * (name == "shared")) for n in range(8)]
            first = read_rows(directory / "trials.csv", TrialRow)[0]
            rows = [replace(row, family=first.family, draw=first.draw) for row in rows]
            write_rows(directory / "trials.csv", TrialRow, rows)
        directories += made
    found = report(tmp_path, directories)
    (full, shared) = (head_and_rows for head_and_rows in found.tables["differences"] if "verdict" in head_and_rows[0])
    assert [(len(one) - 1, one[1][:1], one[1][one[0].index("Δ")]) for one in (full, shared)] == [
        (1, ["continuous"], "+5.0"), (1, ["continuous"], "−3.0"),
    ]  # fmt: skip
    assert found.text["differences"].count("digits, 20 images per class, shared dimensions only") == 1
    assert found.text["differences"].count("Over ") == 0, "two spaces are no two sizes"
    curves = [table for table in found.tables["best-so-far"] if "within 2 of the best of all, %" in table[0]]
    assert len(curves) == 2 and {"tuning-0-0", "tuning-1-0"} <= found.figures.keys()
    (beside,) = (table for table in found.tables["best-so-far"] if "Δ test" in table[0])
    rows = [dict(zip(beside[0], row, strict=True)) for row in beside[1:]]
    assert [(row["family"], row["draws"], row["Δ AUTC"], row["Δ test"], row["n"]) for row in rows] == [
        ("resnet", "3", "+10.0", "0.0", "6"), ("continuous", "3", "+10.0", "+8.0", "6"),
    ]  # fmt: skip


def test_configurations_that_all_draws_tried_show_whether_they_transfer(tmp_path):
    """On draw 1 two neighbours of four change places, and the best of draw 0 is second there, a point behind."""
    values = {0: [0.9, 0.8, 0.7, 0.6], 1: [0.8, 0.81, 0.7, 0.6]}
    directories = []
    for draw, own in values.items():
        for family in ("resnet", "continuous"):
            apart = draw if family == "resnet" else 0  # the baseline tried other configurations on each draw
            rows = [
                trial(
                    family, draw, n, outcome=Outcome.done, reason="", objective=value,
                    parameters={"optim.lr": 0.1 / 2**n, "optim.momentum": 0.9 + apart / 100},
                )
                for n, value in enumerate(own)
            ]  # fmt: skip
            directories.append(sweep(tmp_path / f"{family}{draw}", rows))
    found = report(tmp_path, directories)
    (row,) = records(found, ["τ"])
    assert (row["family"], row["configurations"], row["τ"]) == ("continuous", "4", "0.67")  # 5 pairs agree, 1 does not
    assert (row["regret"], row["largest regret"]) == ("5.5", "10.0")  # a point on draw 1, ten on draw 0
    assert "not known of resnet: fewer than 3 were tried on all of them" in found.text["best-so-far"]
    near = [row for row in records(found, ["ratio"]) if row["family"] == "continuous" and row["draw"] == "0"]
    assert [(row["parameter"], row["ratio"], row["change"]) for row in near] == [
        ("optim.lr", "0.125", "−30.0"), ("optim.lr", "0.25", "−20.0"), ("optim.lr", "0.5", "−10.0"),
    ]  # fmt: skip


def asha(share=0.0):
    return {"sampler": "random", "scheduler": "asha", "random_share": share}


BUDGETS = {  # rows, search section of config.yaml, how far the tuning curve goes
    "random": ([proposed(n) for n in range(12)], None, 3),
    "another sampler": ([proposed(n, by="tpe") for n in range(12)], None, 0),
    "seven random trials": ([*(proposed(n) for n in range(7)), proposed(7, by="tpe")], None, 0),
    "survivors": ([*(proposed(n) for n in range(9)), proposed(9, outcome=Outcome.pruned)], None, 0),
    "survivors by luck": ([proposed(n) for n in range(12)], asha(), 0),
    "a share": ([proposed(n, outcome=(Outcome.pruned, Outcome.done)[n % 2]) for n in range(16)], asha(0.5), 2),
    "a population": ([proposed(n, schedule=[{"epoch": 1, "parameters": {}}]) for n in range(12)], None, 0),
    "enqueued": ([proposed(n, by="enqueued") for n in range(12)], None, 0),
    "lost": ([*(proposed(n) for n in range(7)), proposed(7, outcome=Outcome.worker_lost)], None, 0),
}


@pytest.mark.parametrize("case", BUDGETS)
def test_only_random_trials_that_nobody_would_have_stopped_give_an_expectation(tmp_path, case):
    rows, search, expected = BUDGETS[case]
    found = report(tmp_path, [sweep(tmp_path / "a", rows, search)])
    figures = found.figures
    taken = len(thick(figures["tuning-0-0"])["x"]) if "tuning-0-0" in figures else 0
    assert taken == expected
    assert ("No tuning curve of study/continuous-d0" in found.text["best-so-far"]) is (expected == 0)
    assert ("best-0-0" in figures) is (case != "random")
    assert ("A single history of each sweep, not an expectation" in found.text["best-so-far"]) is (
        "best-0-0" in figures
    )


# The search


def test_every_outcome_is_counted_and_every_cost_summed(tmp_path):
    rows = [
        proposed(n, outcome=outcome, objective=0.1 * n, legs=n + 1, gpu_seconds=360.0)
        for n, outcome in enumerate(Outcome)
    ]
    search = {"sampler": "tpe", "random_share": 0.25, "scheduler": "asha", "budget": {"gpu_hour_price": 2.5}}
    found = report(tmp_path, [sweep(tmp_path / "a", rows, search)])
    row = records(found, ["segments"])[0]
    assert {outcome.value: row[outcome.value] for outcome in Outcome} == {outcome.value: "1" for outcome in Outcome}
    n = len(Outcome)
    assert (row["trials"], row["segments"]) == (str(n), str(n * (n + 1) // 2))
    assert (row["GFLOP"], row["seconds"], row["GPU hours"], row["money"]) == ("26", "19.5", "1.3", "3.25")
    assert row["best objective, 1 seed"] == "20.0"
    assert "Searched by tpe with a random share of 0.25, scheduler asha, for accuracy" in found.text["search"]
    unfinished = next(t for t in found.figures["importances-0"]["data"][0]["y"])
    assert f"n = {n - len(UNFINISHED) - 3}" in unfinished, "what was lost with its worker or node says nothing"
    assert "3 trials had not ended (1 running, 1 paused and 1 interrupted)" in found.text["summary"]


def test_a_trial_out_of_time_counts_by_its_last_value_in_a_search_and_is_listed_among_failures(tmp_path):
    rows = [proposed(0), proposed(1, objective=0.33, outcome=Outcome.timeout), proposed(2, objective=0.7)]
    rows += [proposed(3, objective=None, outcome=Outcome.timeout)]
    found = report(tmp_path, [sweep(tmp_path / "a", rows)])
    traces = found.figures["slices-0-1"]["data"]
    assert traces[0]["y"] == pytest.approx([50, 33, 70, 10])
    assert traces[0]["marker"]["symbol"] == ["circle", "circle-open", "circle", "x"]
    assert [row["trial"] for row in records(found, ["outcome", "reason"])] == ["1", "3"]


def test_without_a_config_the_report_says_that_nobody_told_how_it_searched(tmp_path):
    found = report(tmp_path, [sweep(tmp_path / "a", [proposed(0)])])
    assert "Searched in a way that no config.yaml tells: continuous-d0." in found.text["search"]
    assert "money" not in found.tables["search"][0][0]


def test_the_config_that_a_sweep_saves_is_understood(tmp_path):
    config = AppConfig(search=SearchConfig(sampler=SamplerKind.gp, scheduler=SchedulerKind.hyperband))
    directory = sweep(tmp_path / "a", [proposed(0)])
    (directory / "config.yaml").write_text(save(config))
    found = report(tmp_path, [directory])
    assert "Searched by gp, scheduler hyperband, for accuracy: continuous-d0." in found.text["search"]


def test_proposers_are_told_apart_by_what_they_found(tmp_path):
    rows = [
        proposed(0, by="enqueued", objective=0.4),
        proposed(1, by="tpe", objective=0.6),
        proposed(2, by="tpe", objective=0.9, outcome=Outcome.pruned),
        proposed(3, by="random", objective=None, outcome=Outcome.code),
        proposed(4, by="tpe", objective=None, outcome=Outcome.paused),
    ]
    found = {row["proposed by"]: row for row in records(report(tmp_path, [sweep(tmp_path / "a", rows)]), ["of trial"])}
    assert list(found) == ["enqueued", "random", "tpe"]
    counts = ("trials", "done", "pruned", "failed", "not ended", "best objective, 1 seed", "of trial")
    assert [found["tpe"][name] for name in counts] == ["3", "1", "1", "0", "1", "60.0", "1"]
    assert [found["random"][name] for name in counts] == ["1", "0", "0", "1", "0", "–", "–"]


def test_rungs_count_who_reached_them_who_stopped_there_and_who_waits(tmp_path):
    ends = {0: 9, 1: 9, 2: 3, 3: 3, 4: 1, 5: 1, 6: 1, 7: 2}
    outcomes = {2: Outcome.pruned, 3: Outcome.paused, 4: Outcome.pruned, 5: Outcome.pruned, 6: Outcome.pruned}
    outcomes[7] = Outcome.diverged  # died between two rungs
    rows = [proposed(n, epochs=ends[n], outcome=outcomes.get(n, Outcome.done)) for n in ends]
    found = records(report(tmp_path, [sweep(tmp_path / "a", rows, epochs=ends)]), ["trials that reached it"])
    told = [(row["epoch"], row["trials that reached it"], row["pruned"], row["waiting"]) for row in found]
    assert told == [("1", "8", "3", "0"), ("3", "4", "1", "1"), ("9", "2", "0", "0")]
    assert [row["best objective there, 1 seed"] for row in found] == ["31.7", "33.3", "39.1"]


def test_a_scheduler_that_stops_at_any_epoch_gets_few_rows_that_count_every_trial(tmp_path):
    rows = [proposed(n, epochs=n + 1, outcome=Outcome.pruned) for n in range(30)]
    directory = sweep(tmp_path / "a", [*rows, proposed(30, epochs=40)], epochs={n: n + 1 for n in range(30)} | {30: 40})
    found = records(report(tmp_path, [directory]), ["trials that reached it"])
    assert len(found) == 12
    assert sum(int(row["pruned"]) for row in found) == 30
    assert found[-1]["epoch"] == "40"


def test_the_best_member_of_a_population_is_told_with_its_schedule(tmp_path):
    schedule = [
        {"epoch": 0, "parameters": {"optim.lr": 0.1, "model.scheme": "euler", "model.clip": None}, "parent": None},
        {"epoch": 6, "parameters": {"optim.lr": 0.08, "model.scheme": "euler", "model.clip": None}, "parent": 3},
        {"epoch": 12, "parameters": {"optim.lr": 0.08, "model.scheme": "rk4", "model.clip": None}, "parent": 1},
    ]
    rows = [proposed(0, objective=0.4), proposed(1, objective=0.7, schedule=schedule)]
    found = records(report(tmp_path, [sweep(tmp_path / "a", rows)]), ["weights of"])
    assert [(row["from epoch"], row["weights of"]) for row in found] == [
        ("0", "itself"), ("6", "trial 3"), ("12", "itself"),
    ]  # fmt: skip
    assert [row["parameters that changed"] for row in found] == [
        "model.clip = None, model.scheme = euler, optim.lr = 0.1", "optim.lr = 0.08", "model.scheme = rk4",
    ]  # fmt: skip


def test_trials_beyond_a_limit_are_named_with_what_they_exceed_and_are_never_best(tmp_path):
    rows = [
        proposed(0, objective=0.5, constraints={"parameters": 900, "latency_ms": 2.0}),
        proposed(1, objective=0.9, constraints={"parameters": 2500, "latency_ms": 2.0}, feasible=False),
    ]
    search = {"constraints": {"parameters": 1000, "latency_ms": 5.0}}
    found = report(tmp_path, [sweep(tmp_path / "a", rows, search)])
    assert records(found, ["measured"]) == [
        {
            "sweep": "continuous-d0",
            "trial": "1",
            "objective": "90.0",
            "measured": "parameters 2,500 (limit 1,000)",
        }
    ]
    assert found.tables["configurations"][0][1][0] == "0"
    unlimited = report(tmp_path, [sweep(tmp_path / "b", rows)])
    assert records(unlimited, ["measured"])[0]["measured"] == "latency_ms 2, parameters 2,500"


def test_of_many_trials_beyond_a_limit_the_best_are_shown_and_all_are_counted(tmp_path):
    rows = [proposed(n, objective=0.01 * n, feasible=False, constraints={"parameters": n}) for n in range(30)]
    found = report(tmp_path, [sweep(tmp_path / "a", rows)])
    assert [row["trial"] for row in records(found, ["measured"])] == [str(n) for n in range(29, 19, -1)]
    assert "n = 30; shown: the 10 of each sweep" in found.text["search"]


def test_tables_with_nothing_to_say_are_left_out(tmp_path):
    found = report(tmp_path, [sweep(tmp_path / "a", [trial("continuous", 0, 0)])])
    assert len(found.tables["search"]) == 1
    assert "No sweep recorded what its trials reach under other integrators" in found.text["pareto"]
    assert "pareto" not in found.tables


# Fronts


def test_the_front_is_what_no_other_point_equals_or_undercuts():
    costs = [(2.0, 1.0), (1.0, 2.0), (2.0, 1.0), (3.0, 3.0), (1.0, 3.0), (4.0, 0.5)]
    assert front(costs) == [1, 0, 5]
    generator = np.random.default_rng(0)
    points = [tuple(point) for point in generator.integers(0, 6, size=(60, 3)).tolist()]
    chosen = {points[place] for place in front(points)}
    beaten = {p for p in points if any(q != p and all(a <= b for a, b in zip(q, p, strict=True)) for q in points)}
    assert chosen == set(points) - beaten
    assert front([]) == []


def test_the_front_over_manifestations_takes_done_trials_within_limits(tmp_path):
    rows = [proposed(0), proposed(1), proposed(2, feasible=False), proposed(3, outcome=Outcome.diverged)]
    table = [
        manifestation(0, 2, 0.60, 0.01),
        manifestation(0, 4, 0.80, 0.02),
        manifestation(0, 4, 0.80, 0.02),  # measured again after a restart
        manifestation(0, 8, 0.79, 0.04),  # dearer and worse
        manifestation(1, 4, 0.85, 0.20, scheme="rk4"),
        manifestation(2, 4, 0.99, 0.01),  # beyond a limit
        manifestation(3, 4, 0.98, 0.01),  # not done
    ]
    found = report(tmp_path, [sweep(tmp_path / "a", rows, manifestations=table)])
    cloud, line = found.figures["pareto-0"]["data"]
    assert (cloud["x"], cloud["marker"]["symbol"][:2]) == ([0.01, 0.02, 0.04, 0.2], ["circle-open", "circle"])
    assert (line["x"], line["y"]) == ([0.01, 0.02, 0.2], pytest.approx([60, 80, 85]))
    assert found.figures["pareto-0"]["layout"]["xaxis"]["type"] == "log"
    assert [(mark, text) for mark, text in found.keys["pareto-0"] if text != "continuous"] == [
        ("dot", "as it was trained"), ("open", "under another manifestation"),
        ("line", "front of a family, over all its trials and draws"),
    ], "every mark of the figure, and no other"  # fmt: skip
    told = [
        (r["trial"], r["scheme"], r["steps"], r["val accuracy"], r["n images"]) for r in records(found, ["n images"])
    ]
    assert told == [
        ("0", "euler", "2", "60.0", "200"), ("0", "euler", "4", "80.0", "200"), ("1", "rk4", "4", "85.0", "200"),
    ]  # fmt: skip
    assert "n = 4 points" in found.text["pareto"]
    assert "validation images, so their accuracies are biased upwards" in found.text["pareto"]
    assert "a/manifestations.csv" in found.links


def test_several_objectives_have_a_front_over_them_and_a_panel_each(tmp_path):
    values = [
        {"accuracy": 0.9, "gflops": 0.4, "robustness": 0.3},
        {"accuracy": 0.8, "gflops": 0.1, "robustness": 0.3},
        {"accuracy": 0.7, "gflops": 0.2, "robustness": 0.2},  # worse in all
        {"accuracy": 0.7, "gflops": 0.2, "robustness": 0.6},
    ]
    rows = [proposed(n, objective=one["accuracy"], objectives=one) for n, one in enumerate(values)]
    rows.append(proposed(4, objective=None, outcome=Outcome.code))
    found = report(tmp_path, [sweep(tmp_path / "a", rows)])
    told = [(r["trial"], r["accuracy"], r["gflops"], r["robustness"]) for r in records(found, ["robustness"])]
    assert told == [("0", "90.0", "0.4", "30.0"), ("1", "80.0", "0.1", "30.0"), ("3", "70.0", "0.2", "60.0")]
    gflops, robustness = (found.figures[f"objectives-0-0-{panel}"]["data"][0] for panel in (0, 1))
    assert gflops["marker"]["symbol"] == ["circle", "circle", "circle-open", "circle"]
    assert (gflops["x"], robustness["x"]) == ([0.4, 0.1, 0.2, 0.2], pytest.approx([30, 30, 20, 60]))
    assert "optimized accuracy, gflops and robustness together (n = 4, one seed each)" in found.text["pareto"]


# One panel per parameter


def test_the_objective_is_drawn_against_each_parameter_that_varied_with_its_name_in_full(tmp_path):
    values = [(1e-4, "euler"), (1e-2, "rk4"), (1e-1, "rk4")]
    rows = [
        proposed(n, parameters={"optim.lr": lr, "model.scheme": scheme, "model.width": 8 + n})
        for n, (lr, scheme) in enumerate(values)
    ]
    rows.append(proposed(3, outcome=Outcome.pruned, objective=0.2, parameters={"optim.lr": 1.0}))
    found = report(tmp_path, [sweep(tmp_path / "a", rows)])
    assert found.panels["slices-0"] == ["model.scheme", "model.width", "optim.lr"]  # width: absent is a value
    scheme, width, lr = (found.figures[f"slices-0-{place}"] for place in range(3))
    assert scheme["data"][0]["x"] == ["euler", "rk4", "rk4"]
    assert lr["data"][0]["x"] == [1e-4, 1e-2, 1e-1, 1.0]
    assert lr["layout"]["xaxis"]["type"] == "log"
    assert width["layout"]["xaxis"]["tickvals"] == [8, 9, 10], "whole numbers have no ticks between them"
    assert lr["data"][0]["marker"]["symbol"] == ["circle"] * 3 + ["circle-open"]
    ranges = [chart["layout"]["yaxis"]["range"] for chart in (scheme, lr)]
    assert ranges[0] == ranges[1]


# n = 1


def single(root, seeds):
    """One draw; every family measured on the first seeds only."""
    directories = study(root, [0.05], draws=1)
    for directory, ahead in zip(directories, (0.0, 0.05), strict=True):
        accuracies = [0.8 + ahead, 0.81 + ahead][:seeds] + [None] * (2 - seeds)
        write_evaluation(directory, directory.name.partition("-")[0], 0, accuracies)
    return directories


def test_one_run_has_no_interval(tmp_path):
    found = report(tmp_path, single(tmp_path, seeds=1))
    text = found.text["summary"]
    assert "resnet reaches 80.0 % (n = 1: no interval)" in text
    assert "differs by +5.0 points (n = 1: no interval; 1 draw, 1 matched run each)" in text
    assert "P(continuous > resnet) = 1.00 (n = 1: no interval). One pair" in text
    assert "One pair of runs: it says nothing about other seeds or other draws of the data." in text
    assert found.row("families", "resnet")["95 % interval"] == "–"
    row = found.row("differences", "continuous")
    assert (row["Δ"], row["Δ interval"], row["P interval"], row["verdict"]) == ("+5.0", "–", "–", "pilot: no verdict")
    whiskers = [t for name in ("runs-0", "differences-0") for t in found.figures[name]["data"]]
    assert not any("array" in t.get(axis, {}) for t in whiskers for axis in ("error_x", "error_y"))


def test_an_interval_over_the_seeds_of_one_draw_says_so_and_decides_nothing(tmp_path):
    found = report(tmp_path, single(tmp_path, seeds=2))
    text = found.text["summary"]
    assert re.search(r"resnet reaches 80.5 % \(95 % interval 74.1 to 86.9 over the seeds of one draw; n = 2\)", text)
    assert "n = 1: no interval" not in text


# Bad files


def with_config(text):
    def make(root):
        write_search(root / "x", "resnet", 0)
        (root / "x" / "config.yaml").write_text(text)
        return root / "x"

    return make


def with_trial(**changes):
    return lambda root: sweep(root / "x", [proposed(0, **changes)])


def with_damaged_manifestations(root):
    write_search(root / "x", "resnet", 0)
    (root / "x" / "manifestations.csv").write_text("schema,number\n2,zero\n")
    return root / "x"


BAD = {
    "no yaml": (with_config("search: ["), "config.yaml: while parsing"),
    "no mapping": (with_config("7"), "config.yaml: search must be a mapping, not None"),
    "unknown key": (with_config("search: {sampel: tpe}"), "search.sampel is no key; possible are trials"),
    "unknown sampler": (with_config("search: {sampler: oracle}"), "search.sampler='oracle': must be one of tpe"),
    "manifestations": (with_damaged_manifestations, "manifestations.csv: the columns must be schema, number, scheme"),
    "objective": (with_trial(objectives={"accuracy": 1, "speed": 1}), "trial 0: 'speed' is no objective; possible are"),
    "no accuracy": (with_trial(objectives={"gflops": 1}), "column objectives: accuracy is not among gflops"),
    "nan": (with_trial(objectives={"accuracy": float("nan")}), "accuracy=nan: must be a finite number"),
    "text": (with_trial(constraints={"parameters": "few"}), "column constraints: parameters='few': must be a finite"),
    "schedule": (with_trial(schedule=[{"epoch": 3}]), "column schedule: {'epoch': 3}: must have epoch, a number"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_damaged_file_is_named_with_the_place_and_nothing_is_written(tmp_path, case):
    make, message = BAD[case]
    with pytest.raises(InputError, match=re.escape(message).replace(r"\ ", " ")):
        write_report([make(tmp_path)], tmp_path / "report.html", "none")
    assert not (tmp_path / "report.html").exists()


def test_of_pure_noise_few_reports_have_a_bar_beyond_chance(tmp_path):
    """Marks for each bar by itself would be crossed by one of eight bars in a third of the reports."""
    generator, crossed, reports = np.random.default_rng(3), 0, 30
    for number_of in range(reports):
        rows = [
            proposed(number, objective=float(generator.random()), parameters={
                f"optim.p{k}": float(generator.random()) for k in range(8)
            })
            for number in range(24)
        ]  # fmt: skip
        sweep(tmp_path / f"r{number_of}", rows)
        (results,) = build_study(*load_sweeps([tmp_path / f"r{number_of}"]), tmp_path).tasks
        found = importances(results.families[0], [f"optim.p{k}" for k in range(8)])
        assert len({one.noise for one in found}) == 1
        crossed += any(one.share > one.noise for one in found)
    assert crossed <= 5  # of 30, 1.5 are expected
