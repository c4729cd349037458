"""What networks are attacked with, and what is checked before one is."""

from dataclasses import dataclass, field
from enum import Enum

from odenet.enums import member

LEVELS = 255  # of grey between 0 and 1
FEWEST_STEPS = 5  # of an attack by gradients: step sizes are halved within so many


class Norm(Enum):
    """The norm that bounds a perturbation of an image in [0, 1]."""

    linf = "linf"
    l2 = "l2"


class Attack(Enum):
    """The attacks; `robustness.attacks` holds each. The standard set of pyautoattack: apgd_ce, apgd_t, fab_t, square.

    The order is that in which "first broken by" is counted: gradients of the network itself before all others.
    """

    apgd_ce = "apgd_ce"  # APGD on the cross-entropy
    apgd_t = "apgd_t"  # APGD on the targeted DLR loss, nine targets; on the targeted cross-entropy below four classes
    fab_t = "fab_t"  # FAB, nine targets: the least norm, once for all epsilons
    pgd = "pgd"  # PGD on the cross-entropy with restarts
    transfer = "transfer"  # APGD on other networks, and on the same weights under other manifestations
    square = "square"  # Square: no gradient at all


WHITE_BOX = (Attack.apgd_ce, Attack.apgd_t, Attack.fab_t, Attack.pgd)


@dataclass(kw_only=True, slots=True)
class AttackConfig:
    """The evaluation of a network under attack; the defaults are the protocol's.

    Raises:
        ValueError: a value out of range, twice the same, or nothing to do.
    """

    linf_255: list[float] = field(default_factory=lambda: [0.25, 0.5, 1.0, 2.0, 4.0, 8.0])  # epsilons, in 255ths
    l2: list[float] = field(default_factory=lambda: [0.05, 0.1, 0.25, 0.5])  # epsilons
    attacks: list[Attack] = field(default_factory=lambda: list(Attack))
    images: int = 1000  # of the test set, as `odenet.balanced_test` picks them
    check_images: int = 64  # the first ones, on which the sanity checks are made
    apgd_steps: int = 100
    fab_steps: int = 100
    pgd_steps: int = 50
    pgd_restarts: int = 5
    square_queries: int = 5000
    seed: int = 0
    batch_size: int = 256  # images at once: memory and speed, not the result (up to rounding)
    allow_adaptive: bool = False  # also attack an adaptive scheme, whose result is labelled masked

    def __post_init__(self) -> None:
        self.attacks = [member(Attack, one, "attack.attacks") for one in self.attacks]
        self._check_epsilons("linf_255", self.linf_255, LEVELS)
        self._check_epsilons("l2", self.l2, None)
        if not self.linf_255 and not self.l2:
            raise ValueError("attack.linf_255=[] with attack.l2=[]: there is no epsilon to attack with; name one.")
        if not self.attacks or len(set(self.attacks)) < len(self.attacks):
            asked, possible = (", ".join(one.value for one in ones) for ones in (self.attacks, Attack))
            raise ValueError(f"attack.attacks=[{asked}]: must be one or more of {possible}, each once.")
        for name in ("images", "check_images", "pgd_restarts", "square_queries", "batch_size"):
            self._check_count(name, 1)
        for name in ("apgd_steps", "fab_steps", "pgd_steps"):
            self._check_count(name, FEWEST_STEPS)

    def _check_count(self, name: str, least: int) -> None:
        if getattr(self, name) < least:
            raise ValueError(f"attack.{name}={getattr(self, name)}: must be at least {least}.")

    def _check_epsilons(self, name: str, epsilons: list[float], most: float | None) -> None:
        below = float("inf") if most is None else most
        if not all(0 < epsilon < float("inf") and epsilon <= below for epsilon in epsilons):
            bound = "and finite" if most is None else f"and at most {most}, which is the whole range of grey"
            raise ValueError(f"attack.{name}={epsilons}: every epsilon must be positive {bound}.")
        if sorted(set(epsilons)) != list(epsilons):
            raise ValueError(f"attack.{name}={epsilons}: epsilons must increase, each once.")

    def epsilons(self, norm: Norm) -> list[float]:
        """Return the radii of a norm for images in [0, 1], increasing."""
        return [one / LEVELS for one in self.linf_255] if norm is Norm.linf else list(self.l2)

    @property
    def norms(self) -> list[Norm]:
        """Return the norms that have an epsilon."""
        return [norm for norm in Norm if self.epsilons(norm)]
