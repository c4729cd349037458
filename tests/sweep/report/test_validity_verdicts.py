"""What the report says of each network's validity as an ODE, from rows.csv alone, and of the control."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from odenet.diagnostics.validity import paired_error
from sweep.records.rows import MANIFESTATION, REESTIMATED, EvaluationRow
from sweep.report.elements import Notice, Table, Text
from sweep.report.load import Sweep, Task
from sweep.report.results import TaskResults, build_study
from sweep.report.robustness import validity
from sweep.report.robustness.manifestations import cells, heat_maps

GRID = [("euler", 4), ("euler", 8), ("euler", 16), ("rk4", 4), ("rk4", 8)]


def rows(family: str, drops: Iterable[float], *, condition: str = MANIFESTATION, **changes: Any) -> list[EvaluationRow]:
    """A network that is right on 80 % of 1,000 images, and loses so much under each manifestation but its own. Each
    loss is of images lost, and of as many lost and gained again: `churn`."""
    churn, lost = changes.pop("churn", 0.0), changes.pop("lost", True)
    found = []
    for (scheme, steps), drop in zip(GRID, (0.0, *drops), strict=False):
        shown = [("accuracy", 0.8 - drop)] + ([("lost", drop + churn)] if lost else [])
        for metric, value in shown:
            given = {
                "family": family, "dataset": "digits", "per_class": 20, "draw": 0, "seed": 1, "scheme": scheme,
                "steps": steps, "condition": condition, "severity": 0.0, "split": "test", "metric": metric,
                "value": value, "n": 1000, "trained_scheme": "euler", "trained_steps": 4, "config_hash": "c",
                "data_hash": "d",
            }  # fmt: skip
            found.append(EvaluationRow(**(given | changes)))
    return found


def results(*tables: list[EvaluationRow]) -> TaskResults:
    sweeps = []
    for table in tables:
        sweeps.append(
            Sweep(
                directory=Path("x"), name=table[0].family, family=table[0].family, task=Task("digits", 20), draw=0,
                trials=[], curves=[], best=None, final_trials=[], final_curves=[], crowned=None, evaluations=table,
                manifestations=[], search=None, missing=(),
            )
        )  # fmt: skip
    (found,) = build_study(sweeps, [], Path()).tasks
    return found


def test_a_verdict_is_that_of_the_rule_with_the_error_paired_by_image() -> None:
    found = validity.validity_rows(results(rows("continuous", [0.002, 0.008, 0.003, 0.0], churn=0.01)))
    (row,) = found
    assert (row.family, row.seed, row.trained, row.n) == ("continuous", 1, "euler, 4 steps", 1000)
    assert row.stored.valid is True
    assert row.stored.drop == pytest.approx(0.008)
    assert row.stored.error == pytest.approx(paired_error(0.018, 0.01, 1000))
    assert row.reestimated is None
    (row,) = validity.validity_rows(results(rows("continuous", [0.002, 0.008, 0.003, 0.0])))
    assert row.stored.valid is False, "eight images lost and none gained are more than two standard errors"


def test_without_the_share_of_lost_images_one_point_alone_decides() -> None:
    (row,) = validity.validity_rows(results(rows("continuous", [0.002, 0.008, 0.003, 0.0], lost=False)))
    assert (row.stored.valid, row.stored.error) == (True, None)


def test_the_tables_show_both_batch_norms_and_that_the_control_failed() -> None:
    resnet = rows("resnet", [0.2, 0.3, 0.1, 0.2]) + rows("resnet", [0.1, 0.1, 0.1, 0.12], condition=REESTIMATED)
    own = rows("continuous", [0.05, 0, 0, 0]) + rows("continuous", [0, 0, 0, 0], condition=REESTIMATED)
    task = results(own, resnet)
    summary, each, *control = validity.blocks(task)
    assert isinstance(summary, Table)
    assert isinstance(each, Table)
    assert summary.columns[2:6] == ["ODE", "mean drop ± SE", "largest drop", "ODE, batch norm anew"]
    assert summary.rows == [
        ["resnet", "1", "0 of 1", "30.0 ± –", "30.0", "0 of 1", "12.0 ± –", "12.0"],
        ["continuous", "1", "0 of 1", "5.0 ± –", "5.0", "1 of 1", "0.0 ± –", "0.0"],
    ]
    assert each.folded == "The verdict on each of 2 networks"
    error = f"{100 * paired_error(0.05, 0, 1000):.1f}"
    assert each.rows[1] == [
        "continuous", "0", "1", "euler, 4 steps", "1,000", f"5.0 ± {error}", "euler, 2×", "0.25×", "no",
        "0.0 ± 0.0", "euler, 2×", "1×", "yes",
    ]  # fmt: skip
    assert [type(block) for block in control] == [Text, Text]
    assert [block.text for block in control if isinstance(block, Text)] == [
        "The control (resnet, batch norm as stored) failed in 1 of 1 network, as it should.",
        "The control (resnet, batch norm estimated anew) failed in 1 of 1 network, as it should.",
    ]
    assert cells(task.families[1], REESTIMATED)["euler", 2.0] == [0.0]
    assert cells(task.families[1])["euler", 2.0] == [pytest.approx(-0.05)]
    figure = heat_maps(task, "reestimated-0", REESTIMATED)
    assert figure is not None
    assert "estimated anew" in figure.caption


def test_a_control_that_does_not_fail_is_said() -> None:
    good = [rows("resnet", [0, 0, 0, 0], seed=1) + rows("resnet", [0.3, 0.3, 0.3, 0.3], seed=2)]
    (told,) = validity.blocks(results(*good))[2:]
    assert isinstance(told, Notice)
    assert told.text.startswith("The control (resnet, batch norm as stored) did not fail in 1 of 2 networks: on these")
    (told,) = validity.blocks(results(rows("continuous", [0, 0, 0, 0])))[2:]
    assert isinstance(told, Notice)
    assert told.text.startswith("The test has no control here: no network of resnet")


def test_what_is_no_ode_is_not_applicable_with_its_reason() -> None:
    task = results(rows("lm_resnet", [0.5], scheme="lm", trained_scheme="lm")[:2])
    summary, each, _ = validity.blocks(task)
    assert isinstance(summary, Table)
    assert isinstance(each, Table)
    assert summary.rows == [["lm_resnet", "1", "not applicable: its k_n belong to one step of each block", "–", "–"]]
    assert each.rows[0][5:] == ["–", "–", "–", "not applicable: its k_n belong to one step of each block"]


def test_networks_that_were_measured_as_trained_only_or_not_at_all_have_no_verdict() -> None:
    (row,) = validity.validity_rows(results(rows("continuous", [])))
    assert (row.stored.valid, row.stored.worst) == (None, None)
    clean = rows("continuous", [], condition="clean")
    assert validity.blocks(results(clean)) == []
