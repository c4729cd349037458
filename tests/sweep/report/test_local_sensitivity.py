"""What the report says of the neighbours of a selected configuration, computed by hand."""

from itertools import product

import pytest

from odenet.training.config import ExperimentConfig, to_plain
from sweep.config.overrides import flat
from sweep.records.best import Best, write_best
from sweep.records.outcome import Outcome
from sweep.records.rows import Phase, TrialRow
from sweep.records.tables import write_rows
from sweep.report.paper import write_figures
from sweep.tuning.local_grid import BATCH, KEYS, LR, WEIGHT_DECAY
from tests.sweep.report.test_report import report, trial, write_final, write_search

SELECTED = {key: flat(to_plain(ExperimentConfig()))[key] for key in KEYS}


def around(number, value, factors, seed=1, **changes):
    """A training whose parameters are the selected ones times these factors."""
    point = {key: old * factors.get(key, 1) for key, old in SELECTED.items()}
    return trial(
        "continuous", 0, number, phase=Phase.sensitivity, outcome=Outcome.done, objective=value, parameters=point,
        seed=seed, reason="",
    ) if not changes else trial(
        "continuous", 0, number, phase=Phase.sensitivity, parameters=point, seed=seed, objective=None, **changes
    )  # fmt: skip


def grid():
    """Learning rate x weight decay by 1/2, 1, 2: a drop of 3 points for each factor of the learning rate, and of half a
    point for more weight decay; less weight decay diverges."""
    rows = [around(0, 0.60, {}), around(1, 0.64, {}, seed=2)]
    for lr, decay in product((0.5, 1, 2), (0.5, 1, 2)):
        if (lr, decay) == (1, 1):
            continue
        factors, number = {LR: lr, WEIGHT_DECAY: decay}, len(rows)
        if decay == 0.5:
            rows.append(around(number, None, factors, outcome=Outcome.diverged, reason="nan"))
        else:
            rows.append(around(number, 0.60 - 0.03 * (lr != 1) - 0.005 * (decay != 1), factors))
    return [*rows, around(10, 0.62, {BATCH: 2}), around(11, None, {BATCH: 0.5}, outcome=Outcome.node_lost, reason="")]


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    directory = tmp_path_factory.mktemp("runs") / "continuous-d0"
    write_search(directory, "continuous", 0)
    write_final(directory, "continuous", 0)
    write_rows(directory / "sensitivity/trials.csv", TrialRow, grid())
    write_best(directory / "sensitivity/best.yaml", Best(ExperimentConfig(), {"trial": 3}))
    return directory


@pytest.fixture(scope="module")
def page(sweep, tmp_path_factory):
    return report(tmp_path_factory.mktemp("page"), [sweep])


def test_a_row_says_how_much_of_the_grid_is_near_the_selected_configuration(page):
    (table,) = (one for one in page.tables["best-so-far"] if "lr, drop < 1 point" in one[0])
    found = dict(zip(*table, strict=True))
    assert (found["selected"], found["sd"], found["n"]) == ("62.0", "2.8", "2")
    assert (found["neighbours"], found["n each"]) == ("9", "1")
    assert (found["within 2 points"], found["share"]) == ("2", "22 %"), "more weight decay, twice the batch"
    assert found["largest drop"] == "−50.0", "diverged ones are at chance, from the same seed"
    assert (found["lr, drop < 1 point"], found["weight decay, drop < 1 point"]) == ("1× to 1×", "1× to 2×")


def test_the_heat_map_has_every_cell_with_its_n_and_outlines_the_selected_one(page):
    (chart,) = (chart for name, chart in page.figures.items() if name.startswith("sensitivity-0"))
    data = chart["data"][0]
    assert (data["x"], data["y"]) == (["0.5×", "1×", "2×"],) * 2
    assert data["text"][1] == ["10.0<br>−50.0, n=1", "62.0<br>selected, n=2", "59.5<br>−0.5, n=1"]
    assert data["z"][0] == pytest.approx([-50.0, -3.0, -3.5])
    (shape,) = chart["layout"]["shapes"]
    assert (shape["x0"], shape["y0"]) == (0.5, 0.5)


def test_what_was_lost_and_what_it_cost_are_told(page):
    assert "1 training around trial 3 of study/continuous-d0 has not ended or was lost" in page.text["best-so-far"]
    assert "Around selected configurations were trained 12 runs" in page.text["search"]


def test_another_crowned_configuration_than_the_one_around_which_was_trained_is_told(sweep, tmp_path):
    write_best(sweep / "sensitivity/best.yaml", Best(ExperimentConfig(), {"trial": 5}))
    told = report(tmp_path, [sweep]).text["best-so-far"]
    assert "is around trial 5; the crowned one is trial 3." in told
    written = {path.name for path in write_figures([sweep], tmp_path / "paper")}
    assert {"sensitivity.csv", "sensitivity.pdf", "sensitivity.svg"} <= written
