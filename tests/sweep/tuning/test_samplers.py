"""The samplers: what each is, what its proposals depend on, and where each is refused."""

import re

import optuna
import pytest
from optuna.samplers import CmaEsSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import TrialState

from search_spaces import SPACES, Choice, Float, Int, Space, When, fixed
from sweep.config.search_config import Constraints, SamplerKind, SchedulerKind, SearchConfig
from sweep.tuning.samplers import LARGEST_GRID, LEARNING, check_sampler, given, population_size, sampler_for

CONTINUOUS = SPACES["continuous"]
NUMBERS = Space({"a.x": Float(0, 1), "a.y": Float(1e-3, 1, log=True), "a.n": Int(1, 9), "b": fixed("z")})
OPTIONS = Space({"a": Choice(("x", "y", "z")), "b": Int(0, 3)})

SAMPLERS = {
    SamplerKind.random: RandomSampler,
    SamplerKind.tpe: TPESampler,
    SamplerKind.gp: GPSampler,
    SamplerKind.cmaes: CmaEsSampler,
    SamplerKind.nsga2: NSGAIISampler,
}

kinds = pytest.mark.parametrize("kind", SAMPLERS, ids=lambda kind: kind.name)


def proposal(config: SearchConfig, number: int, told: int = 13, kind: SamplerKind | None = None) -> dict:
    """What is proposed after trials at points of no sampler's choice, the better, the smaller a.x is."""
    study = optuna.create_study(direction="maximize")
    for place in range(told):
        study.sampler = given({"a.x": place * 5 % 12 / 11, "a.y": 0.1, "a.n": 5}, sampler_for(config, place, kind))
        trial = study.ask()
        study.tell(trial, -NUMBERS.suggest(trial)["a.x"])
    study.sampler = sampler_for(config, number, kind)
    return NUMBERS.suggest(study.ask())


def test_there_is_a_sampler_for_every_kind_but_the_grid_and_all_but_random_learn():
    for kind, expected in SAMPLERS.items():
        assert type(sampler_for(SearchConfig(sampler=kind), 0)) is expected
        assert type(sampler_for(SearchConfig(), 0, kind)) is expected
    assert set(SamplerKind) == {*SAMPLERS, SamplerKind.grid}
    assert set(LEARNING) == set(SAMPLERS) - {SamplerKind.random}
    with pytest.raises(AssertionError, match="A grid is listed, not sampled"):
        sampler_for(SearchConfig(sampler=SamplerKind.grid), 0)


@kinds
def test_a_proposal_is_in_the_space_and_depends_on_seed_and_number(kind):
    one = proposal(SearchConfig(sampler=kind, seed=3), 7)
    NUMBERS.validate(one)
    assert one == proposal(SearchConfig(sampler=kind, seed=3), 7)
    assert one != proposal(SearchConfig(sampler=kind, seed=3), 8)
    assert one != proposal(SearchConfig(sampler=kind, seed=4), 7)


@kinds
def test_all_but_random_depend_on_what_was_told_too(kind):
    config = SearchConfig(sampler=kind, seed=3, trials=10)
    assert (proposal(config, 7) == proposal(config, 7, told=0)) == (kind not in LEARNING)
    assert proposal(config, 7, kind=SamplerKind.random) == proposal(SearchConfig(sampler=SamplerKind.random, seed=3), 7)


@pytest.mark.parametrize("kind", [one for one in LEARNING if one is not SamplerKind.cmaes], ids=lambda kind: kind.name)
def test_a_sampler_learns_from_what_it_was_given(kind):
    """Given a.x from 0 to 1, of which the least is best, what it proposes lies below the middle."""
    proposed = [proposal(SearchConfig(sampler=kind, trials=20), number)["a.x"] for number in range(12)]
    assert sum(proposed) / len(proposed) < 0.4


def test_cmaes_learns_from_its_own_proposals():
    study, own = optuna.create_study(direction="maximize"), []
    for number in range(60):
        study.sampler = sampler_for(SearchConfig(sampler=SamplerKind.cmaes), number)
        trial = study.ask()
        own.append(NUMBERS.suggest(trial)["a.x"])
        study.tell(trial, -own[-1])
    assert sum(own[-12:]) / 12 < 0.25 < sum(own[:12]) / 12


def test_nsga2_has_at_least_five_generations_unless_there_are_very_few_trials():
    assert [population_size(trials) for trials in (1, 20, 50, 100, 250, 100_000)] == [4, 4, 10, 20, 50, 50]


def test_nsga2_begins_a_second_generation_after_its_population():
    study = optuna.create_study(direction="maximize")
    for number in range(9):
        study.sampler = sampler_for(SearchConfig(sampler=SamplerKind.nsga2, trials=20), number)
        trial = study.ask()
        study.tell(trial, OPTIONS.suggest(trial)["b"], TrialState.COMPLETE)
    assert [trial.system_attrs["NSGAIISampler:generation"] for trial in study.trials] == [0, 0, 0, 0, 1, 1, 1, 1, 2]


def config(kind: str, **fields: object) -> SearchConfig:
    return SearchConfig(sampler=SamplerKind[kind], **fields)


DEPTH_ASHA = {"scheduler": SchedulerKind.depth_asha}
LIMITED = {"constraints": Constraints(parameters=1000, latency_ms=3)}
LEARNS_LATE = "it learns from trials that reach the last epoch, and with search.scheduler=depth_asha few do; use random"
WIDE = Space({"a": Int(1, 101), "b": Int(1, 100)})
PAIR = Space({"a": Int(0, 1), "x": Float(0, 1)}, {"x": When("a", (1,))})

REFUSED: dict[str, tuple[SearchConfig, Space, str]] = {
    "gp, conditional": (
        config("gp"), CONTINUOUS,
        "search.sampler=gp: refinement.first, refinement.interval would be proposed at random, because the Gaussian "
        "process knows no parameters that are used only under a condition; fix refinement.count, or use random, tpe or "
        "nsga2.",
    ),
    "cmaes, options": (
        config("cmaes"), OPTIONS,
        "search.sampler=cmaes: a would be proposed at random, because CMA-ES knows only numbers that every trial uses; "
        "fix them, or use random, tpe or nsga2.",
    ),
    "cmaes, conditional": (config("cmaes"), PAIR, "search.sampler=cmaes: x would be proposed at random"),
    "cmaes, limits": (
        config("cmaes", **LIMITED), NUMBERS,
        "search.sampler=cmaes: CMA-ES does not learn from limits (search.constraints.parameters, "
        "search.constraints.latency_ms); remove them, or use random, tpe, gp or nsga2.",
    ),
    "grid, floats": (
        config("grid"), NUMBERS,
        "search.sampler=grid: a.x, a.y: a number from a range has no grid. Fix each of them to one value. Or use "
        "random or tpe.",
    ),
    "grid, large": (
        config("grid"), WIDE,
        "search.sampler=grid: the grid of a, b has more than 10,000 points; fix or narrow some of them, or use random "
        "or tpe.",
    ),
    "gp, depth": (config("gp", **DEPTH_ASHA), NUMBERS, f"search.sampler=gp: {LEARNS_LATE}, tpe or grid."),
    "cmaes, depth": (config("cmaes", **DEPTH_ASHA), NUMBERS, f"search.sampler=cmaes: {LEARNS_LATE}"),
    "nsga2, depth": (config("nsga2", **DEPTH_ASHA), OPTIONS, f"search.sampler=nsga2: {LEARNS_LATE}"),
}  # fmt: skip

ACCEPTED: dict[str, tuple[SearchConfig, Space]] = {
    "gp": (config("gp", **LIMITED), NUMBERS),
    "gp, options": (config("gp"), OPTIONS),
    "gp, decided": (config("gp"), CONTINUOUS.fix({"refinement.count": 2})),
    "cmaes": (config("cmaes"), NUMBERS),
    "cmaes, options fixed": (config("cmaes"), OPTIONS.fix({"a": "x"})),
    "grid": (config("grid", **LIMITED), OPTIONS),
    "grid, largest": (config("grid"), WIDE.narrow({"a": [1, 100]})),
    "grid, depth": (config("grid", **DEPTH_ASHA), OPTIONS),
    "nsga2": (config("nsga2", **LIMITED), CONTINUOUS),
    **{f"tpe, {name}": (config("tpe", **LIMITED), space) for name, space in SPACES.items()},
    "tpe, depth": (config("tpe", **DEPTH_ASHA), CONTINUOUS),
    "random, depth": (config("random", **DEPTH_ASHA), CONTINUOUS),
}


@pytest.mark.parametrize(("config", "space", "message"), REFUSED.values(), ids=REFUSED)
def test_a_sampler_that_cannot_search_is_refused_with_the_reason_and_what_is_possible(config, space, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        check_sampler(config, space)


@pytest.mark.parametrize(("config", "space"), ACCEPTED.values(), ids=ACCEPTED)
def test_a_sampler_that_can_search_is_not_refused(config, space):
    check_sampler(config, space)


def test_the_largest_grid_is_what_the_message_says():
    assert len(list(WIDE.narrow({"a": [1, 100]}).grid())) == LARGEST_GRID
