"""Fixed-step integration over depth t in [0, 1], counted in integers."""

from collections.abc import Callable
from fractions import Fraction

import torch
from torch import Tensor, nn

from odenet.gradients import Drift, integrate_recomputing
from odenet.schemes import SCHEMES, Adaptive
from odenet.stepping import Course, OpenRate, Slope, State, composed
from odenet.terms import Gradient, Scheme, Stage

Rate = Callable[[float, Tensor], Tensor]


def integrate(
    rate: Rate | tuple[Rate, Rate],
    h0: Tensor,
    *,
    scheme: Scheme,
    steps: int,
    gradient: Gradient = Gradient.direct,
) -> Tensor:
    """The state at t = 1 of dh/dt = rate(t, h), h(0) = h0, for any callable.

    Args:
        rate: takes depth t in [0, 1] and a state shaped like `h0`, returns its slope; must be continuous in t. A pair
            (f, g) is the partitioned y' = f(t, z), z' = g(t, y) with h = [y; z] along dimension 1 (0 of vectors).
        h0: state at t = 0, any shape.
        scheme: the integrator; its order is `SCHEMES[scheme].order` for a smooth rate.
        steps: equal steps, at least 1; an adaptive scheme chooses its own.
        gradient: how to differentiate. What is not direct needs to know the tensors that the rate reads: they must be
            parameters of it, a torch.nn.Module.

    Raises:
        ValueError: `steps` is less than 1, or the scheme or gradient cannot be had with this rate.
    """
    rates = rate if isinstance(rate, tuple) else (rate,)
    known = [p for part in rates if isinstance(part, nn.Module) for p in part.parameters()]
    whole = rates[0] if len(rates) == 1 else composed(*rates)
    halves = (_staged(rate[0]), _staged(rate[1])) if isinstance(rate, tuple) else None
    opened = OpenRate(_staged(whole), lambda _: known, halves)
    course, method = Course(scheme, steps, gradient=gradient), SCHEMES[scheme]
    if isinstance(method, Adaptive):  # which asks at any t, not at stages
        _check(opened, course)
        return method.solve(whole, h0, course, known)
    return integrate_stages(opened, h0, course)


def _staged(rate: Rate) -> Slope:
    return lambda stage, h: rate(stage.t, h)


def integrate_stages(rate: OpenRate, h0: Tensor | State, course: Course, drift: Drift | None = None) -> Tensor:
    """The same for a rate that reads its weights by stage: dh/dt = depth_time * rate(stage, h).

    Args:
        h0: state at t = 0, or the pair (h_0, h_{-1}) that a two-step scheme goes on from.
        drift: where to note how far a reconstruction strays; costs keeping h0.
    """
    _check(rate, course)
    method = SCHEMES[course.scheme]
    if isinstance(method, Adaptive):
        assert isinstance(h0, Tensor), "an adaptive scheme starts from one state"
        anywhere = Stage(0, 1, Fraction(0))
        return method.solve(lambda _, h: rate.slope(anywhere, h), h0, course, rate.reads(anywhere))
    state = method.start(h0, course) if isinstance(h0, Tensor) else h0
    # Under autocast slopes are half precision, the state is not: it would lose what short steps add.
    state = tuple(x.float() if x.dtype in (torch.bfloat16, torch.float16) else x for x in state)
    if course.gradient is not Gradient.direct and torch.is_grad_enabled():
        return method.finish(integrate_recomputing(rate, state, course, drift))
    for step in range(course.steps):
        state = method.step(rate, state, step, course)
    return method.finish(state)


def _check(rate: OpenRate, course: Course) -> None:
    method = SCHEMES[course.scheme]
    if course.steps < 1:
        raise ValueError(f"steps={course.steps}: an integration needs at least 1 step.")
    if method.needs == "halves" and rate.halves is None:
        raise ValueError(
            f"scheme={course.scheme.value} needs a partitioned rate: a pair (f, g) of y' = f(z), z' = g(y)."
        )
    if method.needs == "memory" and rate.memory is None:
        raise ValueError(f"scheme={course.scheme.value} needs a rate with k_n, which only the LM networks have.")
    reason = refusal(course.scheme, course.gradient)
    if reason:
        raise ValueError(f"scheme={course.scheme.value} with gradient={course.gradient.value}: {reason}")


def refusal(scheme: Scheme, gradient: Gradient) -> str:
    """Why an integration cannot be differentiated so, and what can be; empty where it can."""
    if gradient is Gradient.reconstructed and scheme is Scheme.lm:
        return "undoing an LM step divides by k_n, which may be 0; use direct or checkpointed."
    if gradient is Gradient.checkpointed and scheme is Scheme.dopri5:
        return "an adaptive scheme has no fixed steps; use direct, or reconstructed for its adjoint equation."
    return ""
