"""The recipes "how to add" of CONTRIBUTING.md, followed to their end: what they name exists, and the tables agree."""

import importlib
import inspect
import pkgutil
import re
from dataclasses import fields
from enum import EnumType
from pathlib import Path

import pytest

import search_spaces
from odenet.data.config import DataSet
from odenet.data.sets import SETS
from odenet.training.footprint import Footprint
from search_spaces import SPACES
from sweep import stages
from sweep.cli import run_jobs, run_stages, run_studies, run_views
from sweep.cli.commands import STAGES
from sweep.config.compose import groups
from sweep.config.search_config import Objective, SamplerKind, SchedulerKind, SearchConfig
from sweep.records.outcome import STATES, Outcome
from sweep.tuning.samplers import sampler_for
from sweep.tuning.schedulers import Scheduler, build_scheduler

ROOT = Path(__file__).parents[2]
RECIPES = dict(re.findall(r"^\| (an? [^|]+) \| (.*) \|$", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE))
BY_ITSELF = {SamplerKind.grid, SchedulerKind.pbt}  # a grid is listed, a population has a source of its own


def resolves(name: str) -> bool:
    """Whether a name in backticks is a file, a command, a module, or something in one, from sweep/ or from the root."""
    if name.startswith("make "):
        return f"\n{name.removeprefix('make ')}:" in (ROOT / "Makefile").read_text()
    name = name.removeprefix("python -m ")
    for place in (ROOT, ROOT / "sweep", ROOT / "sweep/config"):
        if any(place.glob(name)):
            return True
    for parts in ([*prefix, *name.split(".")] for prefix in ((), ("sweep",), ("odenet",))):
        for cut in range(len(parts), 0, -1):
            try:
                found = importlib.import_module(".".join(parts[:cut]))
            except ModuleNotFoundError:
                continue
            if all((found := getattr(found, part, None)) is not None for part in parts[cut:]):
                return True
    return False


def modules_of(package: object) -> list[object]:
    path, name = package.__path__, package.__name__  # type: ignore[attr-defined]  # of a module
    return [importlib.import_module(f"{name}.{one.name}") for one in pkgutil.iter_modules(path)]


def first_cells(document: str, head: str) -> list[str]:
    """The names in backticks that begin the rows of the table with this head."""
    text = (ROOT / document).read_text()
    table = text[text.index(f"| {head} |") :].split("\n\n")[0]
    return re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)


@pytest.mark.parametrize("what", RECIPES)
def test_every_file_and_name_in_a_recipe_exists(what: str) -> None:
    names = re.findall(r"`([^`]+)`", RECIPES[what])
    assert names
    for name in names:
        if name not in {"prepare_X", "X"}:  # of a stage; the last test follows them
            assert resolves(name), f"the recipe for {what} names {name}, which is not there"


@pytest.mark.parametrize(("kind", "head"), [(SamplerKind, "`search.sampler`"), (SchedulerKind, "`search.scheduler`")])
def test_every_sampler_and_scheduler_has_a_row_in_the_document(kind: EnumType, head: str) -> None:
    assert set(first_cells("docs/search.md", head)) == set(kind.__members__)


def test_every_sampler_is_built_but_the_grid_which_is_listed() -> None:
    for kind in SamplerKind:
        if kind not in BY_ITSELF:
            assert sampler_for(SearchConfig(sampler=kind), 0) is not None, kind


def test_every_scheduler_is_built_but_populations_and_every_rule_is_that_of_a_kind() -> None:
    built = {type(build_scheduler(SearchConfig(scheduler=kind), 30)) for kind in SchedulerKind if kind not in BY_ITSELF}
    assert built == set(Scheduler.__subclasses__())
    assert len(built) == len(SchedulerKind) - 1


def test_every_objective_is_measured_and_named_in_the_document() -> None:
    measured = {field.name for field in fields(Footprint)} | {"accuracy", "robustness"}
    assert measured >= set(Objective.__members__)
    section = (ROOT / "docs/search.md").read_text().partition("## What is optimized")[2].partition("\n## ")[0]
    assert {name for name in Objective.__members__ if f"`{name}`" not in section.replace("[accuracy]", "")} == set()


def test_every_outcome_has_its_line_and_its_row() -> None:
    assert list(STATES) == list(Outcome)
    assert set(first_cells("docs/search.md", "outcome")) == set(Outcome.__members__)


def test_every_outcome_is_in_the_document_as_in_the_table() -> None:
    text = (ROOT / "docs/search.md").read_text()
    for outcome, states in STATES.items():
        assert f"| `{outcome.value}` | {states.ray} | {states.optuna} | {states.mlflow} |" in text


def test_every_space_has_a_file_and_a_module_that_makes_it() -> None:
    assert groups()["space"] == sorted(SPACES)
    made: list[object] = []
    for module in modules_of(search_spaces):
        for value in vars(module).values():
            made += value if isinstance(value, tuple) else [value]
    assert all(any(space is one for one in made) for space in SPACES.values())


def test_every_data_set_has_a_reader_and_a_file() -> None:
    assert set(SETS) == set(DataSet)
    assert groups()["data"] == sorted(DataSet.__members__)
    for name in DataSet.__members__:
        assert f"dataset: {name}" in (ROOT / f"sweep/config/conf/data/{name}.yaml").read_text()


def test_every_stage_has_its_module_its_function_and_its_row() -> None:
    found = [
        pair
        for one in (run_jobs, run_stages, run_studies, run_views)
        for pair in inspect.getmembers(one, inspect.isfunction)
    ]
    functions = {name: function for name, function in found if name.startswith("run_")}
    assert set(functions) == {f"run_{name}" for name in STAGES}
    for name, stage in STAGES.items():
        assert stage.run is functions[f"run_{name}"]
        assert stage.usage.startswith(f"sweep {name}")
    modules = {one.__name__.split(".")[-1]: one for one in modules_of(stages)}  # type: ignore[attr-defined]
    # `sweep extend` goes on with a search, `sweep report` is a package, verify is a flag of status; `sweep final`
    # and `sweep evaluate` write the model card.
    elsewhere = {"extend", "report", "submit", "logs", "stop"}  # the last three are for a cluster's job server
    assert set(modules) - {"verify", "model_card", "listing"} == set(STAGES) - elsewhere
    for name in ("search", "final", "evaluate", "export", "study", "replay"):
        assert callable(getattr(modules[name], name)) and callable(getattr(modules[name], f"prepare_{name}"))
