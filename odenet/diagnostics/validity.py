"""The rule by which a trained network is called an ODE, of accuracies alone: neither a network nor torch is needed.

Source: Ott et al. 2021 (a solver that is no worse must not lose accuracy); Krishnapriyan et al. 2023 (convergence below
the trained step).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from odenet.enums import Scheme
from odenet.integrators.schemes import SCHEMES, Adaptive

MOST_DROP = 0.01  # of accuracy
MOST_ERRORS = 2.0  # standard errors of the drop
LEAST_IMAGES = 100  # below, one point is less than one image


@dataclass(frozen=True, slots=True)
class AccuracyChange:
    """The change of a network's accuracy under another manifestation than its own, on the same images."""

    scheme: Scheme
    steps: float  # relative to training
    drop: float  # accuracy as trained minus accuracy so, in [-1, 1]
    error: float | None  # its paired standard error over images; None where it is not known

    @property
    def passes(self) -> bool:
        """Return whether no accuracy is lost: at most one point, and at most two standard errors."""
        small = self.drop <= MOST_DROP + 1e-12  # the difference of two accuracies is rounded
        return small and (self.error is None or self.drop <= MOST_ERRORS * self.error + 1e-12)


@dataclass(frozen=True, slots=True, kw_only=True)
class Validity:
    """The verdict on one network. `worst` is the change with the largest drop among those that it rests on."""

    valid: bool | None  # None: not applicable, see `reason`
    worst: AccuracyChange | None = None
    critical_step: float | None = None  # h*, relative to the trained step; None: none passes
    unmeasured: tuple[str, ...] = ()  # of the manifestations that the rule asks for
    reason: str = ""

    @property
    def drop(self) -> float | None:
        return None if self.worst is None else self.worst.drop

    @property
    def error(self) -> float | None:
        """Return the standard error of `drop`."""
        return None if self.worst is None else self.worst.error


def paired_error(lost: float, gained: float, n: int) -> float:
    """Return the standard error of the drop of accuracy over n images, from the shares that were lost and gained.

    Each image changes by 1, 0 or -1, so the sample variance of the changes is n/(n-1) (lost + gained - drop^2).

    >>> round(paired_error(0.03, 0.01, 1000), 4)
    0.0063
    """
    if n < 2:
        raise ValueError(f"n={n}: a standard error needs at least 2 images.")
    return math.sqrt(max(0.0, lost + gained - (lost - gained) ** 2) / (n - 1))


def judge(trained: Scheme, changes: Sequence[AccuracyChange]) -> Validity:
    """Say whether a network is an ODE, from its changes under the manifestations that were measured.

    Valid: the largest drop among {2n, 4n steps of the trained scheme; RK4 at n, 2n} is at most one point and at most
    two of its standard errors. h* is the longest step of the trained scheme that passes, as all shorter ones do that
    were measured, the trained one among them.

    Args:
        trained: the scheme the network was trained with.
        changes: under other manifestations; what the rule does not ask for serves h* alone.

    >>> finer, better = AccuracyChange(Scheme.euler, 2.0, 0.002, 0.002), AccuracyChange(Scheme.rk4, 1.0, 0.03, 0.005)
    >>> judge(Scheme.euler, [finer, better]).valid
    False
    """
    reason = _no_ode(trained)
    if reason:
        return Validity(valid=None, reason=reason)
    asked = [(trained, 2.0), (trained, 4.0), (Scheme.rk4, 1.0), (Scheme.rk4, 2.0)]
    asked = [pair for pair in dict.fromkeys(asked) if pair != (trained, 1.0)]
    found = {(change.scheme, change.steps): change for change in changes}
    ruling = [found[pair] for pair in asked if pair in found]
    unmeasured = tuple(f"{scheme.value} at {steps:g}n" for scheme, steps in asked if (scheme, steps) not in found)
    if not ruling:
        return Validity(
            valid=None, unmeasured=unmeasured, reason="no manifestation was measured that the rule asks for"
        )
    worst = max(ruling, key=lambda change: change.drop)
    critical = _critical_step([change for change in changes if change.scheme is trained])
    return Validity(valid=worst.passes, worst=worst, critical_step=critical, unmeasured=unmeasured)


def _no_ode(scheme: Scheme) -> str:
    """Return why a network of this scheme approximates no ODE of which other manifestations could be asked."""
    method = SCHEMES[scheme]
    if isinstance(method, Adaptive):
        return "an adaptive scheme chooses its own steps"
    if method.order is None:
        return "its k_n belong to one step of each block"
    if scheme is Scheme.polynet:
        return "PolyNet's block is one step"
    return ""


def _critical_step(own: Sequence[AccuracyChange]) -> float | None:
    """Return the longest step, relative to training, down from the shortest measured one, before one fails."""
    longest = None
    trained = [] if any(change.steps == 1 for change in own) else [AccuracyChange(Scheme.euler, 1.0, 0.0, 0.0)]
    for change in sorted([*own, *trained], key=lambda change: -change.steps):
        if not change.passes:
            break
        longest = 1 / change.steps
    return longest
