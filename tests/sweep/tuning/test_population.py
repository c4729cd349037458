"""Population-based training: who copies whom, and that what is copied is varied only as far as it may be."""

from collections import Counter
from dataclasses import fields, replace
from random import Random

import pytest

from odenet.training.config import ExperimentConfig, from_plain
from odenet.training.regularization_config import RegularizationConfig
from search_spaces import SPACES, Choice, Float, Int, Space, When, fixed
from sweep.config.search_config import PopulationConfig, SchedulerKind, SearchConfig
from sweep.tuning.population import (
    INTEGRATOR,
    MUTABLE,
    Move,
    Parameters,
    RandomTrial,
    check_population,
    exchange,
    generations,
    mutable,
)

CONFIG = SearchConfig(scheduler=SchedulerKind.pbt)
TRAINING_ONLY = replace(CONFIG, pbt=PopulationConfig(integrator=False))


def members(space: Space, count: int = 8) -> dict[int, Parameters]:
    return {number: space.suggest(RandomTrial(Random(number))) for number in range(count)}


def ascending(count: int = 8) -> dict[int, float]:
    return {number: number / count for number in range(count)}


def explored(space: Space, start: Parameters, config: SearchConfig = CONFIG, count: int = 400) -> list[Parameters]:
    """What many copies of the same member go on with."""
    moves = [exchange({0: 0.0, 1: 1.0}, {0: start, 1: start}, space, config, generation) for generation in range(count)]
    return [pair[0].parameters for pair in moves]


# --- who copies whom --------------------------------------------------------------------------------------------------


def test_the_worst_quantile_copies_the_best_and_all_others_go_on_as_they_are():
    space, parameters = SPACES["continuous"], members(SPACES["continuous"])
    donors = set()
    for generation in range(30):
        moves = exchange(ascending(), parameters, space, CONFIG, generation)
        assert sorted(moves) == list(range(8))
        assert {number: moves[number] for number in range(2, 8)} == {
            number: Move(number, None, parameters[number]) for number in range(2, 8)
        }
        assert [moves[number].number for number in (0, 1)] == [0, 1]
        donors |= {moves[number].donor for number in (0, 1)}
    assert donors == {6, 7}


@pytest.mark.parametrize(
    ("count", "quantile", "copies"),
    [(1, 0.25, 0), (2, 0.25, 1), (3, 0.5, 1), (4, 0.25, 1), (7, 0.25, 1), (8, 0.25, 2), (10, 0.5, 5), (0, 0.25, 0)],
)
def test_so_many_copy_as_the_quantile_says_and_at_least_one_of_two(count, quantile, copies):
    config = replace(CONFIG, pbt=PopulationConfig(quantile=quantile))
    moves = exchange(ascending(count), members(SPACES["smoke"], count), SPACES["smoke"], config, 0)
    copying = sorted(number for number, move in moves.items() if move.donor is not None)
    assert copying == list(range(copies))
    assert all(moves[number].donor >= count - copies for number in copying)


def test_members_that_ended_are_neither_moved_nor_copied():
    parameters = members(SPACES["smoke"])
    moves = exchange({1: 0.1, 4: 0.9, 6: 0.5}, parameters, SPACES["smoke"], CONFIG, 3)
    assert sorted(moves) == [1, 4, 6]
    assert moves[1].donor == 4


@pytest.mark.parametrize("scores", [{0: 0.5, 1: 0.5, 2: 0.5, 3: 0.5}, {0: float("nan"), 1: float("inf")}])
def test_nobody_copies_a_member_that_is_no_better(scores):
    moves = exchange(scores, members(SPACES["smoke"]), SPACES["smoke"], CONFIG, 0)
    assert [move.donor for move in moves.values()] == [None] * len(scores)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_member_whose_score_is_not_finite_is_the_worst(bad):
    moves = exchange({0: 0.1, 1: bad, 2: 0.3, 3: 0.2}, members(SPACES["smoke"]), SPACES["smoke"], CONFIG, 0)
    assert {number: move.donor for number, move in moves.items()} == {0: None, 1: 2, 2: None, 3: None}


def test_of_equal_members_the_later_one_is_worse():
    moves = exchange({0: 0.1, 1: 0.1, 2: 0.3, 3: 0.3}, members(SPACES["smoke"]), SPACES["smoke"], CONFIG, 0)
    assert {number: move.donor for number, move in moves.items()} == {0: None, 1: 2, 2: None, 3: None}


def test_an_exchange_depends_on_seed_generation_and_scores_and_not_on_the_order_of_arrival():
    space, scores = SPACES["continuous"], ascending()
    parameters = members(space)
    first = exchange(scores, parameters, space, CONFIG, 1)
    backwards = dict(reversed(scores.items()))
    assert exchange(backwards, dict(reversed(parameters.items())), space, CONFIG, 1) == first
    assert exchange(scores, parameters, space, CONFIG, 2) != first
    assert exchange(scores, parameters, space, replace(CONFIG, seed=1), 1) != first


def test_members_that_copy_the_same_donor_vary_it_differently():
    parameters = dict.fromkeys(range(8), members(SPACES["continuous"])[0])
    moves = exchange(ascending(), parameters, SPACES["continuous"], CONFIG, 0)
    assert moves[0].parameters != moves[1].parameters


def test_an_exchange_leaves_what_it_was_given_alone():
    parameters = members(SPACES["continuous"])
    before = {number: dict(values) for number, values in parameters.items()}
    moves = exchange(ascending(), parameters, SPACES["continuous"], CONFIG, 0)
    for move in moves.values():
        move.parameters.clear()
    assert parameters == before


# --- what changes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [CONFIG, TRAINING_ONLY], ids=["with integrator", "without"])
@pytest.mark.parametrize("name", SPACES)
def test_a_copy_has_the_donors_parameters_but_those_that_may_change_which_stay_in_the_space(name, config):
    space = SPACES[name]
    for seed in range(5):
        start = space.suggest(RandomTrial(Random(seed)))
        for parameters in explored(space, start, config, count=20):
            changed = {key for key in start if parameters[key] != start[key]}
            assert list(parameters) == list(start)
            assert changed <= set(mutable(space, config))
            space.validate(parameters | {key: start[key] for key in changed & {"model.nodes"}})


@pytest.mark.parametrize("name", SPACES)
def test_after_any_number_of_copies_the_network_is_possible(name):
    space = SPACES[name]
    for seed in range(5):
        parameters = space.suggest(RandomTrial(Random(seed)))
        for generation in range(20):
            pair = {0: parameters, 1: parameters}
            parameters = exchange({0: 0.0, 1: 1.0}, pair, space, CONFIG, generation)[0].parameters
            experiment(parameters)


def experiment(parameters: Parameters) -> ExperimentConfig:
    """With these parameters; a population is not refined on a schedule."""
    plain: dict[str, dict] = {}
    for key, value in parameters.items():
        section, _, name = key.partition(".")
        if section != "refinement":
            plain.setdefault(section, {})[name] = value
    return from_plain(ExperimentConfig, plain)


@pytest.mark.parametrize(
    ("space", "config", "keys"),
    [
        (
            "continuous",
            CONFIG,
            "lr weight_decay batch_size augment stochastic_depth noise smoothness scheme nodes substeps",
        ),
        ("continuous", TRAINING_ONLY, "lr weight_decay batch_size augment stochastic_depth noise smoothness"),
        ("stateful", CONFIG, "lr weight_decay batch_size augment stochastic_depth noise smoothness scheme nodes"),
        ("neural_ode", CONFIG, "lr weight_decay batch_size augment stochastic_depth noise"),
        ("leapfrog", CONFIG, "lr weight_decay batch_size augment stochastic_depth noise smoothness"),
        ("smoke", CONFIG, "lr scheme"),
    ],
)
def test_what_may_change_is_what_is_searched_and_leaves_the_weights_valid(space, config, keys):
    assert [key.rpartition(".")[2] for key in mutable(SPACES[space], config)] == keys.split()


def test_what_is_fixed_or_decides_whether_another_key_is_used_does_not_change():
    conditional = Space(
        {"model.scheme": Choice(("euler", "rk4")), "optim.lr": Float(0.1, 1.0), "optim.weight_decay": Float(0.1, 1.0)},
        {"optim.weight_decay": When("model.scheme", ("rk4",))},
    )
    assert mutable(conditional, CONFIG) == ["optim.lr", "optim.weight_decay"]
    for parameters in explored(conditional, {"model.scheme": "euler", "optim.lr": 0.5}, count=50):
        assert set(parameters) == {"model.scheme", "optim.lr"}
    assert "model.scheme" not in mutable(SPACES["continuous"].fix({"model.scheme": "rk4"}), CONFIG)


def test_every_regularization_may_change_in_mid_training():
    assert {f"regularization.{field.name}" for field in fields(RegularizationConfig)} <= set(MUTABLE)
    assert set(INTEGRATOR) <= set(MUTABLE)


def test_a_number_is_multiplied_by_a_factor_or_in_a_quarter_of_all_copies_drawn_afresh():
    space = Space({"optim.lr": Float(1e-3, 1.0, log=True)})
    values = [parameters["optim.lr"] for parameters in explored(space, {"optim.lr": 0.1})]
    counts = Counter(value if value in (0.1 * 0.8, 0.1 * 1.25) else "afresh" for value in values)
    assert counts[0.1 * 0.8] == pytest.approx(150, abs=35)  # 3.6 standard deviations
    assert counts[0.1 * 1.25] == pytest.approx(150, abs=35)
    assert counts["afresh"] == pytest.approx(100, abs=31)
    below = sum(value < 0.0316 for value in values)  # half of the logarithmic range
    assert below == pytest.approx(50, abs=25)


@pytest.mark.parametrize(("start", "bound"), [(1e-3, 1e-3), (1.0, 1.0)])
@pytest.mark.parametrize("log", [True, False])
def test_a_number_stops_at_its_bounds(start, bound, log):
    space = Space({"optim.lr": Float(1e-3, 1.0, log=log)})
    values = [parameters["optim.lr"] for parameters in explored(space, {"optim.lr": start})]
    assert bound in values
    assert all(1e-3 <= value <= 1.0 for value in values)


def test_an_option_gives_way_to_a_neighbour_unless_it_is_drawn_afresh():
    space = Space({"optim.batch_size": Choice((64, 32, 16, 8, 4))})
    middle = Counter(p["optim.batch_size"] for p in explored(space, {"optim.batch_size": 16}))
    assert set(middle) == {64, 32, 16, 8, 4}
    assert {value for value, count in middle.items() if count > 60} == {32, 8}
    end = Counter(p["optim.batch_size"] for p in explored(space, {"optim.batch_size": 64}))
    assert {value for value, count in end.items() if count > 60} == {64, 32}


@pytest.mark.parametrize("integer", [Int(2, 10, step=2), Int(1, 10, log=True)], ids=["uniform", "log"])
def test_an_integer_moves_by_a_step_or_is_drawn_afresh(integer):
    space = Space({"model.substeps": integer})
    values = Counter(p["model.substeps"] for p in explored(space, {"model.substeps": 6}))
    assert all(map(integer.contains, values))
    assert {value for value, count in values.items() if count > 70} == {6 - integer.step, 6 + integer.step}
    assert {2, 10} <= set(values)
    ends = Counter(p["model.substeps"] for p in explored(space, {"model.substeps": 10}))
    assert all(map(integer.contains, ends))


@pytest.mark.parametrize(
    ("network", "basis", "options", "grown"),
    [
        ("continuous", None, (1, 2), {1: 2, 2: 4, 4: 8, 8: 8}),
        ("continuous", "hat", (1, 2), {1: 2, 2: 3, 3: 5, 5: 5}),
        ("heunnet", None, (2, 3), {2: 3, 3: 5, 5: 9, 9: 9}),
        ("resnet", None, (1, 2, 4, 8), {1: 1, 4: 4, 8: 8}),
    ],
)
def test_nodes_grow_by_at_most_two_refinements_of_the_largest_network_and_never_shrink(network, basis, options, grown):
    entries = {"model.network": fixed(network), "model.nodes": Choice(options)}
    space = Space(entries if basis is None else entries | {"model.basis": fixed(basis)})
    for nodes, refined in grown.items():
        start = {"model.network": network, "model.nodes": nodes} | ({} if basis is None else {"model.basis": basis})
        values = {parameters["model.nodes"] for parameters in explored(space, start, count=40)}
        assert values == {nodes, refined}


# --- when -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("interval", "epochs", "meetings"),
    [
        (0.2, 20, [4, 8, 12, 16]),
        (0.2, 30, [6, 12, 18, 24]),
        (0.3, 10, [3, 6, 9]),
        (0.5, 2, [1]),
        (0.001, 4, [1, 2, 3]),
    ],
)
def test_members_meet_after_every_interval_but_not_after_the_last_epoch(interval, epochs, meetings):
    assert generations(replace(CONFIG, pbt=PopulationConfig(interval=interval)), epochs) == meetings


@pytest.mark.parametrize(("interval", "epochs", "first"), [(0.9, 4, 4), (0.5, 1, 1)])
def test_a_population_that_never_meets_is_refused(interval, epochs, first):
    message = (
        f"search.scheduler=pbt with search.pbt.interval={interval} and training.epochs={epochs}: the members first "
        f"meet after epoch {first}, which is their last; choose a smaller interval or more epochs."
    )
    with pytest.raises(ValueError, match=message):
        generations(replace(CONFIG, pbt=PopulationConfig(interval=interval)), epochs)


@pytest.mark.parametrize(
    ("config", "space", "message"),
    [
        (replace(CONFIG, trials=1), SPACES["smoke"], "pbt with search.trials=1: a population has at least 2."),
        (
            TRAINING_ONLY,
            Space({"model.scheme": Choice(("euler", "rk4")), "model.widen": Choice((1, 2))}),
            r"a space that searches model.scheme, model.widen: none of it can change while a network is trained; "
            r"optim.lr, optim.weight_decay, .*, regularization.noise can\.",
        ),
        (CONFIG, Space({"model.widen": fixed(1)}), r"a space that searches nothing: .*, model.substeps, model.nodes c"),
    ],
)
def test_a_population_in_which_nothing_could_change_is_refused(config, space, message):
    with pytest.raises(ValueError, match=message):
        check_population(config, space)


@pytest.mark.parametrize("name", SPACES)
def test_every_family_can_be_trained_as_a_population(name):
    check_population(CONFIG, SPACES[name])
