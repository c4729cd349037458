"""Ray Tune's schedulers on our metric names and epochs."""

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
