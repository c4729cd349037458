"""The one table of outcomes: total, and true in the words of Ray, Optuna and MLflow."""

from mlflow.entities import RunStatus
from optuna.trial import TrialState
from ray.tune.experiment import Trial as TuneTrial

from sweep.records.outcome import STATES, Outcome


def test_every_outcome_has_its_row_in_words_that_ray_optuna_and_mlflow_know():
    assert set(STATES) == set(Outcome)
    for outcome, states in STATES.items():
        assert states.ray in {TuneTrial.RUNNING, TuneTrial.TERMINATED, TuneTrial.ERROR}
        assert states.optuna in TrialState.__members__
        assert TrialState[states.optuna].is_finished() is outcome.ended
        assert (states.ray == "RUNNING") is (outcome is Outcome.running)
        assert states.at_chance <= (states.optuna == "COMPLETE")
        assert (states.mlflow == "FINISHED") is (outcome is Outcome.done)
        assert (states.ray == "ERROR") is (states.optuna == "FAIL")


def test_a_run_has_ended_in_mlflow_unless_its_trial_runs_or_waits():
    for outcome, states in STATES.items():
        terminated = RunStatus.is_terminated(RunStatus.from_string(states.mlflow))
        assert terminated is (outcome not in (Outcome.running, Outcome.paused))


def test_only_a_lost_machine_is_worth_another_attempt_and_what_has_not_ended_goes_on_anyway():
    machine = {Outcome.worker_lost, Outcome.node_lost, Outcome.node_unfit}
    assert {outcome for outcome in Outcome if outcome.retried} == machine
    assert {outcome for outcome in Outcome if outcome.failed} == machine | {Outcome.host_oom, Outcome.code}
    assert {outcome for outcome in Outcome if not outcome.ended} == {
        Outcome.running, Outcome.paused, Outcome.interrupted,
    }  # fmt: skip
