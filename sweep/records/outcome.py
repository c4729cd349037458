"""The outcomes of a trial, and the one table of what Ray, Optuna and MLflow call each."""

from dataclasses import dataclass
from enum import Enum


class Outcome(Enum):
    """The state of a trial. Only `done` can be best; `running`, `paused` and `interrupted` are no endings."""

    running = "running"
    paused = "paused"  # waits at a rung for its promotion, or for the end of the search
    done = "done"
    pruned = "pruned"  # stopped early by the scheduler
    diverged = "diverged"  # the loss was not finite
    cuda_oom = "cuda_oom"
    host_oom = "host_oom"
    worker_lost = "worker_lost"
    node_lost = "node_lost"
    node_unfit = "node_unfit"  # its nodes did not see the run directory, or could not start a worker
    timeout = "timeout"  # longer than search.timeout_minutes
    code = "code"  # a defect raised an exception
    interrupted = "interrupted"  # the sweep was stopped; a resumed one takes the trial up again

    @property
    def ended(self) -> bool:
        """Tell whether the trial is over for good."""
        return self not in (Outcome.running, Outcome.paused, Outcome.interrupted)

    @property
    def retried(self) -> bool:
        """Tell whether the machine failed and not the trial, in which case the trial gets another attempt."""
        return self in (Outcome.worker_lost, Outcome.node_lost, Outcome.node_unfit)

    @property
    def failed(self) -> bool:
        """Tell whether the trial ended by a defect or a loss, which says nothing of its configuration."""
        return self is Outcome.code or self is Outcome.host_oom or self.retried


@dataclass(frozen=True, slots=True)
class States:
    """The words of the other systems for an outcome. `at_chance`: Optuna learns chance accuracy instead of the last
    value."""

    ray: str  # of the trial's last segment
    optuna: str
    mlflow: str
    at_chance: bool = False


# Samplers learn nothing from FAIL: with it half of later proposals still diverge, told chance a third do.
STATES: dict[Outcome, States] = {
    Outcome.running: States("RUNNING", "RUNNING", "RUNNING"),
    Outcome.paused: States("TERMINATED", "WAITING", "SCHEDULED"),
    Outcome.done: States("TERMINATED", "COMPLETE", "FINISHED"),
    Outcome.pruned: States("TERMINATED", "PRUNED", "KILLED"),
    Outcome.diverged: States("TERMINATED", "COMPLETE", "FAILED", at_chance=True),
    Outcome.cuda_oom: States("TERMINATED", "COMPLETE", "FAILED", at_chance=True),
    Outcome.host_oom: States("ERROR", "FAIL", "FAILED"),
    Outcome.worker_lost: States("ERROR", "FAIL", "FAILED"),
    Outcome.node_lost: States("ERROR", "FAIL", "FAILED"),
    Outcome.node_unfit: States("ERROR", "FAIL", "FAILED"),
    Outcome.timeout: States("TERMINATED", "PRUNED", "KILLED"),
    Outcome.code: States("ERROR", "FAIL", "FAILED"),
    Outcome.interrupted: States("TERMINATED", "WAITING", "KILLED"),
}
