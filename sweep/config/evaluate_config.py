"""What `sweep evaluate` measures of the final networks."""

from dataclasses import dataclass, field
from enum import Enum

from odenet.enums import BENCHMARK, Corruption, Scheme
from odenet.robustness.config import AttackConfig

SEVERITIES = {1, 2, 3, 4, 5}  # of a corruption


class ConditionKind(Enum):
    """The kinds of conditions under which final networks are measured; each has rows of its own in rows.csv."""

    clean = "clean"
    manifestation = "manifestation"
    manifestation_reestimated = "manifestation_reestimated"
    corruption = "corruption"
    attack = "attack"
    diagnostics = "diagnostics"
    compression = "compression"


@dataclass(kw_only=True, slots=True)
class EvaluateConfig:
    """The conditions, and the schemes, steps and images of each.

    Raises:
        ValueError: what cannot be measured.
    """

    conditions: list[ConditionKind] = field(default_factory=lambda: [ConditionKind.clean, ConditionKind.manifestation])
    schemes: list[Scheme] = field(default_factory=lambda: [Scheme.euler, Scheme.midpoint, Scheme.heun, Scheme.rk4])
    step_factors: list[float] = field(default_factory=lambda: [0.5, 1.0, 2.0, 4.0])  # of the trained steps
    manifestation_images: int | None = 1000  # of the test set, class-balanced, for the table of schemes and steps
    corruptions: list[Corruption] = field(default_factory=lambda: list(BENCHMARK))  # as far as they suit the images
    severities: list[int] = field(default_factory=lambda: [1, 2, 3, 4, 5])
    corruption_images: int | None = None  # of the test set, class-balanced; None: all
    cache_dir: str = "~/.cache/continuous-depth-sweep"  # for corrupted images, on each machine that measures
    attack: AttackConfig = field(default_factory=AttackConfig)
    transfer: list[str] = field(default_factory=list)  # sweeps whose first final networks attacks are taken over from
    batch_size: int = 500

    def __post_init__(self) -> None:
        if not self.conditions or len(set(self.conditions)) < len(self.conditions):
            possible = ", ".join(kind.value for kind in ConditionKind)
            raise ValueError(f"evaluate.conditions: at least one, each once; possible are {possible}.")
        if not self.schemes or not self.step_factors or not all(0 < f <= 1024 for f in self.step_factors):
            raise ValueError("evaluate needs schemes, and step_factors above 0 and at most 1024.")
        for name in ("batch_size", "manifestation_images", "corruption_images"):
            value = getattr(self, name)
            if value is not None and not 1 <= value <= 1_000_000:
                raise ValueError(f"evaluate.{name}={value}: must be at least 1, at most 1e6.")
        if not self.corruptions or len(set(self.corruptions)) < len(self.corruptions):
            possible = ", ".join(one.value for one in Corruption)
            raise ValueError(f"evaluate.corruptions: at least one, each once; possible are {possible}.")
        if not self.severities or sorted(set(self.severities) & SEVERITIES) != sorted(self.severities):
            raise ValueError(f"evaluate.severities={list(self.severities)}: at least one of 1 to 5, each once.")
        if not self.cache_dir:
            raise ValueError("evaluate.cache_dir is empty: name a directory for corrupted images.")
