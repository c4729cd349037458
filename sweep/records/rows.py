"""The rows of the tables in which stages meet: a trial, an epoch, a manifestation, a value of an evaluation."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from enum import Enum
from statistics import fmean
from typing import Any, TypeVar

from sweep.records.outcome import Outcome

SCHEMA = 2


class Phase(Enum):
    """The purpose of a trial. `confirm` retrains the best of a search, `final` retrains the crowned one on
    train+val."""

    search = "search"
    confirm = "confirm"
    final = "final"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRow:
    """One trial: runs/NAME/trials.csv (phase search) and runs/NAME/final/trials.csv (phases confirm and final)."""

    sweep: str
    family: str
    phase: Phase
    number: int  # of this trial within its file, from 0
    trial_id: str
    candidate: int  # number of the search trial whose configuration this is
    outcome: Outcome
    reason: str  # empty for done
    parameters: dict[str, Any]  # what was varied: dotted names of the experiment's configuration
    objective: float | None  # mean val/accuracy of the last 5 epochs; None where nothing was reported
    epochs: int
    gflops: float
    seconds: float
    rate_evaluations: int
    model_parameters: int
    dataset: str
    per_class: int | None  # images per class in train and val together; None: all
    draw: int
    seed: int
    config_hash: str
    data_hash: str
    proposed_by: str = ""  # the sampler, or "enqueued"; empty for confirm and final
    ray: str = ""  # Ray's status of the last segment
    legs: int = 0  # segments begun, called so in old files: more than one after a pause, a loss or a restart
    objectives: dict[str, Any] = field(default_factory=dict)  # values by name, where there are several
    constraints: dict[str, Any] = field(default_factory=dict)  # measured values by name, where limits are set
    feasible: bool = True  # within the limits
    schedule: list[Any] = field(default_factory=list)  # of a population's member: epoch, parameters, parent
    gpu_seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestationRow:
    """A trial's network, when it was done, under one scheme and number of steps on the val set: manifestations.csv."""

    number: int
    scheme: str
    steps: int  # integrator steps per stage
    trained: bool  # the manifestation it was trained with
    accuracy: float
    loss: float
    n: int  # images measured
    gflops: float  # of one image's forward pass
    rate_evaluations: int  # of one forward pass


@dataclass(frozen=True, slots=True, kw_only=True)
class CurveRow:
    """One epoch of one trial: curves.csv beside each trials.csv. Field names are metric names with _ for /."""

    number: int
    epoch: int  # epochs completed, from 1
    train_loss: float
    val_loss: float | None  # None in the final phase, which trains on train+val
    val_accuracy: float | None
    objective: float | None
    cost_train_gflops: float
    cost_seconds: float
    cost_rate_evaluations: int
    depth_steps: int
    depth_nodes: int
    gradient_drift: float | None = None  # with runtime.check_drift, where states are reconstructed


# Of an epoch, as workers report them; `objective` is the mean val/accuracy of the last 5 epochs.
METRICS = (
    "train/loss", "val/loss", "val/accuracy", "objective", "cost/train_gflops", "cost/seconds", "cost/rate_evaluations",
    "depth/steps", "depth/nodes", "gradient/drift",
)  # fmt: skip

# Conditions of an evaluation:
CLEAN = "clean"  # the whole test set, as trained
MANIFESTATION = "manifestation"  # a class-balanced part of it, under every scheme and number of steps


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationRow:
    """One measured value of one final model: rows.csv. All fields before `value` together are the key."""

    family: str
    dataset: str
    per_class: int | None
    draw: int
    seed: int
    scheme: str
    steps: int  # integrator steps per stage
    condition: str  # CLEAN, MANIFESTATION; corruptions and attacks by name
    severity: float
    split: str
    metric: str  # "accuracy", "loss"
    value: float
    n: int  # images measured
    trained_scheme: str
    trained_steps: int
    config_hash: str
    data_hash: str

    @property
    def key(self) -> tuple[Any, ...]:
        names = [f.name for f in fields(self)]
        return tuple(getattr(self, name) for name in names[: names.index("value")])


def ranked(rows: Iterable[TrialRow]) -> list[TrialRow]:
    """Sort the trials that may be chosen, best first: done ones within all limits; ties go to the earlier trial."""
    done = [row for row in rows if row.outcome is Outcome.done and row.objective is not None and row.feasible]
    return sorted(done, key=lambda row: (-(row.objective or 0.0), row.number))


def best_so_far(rows: Iterable[TrialRow]) -> str:
    """Say which configuration is best so far: by what value, of which phase, over how many seeds."""
    rows, confirmed = list(rows), defaultdict(list)
    for row in ranked(row for row in rows if row.phase is Phase.confirm):
        confirmed[row.sweep, row.candidate].append(row.objective or 0.0)
    if confirmed:
        (sweep, candidate), values = max(confirmed.items(), key=lambda item: fmean(item[1]))
        seeds = "one seed" if len(values) == 1 else f"mean of {len(values)} seeds"
        return f"best {sweep} trial {candidate} at {fmean(values):.1%} confirmed, {seeds}"
    for row in ranked(row for row in rows if row.phase is Phase.search)[:1]:
        return f"best {row.sweep} search trial {row.number} at {row.objective:.1%}, one seed"
    return "no best yet"


RowT = TypeVar("RowT", TrialRow, CurveRow, ManifestationRow, EvaluationRow)
AnyRow = TrialRow | CurveRow | ManifestationRow | EvaluationRow
