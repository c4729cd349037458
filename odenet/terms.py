"""The vocabulary: closed choices (member name = value, as written in a configuration), the stage of an integration."""

from enum import Enum
from fractions import Fraction
from typing import NamedTuple


class Scheme(Enum):
    """Integrators; `schemes.SCHEMES` holds formula, order and cost of each."""

    euler = "euler"
    midpoint = "midpoint"
    heun = "heun"
    ralston = "ralston"
    rk4 = "rk4"
    rk4_38 = "rk4_38"


class Basis(Enum):
    """How weights depend on depth; `bases.BASES` holds the mathematics of each."""

    piecewise_constant = "piecewise_constant"
    hat = "hat"


class Network(Enum):
    """Whole networks; `models.NETWORKS` holds the row (rate, scheme, basis, wiring) of each."""

    continuous = "continuous"
    resnet = "resnet"
    preact_resnet = "preact_resnet"


class Precision(Enum):
    """Arithmetic of the forward pass. Weights, batch-norm statistics and the optimizer are always fp32."""

    fp32 = "fp32"
    bf16 = "bf16"


class Device(Enum):
    """Where a network runs; `auto` is CUDA where there is one."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class Stage(NamedTuple):
    """One evaluation point of an integration: in step `step` of `steps`, a fraction `abscissa` of a step further on.

    Depth is never a float here: which weights a stage reads is integer arithmetic (see `bases`).
    """

    step: int
    steps: int
    abscissa: Fraction

    @property
    def t(self) -> float:
        """Depth in [0, 1]."""
        return float((self.step + self.abscissa) / self.steps)

    @property
    def key(self) -> tuple[int, int, int]:
        """The stage within its integration as integers: torch.compile looks these up, but not fractions."""
        return self.step, self.abscissa.numerator, self.abscissa.denominator
