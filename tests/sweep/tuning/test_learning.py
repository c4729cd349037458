"""What samplers learn of trials: what is good, what runs, waits or diverged, and what exceeds a limit."""

import pytest

from search_spaces import Choice, Float, Space
from sweep.config.search_config import Constraints, Objective, SamplerKind, SearchConfig
from sweep.records.outcome import Outcome
from sweep.tuning.ask_and_tell import Proposals
from sweep.tuning.optuna_study import OptunaStudy
from tests.sweep.tuning.studies import CHANCE, NUMBERS, SPACE, accuracy, proposals, recorded

BOTH = [Objective.accuracy, Objective.gflops]


@pytest.mark.parametrize("waits", [Outcome.paused, Outcome.interrupted])
def test_tpe_takes_a_waiting_trial_for_as_good_as_what_it_reported(tmp_path, waits):
    """All that wait at their rung are q, reported more than those that ended, and are proposed more than by chance."""
    space = Space({"a": Choice(("p", "q", "r", "s")), "x": Float(0, 1)})
    one, asked = proposals(tmp_path, space, sampler=SamplerKind.tpe), []
    for number in range(60):
        good = one.ask().parameters["a"] == "q"
        asked.append(good)
        one.report(number, 0, 0.9 if good else 0.1)
        one.tell(number, waits if good else Outcome.pruned)
    assert sum(asked[30:]) > 30 / 4 + 3


def test_tpe_proposes_less_of_what_runs_already():
    """p is better than others; it is proposed less where trials of p run on than where they end at once."""
    space = Space({"a": Choice(("p", "q", "r")), "x": Float(0, 1)})

    def proposed(runs: bool, seed: int) -> int:
        one = Proposals(
            space, SearchConfig(sampler=SamplerKind.tpe, seed=seed), OptunaStudy.in_memory([Objective.accuracy]), CHANCE
        )
        for number in range(60):
            good = one.ask().parameters["a"] == "p"
            if not (good and runs and number > 20):
                one.tell(number, Outcome.done, accuracy(0.6 if good else 0.5))
        return sum(proposal.parameters["a"] == "p" for proposal in one.asked[30:])

    assert sum(proposed(True, seed) for seed in range(3)) < sum(proposed(False, seed) for seed in range(3)) - 4


def test_tpe_learns_from_what_it_is_told_also_after_a_restart(tmp_path):
    """Standing that Euler is worthless and RK4 perfect, it proposes RK4 more often than not."""
    space, told = SPACE.fix({"refinement.count": 0}), []
    for number in range(60):
        if number % 20 == 0:
            one = proposals(tmp_path, space, sampler=SamplerKind.tpe)
        told.append(one.ask().parameters["model.scheme"] == "rk4")
        one.tell(number, Outcome.done, accuracy(float(told[-1])))
    assert sum(told[30:]) > 15


def test_what_diverged_is_proposed_less(tmp_path):
    space, diverged = Space({"a": Choice(("p", "q")), "x": Float(0, 1)}), []
    one = proposals(tmp_path, space, sampler=SamplerKind.tpe)
    for number in range(40):
        diverged.append(one.ask().parameters["a"] == "p")
        one.tell(number, *((Outcome.diverged,) if diverged[-1] else (Outcome.done, accuracy(0.5))))
    assert sum(diverged[20:]) < 6


@pytest.mark.parametrize("kind", [SamplerKind.tpe, SamplerKind.gp, SamplerKind.nsga2], ids=lambda kind: kind.name)
def test_samplers_learn_from_what_is_enqueued(tmp_path, kind):
    wanted = [{"x": place * 5 % 12 / 11, "n": 5} for place in range(12)]
    one = proposals(tmp_path, NUMBERS, wanted, sampler=kind, trials=20)
    for number in range(22):
        one.tell(number, Outcome.done, accuracy(1 - one.ask().parameters["x"]))
    assert sum(proposal.parameters["x"] for proposal in one.asked[12:]) / 10 < 0.4


@pytest.mark.parametrize(
    ("kind", "objectives", "trials"),
    [
        (SamplerKind.tpe, BOTH[:1], 30),
        (SamplerKind.tpe, BOTH, 30),
        (SamplerKind.nsga2, BOTH[:1], 30),
        (SamplerKind.nsga2, BOTH, 30),
        (SamplerKind.gp, BOTH[:1], 15),
    ],
)
def test_samplers_keep_to_limits_and_the_file_has_the_excess(tmp_path, kind, objectives, trials):
    """The better, the larger x, but above 0.5 a limit is exceeded; some diverge before anything is measured."""
    config = {"sampler": kind, "objectives": objectives, "constraints": Constraints(memory_mib=1.0), "trials": 20}
    one = proposals(tmp_path, NUMBERS, [{"x": place * 5 % 12 / 11, "n": 5} for place in range(12)], **config)
    for number in range(trials):
        x = one.ask().parameters["x"]
        if number in (3, 13):
            one.tell(number, Outcome.diverged)
        else:
            one.tell(number, Outcome.done, {Objective.accuracy: x, Objective.gflops: 1.0}, {"memory_mib": x - 0.5})
    recorded_trials = recorded(tmp_path)
    assert recorded_trials[2].constraints == {"memory_mib": recorded_trials[2].params["x"] - 0.5}
    assert recorded_trials[3].constraints == {}
    own = [proposal.parameters["x"] for proposal in one.asked[12:]]
    assert sum(x > 0.6 for x in own) / len(own) < 0.35  # at random 0.4, and without the limit most
