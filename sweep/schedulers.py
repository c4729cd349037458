"""Ray Tune's schedulers on our metric names and epochs."""

from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler

from sweep.config import SchedulerKind, SearchConfig


def build_scheduler(config: SearchConfig, epochs: int) -> TrialScheduler:
    """`asha`: asynchronous successive halving (Li et al. 2020, arXiv 1810.05934) on the objective, every trial getting
    `grace` of the epochs. A trial that diverges ends itself, so no comparison with NaN is ever made."""
    if config.scheduler is SchedulerKind.none:
        return FIFOScheduler()
    return ASHAScheduler(
        time_attr="epoch",
        metric="objective",
        mode="max",
        max_t=epochs,
        grace_period=max(1, min(epochs, round(config.grace * epochs))),
        reduction_factor=config.reduction,
    )


class RoutedScheduler(FIFOScheduler):
    """Each sweep of a study keeps its own scheduler: trials are compared only within their `batch`."""

    def __init__(self, schedulers: list[TrialScheduler]) -> None:
        super().__init__()
        self._schedulers = schedulers

    def _of(self, trial: Trial) -> TrialScheduler:
        return self._schedulers[trial.config["batch"]]

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        self._of(trial).on_trial_add(tune_controller, trial)

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        self._of(trial).on_trial_error(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict) -> str:
        return self._of(trial).on_trial_result(tune_controller, trial, result)

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict) -> None:
        self._of(trial).on_trial_complete(tune_controller, trial, result)

    def on_trial_remove(self, tune_controller: Any, trial: Trial) -> None:
        self._of(trial).on_trial_remove(tune_controller, trial)
