"""Fixed-step integration over depth t in [0, 1], counted in integers."""

from collections.abc import Callable
from fractions import Fraction

import torch
from torch import Tensor, nn

from odenet.enums import Gradient, Scheme, member
from odenet.integrators.gradients import Drift, integrate_by_adjoint, integrate_recomputing
from odenet.integrators.scheme import Course, OpenRate, Slope, Stage, State, channel_dim, composed, whole_steps
from odenet.integrators.schemes import ADAPTIVE, SCHEMES, Adaptive, refusal

RateFunction = Callable[[float, Tensor], Tensor]


def integrate(
    rate: RateFunction | tuple[RateFunction, RateFunction],
    h0: Tensor,
    *,
    scheme: Scheme | str,
    steps: int,
    gradient: Gradient | str = Gradient.direct,
) -> Tensor:
    """Return the state at t = 1 of dh/dt = rate(t, h), h(0) = h0, for any callable.

    Args:
        rate: takes depth t in [0, 1] and a state shaped like `h0`, returns its slope, of the same shape and dtype (or
            autocast's); must be continuous in t. A pair (f, g) is the partitioned y' = f(t, z), z' = g(t, y) with
            h = [y; z] along dimension 1 (0 of vectors), which halves evenly.
        h0: state at t = 0, real or complex, of at least one dimension.
        scheme: the integrator, or its name; its order is `SCHEMES[scheme].order` for a smooth rate.
        steps: equal steps, at least 1; an adaptive scheme chooses its own.
        gradient: how to differentiate, or its name. What is not direct needs to know the tensors that the rate reads:
            they must be parameters of it, a torch.nn.Module. Buffers of a module end as after direct.

    Raises:
        ValueError: an argument is not as described, the scheme or gradient cannot be had with this rate, or the rate
            returns something else than a slope.

    >>> integrate(lambda t, h: -h, torch.ones(1), scheme="rk4", steps=8)
    tensor([0.3679])
    """
    scheme, gradient = member(Scheme, scheme, "scheme"), member(Gradient, gradient, "gradient")
    course = Course(scheme, whole_steps(steps), gradient=gradient)
    if not isinstance(h0, Tensor):
        raise ValueError(f"h0 is a {type(h0).__name__}: a state is a tensor of floating-point or complex numbers.")
    rates = _parts(rate)
    modules = tuple(part for part in rates if isinstance(part, nn.Module))
    known = [parameter for module in modules for parameter in module.parameters()]
    slopes = [_checked(part) for part in rates]
    whole = slopes[0] if len(slopes) == 1 else composed(*slopes)
    halves = None if len(slopes) == 1 else (_staged(slopes[0]), _staged(slopes[1]))
    opened = OpenRate(_staged(whole), lambda _: known, halves, modules=modules)
    if scheme in ADAPTIVE:  # which asks at any t, not at stages
        return _solve(whole, opened, h0, course)
    return integrate_stages(opened, h0, course)


def _parts(rate: RateFunction | tuple[RateFunction, RateFunction]) -> tuple[RateFunction, ...]:
    parts = rate if isinstance(rate, tuple) else (rate,)
    if len(parts) != (2 if isinstance(rate, tuple) else 1) or not all(map(callable, parts)):
        raise ValueError(f"rate={rate!r}: must be a function of (t, h), or a pair (f, g) of such functions.")
    return parts


def _checked(rate: RateFunction) -> RateFunction:
    """Hold a rate to return a slope: what broadcasts would go wrong silently."""

    def slope(t: float, h: Tensor) -> Tensor:
        found = rate(t, h)
        if not isinstance(found, Tensor):
            raise ValueError(f"The rate returned a {type(found).__name__}: it must return the slope, a tensor.")
        if found.shape != h.shape:
            raise ValueError(
                f"The rate returned shape {tuple(found.shape)} for a state of shape {tuple(h.shape)}: the slope must "
                "be shaped like the state."
            )
        if found.dtype != h.dtype and not _of_autocast(found):
            raise ValueError(
                f"The rate returned {found.dtype} for a state of {h.dtype}: the slope must be of the state's dtype."
            )
        return found

    return slope


def _of_autocast(slope: Tensor) -> bool:
    device = slope.device.type
    return torch.is_autocast_enabled(device) and slope.dtype == torch.get_autocast_dtype(device)


def _staged(rate: RateFunction) -> Slope:
    return lambda stage, h: rate(stage.t, h)


def integrate_stages(rate: OpenRate, h0: Tensor | State, course: Course, drift: Drift | None = None) -> Tensor:
    """Integrate a rate that reads its weights by stage: dh/dt = depth_time * rate(stage, h).

    Args:
        h0: state at t = 0, or the pair (h_0, h_{-1}) that a two-step scheme goes on from.
        drift: where to note how far a reconstruction strays.
    """
    method = SCHEMES[course.scheme]
    if isinstance(method, Adaptive):
        assert isinstance(h0, Tensor), "an adaptive scheme starts from one state"
        anywhere = Stage(0, 1, Fraction(0))
        return _solve(lambda _, h: rate.slope(anywhere, h), rate, h0, course)
    _check(rate, h0, course)
    state = tuple(map(_in_full, method.start(h0, course) if isinstance(h0, Tensor) else h0))
    if course.gradient is not Gradient.direct and torch.is_grad_enabled():
        return method.finish(integrate_recomputing(rate, state, course, drift))
    for step in range(course.steps):
        state = method.step(rate, state, step, course)
    return method.finish(state)


def _solve(slope: RateFunction, rate: OpenRate, h0: Tensor, course: Course) -> Tensor:
    """Return h(1) by an adaptive scheme, which asks for slopes at any t."""
    _check(rate, h0, course)
    h0 = _in_full(h0)
    if course.gradient is not Gradient.direct and torch.is_grad_enabled():
        return integrate_by_adjoint(slope, rate, h0, course)
    method = SCHEMES[course.scheme]
    assert isinstance(method, Adaptive)
    return method.solve(slope, h0, course)


def _in_full(x: Tensor) -> Tensor:
    """Return a state in fp32 under autocast, which makes slopes half precision: it would lose what short steps add."""
    half = x.dtype in (torch.bfloat16, torch.float16)
    return x.float() if half and torch.is_autocast_enabled(x.device.type) else x


def _check(rate: OpenRate, h0: Tensor | State, course: Course) -> None:
    method = SCHEMES[course.scheme]
    if course.steps < 1:
        raise ValueError(f"steps={course.steps}: an integration needs at least 1 step.")
    _check_state(h0 if isinstance(h0, Tensor) else h0[0], halved=rate.halves is not None)
    if method.needs == "halves" and rate.halves is None:
        raise ValueError(
            f"scheme={course.scheme.value} needs a partitioned rate: a pair (f, g) of y' = f(z), z' = g(y)."
        )
    if method.needs == "memory" and rate.memory is None:
        raise ValueError(f"scheme={course.scheme.value} needs a rate with k_n, which only the LM networks have.")
    reason = refusal(course.scheme, course.gradient)
    if reason:
        raise ValueError(f"scheme={course.scheme.value} with gradient={course.gradient.value}: {reason}")


def _check_state(h0: Tensor, *, halved: bool) -> None:
    if not (h0.is_floating_point() or h0.is_complex()):
        raise ValueError(f"h0 is of {h0.dtype}: a state is a tensor of floating-point or complex numbers.")
    if h0.dim() == 0:
        raise ValueError("h0 has no dimension: a state needs at least one; use shape (1,) for a number.")
    length = h0.shape[channel_dim(h0)]
    if halved and (length % 2 or length == 0):
        raise ValueError(
            f"h0 has shape {tuple(h0.shape)}: a pair (f, g) halves dimension {channel_dim(h0)} into y and z, so its "
            f"length must be even and not {length}."
        )
