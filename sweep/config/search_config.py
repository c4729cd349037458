"""The configuration of a search: sampler, scheduler, objectives, limits and budget."""

import math
import sys
from dataclasses import dataclass, field, fields
from enum import Enum
from pathlib import PurePath

LONGEST_MINUTES = 366 * 24 * 60  # of a trial: a year; the system's timers end at 292


class SamplerKind(Enum):
    """The method that proposes configurations."""

    tpe = "tpe"
    random = "random"
    gp = "gp"
    cmaes = "cmaes"
    nsga2 = "nsga2"
    grid = "grid"


class SchedulerKind(Enum):
    """The rule that stops, pauses or changes trials before their last epoch."""

    none = "none"
    asha = "asha"
    hyperband = "hyperband"
    median = "median"
    depth_asha = "depth_asha"
    pbt = "pbt"


class Objective(Enum):
    """A quantity to optimize. All but accuracy and robustness are costs, and minimized."""

    accuracy = "accuracy"  # mean val/accuracy of the last 5 epochs
    gflops = "gflops"  # of one image's forward pass
    rate_evaluations = "rate_evaluations"  # of one forward pass
    robustness = "robustness"  # mean val accuracy over the manifestations that were not trained

    @property
    def minimized(self) -> bool:
        return self in (Objective.gflops, Objective.rate_evaluations)


@dataclass(kw_only=True, slots=True)
class Constraints:
    """The limits that a configuration must keep to be chosen; None: no limit. They are measured when a trial is
    done."""

    parameters: int | None = None
    memory_mib: float | None = None  # weights, gradients, momentum and what one batch saves for the backward pass
    latency_ms: float | None = None  # of a forward pass of one batch of 32

    def __post_init__(self) -> None:
        for name, limit in self.limits().items():
            if not 0 < limit < sys.float_info.max:  # also of a whole number, which may be larger
                raise ValueError(f"search.constraints.{name}={limit}: must be above 0, or null for no limit.")

    def limits(self) -> dict[str, float]:
        """Return the limits that are set, by name."""
        given = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: limit for name, limit in given.items() if limit is not None}


@dataclass(kw_only=True, slots=True)
class Budget:
    """The limits, besides search.trials, after which no further trial begins; None: no limit. Spending survives a
    restart."""

    hours: float | None = None  # of wall clock, in all sessions
    gflops: float | None = None  # of training
    gpu_hours: float | None = None
    money: float | None = None
    gpu_hour_price: float | None = None  # what money is counted with
    plateau: int | None = None  # trials done without a new best objective
    target: float | None = None  # an objective that is good enough

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            if value is not None and not 0 < value < sys.float_info.max:
                raise ValueError(f"search.budget.{f.name}={value}: must be above 0, or null for no limit.")
        if self.money is not None and self.gpu_hour_price is None:
            raise ValueError(f"search.budget.money={self.money} needs search.budget.gpu_hour_price.")
        if self.target is not None and self.target > 1:
            raise ValueError(f"search.budget.target={self.target}: an accuracy, at most 1.")

    @property
    def limited(self) -> bool:
        """Tell whether any limit is set."""
        return any(getattr(self, f.name) is not None for f in fields(self))


@dataclass(kw_only=True, slots=True)
class PopulationConfig:
    """Population-based training, with the trials as members."""

    interval: float = 0.2  # of the epochs between two exchanges
    quantile: float = 0.25  # so many of the worst copy one of as many of the best
    integrator: bool = True  # scheme, steps and nodes change, too, where the network allows it

    def __post_init__(self) -> None:
        if not 0 < self.interval < 1:
            raise ValueError(f"search.pbt.interval={self.interval}: a fraction of the epochs, between 0 and 1.")
        if not 0 < self.quantile <= 0.5:
            raise ValueError(f"search.pbt.quantile={self.quantile}: above 0 and at most 0.5.")


@dataclass(kw_only=True, slots=True)
class SearchConfig:
    """The search of one sweep."""

    trials: int = 12
    more: int = 0  # of `sweep extend`
    seed: int = 0
    sampler: SamplerKind = SamplerKind.tpe
    random_share: float = 0.0  # of the trials, proposed at random and never stopped early: tuning curves need them
    scheduler: SchedulerKind = SchedulerKind.none
    grace: float = 0.2  # fraction of the epochs that every trial gets
    reduction: int = 3  # asha, hyperband, depth_asha: one in so many goes on at a rung
    pbt: PopulationConfig = field(default_factory=PopulationConfig)
    objectives: list[Objective] = field(default_factory=lambda: [Objective.accuracy])
    constraints: Constraints = field(default_factory=Constraints)
    budget: Budget = field(default_factory=Budget)
    enqueue: list[str] = field(default_factory=list)  # best.yaml or trials.csv files, tried first
    timeout_minutes: float | None = None  # of one trial
    concurrency: int | None = None  # trials at once; None: as many as fit
    retries: int = 2  # after a lost worker or node; nothing else is retried
    tolerated: float = 0.1  # fraction of the trials that may end by defects or losses; with more the command fails
    checkpoint_every: int = 5  # epochs
    accept_changes: bool = False  # resume although space or code differ from what the sweep began with

    def __post_init__(self) -> None:
        self._check_ranges()
        if len(set(self.objectives)) != len(self.objectives) or Objective.accuracy not in self.objectives:
            raise ValueError(
                f"search.objectives={[one.value for one in self.objectives]}: accuracy and, each once, any of "
                f"{', '.join(one.value for one in Objective if one is not Objective.accuracy)}."
            )
        self._check_several_objectives()
        self._check_enqueue()
        if self.scheduler is SchedulerKind.pbt and self.random_share:
            raise ValueError(
                f"search.random_share={self.random_share} with search.scheduler=pbt: all members of a population "
                "exchange; use search.sampler=random, or another scheduler."
            )

    def _check_enqueue(self) -> None:
        for name in self.enqueue:
            check_path("search.enqueue", name)
            if PurePath(name).suffix not in ENQUEUED_FROM:
                raise ValueError(
                    f"search.enqueue={name}: the name of a best.yaml or of a trials.csv is needed, which ends in "
                    f"{', '.join(ENQUEUED_FROM)}."
                )

    def _check_ranges(self) -> None:
        for name, low, high in (
            ("trials", 1, 1_000_000), ("more", 0, 1_000_000), ("seed", 0, 2**31 - 1), ("reduction", 2, 100),
            ("retries", 0, 100), ("checkpoint_every", 1, 100_000), ("concurrency", 1, 100_000),
        ):  # fmt: skip
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise ValueError(f"search.{name}={value}: must be from {low} to {high}.")
        if not 0 < self.grace <= 1:
            raise ValueError(f"search.grace={self.grace}: a fraction of the epochs, above 0 and at most 1.")
        for name in ("random_share", "tolerated"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"search.{name}={getattr(self, name)}: a fraction of the trials, from 0 to 1.")
        if self.timeout_minutes is not None and not 0 < self.timeout_minutes <= LONGEST_MINUTES:
            raise ValueError(
                f"search.timeout_minutes={self.timeout_minutes}: must be above 0, or null for no limit; at most a "
                f"year, {LONGEST_MINUTES}."
            )

    def _check_several_objectives(self) -> None:
        if len(self.objectives) == 1:
            return
        if self.scheduler is not SchedulerKind.none:
            raise ValueError(
                f"search.scheduler={self.scheduler.value} with {len(self.objectives)} objectives: trials are stopped "
                "early by one value; use none."
            )
        possible = (SamplerKind.random, SamplerKind.tpe, SamplerKind.nsga2)
        if self.sampler not in possible:
            raise ValueError(
                f"search.sampler={self.sampler.value} with {len(self.objectives)} objectives: "
                f"{', '.join(kind.value for kind in possible)} can be used."
            )
        if self.budget.plateau is not None or self.budget.target is not None:
            raise ValueError("search.budget.plateau and search.budget.target need one objective.")

    def is_random(self, number: int) -> bool:
        """Tell whether trial `number` belongs to the share that is proposed at random and never stopped early."""
        return math.floor((number + 1) * self.random_share) > math.floor(number * self.random_share)

    def is_unstopped(self, number: int, proposed_by: str) -> bool:
        """Tell whether a trial is never stopped early: that share, which a grid that is used up lets go on at other
        numbers."""
        return self.is_random(number) or (self.sampler is SamplerKind.grid and proposed_by == SamplerKind.random.value)


ENQUEUED_FROM = (".yaml", ".yml", ".csv")
LONGEST_PATH = 1000  # bytes: of 4095 on Linux and 1023 on macOS
LONGEST_NAME = 255


def check_path(key: str, path: str) -> None:
    """Raise ValueError where `path` could not be the name of a file or directory, or would garble a message."""
    if not path or not path.isprintable():
        raise ValueError(f"{key}={path!r} is {'no path: it has control characters' if path else 'empty'}.")
    if "://" in path:
        raise ValueError(
            f"{key}={path.partition('://')[0]}://... is an address: name a file or directory of this machine."
        )
    parts = [len(part.encode()) for part in PurePath(path).parts]
    if len(path.encode()) > LONGEST_PATH or max(parts, default=0) > LONGEST_NAME:
        raise ValueError(
            f"{key}={path[:40]}... is too long: at most {LONGEST_PATH} bytes, each name in it {LONGEST_NAME}."
        )
