"""Fixed-step integration over depth t in [0, 1], counted in integers."""

from collections.abc import Callable

from torch import Tensor

from odenet.schemes import SCHEMES, StagedRate
from odenet.terms import Scheme, Stage


def integrate(rate: Callable[[float, Tensor], Tensor], h0: Tensor, *, scheme: Scheme, steps: int) -> Tensor:
    """The state at t = 1 of dh/dt = rate(t, h), h(0) = h0, for any callable.

    Args:
        rate: takes depth t in [0, 1] and a state shaped like `h0`, returns its slope; must be continuous in t.
        h0: state at t = 0, any shape.
        scheme: the integrator; its order is `SCHEMES[scheme].order` for a smooth rate.
        steps: equal steps, at least 1.

    Raises:
        ValueError: `steps` is less than 1.
    """
    return integrate_stages(lambda stage, h: rate(stage.t, h), h0, scheme=scheme, steps=steps)


def integrate_stages(rate: StagedRate, h0: Tensor, *, scheme: Scheme, steps: int, depth_time: float = 1.0) -> Tensor:
    """The same for a rate that reads its weights by stage: dh/dt = depth_time * rate(stage, h)."""
    if steps < 1:
        raise ValueError(f"steps={steps}: an integration needs at least 1 step.")
    method, size, h = SCHEMES[scheme], depth_time / steps, h0
    for step in range(steps):
        h = method.step(rate, h, [Stage(step, steps, c) for c in method.c], size)
    return h
