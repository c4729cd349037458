"""What `sweep plan` says a search will cost."""

import os
import sys
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from sweep.config.compose import load
from sweep.config.search_config import SchedulerKind, SearchConfig
from sweep.errors import InputError
from sweep.stages.plan import FamilyCost, _family_table, plan, plan_study
from sweep.tuning.estimates import TrialCost, expected
from tests.sweep.terminal import Terminal

TINY = ["space=continuous", "data.per_class=5", "model.width=2", "training.epochs=9", "search.trials=27"]


def planned(*words: str, runs: Path) -> str:
    console = Console(file=StringIO(), width=250, markup=False)
    plan(load([*TINY, f"runtime.runs_dir={runs}", *words]), console)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize(
    ("search", "course"),
    [
        ({"scheduler": SchedulerKind.none}, [(27, 27)]),
        ({"scheduler": SchedulerKind.pbt}, [(27, 27)]),
        ({"scheduler": SchedulerKind.asha}, [(3, 27), (9, 9), (27, 3)]),
        ({"scheduler": SchedulerKind.depth_asha}, [(3, 27), (9, 9), (27, 3)]),
        ({"scheduler": SchedulerKind.asha, "random_share": 1 / 3}, [(3, 27), (9, 15), (27, 11)]),
        ({"scheduler": SchedulerKind.median}, [(3, 27), (27, 13.5)]),
    ],
)
def test_as_many_trials_are_expected_at_a_rung_as_its_rule_lets_pass_in_random_order(
    search: dict, course: list[tuple[int, float]]
) -> None:
    config = SearchConfig(**{"trials": 27, "grace": 1 / 9, **search})
    assert expected(config, 27) == [(epoch, pytest.approx(trials)) for epoch, trials in course]


def test_hyperband_gives_its_brackets_about_equal_epochs() -> None:
    config = SearchConfig(scheduler=SchedulerKind.hyperband, trials=1000, grace=1 / 9)
    course = expected(config, 27)
    assert [epoch for epoch, _ in course] == [3, 9, 27]
    assert course[0][1] == pytest.approx(1000)
    assert 1000 / 9 < course[2][1] < 1000 / 2  # more reach the end than under asha, for later first rungs


def test_a_course_costs_each_epoch_as_many_times_as_trials_are_trained_in_it() -> None:
    estimate = TrialCost(
        parameters=1, gflops=[1.0, 1.0, 2.0, 4.0], seconds_per_gflop=1.0, memory_mib=1.0, gpu=None, graph_obstacle=""
    )
    assert estimate.spent([(4, 5.0)]) == 5 * 8
    assert estimate.spent([(2, 9.0), (4, 3.0)]) == 9 * 2 + 3 * 6


def test_plan_prints_rungs_costs_of_search_and_final_and_when_a_budget_ends_it(tmp_path: Path) -> None:
    text = planned("search.scheduler=asha", "search.grace=0.111", "search.budget.gflops=0.001", runs=tmp_path)
    assert "Trials expected: 27 to epoch 1; 9 to epoch 3; 3 to epoch 9" in text
    for name in ("cheapest", "middle", "dearest", "search GFLOP", "final time"):
        assert name in text
    assert "search.budget.gflops=0.001 is spent after about 0 trials if all are like the dearest" in text
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_on_a_screen_of_80_columns_it_says_what_it_does_before_it_does_it(tmp_path: Path) -> None:
    """And the compiler of torch, which takes longer to load than all the rest takes, stays away."""
    code = "from sweep.__main__ import run; import sys; run(sys.argv[1:]); print('torch._dynamo' in sys.modules, 'END')"
    command = [sys.executable, "-c", code, "plan", *TINY, f"runtime.runs_dir={tmp_path}"]
    with Terminal(command, 80, 40, {**os.environ, "OMP_NUM_THREADS": "1"}) as terminal:
        at_once = terminal.until("loading PyTorch")
        lines = terminal.until("END")
    assert at_once[0] == "plan: space continuous, 27 trials of 9 epochs on digits, sampler tpe, scheduler"
    assert "cheapest" not in " ".join(at_once)
    begins = [line.split(":")[0] for line in lines if ":" in line and not line.startswith("│")]
    assert begins == ["plan", "plan", "Data", "Space", "Search", "Trials expected", "Dry run"]
    assert [line for line in lines if line.startswith("┏")] == ["┏━━━━━━━━━━━━━━━┳━━━━━━━━━━┳━━━━━━━━━┳━━━━━━━━━┓"]
    assert lines[-1] == "False END"


def test_depth_asha_takes_the_timing_of_refinements_over(tmp_path: Path) -> None:
    text = planned("search.scheduler=depth_asha", "search.grace=0.111", runs=tmp_path)
    assert "27 to epoch 1; 9 to epoch 3; 3 to epoch 9" in text
    with pytest.raises(InputError, match="decides when networks are refined"):
        planned("search.scheduler=depth_asha", "space.fix.refinement.count=1", runs=tmp_path)


def test_a_whole_study_is_planned_with_its_trainings_epochs_hours_and_money(tmp_path: Path) -> None:
    words = [
        "study=quick", "study.sizes=[5,10]", "model.width=2", "search.trials=4", "cluster.cpus=2",
        "study.arm=equal_compute", "study.median_epochs=5", "study.cpu_hour_price=1000",
        "search.budget.gpu_hour_price=50", "runtime.resources.gpus=0.5", f"runtime.runs_dir={tmp_path}",
    ]  # fmt: skip
    console = Console(file=StringIO(), width=250, markup=False)
    plan_study(load(words), console)
    assert isinstance(console.file, StringIO)
    text = console.file.getvalue()
    for said in (
        "digits, 3 draws, disjoint", "Arm: equal_compute; search: i.i.d. random search", "resnet-n5", "continuous-n10",
        # two families, two sizes, three draws; 2 x 2 confirming and 3 final trainings each
        "The study: 12 sweeps, 48 search trials and 84 confirming and final trainings",
        "`sweep sensitivity NAME/SWEEP`, where it is asked for of one of these sweeps, is 55 trainings more:",
    ):  # fmt: skip
        assert said in text
    hours = float(text.split(" hours one after another")[0].split()[-1])
    cpu, gpu = (float(line.split()[1].replace(",", "")) for line in text.splitlines() if line.startswith("Money"))
    assert (gpu, cpu) == (pytest.approx(1000 * hours, rel=0.02), pytest.approx(25 * hours, rel=0.02, abs=0.006))
    assert list(tmp_path.iterdir()) == []
    console = Console(file=StringIO(), width=250, markup=False)
    plan_study(load([*words, "study.cpu_hour_price=null", "search.budget.gpu_hour_price=null"]), console)
    assert isinstance(console.file, StringIO)
    assert "Money" not in console.file.getvalue()
    with pytest.raises(InputError, match="share"):
        plan_study(load([*words, "study.sizes=[50]"]), console)


def test_families_of_long_names_are_told_apart_on_a_screen_of_80_columns() -> None:
    costs = FamilyCost([3, 113], [728.1, 912.1], 0.15, 8.0, 5.0)
    names = ("continuous_euler", "continuous_rk4", "a_family_with_a_name_of_forty_characters")
    console = Console(width=80, file=StringIO())
    console.print(_family_table(dict.fromkeys(names, costs)))
    assert isinstance(console.file, StringIO)
    printed = console.file.getvalue()
    assert "continuous_euler" in printed and "continuous_rk4" in printed and "…" not in printed
    assert max(map(len, printed.splitlines())) <= 80
