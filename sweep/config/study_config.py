"""The configuration of a study: families, sizes and draws, and what all trainings have in common."""

from dataclasses import dataclass, field
from enum import Enum

from search_spaces import SPACES


class Arm(Enum):
    """The quantity that all trainings of a study share, whatever the family; the others stand beside accuracies."""

    equal_epochs = "equal_epochs"
    equal_compute = "equal_compute"  # epochs by configuration: as many as `gflops` pay for
    equal_parameters = "equal_parameters"  # widths by configuration, so that networks have `parameters`


class Dimensions(Enum):
    """The dimensions of a family's space that are searched."""

    full = "full"
    shared = "shared"  # what all families search; the family's own at the configuration's values


@dataclass(kw_only=True, slots=True)
class StudyConfig:
    """The sweeps of a study, compared on equal terms: every family on every draw of every size of the data."""

    families: list[str] = field(default_factory=lambda: ["resnet", "continuous"])
    spaces: list[Dimensions] = field(default_factory=lambda: [Dimensions.full])  # each family is searched in each
    sizes: list[int] = field(default_factory=list)  # images per class; none: data.per_class alone
    draws: list[int] = field(default_factory=lambda: [0, 1, 2])
    overlapping_draws: bool = False  # draws may share images; the report then says so
    arm: Arm = Arm.equal_epochs
    gflops: float | None = None  # equal_compute: of one training in the search
    median_epochs: int | None = None  # or as much as so many epochs of the baseline's median configuration take
    parameters: int | None = None  # equal_parameters; None: those of the baseline's median configuration
    cpu_hour_price: float | None = None  # for `sweep plan`; that of a GPU is search.budget.gpu_hour_price

    def __post_init__(self) -> None:
        for name in ("families", "spaces", "draws", "sizes"):
            values = getattr(self, name)
            if (not values and name != "sizes") or len(set(values)) != len(values):
                said = ", ".join(str(one.value if isinstance(one, Enum) else one) for one in values)
                raise ValueError(f"study.{name}=[{said}]: at least one, each once.")
        if not all(0 <= draw < 2**31 for draw in self.draws):
            raise ValueError(f"study.draws={list(self.draws)}: each must be from 0 to {2**31 - 1}.")
        if not all(1 <= size <= 1_000_000 for size in self.sizes):
            raise ValueError(f"study.sizes={list(self.sizes)}: images per class, each from 1 to 1000000.")
        unknown = [family for family in self.families if family not in SPACES]
        if unknown:
            raise ValueError(
                f"study.families has {unknown[0]}; possible are {', '.join(SPACES)}, and the spaces of a module of "
                "your own that is named, modules=[NAME]."
            )
        self._check_arm()

    def _check_arm(self) -> None:
        of_arms = {"gflops": Arm.equal_compute, "median_epochs": Arm.equal_compute, "parameters": Arm.equal_parameters}
        for name, arm in of_arms.items():
            value = getattr(self, name)
            if value is not None and self.arm is not arm:
                raise ValueError(f"study.{name}={value} is for study.arm={arm.value}; the arm is {self.arm.value}.")
            if value is not None and not 0 < value <= 1e15:
                raise ValueError(f"study.{name}={value}: must be above 0, at most 1e15.")
        if self.arm is Arm.equal_compute and (self.gflops is None) == (self.median_epochs is None):
            raise ValueError(
                "study.arm=equal_compute needs a budget: study.median_epochs=30, of the baseline's median "
                "configuration, or study.gflops=100, of each training; one of them."
            )
        if self.cpu_hour_price is not None and not 0 <= self.cpu_hour_price <= 1e6:
            raise ValueError(f"study.cpu_hour_price={self.cpu_hour_price}: must be from 0 to 1e6, or null.")

    def lasting(self, epochs: int) -> str:
        """Say how long trainings are, where the configuration has `epochs`."""
        if self.gflops is not None:
            return f"as many epochs as {self.gflops:,.4g} GFLOP pay for"
        if self.median_epochs is not None:
            return f"as many epochs as the computation of {self.median_epochs} of the median configuration pays for"
        return f"{epochs} epochs"

    @property
    def baseline(self) -> str:
        """The family whose median configuration sets budgets: the ResNet where it is one of them, else the first."""
        return "resnet" if "resnet" in self.families else self.families[0]
