"""What `sweep evaluate` measures of the final networks."""

from dataclasses import dataclass, field
from enum import Enum

from odenet.enums import Scheme


class ConditionKind(Enum):
    """The kinds of conditions under which final networks are measured; each has rows of its own in rows.csv."""

    clean = "clean"
    manifestation = "manifestation"


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
    batch_size: int = 500

    def __post_init__(self) -> None:
        if not self.conditions or len(set(self.conditions)) < len(self.conditions):
            possible = ", ".join(kind.value for kind in ConditionKind)
            raise ValueError(f"evaluate.conditions: at least one, each once; possible are {possible}.")
        if not self.schemes or not self.step_factors or not all(0 < f <= 1024 for f in self.step_factors):
            raise ValueError("evaluate needs schemes, and step_factors above 0 and at most 1024.")
        images = 1 if self.manifestation_images is None else self.manifestation_images
        if not all(1 <= size <= 1_000_000 for size in (self.batch_size, images)):
            raise ValueError("evaluate.batch_size and evaluate.manifestation_images must be at least 1, at most 1e6.")
