"""How a trial ended, and what Ray, Optuna and MLflow call it: the one table (DESIGN: a search that tells the truth)."""

from dataclasses import dataclass
from enum import Enum


class Outcome(Enum):
    """What became of a trial. `running` is no ending; only `done` can be best."""

    running = "running"
    done = "done"
    pruned = "pruned"  # stopped early by the scheduler
    diverged = "diverged"  # the loss was not finite
    cuda_oom = "cuda_oom"
    host_oom = "host_oom"
    worker_lost = "worker_lost"
    node_lost = "node_lost"
    code = "code"  # a defect raised an exception
    interrupted = "interrupted"  # the user stopped the sweep


@dataclass(frozen=True, slots=True)
class States:
    """What each system is told. `at_chance`: Optuna learns chance accuracy instead of the last value."""

    ray: str
    optuna: str
    mlflow: str
    at_chance: bool = False


# Samplers learn nothing from FAIL: with it half of later proposals still diverge, told chance a third do.
STATES: dict[Outcome, States] = {
    Outcome.running: States("RUNNING", "RUNNING", "RUNNING"),
    Outcome.done: States("TERMINATED", "COMPLETE", "FINISHED"),
    Outcome.pruned: States("TERMINATED", "PRUNED", "KILLED"),
    Outcome.diverged: States("TERMINATED", "COMPLETE", "FAILED", at_chance=True),
    Outcome.cuda_oom: States("TERMINATED", "COMPLETE", "FAILED", at_chance=True),
    Outcome.host_oom: States("ERROR", "FAIL", "FAILED"),
    Outcome.worker_lost: States("ERROR", "FAIL", "FAILED"),
    Outcome.node_lost: States("ERROR", "FAIL", "FAILED"),
    Outcome.code: States("ERROR", "FAIL", "FAILED"),
    Outcome.interrupted: States("TERMINATED", "FAIL", "KILLED"),
}
