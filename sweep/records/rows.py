"""The rows of the tables in which stages meet: a trial, an epoch, a manifestation, a value of an evaluation."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields
from enum import Enum
from statistics import fmean
from typing import Any, TypeVar

from sweep.records.outcome import Outcome

SCHEMA = 2


class Phase(Enum):
    """The purpose of a trial. `confirm` retrains the best of a search, `final` retrains the crowned one on
    train+val, `sensitivity` trains the selected one and its neighbours on train."""

    search = "search"
    confirm = "confirm"
    final = "final"
    sensitivity = "sensitivity"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRow:
    """One trial: runs/NAME/trials.csv (phase search), runs/NAME/final/trials.csv (phases confirm and final) and
    runs/NAME/sensitivity/trials.csv (phase sensitivity)."""

    sweep: str
    """The sweep's name; within a study STUDY/FAMILY-dDRAW."""
    family: str
    """The name of the search space; it ends in `.shared` where the family's own dimensions were left out of it."""
    phase: Phase
    """The purpose: `search` tries a configuration, `confirm` retrains one of the best, `final` the crowned one on train
    and val, `sensitivity` one next to the selected one on train."""
    number: int
    """The trial's number within its file, from 0."""
    trial_id: str
    """The trial's id, the same in Optuna's study and MLflow, also after a resume."""
    candidate: int
    """The number of the search trial whose configuration this is."""
    outcome: Outcome
    """How the trial stands or has ended; docs/search.md explains each."""
    reason: str
    """Why it has ended so, in words; empty for done."""
    parameters: dict[str, Any]
    """What was varied: dotted keys of the configuration with their values."""
    objective: float | None
    """The mean of `val/accuracy` over the last 5 epochs; empty where nothing was reported, and in the final phase."""
    epochs: int
    """Epochs that were trained."""
    gflops: float
    """Computation of the training so far, in 10^9 floating-point operations, recomputation included."""
    seconds: float
    """Seconds of training and validating, on its workers one after another."""
    rate_evaluations: int
    """Evaluations of the rate R in dh/dt = R(theta(t), h) so far, summed over the training batches."""
    model_parameters: int
    """Weights of the network at present; a refinement adds some."""
    dataset: str
    """The data set."""
    per_class: int | None
    """Images per class in train and val together; empty for all."""
    draw: int
    """Which images were drawn."""
    seed: int
    """The seed of initialisation and batches."""
    config_hash: str
    """A hash of the complete experiment, seed included: equal hashes are equal trainings."""
    data_hash: str
    """A hash of the images that were used."""
    proposed_by: str = ""
    """The sampler, or `enqueued`; empty for confirm and final."""
    ray: str = ""
    """Ray's status of the trial's last segment."""
    legs: int = 0
    """Segments that were begun: more than one after a pause, a loss or a restart."""
    objectives: dict[str, Any] = field(default_factory=dict)
    """Values by objective, where `search.objectives` names several."""
    constraints: dict[str, Any] = field(default_factory=dict)
    """Measured values by constraint, where `search.constraints` sets limits."""
    feasible: bool = True
    """Whether the trial is within these limits."""
    schedule: list[Any] = field(default_factory=list)
    """What a member of a population was trained with, in turn: epoch, parameters, parent."""
    gpu_seconds: float = 0.0
    """`seconds` times the GPUs that the trial had; 0 on CPUs."""
    classes: int | None = None
    """Classes of the data; empty in rows of before, which are of published sets."""
    host: str = ""
    """The host that runs the trial's last segment, or ran it; empty while it waits for one."""
    gpu: str = ""
    """The GPU there, by Ray's number and its name; empty on CPUs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestationRow:
    """A trial's network, when it was done, under one scheme and number of steps on the val set: manifestations.csv."""

    number: int
    """The trial's number."""
    scheme: str
    """The integration scheme under which the network was measured."""
    steps: int
    """Integrator steps of the network's last stage."""
    trained: bool
    """Whether this is the manifestation that the network was trained with."""
    accuracy: float
    """Accuracy on the val images."""
    loss: float
    """Mean cross-entropy on the val images; not finite where the network is unstable so."""
    n: int
    """Images that were measured."""
    gflops: float
    """Computation of one image's forward pass, in 10^9 operations."""
    rate_evaluations: int
    """Evaluations of the rate in one forward pass."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CurveRow:
    """One epoch of one trial: curves.csv beside each trials.csv. Field names are metric names with _ for /."""

    number: int
    """The trial's number within its file."""
    epoch: int
    """Epochs completed, from 1."""
    train_loss: float
    """Mean cross-entropy over the epoch's training images, without the regularization."""
    val_loss: float | None
    """Mean cross-entropy on the val images; empty in the final phase, which trains on train and val."""
    val_accuracy: float | None
    """Accuracy on the val images; empty as `val_loss`."""
    objective: float | None
    """The mean of `val_accuracy` over the last 5 epochs, or all where there are fewer."""
    cost_train_gflops: float
    """Computation of the training from its beginning, in 10^9 operations, recomputation included."""
    cost_seconds: float
    """Seconds of training and validating from the beginning."""
    cost_rate_evaluations: int
    """Evaluations of the rate from the beginning, summed over the training batches."""
    depth_steps: int
    """Integrator steps of the network's last stage in this epoch."""
    depth_nodes: int
    """Nodes in depth of the weights of the network's last stage in this epoch."""
    gradient_drift: float | None = None
    """The largest relative distance of a reconstructed first state from the true one; empty without
    `runtime.check_drift`."""


# Of an epoch, as workers report them; `objective` is the mean val/accuracy of the last 5 epochs.
METRICS = (
    "train/loss", "val/loss", "val/accuracy", "objective", "cost/train_gflops", "cost/seconds", "cost/rate_evaluations",
    "depth/steps", "depth/nodes", "gradient/drift",
)  # fmt: skip

# Conditions of an evaluation:
CLEAN = "clean"  # the whole test set, as trained
DUPLICATE_FREE = "clean/duplicate_free"  # of it the images that repeat no other image
MANIFESTATION = "manifestation"  # a class-balanced part of it, under every scheme and number of steps
REESTIMATED = "manifestation_reestimated"  # the same, batch norms estimated anew on training images each time
CORRUPTION = "corruption"  # and, after a slash, which
DIAGNOSTICS = "diagnostics"  # of the network, on that part
ATTACK = "attack"  # and, after slashes, norm and attack, or a check
COMPRESSION = "compression"  # and, after a slash, in which way: the network made smaller without data, on that part


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationRow:
    """One measured value of one final model: rows.csv. All fields before `value` together are the key."""

    family: str
    """The name of the search space; it ends in `.shared` where the family's own dimensions were left out of it."""
    dataset: str
    """The data set."""
    per_class: int | None
    """Images per class in train and val together; empty for all."""
    draw: int
    """Which images were drawn for train and val."""
    seed: int
    """The seed that the network was trained with."""
    scheme: str
    """The integration scheme under which it was measured."""
    steps: int
    """Integrator steps of the last stage under which it was measured."""
    condition: str
    """`clean`: the whole test set, the network as trained. `clean/duplicate_free`: of it the images that nearly repeat
    no other image. `manifestation`: a class-balanced part of it, under every scheme and number of steps.
    `manifestation_reestimated`: the same, with batch-norm statistics estimated anew on training images under each.
    `corruption/NAME`: corrupted images. `attack/NORM/NAME`: images moved by an attack; `union` is of all attacks,
    `attack/clean` the same images as they are, `attack/check/NAME` a sanity check, `attack/gradient_error` of the
    memory-free gradient. `diagnostics`: what the network is as an ODE. `compression/WAY`: the network made smaller
    without data, on that part of the test set; `trained` is the network as it is."""
    severity: float
    """The strength of the condition: of a corruption 1 to 5, of an attack epsilon (of linf in 255ths), of the gradient
    error the steps, of a compression how many times smaller; else 0."""
    split: str
    """The images: `test`."""
    metric: str
    """What was measured: `accuracy` or `loss`; of a manifestation also `lost`, the share of images that are
    right as trained and wrong so; of attacks also `first_broken`, the share of images that this attack
    broke and none before it, `median_minimal_norm`, and of a check `passed` (1 or 0), `value` and `limit`; of
    diagnostics the columns of docs/robustness.md's table per network; of compressions also `parameters`, `nodes` of the
    last stage, `rate_evaluations`, `gflops` of an image, `kilobytes`, and `latency_ms` of an image with `latency_sd`
    over passes of `latency_batch` images."""
    value: float
    """The measured value."""
    n: int
    """Images that were measured; of latencies the passes."""
    trained_scheme: str
    """The scheme that the network was trained with."""
    trained_steps: int
    """The steps of the last stage that it was trained with."""
    config_hash: str
    """As in trials.csv, of the final training."""
    data_hash: str
    """As in trials.csv, of the final training."""
    source: str = ""
    """Where corrupted images come from: `CIFAR-10-C` as published, `CIFAR-10-C-regen` where they were made here by
    its rules, else `regenerated`."""

    @property
    def key(self) -> tuple[Any, ...]:
        names = [f.name for f in fields(self)]
        return tuple(getattr(self, name) for name in names[: names.index("value")])


WAITING = "waiting"
WAITS = "waits for a worker"  # the reason of a running trial whose segment no worker has yet


def counted(rows: Iterable[TrialRow]) -> str:
    """Count trials by how they stand: 2 running, 1 waiting, 3 done."""
    standing = Counter(standing_of(row) for row in rows)
    names = [Outcome.running.value, WAITING, *(one.value for one in Outcome if one is not Outcome.running)]
    return ", ".join(f"{standing[name]} {name}" for name in names if standing[name])


def standing_of(row: TrialRow) -> str:
    """Name a trial's outcome; a running one that no worker has yet is waiting."""
    return WAITING if row.outcome is Outcome.running and row.reason == WAITS else row.outcome.value


def reasons(rows: Iterable[TrialRow]) -> Iterator[str]:
    """Say why trials stand as they do, each reason once."""
    numbers = defaultdict(list)
    for row in rows:
        if row.reason:
            numbers[row.reason].append(str(row.number))
    for reason, those in numbers.items():
        yield f"{'trials' if len(those) > 1 else 'trial'} {', '.join(those)}: {reason}"


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
    chosen_by = any(row.phase in (Phase.search, Phase.confirm) for row in rows)
    return "no best yet" if chosen_by or not rows else "nothing is chosen by these"


RowT = TypeVar("RowT", TrialRow, CurveRow, ManifestationRow, EvaluationRow)
AnyRow = TrialRow | CurveRow | ManifestationRow | EvaluationRow
