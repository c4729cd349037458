"""Sources of legs: what a search, a population and a list of jobs run next, asked without Ray and without training."""

from collections import Counter
from pathlib import Path

import pytest

from odenet.training.config import ExperimentConfig
from search_spaces import SPACES
from sweep.config.overrides import override
from sweep.config.search_config import SearchConfig
from sweep.execution.list_source import Ended, Job, ListSource
from sweep.execution.population_source import PopulationSource
from sweep.execution.trial_source import FINISHED, SearchSource, trial_seed
from sweep.records.checkpoints import TrialFolders
from sweep.records.outcome import Outcome
from sweep.records.rows import CurveRow, Phase, TrialRow
from sweep.records.tables import read_rows
from sweep.worker.segment import Segment
from tests.sweep.pretended import (
    Worker,
    begun,
    configured,
    curves_of,
    next_segment,
    opened,
    outcomes,
    over,
    reported,
    source_of,
    stands,
)
from tests.sweep.sweep_files import trial

HALVING = ("search.grace=0.34", "search.reduction=2", "training.epochs=4")  # rungs at 1 and 2 of 4 epochs
DEPTH = ("search.scheduler=depth_asha", *HALVING)
POPULATION = ("search.scheduler=pbt", "search.pbt.interval=0.34", "training.epochs=6")


# --- a search ---------------------------------------------------------------------------------------------------------


def test_a_leg_is_a_complete_experiment_of_the_space_with_a_seed_of_its_own(tmp_path):
    source, space = source_of(tmp_path, "search.seed=5"), SPACES["smoke"]
    base = configured("search.seed=5").experiment
    for number in range(4):
        segment = next_segment(source)
        space.validate(segment.parameters)
        expected = override(base, {**segment.parameters, "training.seed": trial_seed(5, number)})
        assert (segment.number, segment.candidate, segment.experiment) == (
            number,
            number,
            expected,
        )
        assert (segment.epochs, segment.until, segment.phase, segment.proposed_by, segment.start) == (
            2,
            2,
            Phase.search,
            "random",
            "",
        )
        assert Path(segment.folder) == tmp_path / "x" / "checkpoints" / f"00000{number}"
    assert len({trial_seed(seed, number) for seed in range(9) for number in range(9)}) == 81


def test_a_leg_travels_to_its_worker_as_plain_data(tmp_path):
    segment = next_segment(source_of(tmp_path))
    assert Segment.from_dict(segment.to_dict()) == segment
    assert segment.to_dict()["phase"] == "search"


def test_as_many_trials_are_begun_as_asked_for_and_the_source_waits_for_those_that_run(tmp_path):
    source = source_of(tmp_path, "search.trials=2")
    legs = [next_segment(source), next_segment(source)]
    assert source.next(may_begin=True) is None
    for segment in legs:
        stands(source, segment, Outcome.done)
    assert source.next(may_begin=True) is FINISHED
    assert source.leftover() == []


def test_a_grid_that_is_used_up_ends_the_search_before_its_number_of_trials(tmp_path):
    words = ("search.sampler=grid", "space.fix.optim.lr=0.1", "search.trials=9")
    sweep = begun(tmp_path, *words)
    assert len(sweep.drive()) == 2
    assert {row.parameters["model.scheme"] for row in sweep.log.in_order()} == {"euler", "midpoint"}


def test_the_random_share_of_a_grid_goes_on_when_its_points_are_used_up_and_is_never_stopped(tmp_path):
    words = ("search.sampler=grid", "space.fix.optim.lr=0.1", "search.trials=6", "search.random_share=0.5")
    sweep = begun(tmp_path, *words, "search.scheduler=asha", "search.grace=0.5", "search.reduction=2")
    segments = sweep.drive()
    rows = sweep.log.in_order()
    assert [row.proposed_by for row in rows] == ["grid", "random", "grid", "random", "random"]
    assert {row.outcome for row in rows if row.proposed_by == "random"} == {Outcome.done}
    assert [segment.until for segment in segments if segment.number == 4] == [2]
    assert len(opened(sweep.session).drive()) == 0  # nor is there more of it after a restart


def test_when_none_may_begin_only_trials_under_way_go_on(tmp_path):
    source = source_of(tmp_path)
    segment = next_segment(source)
    assert source.next(may_begin=False) is None
    source.again(segment)
    assert source.next(may_begin=False) == segment
    stands(source, segment, Outcome.done)
    assert source.next(may_begin=False) is FINISHED


def test_a_trial_whose_worker_was_lost_comes_before_new_ones(tmp_path):
    source = source_of(tmp_path)
    lost, _ = next_segment(source), next_segment(source)
    source.again(lost)
    assert [next_segment(source).number for _ in range(2)] == [0, 2]


def test_trials_that_a_rung_stops_are_pruned_and_those_of_the_random_share_never(tmp_path):
    words = ("search.trials=8", "search.scheduler=asha", *HALVING)
    falling = Worker(lambda segment, epoch: 0.9 - 0.1 * segment.number)
    alone = begun(tmp_path / "a", *words)
    alone.drive(falling)
    assert outcomes(alone) == [Outcome.done, *[Outcome.pruned] * 7]
    assert {row.reason for row in alone.log.in_order()[1:]} == {"stopped by the scheduler after epoch 1"}
    half = begun(tmp_path / "h", *words, "search.random_share=0.5")
    half.drive(falling)
    shared = [SearchConfig(random_share=0.5).is_random(number) for number in range(8)]
    assert [row.epochs == 4 for row in half.log.in_order()] == [True, *shared[1:]]


def test_a_trial_that_was_to_stop_when_its_driver_died_stops_when_its_epoch_comes_again(tmp_path):
    words = ("search.trials=2", "search.scheduler=asha", *HALVING)
    sweep = begun(tmp_path, *words)
    sweep.drive(legs=1)
    segment = sweep.controller.next_segment()
    assert isinstance(segment, Segment)
    assert sweep.controller.result(segment, reported(1, 0.0)) is False
    again = begun(tmp_path, *words)
    (segment,) = again.drive(Worker(lambda segment, epoch: 0.0))
    assert (segment.number, again.log.rows[1].outcome, curves_of(again)[1]) == (1, Outcome.pruned, [1])


# --- rungs at which trials wait ---------------------------------------------------------------------------------------


def test_trials_wait_at_rungs_and_the_best_of_them_go_on_deeper(tmp_path):
    sweep = begun(tmp_path, "search.trials=8", *DEPTH)
    legs = sweep.drive()
    assert {(segment.until, segment.epochs) for segment in legs} == {(1, 4), (2, 4), (4, 4)}
    assert {tuple(segment.experiment.refinement.at) for segment in legs} == {(1, 2)}
    reached = Counter(row.epochs for row in sweep.log.in_order())
    assert reached[2] + reached[4] in (4, 5)  # half of eight, and at most one whom better ones overtook
    assert reached[4] >= 1
    best = max(sweep.log.in_order(), key=lambda row: row.number * 7 % 11)
    assert (best.epochs, best.outcome) == (4, Outcome.done)
    assert {row.reason for row in sweep.log.in_order() if row.outcome is Outcome.pruned} == {
        "not promoted from the rung at epoch 1",
        *({"not promoted from the rung at epoch 2"} if reached[2] else ()),
    }


@pytest.mark.parametrize("stopped", [False, True], ids=["killed", "stopped"])
def test_a_trial_cut_short_at_a_rung_and_not_promoted_ends_there(tmp_path, stopped):
    """It waits like those that came to the rung before, although its last word is that it was interrupted."""
    words = ("search.trials=2", "search.scheduler=depth_asha", "search.grace=0.5", "search.reduction=2")
    sweep = begun(tmp_path, *words)
    sweep.drive(legs=1)
    segment = sweep.controller.next_segment()
    assert isinstance(segment, Segment)
    sweep.controller.result(segment, reported(1, 0.0))
    if stopped:
        sweep.controller.segment_ended(
            segment, reported(1, 0.0, over(Outcome.interrupted, "stopped").ended), "TERMINATED"
        )
    again = begun(tmp_path, *words)
    assert {segment.number for segment in again.drive()} == {0}
    assert outcomes(again) == [Outcome.done, Outcome.pruned]
    assert again.controller.finish("") == 0


def test_more_trials_of_a_sweep_with_rungs_go_on_from_what_was_seen_there(tmp_path):
    begun(tmp_path, "search.trials=4", *DEPTH).drive()
    sweep = begun(tmp_path, "search.trials=8", *DEPTH)
    before = sweep.log.in_order()
    legs = sweep.drive()
    assert {segment.number for segment in legs} == {4, 5, 6, 7}
    assert sweep.log.in_order()[:4] == before
    assert len(legs) < 4 * 3  # not each of them goes to the end


# --- a list of jobs ---------------------------------------------------------------------------------------------------


def jobs(*numbers: int, phase: Phase = Phase.confirm) -> list[Job]:
    parts = [(0, ExperimentConfig())]
    return [Job(number=n, phase=phase, candidate=n, parameters={}, experiments=parts) for n in numbers]


def listed(tmp_path: Path, seen: list[Ended]) -> ListSource:
    def follow_up(told: Ended) -> list[Job]:
        seen.append(dict(told))
        return jobs(2, 3, phase=Phase.final)

    return ListSource(jobs(0, 1), follow_up, 4, TrialFolders(str(tmp_path)))


def test_a_list_is_run_first_and_followed_up_once_all_of_it_has_ended(tmp_path):
    seen: list[Ended] = []
    source = listed(tmp_path, seen)
    first = [next_segment(source), next_segment(source)]
    assert [segment.number for segment in first] == [0, 1]
    assert source.next(may_begin=True) is None
    stands(source, first[1], Outcome.done)
    assert (source.next(may_begin=True), seen) == (None, [])
    stands(source, first[0], Outcome.worker_lost)
    later = [next_segment(source)]
    assert [{number: row.outcome for number, row in told.items()} for told in seen] == [
        {0: Outcome.worker_lost, 1: Outcome.done}
    ]
    later.append(next_segment(source))
    assert [(segment.number, segment.phase) for segment in later] == [(2, Phase.final), (3, Phase.final)]
    for segment in later:
        stands(source, segment, Outcome.done)
    assert source.next(may_begin=True) is FINISHED
    assert len(seen) == 1


def test_an_empty_list_is_followed_up_at_once(tmp_path):
    source = ListSource([], lambda told: jobs(0), 1, TrialFolders(str(tmp_path)))
    assert next_segment(source).number == 0


def test_a_budget_does_not_shorten_a_list(tmp_path):
    source = listed(tmp_path, [])
    assert isinstance(source.next(may_begin=False), Segment)


def test_a_lost_worker_is_followed_by_the_same_trial_again(tmp_path):
    source = listed(tmp_path, [])
    segment = next_segment(source)
    source.again(segment)
    assert next_segment(source) == segment


def test_a_schedule_is_followed_leg_by_leg(tmp_path):
    parts = [
        (epoch, override(ExperimentConfig(), {"optim.lr": rate})) for epoch, rate in ((0, 0.1), (2, 0.2), (5, 0.3))
    ]
    job = Job(number=0, phase=Phase.final, candidate=4, parameters={}, experiments=parts)
    legs = [job.segment(done, "id", TrialFolders(str(tmp_path))) for done in (0, 1, 2, 4, 5, 29, 30)]
    assert [(segment.until, segment.experiment.optim.lr) for segment in legs] == [
        (2, 0.1), (2, 0.1), (5, 0.2), (5, 0.2), (30, 0.3), (30, 0.3), (30, 0.3),
    ]  # fmt: skip
    assert {segment.epochs for segment in legs} == {30}


def test_trials_of_a_list_that_ended_are_not_run_again_and_the_others_keep_their_ids(tmp_path):
    source = listed(tmp_path, [])
    rows = [trial(0, objective=0.5), trial(1, outcome=Outcome.interrupted)]
    curve = CurveRow(
        number=1, epoch=3, train_loss=1, val_loss=1, val_accuracy=1, objective=1, cost_train_gflops=1, cost_seconds=1,
        cost_rate_evaluations=1, depth_steps=1, depth_nodes=1,
    )  # fmt: skip
    source.restore(rows, [curve])
    segment = next_segment(source)
    assert (segment.number, segment.trial_id) == (1, "t1")


def test_sources_take_up_what_is_recorded_and_nothing_else(tmp_path):
    """A source restored from the files of a finished sweep has nothing left to do."""
    for words in (("search.trials=3",), ("search.trials=3", *DEPTH), ("search.trials=3", *POPULATION)):
        sweep = begun(tmp_path / str(len(words)), *words)
        sweep.drive()
        files, again = sweep.log.files, opened(sweep.session)
        assert again.source.next(may_begin=True) is FINISHED
        assert again.source.leftover() == []
        assert again.log.in_order() == sweep.log.in_order()
        assert len(read_rows(files.ledger, TrialRow)) >= 6
        assert isinstance(again.source, SearchSource | PopulationSource)
