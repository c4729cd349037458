"""Segments: a segment trains a trial from its newest checkpoint to a later epoch; to Ray it is a trial of its own.

Whatever makes a trial go on is another segment: its promotion, an exchange of its population, a lost worker, a driver
that was killed. The worker begins where the newest whole checkpoint in the trial's folder was written. It answers with
a `WorkerResult` per epoch. Segment and result are plain dictionaries only where they pass through Ray.
"""

import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from odenet.data.config import Portion
from odenet.data.subsets import Splits
from odenet.training.config import ExperimentConfig, from_plain, to_plain
from sweep.config.evaluate_config import EvaluateConfig
from sweep.records.outcome import Outcome
from sweep.records.rows import METRICS, Phase


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """One segment of one trial, with what the trial's row says of it."""

    number: int
    trial_id: str
    phase: Phase
    candidate: int
    parameters: dict[str, Any]
    proposed_by: str
    experiment: ExperimentConfig
    epochs: int  # of the whole trial
    until: int  # the epoch after which it ends; the trial ends, too, where that is the last
    folder: str  # of the trial's checkpoints
    start: str = ""  # a checkpoint of another trial or experiment to begin from, where the folder has none of this one
    schedule: list[dict[str, Any]] = field(default_factory=list)  # of a population's member
    heard: int = 0  # epochs that are on record; the worker reports those of its checkpoint that are not

    def to_dict(self) -> dict[str, Any]:
        plain = {name: getattr(self, name) for name in self.__slots__}
        return {**plain, "phase": self.phase.value, "experiment": to_plain(self.experiment)}

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> "Segment":
        typed = {"phase": Phase[plain["phase"]], "experiment": from_plain(ExperimentConfig, plain["experiment"])}
        return cls(**{**plain, **typed})


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """The settings that all segments of one sweep share."""

    splits: dict[Portion, Splits]
    tables: EvaluateConfig
    checkpoint_every: int
    seconds: float | None  # that a trial may train
    modules: tuple[str, ...] = ()  # the user's own, with networks
    kept_modules: Path = Path()  # where their source is
    module_texts: Mapping[str, str] = field(default_factory=dict)  # it, for workers that may not see that place
    marker: Path | None = None  # of the session's run directory, which a worker on another machine must see


def new_trial_id() -> str:
    return uuid.uuid4().hex[:8]


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochResult:
    """The report of one trained epoch."""

    epoch: int  # completed, from 1
    weights: int  # how many the network has; a refinement adds some
    metrics: Mapping[str, float | None]  # by the names in METRICS
    notice: str = ""  # to be said to the user


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialEnded:
    """The end of training on a worker. What was measured then is present only where the outcome is done."""

    outcome: Outcome
    reason: str = ""
    storage: str = ""  # what could not be written, where that is the reason
    details: str = ""  # of a defect: its traceback, and what its worker printed last
    footprint: dict[str, float] = field(default_factory=dict)
    manifestations: list[dict[str, Any]] = field(default_factory=list)  # fields of a ManifestationRow without a number


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerPlace:
    """The place of a worker. `node` is Ray's id of it, `gpu` its number and name."""

    host: str
    node: str = ""
    gpu: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerResult:
    """The result of one step of a worker: where it is, an epoch, the end of training. `done`: the segment is over."""

    place: WorkerPlace | None = None
    epoch: EpochResult | None = None
    ended: TrialEnded | None = None
    done: bool = True

    def to_dict(self) -> dict[str, Any]:
        """Flatten the result, as Ray hands it on: metrics by their names, the rest below footprint/ and place/."""
        plain: dict[str, Any] = {"done": self.done}
        if self.place is not None:
            plain |= {f"place/{name}": value for name, value in asdict(self.place).items()}
        if self.epoch is not None:
            plain |= {**self.epoch.metrics, "epoch": self.epoch.epoch, "weights": self.epoch.weights}
            plain |= {"notice": self.epoch.notice} if self.epoch.notice else {}
        if self.ended is not None:
            given = {name: value for name, value in asdict(self.ended).items() if value or name == "reason"}
            footprint = given.pop("footprint", {})
            plain |= given | {"outcome": self.ended.outcome.value}
            plain |= {f"footprint/{name}": value for name, value in footprint.items()}
        return plain

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> "WorkerResult":
        """Restore the result from Ray's, which has further keys of its own."""
        epoch = ended = None
        where = _below("place/", plain)
        place = WorkerPlace(**where) if where else None
        if "epoch" in plain:
            metrics = {name: plain[name] for name in METRICS if name in plain}
            notice = plain.get("notice", "")
            epoch = EpochResult(epoch=plain["epoch"], weights=plain["weights"], metrics=metrics, notice=notice)
        if "outcome" in plain:
            ended = TrialEnded(
                outcome=Outcome[plain["outcome"]],
                reason=plain.get("reason", ""),
                storage=plain.get("storage", ""),
                details=plain.get("details", ""),
                footprint=_below("footprint/", plain),
                manifestations=plain.get("manifestations", []),
            )
        return cls(place=place, epoch=epoch, ended=ended, done=plain.get("done", True))


def _below(head: str, plain: dict[str, Any]) -> dict[str, Any]:
    return {name.removeprefix(head): value for name, value in plain.items() if name.startswith(head)}
