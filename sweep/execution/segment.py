"""A trial is trained in legs: stretches from its newest checkpoint to a later epoch, each of which is one trial to Ray.

Whatever makes a trial go on is another leg: its promotion, an exchange of its population, a lost worker, a driver that
was killed. The worker begins where the newest whole checkpoint in the trial's folder was written.
"""

import uuid
from dataclasses import asdict, dataclass, field
from typing import Any

from sweep.records.rows import Phase


@dataclass(frozen=True, slots=True, kw_only=True)
class Leg:
    """One stretch of one trial, with what its row says of the trial."""

    number: int
    trial_id: str
    phase: Phase
    candidate: int
    parameters: dict[str, Any]
    proposed_by: str
    experiment: dict[str, Any]  # complete, in plain form
    epochs: int  # of the whole trial
    until: int  # the epoch after which it ends; the trial ends, too, where that is the last
    folder: str  # of the trial's checkpoints
    start: str = ""  # a checkpoint of another trial or experiment to begin from, where the folder has none of this one
    schedule: list[dict[str, Any]] = field(default_factory=list)  # of a population's member

    def plain(self) -> dict[str, Any]:
        return {**asdict(self), "phase": self.phase.value}

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> "Leg":
        return cls(**{**plain, "phase": Phase[plain["phase"]]})


def new_trial_id() -> str:
    return uuid.uuid4().hex[:8]
