"""The strengths of what regularizes training, as values."""

import math
from dataclasses import dataclass


@dataclass(kw_only=True, slots=True)
class RegularizationConfig:
    """Regularization beside weight decay, which is the optimizer's. 0 switches a term off."""

    smoothness: float = 0.0  # strength of the weights' smoothness in depth
    stochastic_depth: float = 0.0  # probability to leave out the last block; that of others grows linearly with depth
    noise: float = 0.0  # diffusion of the state: noise * sqrt(step) * N(0, 1) a step

    def __post_init__(self) -> None:
        for name in ("smoothness", "noise"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"regularization.{name}={getattr(self, name)}: must be at least 0 and finite.")
        if not 0 <= self.stochastic_depth < 1:
            raise ValueError(
                f"regularization.stochastic_depth={self.stochastic_depth}: the probability to leave out the last "
                "block, at least 0 and less than 1."
            )
