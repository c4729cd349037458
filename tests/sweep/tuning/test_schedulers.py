"""Who is stopped, paused and promoted: one contract for all rules, each rule against its paper and against Ray's."""

import math
from copy import deepcopy
from dataclasses import dataclass, field
from random import Random
from statistics import mean

import numpy as np
import pytest
from ray.tune.schedulers import ASHAScheduler, MedianStoppingRule, TrialScheduler

from sweep.config.search_config import SchedulerKind, SearchConfig
from sweep.tuning.schedulers import (
    Asha,
    DepthAsha,
    Hyperband,
    Median,
    Scheduler,
    build_scheduler,
    refinement_epochs,
)

EPOCHS = 20
RULES = [kind for kind in SchedulerKind if kind is not SchedulerKind.pbt]  # members of a population do not stop
STOPPING = [SchedulerKind.asha, SchedulerKind.hyperband, SchedulerKind.median]
PAUSING = {SchedulerKind.depth_asha: (2, 4, 8, 16)}


def rule(kind: SchedulerKind) -> Scheduler:
    return build_scheduler(SearchConfig(scheduler=kind, grace=0.1, reduction=2), EPOCHS)


@dataclass
class Sweep:
    """Trials with random curves on a few workers; which worker is next is random, too."""

    scheduler: Scheduler
    random: Random
    trials: int = 40
    workers: int = 4
    running: dict[int, int] = field(default_factory=dict)  # epochs by number
    paused: dict[int, int] = field(default_factory=dict)
    begun: int = 0
    records: list[tuple[int, int, float]] = field(default_factory=list)
    ended: list[int] = field(default_factory=list)
    decisions: list[tuple] = field(default_factory=list)

    def run(self, steps: int = 10**9) -> "Sweep":
        while steps > 0 and self.step():
            steps -= 1
        return self

    def step(self) -> bool:
        if len(self.running) < self.workers and (number := self.begin()) is not None:
            self.epoch(number)
        elif self.running:
            self.epoch(self.random.choice(sorted(self.running)))
        return bool(self.running or self.begun < self.trials)

    def begin(self) -> int | None:
        promoted = self.scheduler.promote()
        self.decisions.append(("promoted", promoted))
        if promoted is not None:
            self.running[promoted] = self.paused.pop(promoted)
            return promoted
        if self.begun == self.trials:
            return None
        self.running[self.begun] = 0
        self.begun += 1
        return self.begun - 1

    def epoch(self, number: int) -> None:
        begun_at, epoch = self.running[number], self.running[number] + 1
        objective = 0.0 if number % 7 == 3 else self.random.random() * epoch
        self.records.append((number, epoch, objective))
        goes_on = self.scheduler.report(number, epoch, objective)
        self.decisions.append((number, epoch, goes_on))
        self.running[number] = epoch
        if not goes_on or epoch == EPOCHS:
            self.finish(number)
        elif epoch == self.scheduler.until(begun_at):
            self.paused[number] = self.running.pop(number)

    def finish(self, number: int) -> None:
        self.running.pop(number)
        self.scheduler.end(number)
        self.ended.append(number)

    @property
    def epochs(self) -> int:
        return len(self.records)


# --- every rule -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", RULES)
def test_legs_follow_each_other_to_the_last_epoch_and_end_where_the_rule_pauses(kind):
    scheduler, ends = rule(kind), [0]
    while ends[-1] < EPOCHS:
        ends.append(scheduler.until(ends[-1]))
    assert tuple(ends[1:]) == (*PAUSING.get(kind, ()), EPOCHS)


@pytest.mark.parametrize("kind", RULES)
def test_a_report_that_is_repeated_changes_nothing(kind):
    once, twice = rule(kind), rule(kind)
    for number, epoch, objective in Sweep(rule(kind), Random(1)).run().records:
        goes_on = once.report(number, epoch, objective)
        assert twice.report(number, epoch, objective) is goes_on
        assert twice.report(number, epoch, objective) is goes_on
        assert twice.report(number, max(1, epoch - 1), 0.0) is goes_on  # a segment repeats its checkpoint's epoch
        assert once.promote() == twice.promote()


@pytest.mark.parametrize("cut", [0, 1, 17, 60, 150])
@pytest.mark.parametrize("kind", RULES)
def test_a_rule_that_is_restored_from_recorded_values_decides_as_if_nothing_had_happened(kind, cut):
    killed = Sweep(rule(kind), Random(cut)).run(cut)
    undisturbed = deepcopy(killed).run()
    scheduler = rule(kind)
    verdicts = [(number, epoch, scheduler.report(number, epoch, value)) for number, epoch, value in killed.records]
    for number in killed.ended:
        scheduler.end(number)
    killed.scheduler = scheduler
    assert verdicts == [decision for decision in killed.decisions if decision[0] != "promoted"]
    assert killed.run().decisions == undisturbed.decisions


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("epoch", [1, 2, 3, EPOCHS])
@pytest.mark.parametrize("kind", RULES)
def test_an_objective_that_is_not_finite_stops_its_trial_at_once_and_counts_for_no_other(kind, epoch, value):
    told, untold = rule(kind), rule(kind)
    for before in range(1, epoch):
        told.report(99, before, 1.0)
        untold.report(99, before, 1.0)
    assert not told.report(99, epoch, value)
    told.end(99)
    untold.end(99)
    for number, later, objective in Sweep(rule(kind), Random(5)).run().records:
        assert told.report(number, later, objective) is untold.report(number, later, objective)
        assert told.promote() == untold.promote()


@pytest.mark.parametrize("kind", RULES)
def test_what_is_stopped_stays_stopped_and_nothing_is_stopped_after_its_last_epoch(kind):
    scheduler, random, stopped = rule(kind), Random(2), dict[int, int]()
    for number in range(40):
        for epoch in range(1, EPOCHS):
            if not scheduler.report(number, epoch, random.random()):
                stopped.setdefault(number, epoch)
        last = scheduler.report(number, EPOCHS, 1.0 if number in stopped else 0.0)
        assert last is (number not in stopped)
    assert scheduler.report(40, EPOCHS, -1.0)  # worse than all, and known from its last epoch only
    assert bool(stopped) is (kind in STOPPING)
    assert len(stopped) < 40


@pytest.mark.parametrize("kind", RULES)
def test_only_depth_asha_promotes(kind):
    sweep = Sweep(rule(kind), Random(3)).run()
    promoted = {number for word, number in (d for d in sweep.decisions if len(d) == 2) if number is not None}
    assert bool(promoted) is (kind is SchedulerKind.depth_asha)


@pytest.mark.parametrize(
    ("grace", "reduction", "epochs", "rungs"),
    [
        (0.2, 3, 40, (8, 24)),
        (0.001, 3, 3, (1,)),
        (0.1, 2, 20, (2, 4, 8, 16)),
        (1 / 27, 3, 27, (1, 3, 9)),
        (0.99, 2, 100, (99,)),
    ],
)
@pytest.mark.parametrize("kind", [SchedulerKind.asha, SchedulerKind.hyperband, SchedulerKind.depth_asha])
def test_rungs_begin_at_grace_grow_by_reduction_and_lie_before_the_last_epoch(kind, grace, reduction, epochs, rungs):
    config = SearchConfig(scheduler=kind, grace=grace, reduction=reduction)
    assert build_scheduler(config, epochs).rungs == rungs
    assert refinement_epochs(config, epochs) == (list(rungs) if kind is SchedulerKind.depth_asha else [])


@pytest.mark.parametrize(("grace", "epochs", "first"), [(1.0, 10, 10), (0.2, 1, 1), (0.96, 10, 10)])
@pytest.mark.parametrize("kind", [*STOPPING, SchedulerKind.depth_asha])
def test_a_rule_that_would_compare_trials_only_at_their_end_is_refused(kind, grace, epochs, first):
    config = SearchConfig(scheduler=kind, grace=grace)
    message = (
        rf"search.scheduler={kind.value} with search.grace={grace} and training.epochs={epochs}: trials are first "
        rf"compared after epoch {first}, which is their last; choose a smaller grace, more epochs, or scheduler=none."
    )
    with pytest.raises(ValueError, match=message):
        build_scheduler(config, epochs)


# --- asha, hyperband --------------------------------------------------------------------------------------------------


class RayTrial:
    """The part of a Ray trial that Ray's rules look at."""

    def __init__(self, number: int) -> None:
        self.trial_id = str(number)


def test_asha_has_the_rungs_of_ray():
    for epochs, grace, reduction in [(40, 8, 3), (100, 1, 2), (81, 1, 3), (10, 9, 4)]:
        ray = ASHAScheduler("epoch", "objective", "max", max_t=epochs, grace_period=grace, reduction_factor=reduction)
        config = SearchConfig(scheduler=SchedulerKind.asha, grace=grace / epochs, reduction=reduction)
        rungs = [int(rung) for rung, _ in reversed(ray._brackets[0]._rungs) if rung < epochs]
        assert list(build_scheduler(config, epochs).rungs) == rungs


@pytest.mark.parametrize("reduction", [2, 3, 4, 7])
def test_asha_stops_as_ray_does_but_where_ray_compares_with_a_value_between_two_trials(reduction):
    ours = Asha(10, (3,), reduction)
    ray = ASHAScheduler("epoch", "objective", "max", max_t=10, grace_period=3, reduction_factor=reduction)
    random, others, compared = Random(reduction), list[float](), 0
    for number in range(200):
        objective, trial = random.random(), RayTrial(number)
        ray.on_trial_add(None, trial)
        decision = ray.on_trial_result(None, trial, {"epoch": 3, "objective": objective})
        goes_on = ours.report(number, 3, objective)
        ends = [np.quantile(others or [objective], 1 - 1 / reduction, method=end) for end in ("lower", "higher")]
        if not ends[0] <= objective < ends[1]:
            assert (not goes_on) is (decision == TrialScheduler.STOP)
            compared += 1
        others.append(objective)
    assert compared > 180


@pytest.mark.parametrize("reduction", [2, 3, 5])
def test_at_a_rung_of_asha_a_trial_goes_on_if_less_than_one_in_reduction_is_better(reduction):
    random, scheduler, seen = Random(4), Asha(9, (1,), reduction), list[float]()
    for number in range(100):
        objective = random.randrange(20) / 20  # with ties
        seen.append(objective)
        goes_on = sum(other > objective for other in seen) / len(seen) < 1 / reduction
        assert (scheduler.report(number, 1, objective)) is goes_on


def test_of_trials_in_random_order_asha_lets_one_in_reduction_go_on():
    survivors = []
    for seed in range(30):
        random, scheduler = Random(seed), Asha(9, (1,), 3)
        survivors.append(sum(scheduler.report(number, 1, random.random()) for number in range(243)))
    expected = sum(math.ceil(seen / 3) / seen for seen in range(1, 244))  # the probability of the n-th to be that good
    assert expected < 81 + math.log(243)
    assert abs(mean(survivors) - expected) < 3 * 7.4 / math.sqrt(30)  # 7.4: of independent decisions


def test_brackets_of_hyperband_have_its_proportions_among_any_trials():
    scheduler = Hyperband(40, (8, 24), 3)  # S = 2: 9, ceil(3/2 * 3) = 5 and 3
    for numbers in (range(170), range(1000, 1170), range(3, 680, 4)):
        counts = [sum(scheduler.bracket(number) == bracket for number in numbers) for bracket in range(3)]
        assert counts == pytest.approx([90, 50, 30], abs=3)
    assert {scheduler.bracket(number) for number in range(8)} == {0, 1, 2}


def test_hyperband_compares_trials_within_their_bracket_as_asha_does_with_its_rungs():
    hyperband, random = Hyperband(40, (8, 24), 3), Random(6)
    brackets = [Asha(40, rungs, 3) for rungs in ((8, 24), (24,), ())]
    stopped = set()
    for number in range(100):
        own = brackets[hyperband.bracket(number)]
        for epoch in range(1, 41):
            objective = random.random()
            goes_on = hyperband.report(number, epoch, objective)
            assert own.report(number, epoch, objective) is goes_on
            if not goes_on:
                stopped.add((hyperband.bracket(number), epoch))
                break
    assert stopped == {(0, 8), (0, 24), (1, 24)}


# --- median -----------------------------------------------------------------------------------------------------------


def test_the_median_rule_stops_as_ray_does():
    ours, random = Median(EPOCHS, 1), Random(7)
    ray = MedianStoppingRule("epoch", "objective", "max", grace_period=1, min_samples_required=3)
    trials = {number: RayTrial(number) for number in range(30)}
    running, stopped = dict.fromkeys(trials, 0), 0
    while running:
        number = random.choice(sorted(running))
        running[number] += 1
        objective = random.random() + number % 3
        result = {"epoch": running[number], "objective": objective}
        decision = ray.on_trial_result(NoOthers(), trials[number], result)
        if running[number] == EPOCHS:
            del running[number]
        else:
            goes_on = ours.report(number, running[number], objective)
            assert (not goes_on) is (decision == TrialScheduler.STOP)
            if not goes_on:
                stopped += 1
                del running[number]
    assert 5 < stopped < 25


class NoOthers:
    """To Ray: no trial waits, so none is paused in favour of it."""

    def get_live_trials(self) -> list:
        return []


def test_the_median_rule_waits_for_grace_and_for_three_others():
    curves = {0: [0.5] * 9, 1: [0.6] * 9, 2: [0.7] * 9, 3: [0.59] * 9, 4: [0.1] * 9}
    scheduler = Median(10, 4)
    verdicts = {n: [scheduler.report(n, e + 1, value) for e, value in enumerate(curve)] for n, curve in curves.items()}
    go, stop = True, False
    assert verdicts[0] == verdicts[1] == verdicts[2] == [go] * 9
    assert verdicts[3] == [go] * 3 + [stop] * 6  # below the median 0.6 of three
    assert verdicts[4] == [go] * 3 + [stop] * 6


def test_the_median_rule_compares_the_best_with_means_from_the_first_epoch_on():
    scheduler = Median(10, 1)
    for number in range(3):
        scheduler.report(number, 1, 0.0)
        scheduler.report(number, 2, 1.0)  # a mean of 0.5
    assert scheduler.report(3, 1, 0.6)
    assert scheduler.report(3, 2, 0.1)
    assert scheduler.report(4, 1, 0.4)
    assert not scheduler.report(4, 2, 0.1)
    assert scheduler.report(5, 2, 0.5)  # not below the median


# --- depth_asha -------------------------------------------------------------------------------------------------------


def test_depth_asha_promotes_whom_algorithm_2_promotes():
    scheduler, random = DepthAsha(30, (1, 3, 9), 3), Random(8)
    rungs = {rung: dict[int, float]() for rung in scheduler.rungs}
    promoted = {rung: set[int]() for rung in scheduler.rungs}
    begun = 0
    for _ in range(400):
        number = scheduler.promote()
        job = algorithm_2(rungs, promoted)
        assert number == (job and job[0])
        if job is None:
            number, start, begun = begun, 0, begun + 1
        else:
            start = job[1]
            promoted[start].add(number)
        end = scheduler.until(start)
        for epoch in range(start + 1, end + 1):
            objective = random.randrange(1000) / 1000
            assert scheduler.report(number, epoch, objective)
        if end in rungs:
            rungs[end][number] = objective
    assert all(promoted.values())


def algorithm_2(rungs: dict[int, dict[int, float]], promoted: dict[int, set[int]]) -> tuple[int, int] | None:
    """get_job of arXiv 1810.05934 for a reduction of 3: the trial to promote, and the rung it leaves."""
    for rung, values in reversed(rungs.items()):
        ranked = sorted(values, key=lambda number: (-values[number], number))
        for number in ranked[: len(values) // 3]:
            if number not in promoted[rung]:
                return number, rung
    return None


def test_the_first_trials_of_a_rung_wait_until_there_is_one_in_reduction():
    scheduler = DepthAsha(9, (1, 3), 3)
    for number, objective in enumerate([0.5, 0.9]):
        scheduler.report(number, 1, objective)
        assert scheduler.promote() is None
    scheduler.report(2, 1, 0.1)
    assert (scheduler.promote(), scheduler.promote()) == (1, None)


def test_the_deepest_paused_trial_is_promoted_first():
    scheduler = DepthAsha(9, (1, 3), 2)
    for number, objective in enumerate([0.1, 0.2, 0.3, 0.4, 0.9, 0.8]):
        scheduler.report(number, 1, objective)
    for number in (0, 1):
        scheduler.report(number, 2, 0.0)
        scheduler.report(number, 3, 0.1 * number)
    assert [scheduler.promote() for _ in range(5)] == [1, 4, 5, 3, None]


def test_a_trial_that_ended_at_its_rung_counts_there_but_is_not_promoted():
    scheduler = DepthAsha(9, (1, 3), 2)
    for number, objective in enumerate([0.9, 0.8, 0.1, 0.2]):
        scheduler.report(number, 1, objective)
    scheduler.end(0)
    assert (scheduler.promote(), scheduler.promote()) == (1, None)


def test_a_promotion_after_which_nothing_was_reported_is_decided_again_after_a_restart():
    records = [(0, 1, 0.9), (1, 1, 0.8), (2, 1, 0.1), (3, 1, 0.2)]
    first, second = DepthAsha(9, (1, 3), 2), DepthAsha(9, (1, 3), 2)
    for record in records:
        first.report(*record)
    assert (first.promote(), first.promote(), first.promote()) == (0, 1, None)
    for record in [*records, (0, 2, 0.9)]:
        second.report(*record)
    assert (second.promote(), second.promote()) == (1, None)


def test_a_trial_that_waited_at_the_end_of_a_sweep_is_promoted_when_more_trials_are_asked_for():
    scheduler = DepthAsha(9, (1, 3), 2)
    for number, objective in enumerate([0.9, 0.8, 0.1]):
        scheduler.report(number, 1, objective)
    assert (scheduler.promote(), scheduler.promote()) == (0, None)
    scheduler.report(3, 1, 0.2)
    assert (scheduler.promote(), scheduler.promote()) == (1, None)


@pytest.mark.parametrize(("trials", "reduction"), [(27, 3), (100, 3), (64, 2)])
def test_where_the_best_come_first_depth_asha_spends_exactly_what_successive_halving_does(trials, reduction):
    rungs = tuple(reduction**k for k in range(3))
    scheduler, epochs = DepthAsha(reduction**3, rungs, reduction), 0
    for number in range(trials):
        epochs += segment(scheduler, number, 0, -number)
    reached = dict.fromkeys(range(trials), 1)
    while (number := scheduler.promote()) is not None:
        epochs += segment(scheduler, number, reached[number], -number)
        reached[number] = scheduler.until(reached[number])
    bound, going, before = 0, trials, 0
    for end in (*rungs, reduction**3):
        bound, going, before = bound + going * (end - before), going // reduction, end
    assert epochs == bound


def segment(scheduler: Scheduler, number: int, start: int, objective: float) -> int:
    """Runs one segment and returns its epochs."""
    end = scheduler.until(start)
    for epoch in range(start + 1, end + 1):
        scheduler.report(number, epoch, objective)
    return end - start


def test_in_random_order_depth_asha_promotes_one_in_reduction_and_less_than_the_root_of_all_beyond():
    beyond = []
    for seed in range(20):
        scheduler, random, promoted = DepthAsha(9, (1,), 3), Random(seed), set[int]()
        for number in range(243):
            scheduler.report(number, 1, random.random())
            while (best := scheduler.promote()) is not None:
                assert best not in promoted
                promoted.add(best)
        beyond.append(len(promoted) - 81)
    assert min(beyond) >= 0
    assert mean(beyond) < math.sqrt(243)


def test_a_sweep_under_depth_asha_or_asha_costs_a_fraction_of_one_that_stops_nobody():
    spent = {kind: Sweep(rule(kind), Random(9), trials=100).run().epochs for kind in RULES}
    assert spent[SchedulerKind.asha] < spent[SchedulerKind.hyperband] < spent[SchedulerKind.none] == 100 * EPOCHS
    assert spent[SchedulerKind.depth_asha] < 0.4 * 100 * EPOCHS
