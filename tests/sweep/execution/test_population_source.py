"""The members of a population as a source of legs: all reach a generation's end before any goes on."""

from pathlib import Path

from sweep.config.overrides import override
from sweep.execution.trial_source import FINISHED, trial_seed
from sweep.records.checkpoints import checkpoint_file, inherited_file
from sweep.records.outcome import Outcome
from tests.sweep.pretended import Worker, begun, configured, history_in, next_segment, outcomes, source_of, stands

POPULATION = ("search.scheduler=pbt", "search.pbt.interval=0.34", "training.epochs=6")


def test_members_meet_after_the_same_epochs_and_the_worst_goes_on_with_the_weights_of_the_best(tmp_path):
    sweep = begun(tmp_path, "search.trials=4", *POPULATION)
    legs = sweep.drive(Worker(lambda segment, epoch: 0.1 * segment.number))
    assert [(segment.number, segment.until) for segment in legs] == [
        (n, until) for until in (2, 4, 6) for n in range(4)
    ]
    worst = sweep.log.rows[0]
    assert [(entry["epoch"], entry["parent"]) for entry in worst.schedule] == [(0, 3), (4, 3)]  # of its weights
    assert history_in(checkpoint_file(Path(legs[0].folder), 6)) == [3, 3, 3, 3, 0, 0]
    assert history_in(inherited_file(Path(legs[0].folder), 2)) == [3, 3]
    assert [legs[index].start for index in (0, 4, 8)] == [
        "", *(str(inherited_file(Path(legs[0].folder), epoch)) for epoch in (2, 4)),
    ]  # fmt: skip
    assert outcomes(sweep) == [Outcome.done] * 4


def test_a_member_trains_under_the_parameters_of_its_schedule_and_keeps_its_own_seed(tmp_path):
    sweep = begun(tmp_path, "search.trials=4", *POPULATION)
    base = configured(*POPULATION).experiment
    for segment in sweep.drive():
        now = segment.schedule[-1]["parameters"]
        expected = override(base, {**now, "training.seed": trial_seed(0, segment.number)})
        assert segment.experiment == expected


def test_a_member_that_ended_neither_gives_nor_takes_and_the_others_go_on(tmp_path):
    source = source_of(tmp_path, "search.trials=3", *POPULATION)
    legs = [next_segment(source) for _ in range(3)]
    assert source.next(may_begin=True) is None
    stands(source, legs[2], Outcome.diverged)
    for segment in legs[:2]:
        source.result(segment.number, 2, 0.1 * segment.number)
        stands(source, segment, Outcome.paused, 2)
    later = [next_segment(source) for _ in range(2)]
    assert [(segment.number, segment.schedule[-1]["parent"]) for segment in later] == [(0, 1), (1, 1)]
    assert source.next(may_begin=True) is None


def test_a_population_whose_budget_is_spent_does_not_meet_again_and_its_members_end(tmp_path):
    source = source_of(tmp_path, "search.trials=2", *POPULATION)
    for segment in [next_segment(source) for _ in range(2)]:
        source.result(segment.number, 2, 0.5)
        stands(source, segment, Outcome.paused, 2)
    assert source.next(may_begin=False) is FINISHED
    assert source.leftover() == [(number, "its population ended at epoch 2") for number in range(2)]


def test_a_member_whose_worker_was_lost_goes_on_before_the_others_meet(tmp_path):
    source = source_of(tmp_path, "search.trials=2", *POPULATION)
    legs = [next_segment(source), next_segment(source)]
    source.again(legs[0])
    assert next_segment(source) == legs[0]
