"""The one table of outcomes: total, and true in the words of Ray, Optuna and MLflow."""

import pytest
from mlflow.entities import RunStatus
from optuna.trial import TrialState
from ray.tune.experiment import Trial as TuneTrial

from sweep.outcome import STATES, Outcome
from sweep.searcher import ending


def test_every_outcome_has_its_row_in_words_that_ray_optuna_and_mlflow_know():
    assert set(STATES) == set(Outcome)
    for outcome, states in STATES.items():
        assert states.ray in {TuneTrial.RUNNING, TuneTrial.TERMINATED, TuneTrial.ERROR}
        assert states.optuna in TrialState.__members__
        ended = outcome is not Outcome.running
        assert TrialState[states.optuna].is_finished() is ended
        assert RunStatus.is_terminated(RunStatus.from_string(states.mlflow)) is ended
        assert states.at_chance <= (states.optuna == "COMPLETE")
        assert (states.mlflow == "FINISHED") is (outcome is Outcome.done)
        assert (states.ray == "ERROR") <= (states.optuna == "FAIL")


@pytest.mark.parametrize(
    ("result", "failed", "outcome", "reason"),
    [
        ({"outcome": "done", "epoch": 9}, False, Outcome.done, ""),
        ({"outcome": "diverged", "reason": "nan"}, False, Outcome.diverged, "nan"),
        ({"outcome": "code", "reason": "KeyError: 1"}, True, Outcome.code, "KeyError: 1"),
        ({"epoch": 3}, False, Outcome.pruned, "stopped by the scheduler after epoch 3"),
        ({"epoch": 3}, True, Outcome.worker_lost, "its worker process ended, and the retries with it"),
        ({}, True, Outcome.worker_lost, "its worker process ended, and the retries with it"),
    ],
)
def test_how_a_trial_ended_is_read_from_its_last_result(result, failed, outcome, reason):
    assert ending(result, failed) == (outcome, reason)
