"""What `sweep sensitivity` tries around the configuration that a search selected."""

from dataclasses import dataclass, field, fields

EIGHTHS = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
LARGEST = 1024.0  # factor, and one over the smallest


@dataclass(kw_only=True, slots=True)
class SensitivityConfig:
    """The factors of each parameter, of which 1 is always tried, and the seeds of each configuration.

    Raises:
        ValueError: a factor or a number of seeds that cannot be.
    """

    lr_factors: list[float] = field(default_factory=lambda: list(EIGHTHS))  # of optim.lr
    weight_decay_factors: list[float] = field(default_factory=lambda: list(EIGHTHS))  # of optim.weight_decay
    grid: bool = True  # these two together, each with each; false: one at a time
    step_factors: list[float] = field(default_factory=lambda: [0.5, 2.0])  # of model.substeps
    batch_factors: list[float] = field(default_factory=lambda: [0.5, 2.0])  # of optim.batch_size
    seeds: int = 1  # of each configuration, the same for all
    center_seeds: int = 3  # of the selected one, which show how much seeds alone change

    def __post_init__(self) -> None:
        for name in ("lr_factors", "weight_decay_factors", "step_factors", "batch_factors"):
            factors = getattr(self, name)
            if len(set(factors)) < len(factors) or not all(1 / LARGEST <= one <= LARGEST for one in factors):
                raise ValueError(
                    f"sensitivity.{name}={list(factors)}: from {1 / LARGEST:g} to {LARGEST:g}, each once; [] leaves "
                    "the value as it is."
                )
        for f in fields(self):
            if f.type is int and not 1 <= getattr(self, f.name) <= 1000:
                raise ValueError(f"sensitivity.{f.name}={getattr(self, f.name)}: must be from 1 to 1000.")
        if self.center_seeds < self.seeds:
            raise ValueError(
                f"sensitivity.center_seeds={self.center_seeds} with sensitivity.seeds={self.seeds}: others are "
                "compared with the selected configuration seed by seed, so that it needs at least as many."
            )
