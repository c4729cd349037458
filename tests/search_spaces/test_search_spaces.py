"""The search spaces: contracts over all kinds of parameters and over all spaces, equal terms, and every message."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest

from odenet.enums import Network
from odenet.training.config import ExperimentConfig, from_plain
from search_spaces import SPACES, Choice, Float, Int, Parameter, Space, When, fixed
from search_spaces.common import COMMON, SMOOTHNESS
from search_spaces.refined import REFINEMENT

ASKS = 200
ROOT = Path(__file__).parents[2]
FAMILIES = {name: space for name, space in SPACES.items() if name != "smoke"}
REFINED = {"continuous", "continuous_preact", "stateful", "hamiltonian", "midpoint", "leapfrog"}
CONTINUOUS = SPACES["continuous"]

# parameter, values inside, values outside
PARAMETERS: dict[str, tuple[Parameter, list[Any], list[Any]]] = {
    "float": (Float(-1, 2), [-1.0, 0, 2], [-1.1, 2.1, "0.1", True, None, float("nan"), [1]]),
    "log float": (Float(1e-5, 0.1, log=True), [1e-5, 0.1], [0, 1, "1e-3"]),
    "float, low dearer": (Float(0.1, 0.4, dearer="low"), [0.1, 0.4], [0, 1]),
    "int": (Int(0, 5), [0, 3, 5], [-1, 6, 1.5, 2.0, "3", True]),
    "int, stepped": (Int(1, 9, step=2), [1, 5, 9], [2, 11]),
    "log int": (Int(1, 64, log=True), [1, 64], [0, 65]),
    "choice": (Choice(("a", None, 2, 0.5)), ["a", None, 2, 0.5], ["b", "2", False, [2]]),
    "boolean choice": (Choice((False, True)), [False, True], [0, 1, None]),
    "fixed": (fixed("rk4"), ["rk4"], ["euler", None]),
}

kinds = pytest.mark.parametrize(("parameter", "inside", "outside"), PARAMETERS.values(), ids=PARAMETERS)
spaces = pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)


def ask(count: int) -> list[optuna.Trial]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    return [study.ask() for _ in range(count)]


def a_space() -> Space:
    """Nested conditions: c is used only under a condition on b, and b under one on a."""
    entries = {"a": Int(0, 2), "b": Choice(("x", "y")), "c": Float(0, 1)}
    return Space(entries, {"b": When("a", (1, 2)), "c": When("b", ("y",))})


@kinds
def test_a_parameter_contains_its_domain_and_nothing_else(parameter, inside, outside):
    assert [value for value in inside if not parameter.contains(value)] == []
    assert [value for value in outside if parameter.contains(value)] == []
    for value in outside:
        with pytest.raises(ValueError, match=re.escape(f"{value!r} is not {parameter.domain}.")):
            parameter.accept(value)


@kinds
def test_extremes_and_middle_lie_inside_and_what_is_suggested_too(parameter, inside, outside):
    assert all(map(parameter.contains, (*parameter.extremes(), parameter.middle())))
    suggested = [parameter.suggest(trial, "name") for trial in ask(50)]
    assert all(map(parameter.contains, suggested))
    assert len(set(suggested)) >= min(2, len(parameter.extremes()))


@kinds
def test_a_parameter_is_the_same_after_json_and_after_narrowing_to_all_of_it(parameter, inside, outside):
    assert Parameter.from_dict(json.loads(json.dumps(parameter.to_dict()))) == parameter
    everything = parameter.extremes() if isinstance(parameter, Choice) else sorted(parameter.extremes())
    assert parameter.narrow(list(everything)) == parameter


def test_extremes_run_from_cheap_to_dear_and_the_middle_of_a_logarithmic_range_is_geometric():
    assert Float(0.1, 0.4, dearer="low").extremes() == (0.4, 0.1)
    assert Int(0, 2).extremes() == (0, 2)
    assert Float(1e-3, 1e-1, log=True).middle() == pytest.approx(1e-2)
    assert Int(1, 64, log=True).middle() == 8


INVALID: dict[str, tuple[Callable[[], Any], str]] = {
    "equal ends": (lambda: Float(1, 1), "The range from 1 to 1 is empty: low must be below high"),
    "inverted": (lambda: Int(3, 1), "The range from 3 to 1 is empty"),
    "infinite": (lambda: Float(0, float("inf")), "inf cannot be an end of Float: it needs finite numbers"),
    "text": (lambda: Float("0", 1), "'0' cannot be an end of Float"),
    "fraction": (lambda: Int(0, 1.5), "1.5 cannot be an end of Int"),
    "logarithm": (lambda: Float(0, 1, log=True), "no logarithm: with log=True low must be above 0"),
    "step": (lambda: Int(0, 5, step=2), "step=2 must be a positive integer that leads from 0 to 5"),
    "no step": (lambda: Int(0, 5, step=0), "step=0 must be a positive integer"),
    "step and log": (lambda: Int(1, 5, step=2, log=True), "step=2 cannot be combined with log=True; use step=1"),
    "dearer": (lambda: Int(0, 5, dearer="up"), "dearer='up' is not an end of the range; there are 'low' and 'high'"),
    "no options": (lambda: Choice(()), "() is not a list of at least one value"),
    "one text": (lambda: Choice("abc"), "'abc' is not a list of at least one value"),
    "twice": (lambda: Choice((1, True)), "The options (1, True) are not distinct"),
    "odd option": (lambda: Choice(([1],)), "[1] cannot be an option; None, booleans, finite numbers and text can"),
    "nan option": (lambda: Choice((float("nan"),)), "nan cannot be an option"),
    "no condition": (lambda: When("a", ()), "() is not a list of at least one value"),
    "kind": (lambda: Parameter.from_dict({"kind": "real"}), "'real' is not a kind of parameter; there are float, int,"),
    "fields": (lambda: Parameter.from_dict({"kind": "int", "lo": 1}), "{'lo': 1} does not describe the kind int"),
    "empty space": (lambda: Space({}), "A space needs at least one parameter"),
    "stray condition": (lambda: Space({"a": Int(0, 1)}, {"b": When("a", (1,))}), "for b, which is not in the space: a"),
    "late condition": (
        lambda: Space({"b": Int(0, 1), "a": Int(0, 1)}, {"b": When("a", (1,))}),
        "b depends on a, which must be listed before it",
    ),
    "damaged space": (lambda: Space.from_dict({"entries": [{}]}), "does not describe a space: KeyError('key')"),
}


@pytest.mark.parametrize(("make", "message"), INVALID.values(), ids=INVALID)
def test_what_cannot_be_is_refused_when_it_is_made(make, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make()


@spaces
def test_what_optuna_suggests_lies_in_the_space_and_every_parameter_is_used(space):
    suggestions = [space.suggest(trial) for trial in ask(ASKS)]
    for params in suggestions:
        space.validate(params)
        assert params.items() >= space.fixed.items()
    assert {key for params in suggestions for key in params} == set(space.entries)


@spaces
def test_only_what_is_searched_is_asked_from_optuna_and_under_the_same_names(space):
    trial = ask(1)[0]
    params = space.suggest(trial)
    assert trial.params == {key: value for key, value in params.items() if key in space.parameters}


@pytest.mark.parametrize("space", [*SPACES.values(), a_space()], ids=[*SPACES, "nested"])
def test_corners_are_distinct_valid_assignments_that_cover_every_extreme(space):
    corners = space.corners()
    for corner in corners:
        space.validate(corner)
    assert all(corners.count(corner) == 1 for corner in corners)
    for key, parameter in space.parameters.items():
        assert set(parameter.extremes()) <= {corner[key] for corner in corners if key in corner}, key
    assert len(corners) <= 3 + sum(len(parameter.extremes()) for parameter in space.parameters.values())


def test_the_last_corners_are_the_cheapest_and_the_dearest():
    cheapest, dearest = CONTINUOUS.corners()[-2:]
    assert cheapest["refinement.count"] == 0 and "refinement.first" not in cheapest
    assert (cheapest["model.scheme"], cheapest["optim.batch_size"]) == ("euler", 64)
    assert (dearest["model.scheme"], dearest["model.nodes"], dearest["refinement.count"]) == ("rk4", 2, 2)
    assert (dearest["refinement.first"], dearest["refinement.interval"]) == (0.1, 0.05)


@pytest.mark.parametrize("space", [*SPACES.values(), a_space()], ids=[*SPACES, "nested"])
def test_a_space_and_its_order_survive_json_with_sorted_keys(space):
    read = Space.from_dict(json.loads(json.dumps(space.to_dict(), sort_keys=True)))
    assert read == space
    assert list(read.entries) == list(space.entries)


def test_every_network_has_a_space_of_its_own_and_every_space_but_smoke_is_that_of_its_network():
    assert set(FAMILIES) == {network.value for network in Network}
    assert [space.fixed["model.network"] for space in FAMILIES.values()] == list(FAMILIES)


def sharing(objects: dict[str, Parameter]) -> set[str]:
    """The families that search these very objects."""
    return {name for name, space in FAMILIES.items() if all(space.entries.get(key) is objects[key] for key in objects)}


def holding(objects: dict[str, Parameter]) -> set[str]:
    return {name for name, space in FAMILIES.items() if set(objects) & set(space.entries)}


@pytest.mark.parametrize(
    ("objects", "families"),
    [(COMMON, set(FAMILIES)), (SMOOTHNESS, set(FAMILIES) - {"neural_ode"}), (REFINEMENT, REFINED)],
    ids=["common", "smoothness", "refinement"],
)
def test_families_share_parameters_object_for_object(objects, families):
    assert sharing(objects) == holding(objects) == families


@pytest.mark.parametrize("key", ["regularization.stochastic_depth", "regularization.noise"])
def test_regularization_that_a_family_may_not_need_can_be_switched_off(key):
    assert COMMON[key].contains(0.0)


# Three need two nodes: for a stage with one fewer, or for a step after the first. neural_ode has one in all depth.
OTHER_DEPTHS = {"hamiltonian": {2, 4, 8}, "midpoint": {2, 4, 8}, "leapfrog": {2, 4, 8}, "neural_ode": {1}}


def cells_reached(space: Space) -> set[int]:
    """Cells per stage at the end of training: a refinement doubles them, N hats have N - 1."""
    counts = space.entries.get("refinement.count", fixed(0))
    hats = {basis == "hat" for basis in space.entries.get("model.basis", fixed("piecewise_constant")).extremes()}
    return {
        max(nodes - hat, 1) * 2**count
        for nodes in space.entries.get("model.nodes", fixed(2)).extremes()
        for hat in hats
        for count in range(11)
        if counts.contains(count)
    }


PUBLISHED_DEPTHS = ("resnet18", "resnet50", "resnet101")


@pytest.mark.parametrize("family", [name for name in FAMILIES if name not in PUBLISHED_DEPTHS])
def test_families_reach_the_same_final_depths_as_far_as_they_can(family):
    assert cells_reached(FAMILIES[family]) == OTHER_DEPTHS.get(family, {1, 2, 4, 8})


def experiment(params: dict[str, Any], epochs: int) -> ExperimentConfig:
    plain: dict[str, Any] = {"training": {"epochs": epochs}}
    for key, value in params.items():
        part, name = key.split(".")
        plain.setdefault(part, {})[name] = value
    return from_plain(ExperimentConfig, plain)


@spaces
def test_every_corner_and_every_suggestion_is_a_possible_experiment_however_short(space):
    for params in [*space.corners(), *(space.suggest(trial) for trial in ask(ASKS))]:
        for epochs in (5, 30):
            assert experiment(params, epochs).model.network.value == space.fixed["model.network"]


def named_in_the_readme() -> dict[str, list[str]]:
    """The cells of each row of README's table of networks, by the name in the first one."""
    section = (ROOT / "README.md").read_text().partition("\n## Networks\n")[2].partition("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| `")]
    return {row[0].strip("`"): row for row in rows}


def own_parameters(space: Space) -> set[str]:
    own = set(space.parameters) - set(COMMON) - set(SMOOTHNESS)
    return {"refinement.*" if key in REFINEMENT else key.removeprefix("model.") for key in own}


def test_the_readme_lists_every_network_with_what_is_searched_and_its_source():
    rows = named_in_the_readme()
    assert {name: set(re.findall("`(.+?)`", row[3])) for name, row in rows.items()} == {
        name: own_parameters(space) for name, space in FAMILIES.items()
    }
    assert [name for name, row in rows.items() if not re.search(r"arXiv \d{4}\.\d{5}", row[4])] == []


@pytest.mark.parametrize(("count", "used"), [(0, set()), (1, {"first"}), (2, {"first", "interval"})])
def test_refinement_timing_is_asked_only_where_it_has_an_effect(count, used):
    params = CONTINUOUS.fix({"refinement.count": count}).suggest(ask(1)[0])
    assert {key.split(".")[1] for key in params if key.startswith("refinement")} - {"count"} == used


def test_a_fixed_parameter_is_no_longer_asked_and_stays_what_it_was_elsewhere():
    space = CONTINUOUS.fix({"model.scheme": "rk4", "optim.weight_decay": 1e-4})
    assert "model.scheme" not in space.parameters and "model.scheme" in CONTINUOUS.parameters
    assert all(params["model.scheme"] == "rk4" for params in map(space.suggest, ask(10)))
    assert [corner["optim.weight_decay"] for corner in space.corners()] == [1e-4] * len(space.corners())


def test_a_fixed_parameter_with_a_condition_appears_only_where_the_condition_holds():
    space = CONTINUOUS.fix({"refinement.first": 0.25})
    seen = {(params["refinement.count"], params.get("refinement.first")) for params in map(space.suggest, ask(50))}
    assert seen == {(0, None), (1, 0.25), (2, 0.25)}


def test_what_can_no_longer_be_used_is_no_longer_listed():
    space = CONTINUOUS.fix({"refinement.count": 1})
    assert "refinement.first" in space.parameters and "refinement.interval" not in space.parameters
    assert "refinement.interval" not in CONTINUOUS.fix({"refinement.interval": 0.1}).fix({"refinement.count": 1}).fixed


def test_an_integer_given_for_a_float_becomes_a_float():
    space = Space({"a.x": Float(0, 2)})
    assert repr(space.fix({"a.x": 1}).fixed["a.x"]) == "1.0"
    assert repr(space.narrow({"a.x": [0, 1]}).entries["a.x"].extremes()) == "(0.0, 1.0)"


@pytest.mark.parametrize(
    ("key", "values", "narrowed"),
    [
        ("optim.lr", [1e-2, 0.1], Float(1e-2, 0.1, log=True)),
        ("refinement.first", [0.2, 0.3], Float(0.2, 0.3, dearer="low")),
        ("refinement.count", [0, 1], Int(0, 1)),
        ("refinement.count", [2, 2], fixed(2)),
        ("optim.lr", [0.1, 0.1], fixed(0.1)),
        ("model.scheme", ["rk4", "euler"], Choice(("euler", "rk4"))),
        ("model.scheme", ["rk4"], fixed("rk4")),
    ],
)
def test_narrowing_keeps_scale_and_order_and_one_value_left_is_fixed(key, values, narrowed):
    assert CONTINUOUS.narrow({key: values}).entries[key] == narrowed


def test_narrowing_a_stepped_range_keeps_its_grid():
    space = Space({"a": Int(1, 9, step=2)})
    assert space.narrow({"a": [3, 7]}).entries["a"] == Int(3, 7, step=2)
    with pytest.raises(ValueError, match=r"a: 4 is not an integer from 1 to 9 in steps of 2\."):
        space.narrow({"a": [3, 4]})


def finite_space() -> Space:
    """Nested conditions: b is used where a is 1 or 2, c only where b is y; d always, as a has no other values."""
    entries = {
        "a": Int(0, 2),
        "b": Choice(("x", "y")),
        "c": Int(1, 5, step=2),
        "d": Choice((False, True)),
        "e": fixed(7),
    }
    conditions = {"b": When("a", (1, 2)), "c": When("b", ("y",)), "d": When("a", (0, 1, 2))}
    return Space(entries, conditions)


def test_a_grid_has_every_assignment_once():
    grid = list(finite_space().grid())
    expected = {(0, None, None)} | {(a, "x", None) for a in (1, 2)} | {(a, "y", c) for a in (1, 2) for c in (1, 3, 5)}
    assert {(point["a"], point.get("b"), point.get("c")) for point in grid} == expected
    assert len(grid) == 2 * len(expected) == len({str(point) for point in grid})
    for point in grid:
        finite_space().validate(point)
        assert point["e"] == 7
    assert list(Space({"e": fixed(7)}).grid()) == [{"e": 7}]


def test_a_grid_of_numbers_from_a_range_names_each_of_them():
    space = Space({"a.x": Float(0, 1), "b": Int(0, 1), "c.y": Float(0, 1)})
    with pytest.raises(
        ValueError,
        match=re.escape("a.x, c.y: a number from a range has no grid. Fix each of them to one value."),
    ):
        space.grid()
    assert list(space.fix({"a.x": 0, "c.y": 1}).grid()) == [{"a.x": 0.0, "b": b, "c.y": 1.0} for b in (0, 1)]


TIMING = ["refinement.first", "refinement.interval"]

# space -> what some trials do not use, what decides about it, what has no order
KINDS_OF_KEYS: dict[str, tuple[Space, list[str], list[str], list[str]]] = {
    "nested": (finite_space(), ["b", "c"], ["a", "b"], ["b", "d"]),
    "decided": (finite_space().fix({"a": 1, "b": "y"}), [], [], ["d"]),
    "decided above": (finite_space().fix({"b": "y"}), ["c"], ["a"], ["d"]),
    "on a number": (Space({"x": Float(0, 1), "y": Int(0, 1)}, {"y": When("x", (0.5,))}), ["y"], ["x"], []),
    "continuous": (
        CONTINUOUS.fix({"model.scheme": "rk4"}), TIMING, ["refinement.count"],
        [key for key in CONTINUOUS.categorical if key != "model.scheme"],
    ),
    "refined once": (CONTINUOUS.fix({"refinement.count": 1}), [], [], CONTINUOUS.categorical),
}  # fmt: skip


@pytest.mark.parametrize(("space", "conditional", "decisive", "categorical"), KINDS_OF_KEYS.values(), ids=KINDS_OF_KEYS)
def test_a_space_knows_which_keys_some_trials_lack_and_which_have_no_order(space, conditional, decisive, categorical):
    assert (space.conditional, space.decisive, space.categorical) == (conditional, decisive, categorical)


@spaces
def test_conditional_keys_are_those_that_some_suggestions_lack(space):
    suggestions = [space.suggest(trial) for trial in ask(ASKS)]
    assert space.conditional == [key for key in space.parameters if any(key not in params for params in suggestions)]


def test_a_space_without_refinement_searches_the_rest():
    space = CONTINUOUS.without([key for key in CONTINUOUS.entries if key.startswith("refinement.")])
    assert list(space.entries) == [key for key in CONTINUOUS.entries if key not in REFINEMENT]
    assert (space.conditions, space.conditional) == ({}, [])
    assert CONTINUOUS.without([]) == CONTINUOUS


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (["a", "b"], "b cannot be removed alone: c is used only when b is 'y'."),
        (["b"], "b cannot be removed alone: c is used only when b is 'y'."),
        (["aa"], "aa is not in this space. Did you mean a?"),
        (["a", "b", "c"], "A space needs at least one parameter"),
    ],
)
def test_what_others_depend_on_cannot_be_removed_alone(keys, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        a_space().without(keys)


def test_values_from_elsewhere_are_completed_in_the_types_of_the_space():
    space = Space({"a.x": Float(0, 2), "b": Choice((1, 2)), "c": fixed("z")}, {"c": When("b", (2,))})
    assert list(map(repr, space.complete({"b": 2, "a.x": 1}).items())) == ["('a.x', 1.0)", "('b', 2)", "('c', 'z')"]
    assert space.complete({"a.x": 1, "b": 1}) == {"a.x": 1.0, "b": 1}
    with pytest.raises(ValueError, match=re.escape("b is missing: it must be one of 1, 2.")):
        space.complete({"a.x": 1})


UNKNOWN = "optim.lt is not in this space. Did you mean optim.lr? Searched are: optim.lr, optim.weight_decay,"
FAMILY = "model.network cannot be changed: 'continuous' is part of this family. Searched are: optim.lr,"

REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "fix unknown": ("fix", {"optim.lt": 0.1}, UNKNOWN),
    "fix short": ("fix", {"lr": 0.1}, "lr is not in this space. Did you mean optim.lr?"),
    "fix alien": ("fix", {"xyz": 1}, "xyz is not in this space. Searched are:"),
    "fix the family": ("fix", {"model.network": "resnet"}, FAMILY),
    "fix outside": ("fix", {"optim.lr": 1}, "optim.lr: 1 is not a number from 0.001 to 0.3."),
    "fix text": ("fix", {"optim.lr": "0.1"}, "optim.lr: the text '0.1' is not a number from 0.001 to 0.3."),
    "fix option": ("fix", {"model.scheme": "rk5"}, "the text 'rk5' is not one of 'euler', 'midpoint', 'heun', 'rk4'."),
    "fix fraction": ("fix", {"refinement.count": 1.5}, "refinement.count: 1.5 is not an integer from 0 to 2."),
    "fix unused": (
        "fix",
        {"refinement.count": 1, "refinement.interval": 0.1},
        "refinement.interval has no effect: it is used only when refinement.count is 2, but that is 1.",
    ),
    "narrow unknown": ("narrow", {"optim.lt": [0.1, 0.2]}, UNKNOWN),
    "narrow the family": ("narrow", {"model.network": ["resnet"]}, FAMILY),
    "narrow wider": ("narrow", {"optim.lr": [1e-2, 1.0]}, "optim.lr: 1.0 is not a number from 0.001 to 0.3."),
    "narrow text": ("narrow", {"optim.lr": ["0.1", 0.2]}, "optim.lr: the text '0.1' is not a number"),
    "narrow inverted": ("narrow", {"optim.lr": [0.2, 0.1]}, "[0.2, 0.1] is an inverted range; write [0.1, 0.2]."),
    "narrow to a number": ("narrow", {"optim.lr": 0.1}, "0.1 is not a range [low, high] within a number from 0.001"),
    "narrow to three": ("narrow", {"refinement.count": [0, 1, 2]}, "[0, 1, 2] is not a range [low, high] within an"),
    "narrow to nothing": ("narrow", {"model.scheme": []}, "model.scheme: [] is not a list of at least one value."),
    "narrow to text": ("narrow", {"model.scheme": "rk4"}, "model.scheme: 'rk4' is not a list of at least one value."),
    "narrow to an alien": ("narrow", {"model.nodes": [1, 3]}, "model.nodes: 3 is not one of 1, 2."),
}


@pytest.mark.parametrize(("method", "changes", "message"), REFUSED.values(), ids=REFUSED)
def test_a_change_that_cannot_be_names_key_value_and_what_is_possible(method, changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        getattr(CONTINUOUS, method)(changes)


def test_a_space_with_nothing_left_to_search_says_so():
    with pytest.raises(
        ValueError, match=re.escape("a cannot be changed: 1 is part of this family. Searched are: none")
    ):
        Space({"a": fixed(1)}).fix({"a": 1})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"optim.lr": 0.5}, "optim.lr: 0.5 is not a number from 0.001 to 0.3."),
        ({"optim.lt": 0.5}, "optim.lt is not in this space. Did you mean optim.lr?"),
        ({"model.network": "resnet"}, "model.network: the text 'resnet' is not 'continuous'."),
        ({"model.scheme": None}, "model.scheme: None is not one of 'euler', 'midpoint'"),
        (
            {"refinement.first": 0.2},
            "refinement.first=0.2 is given, but it is used only when refinement.count is 1 or 2.",
        ),
        ({"refinement.count": 1}, "refinement.first is missing: it must be a number from 0.1 to 0.4."),
    ],
)
def test_parameters_from_elsewhere_are_checked_against_the_space(change, message):
    cheapest = CONTINUOUS.corners()[-2]
    del cheapest["model.network"]  # a recorded trial knows only what was searched
    assert CONTINUOUS.contains(cheapest)
    assert not CONTINUOUS.contains({**cheapest, **change})
    with pytest.raises(ValueError, match=re.escape(message)):
        CONTINUOUS.validate({**cheapest, **change})


def test_the_package_needs_nothing_but_the_standard_library():
    code = "import sys, search_spaces; print(*{name.partition('.')[0] for name in sys.modules})"
    command = [sys.executable, "-S", "-c", code]
    loaded = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    assert set(loaded.stdout.split()) - set(sys.stdlib_module_names) <= {"search_spaces", "__main__"}
