"""The study of a sweep: what is proposed, and what samplers and the file are told of each trial."""

import re
import sys
from collections.abc import Callable
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from search_spaces import Choice, Int, Space, When, fixed
from sweep.config.search_config import Constraints, Objective, SamplerKind, SearchConfig
from sweep.records.outcome import STATES, Outcome
from sweep.records.run_directory import JOURNAL
from sweep.tuning.ask_and_tell import Proposals
from sweep.tuning.optuna_study import OptunaStudy
from tests.sweep.tuning.studies import CHANCE, NUMBERS, SPACE, accuracy, go_on, proposals, recorded, what

OPTIONS = Space({"net": fixed("n"), "a": Choice(("p", "q")), "b": Int(0, 2)}, {"b": When("a", ("q",))})
ENDINGS = [outcome for outcome in Outcome if outcome.ended]
BOTH = [Objective.accuracy, Objective.gflops]
ALL = [*BOTH, Objective.rate_evaluations, Objective.robustness]

# The space each sampler can search.
SEARCHED = {
    SamplerKind.random: SPACE,
    SamplerKind.tpe: SPACE,
    SamplerKind.gp: NUMBERS,
    SamplerKind.cmaes: NUMBERS,
    SamplerKind.nsga2: SPACE,
    SamplerKind.grid: Space({"a": Choice(("p", "q")), "b": Int(0, 9)}),
}


# --- proposing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "space"), SEARCHED.items(), ids=[kind.name for kind in SEARCHED])
def test_a_sweep_that_begins_anew_several_times_proposes_the_same(tmp_path, kind, space):
    config = {"space": space, "sampler": kind, "trials": 19, "random_share": 0.2, "seed": 2}
    config["constraints"] = Constraints(parameters=100)
    at_once = proposals(tmp_path / "at once", **config)
    go_on(at_once, 19)
    for upto in (5, 12, 13, 18, 19):
        one = proposals(tmp_path / "in parts", **config)
        go_on(one, upto)
    if kind is not SamplerKind.nsga2:  # it chooses parents again, also from those that have ended since
        assert [what(proposal) for proposal in one.asked] == [what(proposal) for proposal in at_once.asked]
    for number, proposal in enumerate(one.asked):
        space.validate(proposal.parameters)
        assert proposal.number == number
    assert [proposal.proposed_by == "random" for proposal in one.asked] == [
        kind is SamplerKind.random or number % 5 == 4 for number in range(19)
    ]
    assert {proposal.proposed_by for proposal in one.asked} == {"random", kind.value}
    assert len({str(proposal.parameters) for proposal in one.asked}) > 10


def test_a_random_proposal_depends_on_seed_and_number_only(tmp_path):
    alone = [what(proposals(tmp_path / f"alone {n}", seed=3, trials=9).ask()) for n in range(2)]
    assert alone[0] == alone[1]
    undisturbed = proposals(tmp_path / "undisturbed", seed=3)
    for _ in range(6):
        undisturbed.ask()
    disturbed = proposals(tmp_path / "disturbed", seed=3, enqueued=[SPACE.corners()[0]])
    share = proposals(tmp_path / "share", seed=3, sampler=SamplerKind.tpe, random_share=0.5)
    for number in range(6):
        for one in (disturbed, share):
            one.tell(one.ask().number, Outcome.done, accuracy(0.1 * number))
    expected = [what(proposal) for proposal in undisturbed.asked]
    assert [what(proposal) for proposal in disturbed.asked[1:]] == expected[1:]
    assert [what(proposal) for proposal in share.asked if proposal.proposed_by == "random"] == expected[1::2]
    other = proposals(tmp_path / "other", seed=4).ask()
    assert len({str(proposal.parameters) for proposal in [*undisturbed.asked, other]}) == 7


def test_proposals_survive_a_restart_with_ids_and_all_parameters(tmp_path):
    one = proposals(tmp_path, sampler=SamplerKind.tpe, enqueued=[SPACE.corners()[0]], random_share=0.5)
    for _ in range(5):
        one.ask()
    again = proposals(tmp_path, sampler=SamplerKind.tpe)
    assert (list(again.asked), len(again)) == (list(one.asked), 5)
    assert [list(proposal.parameters) for proposal in again.asked] == [list(p.parameters) for p in one.asked]
    assert {proposal.parameters["model.network"] for proposal in again.asked} == {"continuous"}
    assert len({proposal.trial_id for proposal in again.asked}) == 5
    assert all(re.fullmatch("[0-9a-f]{8}", proposal.trial_id) for proposal in again.asked)
    assert {again.outcome(number) for number in range(5)} == {Outcome.running}


def test_the_file_has_what_is_searched_as_optunas_parameters_and_who_proposed_it(tmp_path):
    proposal = proposals(tmp_path).ask()
    (trial,) = recorded(tmp_path)
    assert trial.params == {k: value for k, value in proposal.parameters.items() if k in SPACE.parameters}
    assert trial.user_attrs == {
        "trial_id": proposal.trial_id, "proposed_by": "random", "parameters": proposal.parameters,
    }  # fmt: skip
    assert trial.state is TrialState.RUNNING


def test_a_study_without_a_file_is_proposed_the_same():
    kept = Proposals(
        NUMBERS, SearchConfig(sampler=SamplerKind.tpe), OptunaStudy.in_memory([Objective.accuracy]), CHANCE
    )
    go_on(kept, 14)
    assert (len(kept), kept.outcome(1), kept.outcome(6)) == (14, Outcome.diverged, Outcome.paused)


# --- enqueued, grids --------------------------------------------------------------------------------------------------


def test_what_is_enqueued_comes_first_once_in_the_types_of_the_space_also_after_a_restart(tmp_path):
    wanted = [{"x": 1, "n": 2}, {"x": 0.5, "n": 3, "net": "n"}, {"x": 1.0, "n": 2}]
    first = proposals(tmp_path, NUMBERS, wanted, random_share=1.0).ask()
    assert repr(first.parameters) == "{'net': 'n', 'x': 1.0, 'n': 2}"
    again = proposals(tmp_path, NUMBERS, [*wanted, {"x": 0.25, "n": 4}], sampler=SamplerKind.tpe)
    asked = [first, *(again.ask() for _ in range(3))]
    assert [proposal.parameters["x"] for proposal in asked[:3]] == [1.0, 0.5, 0.25]
    assert [proposal.proposed_by for proposal in asked] == ["enqueued", "enqueued", "enqueued", "tpe"]


def test_an_enqueued_configuration_outside_the_space_is_named(tmp_path):
    with pytest.raises(ValueError, match=re.escape("Enqueued configuration 2 of 2: n: 11 is not an integer from 1")):
        proposals(tmp_path, NUMBERS, [{"x": 1, "n": 2}, {"x": 1, "n": 11}])


def test_a_grid_is_proposed_once_from_everywhere_and_is_then_exhausted(tmp_path):
    asked = []
    while True:
        one = proposals(tmp_path, OPTIONS, [{"a": "q", "b": 1}], sampler=SamplerKind.grid, seed=1)
        if one.exhausted:
            break
        asked.append(one.ask())
    assert [proposal.proposed_by for proposal in asked] == ["enqueued", *["grid"] * 4]
    by_grid = [proposal.parameters for proposal in asked[1:]]
    assert sorted(map(str, by_grid)) == sorted(map(str, OPTIONS.grid())) and by_grid != list(OPTIONS.grid())
    assert not proposals(tmp_path / "random", OPTIONS).exhausted
    order = Proposals(
        OPTIONS, SearchConfig(sampler=SamplerKind.grid, seed=2), OptunaStudy.in_memory([Objective.accuracy]), CHANCE
    )
    assert [order.ask().parameters for _ in range(4)] != by_grid


# --- telling ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [SamplerKind.random, SamplerKind.tpe], ids=lambda kind: kind.name)
@pytest.mark.parametrize("outcome", Outcome)
def test_the_file_says_of_each_outcome_what_the_table_says(tmp_path, outcome, kind):
    one = proposals(tmp_path, sampler=kind)
    one.ask()
    for step, value in ((1, 0.2), (3, 0.5), (2, 0.3)):
        one.report(0, step, value)
    one.tell(0, outcome, accuracy(0.4))
    one.ask()
    (trial, _), states = recorded(tmp_path), STATES[outcome]
    assert (trial.state.name, one.outcome(0)) == (states.optuna, outcome)
    assert proposals(tmp_path).outcome(0) is outcome
    value = {"COMPLETE": CHANCE if states.at_chance else 0.4, "PRUNED": 0.5}.get(states.optuna)
    assert (trial.value, trial.intermediate_values) == (value, {1: 0.2, 2: 0.3, 3: 0.5})
    assert trial.user_attrs.get("outcome", "running") == outcome.value


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_ending_is_told_once(tmp_path, ending):
    one = proposals(tmp_path, sampler=SamplerKind.tpe)
    one.ask()
    one.report(0, 1, 0.2)
    one.tell(0, ending, accuracy(0.4))
    before = (tmp_path / JOURNAL).read_bytes()
    for later in (one, proposals(tmp_path)):
        for outcome in Outcome:
            later.tell(0, outcome, accuracy(0.9))
        later.report(0, 2, 0.9)
        assert later.outcome(0) is ending
    assert (tmp_path / JOURNAL).read_bytes() == before


def test_a_trial_waits_and_goes_on_as_often_as_it_is_told(tmp_path):
    one, states = proposals(tmp_path, sampler=SamplerKind.tpe), []
    one.ask()
    steps = [Outcome.paused, Outcome.interrupted, Outcome.running, Outcome.paused, Outcome.running, Outcome.done]
    for step, outcome in enumerate(steps):
        one.report(0, step, 0.1 * step)
        one.report(0, step, 0.9)  # once each
        one.tell(0, outcome, accuracy(0.4))
        one.tell(0, outcome, accuracy(0.5))
        one.ask()
        states.append((recorded(tmp_path)[0].state.name, one.outcome(0)))
        assert proposals(tmp_path).outcome(0) is outcome
    assert states == [(STATES[outcome].optuna, outcome) for outcome in steps]
    trial = recorded(tmp_path)[0]
    assert trial.intermediate_values == pytest.approx({step: 0.1 * step for step in range(6)})
    assert (trial.value, trial.state) == (0.4, TrialState.COMPLETE)


def test_a_waiting_trial_that_is_not_taken_up_is_pruned_at_what_it_reported(tmp_path):
    one = proposals(tmp_path, sampler=SamplerKind.tpe)
    one.ask()
    one.report(0, 0, 0.6)
    one.tell(0, Outcome.paused)
    one.tell(0, Outcome.pruned)
    trial = recorded(tmp_path)[0]
    assert (trial.state, trial.value, one.outcome(0)) == (TrialState.PRUNED, 0.6, Outcome.pruned)


COSTS = {Objective.gflops: 2.0, Objective.rate_evaluations: 9.0}
DONE = {Objective.accuracy: 0.6, Objective.robustness: 0.5, **COSTS}


@pytest.mark.parametrize(
    ("before", "values", "expected"),
    [
        ([], {}, [CHANCE, 1.0, 1.0, CHANCE]),
        ([DONE, {**DONE, Objective.gflops: 5.0}, {**DONE, Objective.gflops: 3.0}], {}, [CHANCE, 5.0, 9.0, CHANCE]),
        ([DONE], {**DONE, Objective.gflops: 7.0}, [CHANCE, 7.0, 9.0, CHANCE]),
    ],
)
@pytest.mark.parametrize("again", [False, True], ids=["one session", "restarted"])
def test_of_several_objectives_a_diverged_trial_has_chance_and_its_costs_or_the_worst_told(
    tmp_path, before, values, expected, again
):
    one = proposals(tmp_path, objectives=ALL)
    for done in before:
        one.tell(one.ask().number, Outcome.done, done)
    one = proposals(tmp_path, objectives=ALL) if again else one
    one.tell(one.ask().number, Outcome.diverged, values)
    assert recorded(tmp_path)[-1].values == expected


def test_several_objectives_have_their_directions_values_and_no_intermediate_ones(tmp_path):
    one = proposals(tmp_path, objectives=ALL)
    one.ask()
    one.report(0, 1, 0.2)
    one.tell(0, Outcome.done, DONE)
    one.tell(one.ask().number, Outcome.timeout, DONE)
    (done, timeout) = recorded(tmp_path)
    assert (done.values, done.intermediate_values) == ([0.6, 2.0, 9.0, 0.5], {})
    assert (timeout.state, timeout.values) == (TrialState.PRUNED, None)
    study = optuna.load_study(study_name="x", storage=JournalStorage(JournalFileBackend(str(tmp_path / JOURNAL))))
    assert [direction.name for direction in study.directions] == ["MAXIMIZE", "MINIMIZE", "MINIMIZE", "MAXIMIZE"]


def test_what_is_not_finite_is_not_told_as_done(tmp_path):
    one = proposals(tmp_path)
    one.ask()
    with pytest.raises(AssertionError, match="nan"):
        one.tell(0, Outcome.done, accuracy(float("nan")))
    assert one.outcome(0) is Outcome.running


# --- cost -------------------------------------------------------------------------------------------------------------


def calls(act: Callable[[], Any]) -> int:
    """Functions called, of Python and of C: a measure of work that no load of the machine disturbs."""
    count = 0

    def see(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(see)
    try:
        act()
    finally:
        sys.setprofile(None)
    return count


def test_a_random_search_works_no_more_for_a_late_trial_than_for_an_early_one(tmp_path):
    one = proposals(tmp_path, random_share=0.5)

    def trial() -> None:
        number = one.ask().number
        one.report(number, 1, 0.5)
        one.tell(number, Outcome.paused)
        one.tell(number, Outcome.running)
        one.tell(number, *((Outcome.diverged,) if number % 2 else (Outcome.done, accuracy(0.5))))

    spent = [calls(trial) for _ in range(120)]
    assert sum(spent[-20:]) <= 1.05 * sum(spent[10:30])
