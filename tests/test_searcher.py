"""The searchers against a real study in a journal file: reproducible asking, truthful telling, nothing left running."""

import json
import pickle
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher
from sweep_files import PARAMETERS, TINY, session_on, trial

from odenet.config import ExperimentConfig, from_plain
from search_spaces import SPACES
from sweep.best import read_best
from sweep.compose import load
from sweep.config import SamplerKind, SchedulerKind, SearchConfig, override
from sweep.errors import WorkError
from sweep.export import TrialRow, write_rows
from sweep.outcome import STATES, Outcome
from sweep.progress import ProgressDisplay
from sweep.recorder import Book, Ended, Recorder
from sweep.schedulers import RoutedScheduler, build_scheduler
from sweep.search import Search
from sweep.searcher import ChainSearcher, ListSearcher, OptunaSearcher, open_study, trial_seed
from sweep.tracking import OUTBOX

CHANCE = 0.1
SPACE = SPACES["continuous"]


def searcher(directory: Path, name: str = "x", **config: object) -> OptunaSearcher:
    study = open_study(directory, name)
    return OptunaSearcher(study, SPACE, ExperimentConfig(), SearchConfig(**config), chance=CHANCE)


def told(directory: Path, name: str = "x") -> list[optuna.trial.FrozenTrial]:
    """The study as another process reads it from the file."""
    return open_study(directory, name).trials


def epochs(*objectives: float) -> list[dict]:
    return [{"objective": value, "epoch": epoch} for epoch, value in enumerate(objectives, start=1)]


def drive(one: OptunaSearcher, trial_id: str, results: list[dict], *, error: bool = False) -> None:
    """As Ray does: all results but the last are reported, the last comes with the end, and none with an error."""
    one.suggest(trial_id)
    for result in results if error else results[:-1]:
        one.on_trial_result(trial_id, result)
    one.on_trial_complete(trial_id, **({"error": True} if error else {"result": results[-1]}))


# --- asking -----------------------------------------------------------------------------------------------------------


def test_a_proposal_is_a_complete_experiment_of_the_space_with_a_seed_of_its_own(tmp_path):
    one = searcher(tmp_path, seed=5)
    for number in range(6):
        job = one.suggest(f"t{number}")
        experiment = from_plain(ExperimentConfig, job["experiment"])
        SPACE.validate(job["parameters"])
        expected = override(ExperimentConfig(), {**job["parameters"], "training.seed": trial_seed(5, number)})
        assert (job["number"], experiment) == (number, expected)
    assert [frozen.user_attrs["trial_id"] for frozen in told(tmp_path)] == [f"t{n}" for n in range(6)]
    assert len({trial_seed(seed, number) for seed in range(9) for number in range(9)}) == 81


def test_as_many_proposals_are_made_as_asked_for(tmp_path):
    one = searcher(tmp_path, trials=2)
    assert [isinstance(one.suggest(str(n)), dict) for n in range(2)] == [True, True]
    assert one.suggest("2") == one.suggest("3") == Searcher.FINISHED


def test_random_proposals_depend_on_seed_and_number_only(tmp_path):
    together = searcher(tmp_path, "together", sampler=SamplerKind.random, seed=3)
    asked = [together.suggest(f"t{number}")["parameters"] for number in range(6)]
    in_turn = []
    for number in range(6):  # each by a process of its own, after other results
        one = searcher(tmp_path, "in turn", sampler=SamplerKind.random, seed=3)
        in_turn.append(one.suggest(f"t{number}")["parameters"])
        one.on_trial_complete(f"t{number}", {"outcome": "done", **epochs(0.1 * number)[0]})
    other_seed = searcher(tmp_path, "other", sampler=SamplerKind.random, seed=4).suggest("t0")["parameters"]
    assert in_turn == asked
    assert len({str(parameters) for parameters in [*asked, other_seed]}) == 7


def test_tpe_learns_from_what_it_is_told(tmp_path):
    """Told that Euler is worthless and RK4 perfect, it proposes RK4 more often than not."""
    study, space = open_study(tmp_path, "x"), SPACE.fix({"refinement.count": 0})
    one = OptunaSearcher(study, space, ExperimentConfig(), SearchConfig(trials=60), chance=CHANCE)
    schemes = []
    for number in range(60):
        scheme = one.suggest(str(number))["parameters"]["model.scheme"]
        schemes.append(scheme)
        one.on_trial_complete(str(number), {"outcome": "done", **epochs(float(scheme == "rk4"))[0]})
    assert schemes[30:].count("rk4") > 15


# --- telling ----------------------------------------------------------------------------------------------------------


def test_a_done_trial_is_complete_at_its_objective_with_every_epoch(tmp_path):
    drive(searcher(tmp_path), "a", [*epochs(0.2, 0.3), {"objective": 0.4, "epoch": 3, "outcome": "done"}])
    (trial,) = told(tmp_path)
    assert (trial.state, trial.value, trial.user_attrs["outcome"]) == (TrialState.COMPLETE, 0.4, "done")
    assert trial.intermediate_values == {1: 0.2, 2: 0.3, 3: 0.4}


def test_a_pruned_trial_has_every_intermediate_value_and_the_last_as_its_own(tmp_path):
    drive(searcher(tmp_path), "a", epochs(0.2, 0.5, 0.3))
    (trial,) = told(tmp_path)
    assert (trial.state, trial.value, trial.user_attrs["outcome"]) == (TrialState.PRUNED, 0.3, "pruned")
    assert trial.intermediate_values == {1: 0.2, 2: 0.5, 3: 0.3}


@pytest.mark.parametrize("outcome", [outcome for outcome, states in STATES.items() if states.at_chance])
def test_a_diverged_trial_is_complete_at_chance_and_keeps_what_it_reported(tmp_path, outcome):
    drive(searcher(tmp_path), "a", [*epochs(0.8, 0.9), {"outcome": outcome.value, "reason": "nan", "done": True}])
    (trial,) = told(tmp_path)
    assert (trial.state, trial.value, trial.user_attrs["outcome"]) == (TrialState.COMPLETE, CHANCE, outcome.value)
    assert trial.intermediate_values == {1: 0.8, 2: 0.9}


@pytest.mark.parametrize(
    ("results", "outcome"),
    [
        ([*epochs(0.8), {"outcome": "code", "reason": "KeyError: 1"}], "code"),
        (epochs(0.8), "worker_lost"),
        ([], "worker_lost"),
    ],
)
def test_a_defect_and_a_lost_worker_are_failures(tmp_path, results, outcome):
    drive(searcher(tmp_path), "a", results, error=True)
    (trial,) = told(tmp_path)
    assert (trial.state, trial.value, trial.user_attrs["outcome"]) == (TrialState.FAIL, None, outcome)


def test_epochs_that_come_again_after_a_lost_worker_count_once(tmp_path):
    drive(searcher(tmp_path), "a", [*epochs(0.1, 0.2, 0.3), *epochs(0.1, 0.2, 0.3, 0.4)[1:]])
    assert told(tmp_path)[0].intermediate_values == {1: 0.1, 2: 0.2, 3: 0.3, 4: 0.4}


def test_nothing_stays_running_and_what_has_ended_stays_as_it_is(tmp_path):
    one = searcher(tmp_path)
    drive(one, "a", [{"objective": 0.4, "epoch": 1, "outcome": "done"}])
    for trial_id in "bc":
        one.suggest(trial_id)
    one.end_running(Outcome.interrupted)
    one.tell("a", Outcome.interrupted, None)
    assert [trial.state for trial in told(tmp_path)] == [TrialState.COMPLETE, TrialState.FAIL, TrialState.FAIL]
    assert [trial.user_attrs["outcome"] for trial in told(tmp_path)][1:] == ["interrupted", "interrupted"]


@pytest.mark.parametrize("status", ["KILLED", "FAILED"])
def test_a_sweep_that_breaks_off_leaves_nothing_running_and_keeps_its_best(tmp_path, status):
    work = searching(tmp_path, [trial(0), trial(1, outcome=Outcome.interrupted)])
    work.stopped(status)
    assert [one.state for one in told(tmp_path / "x")] == [TrialState.COMPLETE, TrialState.FAIL]
    assert read_best(tmp_path / "x" / "best.yaml").provenance["trial"] == 0
    assert last_line(tmp_path)["status"] == status


def test_a_sweep_without_a_done_trial_failed_and_says_where_the_reasons_are(tmp_path):
    row = trial(0, outcome=Outcome.diverged)
    with pytest.raises(WorkError, match="None of the 1 trials of x ended done; `sweep status x` says why"):
        searching(tmp_path, [row]).conclude([Ended(row, None)])
    assert not (tmp_path / "x" / "best.yaml").exists()
    assert last_line(tmp_path)["status"] == "FAILED"


def test_a_sweep_with_a_done_trial_ends_finished_with_the_best_of_them_complete(tmp_path):
    rows = [trial(0, objective=0.5), trial(1, objective=0.8, seed=11), trial(2, outcome=Outcome.diverged)]
    work = searching(tmp_path, rows)
    work.conclude([Ended(row, None) for row in rows])
    best = read_best(tmp_path / "x" / "best.yaml")
    assert best.experiment == override(work.batch.session.config.experiment, {**PARAMETERS, "training.seed": 11})
    assert last_line(tmp_path)["status"] == "FINISHED"


def searching(runs: Path, rows: list[TrialRow]) -> Search:
    """A search with one trial told done, one asked and still running, and these rows written."""
    work = Search(session_on(load([*TINY, f"runtime.runs_dir={runs}"])))
    assert isinstance(work.batch.searcher, OptunaSearcher)
    drive(work.batch.searcher, "a", [{"objective": 0.4, "epoch": 1, "outcome": "done"}])
    work.batch.searcher.suggest("b")
    write_rows(work.batch.files.trials, TrialRow, rows)
    return work


def last_line(runs: Path) -> dict:
    line = json.loads((runs / "x" / OUTBOX).read_text().splitlines()[-1])
    assert (line["op"], line["key"]) == ("end", "x")
    return line


# --- a list of jobs ---------------------------------------------------------------------------------------------------


def test_a_list_is_run_first_and_followed_up_once_all_of_it_has_ended():
    seen = []

    def follow_up(told: dict) -> list[dict]:
        seen.append(dict(told))
        return [{"number": 2}, {"number": 3}]

    one = ListSearcher([{"number": 0}, {"number": 1}], follow_up)
    assert [one.suggest("a"), one.suggest("b")] == [{"number": 0}, {"number": 1}]
    assert one.suggest("c") is None
    one.on_trial_complete("b", {"outcome": "done", "objective": 0.7})
    assert (one.suggest("c"), seen) == (None, [])
    one.on_trial_complete("a", error=True)
    assert one.suggest("c") == {"number": 2}
    assert seen == [{0: (Outcome.worker_lost, None), 1: (Outcome.done, 0.7)}]
    assert [one.suggest("d"), one.suggest("e")] == [{"number": 3}, Searcher.FINISHED]
    assert len(seen) == 1


def test_an_empty_list_is_followed_up_at_once():
    one = ListSearcher([], lambda told: [{"number": 0}])
    assert [one.suggest("a"), one.suggest("b")] == [{"number": 0}, Searcher.FINISHED]


def test_searchers_in_a_chain_are_asked_in_turn_and_each_hears_of_its_own_trials():
    heard: dict[str, dict] = {}

    def keep(name: str, number: int) -> ListSearcher:
        return ListSearcher([{"number": 0}], lambda told: heard.setdefault(name, told) and [{"number": number}])

    chain = ChainSearcher([keep("first", 1), keep("second", 2)])
    assert chain.suggest("a") == {"number": 0, "batch": 0}
    assert chain.suggest("b") == {"number": 0, "batch": 1}  # the first waits for its trial
    assert chain.suggest("c") is None
    chain.on_trial_result("b", {"objective": 0.1, "epoch": 1})
    chain.on_trial_complete("b", {"outcome": "done", "objective": 0.2})
    assert chain.suggest("c") == {"number": 2, "batch": 1}
    chain.on_trial_complete("a", error=True)
    assert heard == {"second": {0: (Outcome.done, 0.2)}}
    assert [chain.suggest("d"), chain.suggest("e")] == [{"number": 1, "batch": 0}, Searcher.FINISHED]
    assert heard["first"] == {0: (Outcome.worker_lost, None)}


# --- what Ray's snapshots and schedulers get --------------------------------------------------------------------------


def test_ray_snapshots_keep_nothing_of_searchers_and_recorder(tmp_path):
    session = session_on(load([f"runtime.runs_dir={tmp_path}"]))
    recorder = Recorder([Book(session, session.files, {})], ProgressDisplay(session.console, "search x", 1))
    optuna_searcher, list_searcher = searcher(tmp_path), ListSearcher([{"number": 0}], lambda told: [])
    for one in (optuna_searcher, list_searcher, ChainSearcher([list_searcher]), recorder):
        assert vars(pickle.loads(pickle.dumps(one))) == {}
        assert len(pickle.dumps(one)) < 100
    for one in (optuna_searcher, list_searcher):
        one.save(str(tmp_path / "snapshot"))
        one.restore(str(tmp_path / "snapshot"))
    assert not (tmp_path / "snapshot").exists()


def test_asha_compares_objectives_by_epochs_after_the_grace_period():
    config = SearchConfig(scheduler=SchedulerKind.asha, grace=0.25, reduction=4)
    asha = build_scheduler(config, epochs=40)
    assert (asha._time_attr, asha._metric, asha._mode, asha._max_t, asha._reduction_factor) == (
        "epoch", "objective", "max", 40, 4,
    )  # fmt: skip
    assert min(rung for rung, _ in asha._brackets[0]._rungs) == 10
    assert min(rung for rung, _ in build_scheduler(replace(config, grace=0.001), epochs=3)._brackets[0]._rungs) == 1
    assert type(build_scheduler(SearchConfig(), epochs=40)) is FIFOScheduler


def test_trials_of_a_study_are_compared_within_their_own_sweep(tmp_path):
    """The second sweep's trials are all worse than the first's; asha keeps the best of each nevertheless."""
    config = SearchConfig(scheduler=SchedulerKind.asha, grace=0.1, reduction=2)
    routed, kept = RoutedScheduler([build_scheduler(config, 10) for _ in range(2)]), []
    for number, (batch, value) in enumerate([(0, 0.9), (1, 0.2), (0, 0.8), (1, 0.1), (1, 0.3)]):
        one = TuneTrial("stub", config={"batch": batch}, stub=True, trial_id=str(number))
        routed.on_trial_add(None, one)
        kept.append(routed.on_trial_result(None, one, {"epoch": 1, "objective": value}))
        routed.on_trial_remove(None, one)
    go, stop = RoutedScheduler.CONTINUE, RoutedScheduler.STOP
    assert kept == [go, go, stop, stop, go]
