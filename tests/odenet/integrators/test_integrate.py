"""What `integrate` takes and what it refuses, message by message."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from odenet import Gradient, ModelConfig, Scheme, build_model, integrate, manifest
from odenet.integrators.schemes import SCHEMES, refusal
from tests.grids import for_each

NAMES = "euler, midpoint, heun, ralston, rk4, rk4_38, polynet, two_step_midpoint, leapfrog, lm, verlet, dopri5"
PLAIN = [scheme for scheme in Scheme if scheme not in (Scheme.lm, Scheme.verlet)]
PARTITIONED = [scheme for scheme in Scheme if scheme is not Scheme.lm]
HALVES = (lambda t, z: -z, lambda t, y: y)


def decay(t: float, h: Tensor) -> Tensor:
    return -h


def refused(message: str, rate: Any = decay, h0: Any = None, **how: Any) -> None:
    with pytest.raises(ValueError) as error:
        integrate(rate, torch.ones(2) if h0 is None else h0, **{"scheme": Scheme.rk4, "steps": 2, **how})
    assert str(error.value) == message


# Names


def test_a_scheme_and_a_gradient_may_be_given_by_name() -> None:
    expected = integrate(decay, torch.ones(2), scheme=Scheme.heun, steps=3, gradient=Gradient.checkpointed)
    assert torch.equal(integrate(decay, torch.ones(2), scheme="heun", steps=3, gradient="checkpointed"), expected)
    model, x_BCHW = build_model(ModelConfig(width=4), channels=1, classes=2).eval(), torch.ones(1, 1, 8, 8)
    named, chosen = manifest(model, scheme="rk4", steps=2), manifest(model, scheme=Scheme.rk4, steps=2)
    assert torch.equal(named(x_BCHW), chosen(x_BCHW))


@pytest.mark.parametrize("name", ["rk5", "RK4", None, 4, Gradient.direct])
def test_another_name_is_refused_with_the_possible_ones(name: Any) -> None:
    refused(f"scheme={name!r} is not possible: {NAMES} can be.", scheme=name)
    with pytest.raises(ValueError, match=r"^scheme=.* is not possible: euler, "):
        manifest(build_model(ModelConfig(width=4), channels=1, classes=2), scheme=name, steps=2)
    name = Scheme.rk4 if name is Gradient.direct else name
    refused(f"gradient={name!r} is not possible: direct, checkpointed, reconstructed can be.", gradient=name)


# Steps


@pytest.mark.parametrize("steps", [3, np.int64(3), torch.tensor(3)])
def test_steps_are_any_whole_number(steps: Any) -> None:
    assert torch.equal(
        integrate(decay, torch.ones(2), scheme=Scheme.rk4, steps=steps),
        integrate(decay, torch.ones(2), scheme=Scheme.rk4, steps=3),
    )


@pytest.mark.parametrize("steps", [8.0, True, "8", None, np.float64(8), torch.tensor(8.0)])
def test_steps_of_another_type_are_refused(steps: Any) -> None:
    refused(f"steps={steps!r}: must be a whole number, without a decimal point.", steps=steps)


# States


@for_each("scheme", PLAIN)
def test_a_state_without_a_dimension_is_refused(scheme: Scheme) -> None:
    message = "h0 has no dimension: a state needs at least one; use shape (1,) for a number."
    refused(message, h0=torch.tensor(1.0), scheme=scheme)
    refused(message, HALVES, torch.tensor(1.0), scheme=scheme)


@for_each("scheme", PARTITIONED)
@for_each("shape", [(3,), (1,), (0,), (2, 5), (2, 3, 4)])
def test_a_pair_of_rates_on_what_does_not_halve_is_refused(scheme: Scheme, shape: tuple[int, ...]) -> None:
    dimension = min(1, len(shape) - 1)
    message = f"h0 has shape {shape}: a pair (f, g) halves dimension {dimension} into y and z, so its length must be "
    refused(f"{message}even and not {shape[dimension]}.", HALVES, torch.ones(shape), scheme=scheme)


@for_each("scheme", PLAIN)
@for_each("dtype", [torch.int64, torch.bool])
def test_a_state_of_whole_numbers_is_refused(scheme: Scheme, dtype: torch.dtype) -> None:
    message = f"h0 is of {dtype}: a state is a tensor of floating-point or complex numbers."
    refused(message, h0=torch.ones(2, dtype=dtype), scheme=scheme)


@pytest.mark.parametrize(("h0", "kind"), [(1.0, "float"), ([1.0], "list"), (np.ones(2), "ndarray")])
def test_a_state_that_is_no_tensor_is_refused(h0: Any, kind: str) -> None:
    refused(f"h0 is a {kind}: a state is a tensor of floating-point or complex numbers.", h0=h0)


class Turning(nn.Module):
    """dh/dt = i sin(A h)."""

    def __init__(self) -> None:
        super().__init__()
        draws = torch.Generator().manual_seed(1)
        self.weight = nn.Parameter(0.3 * torch.randn(4, 4, dtype=torch.complex128, generator=draws))

    def forward(self, t: float, h: Tensor) -> Tensor:
        return 1j * torch.sin(self.weight @ h)


@for_each(("scheme", "gradient"), [(s, g) for s in PARTITIONED for g in Gradient if not refusal(s, g)])
def test_a_complex_state_is_integrated_and_differentiated(scheme: Scheme, gradient: Gradient) -> None:
    found = []
    for how in (Gradient.direct, gradient):
        rate, h0 = Turning(), torch.linspace(-1, 1, 8 if scheme is Scheme.verlet else 4).to(torch.complex128)
        pair = (rate, rate) if scheme is Scheme.verlet else rate
        h = integrate(pair, h0, scheme=scheme, steps=40, gradient=how)
        found += torch.autograd.grad(h.abs().square().sum(), rate.weight)
    inexact = gradient is Gradient.reconstructed and not SCHEMES[scheme].reversible
    assert float((found[1] - found[0]).abs().max() / found[0].abs().max()) <= (0.1 if inexact else 1e-12)


@for_each("scheme", PLAIN)
def test_a_half_precision_state_stays_so_but_under_autocast(scheme: Scheme) -> None:
    h0 = torch.ones(2, dtype=torch.bfloat16)
    assert integrate(decay, h0, scheme=scheme, steps=2).dtype == torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16):
        assert integrate(decay, h0, scheme=scheme, steps=2).dtype == torch.float32


# Rates


@pytest.mark.parametrize("rate", [None, 3, [decay, decay], (decay,), (decay, decay, decay), (decay, None), ()])
def test_what_is_no_rate_is_refused(rate: Any) -> None:
    refused(f"rate={rate!r}: must be a function of (t, h), or a pair (f, g) of such functions.", rate)


RETURNED: list[tuple[Callable[[Tensor], Any], str]] = [
    (lambda h: 1.0, "The rate returned a float: it must return the slope, a tensor."),
    (lambda h: (h,), "The rate returned a tuple: it must return the slope, a tensor."),
    (
        lambda h: h.sum(),
        "The rate returned shape () for a state of shape (2,): the slope must be shaped like the state.",
    ),
    (
        lambda h: h[:, None],
        "The rate returned shape (2, 1) for a state of shape (2,): the slope must be shaped like the state.",
    ),
    (
        lambda h: h.double(),
        "The rate returned torch.float64 for a state of torch.float32: the slope must be of the state's dtype.",
    ),
    (
        lambda h: h.half(),
        "The rate returned torch.float16 for a state of torch.float32: the slope must be of the state's dtype.",
    ),
    (
        lambda h: h.long(),
        "The rate returned torch.int64 for a state of torch.float32: the slope must be of the state's dtype.",
    ),
]


@for_each("gradient", [Gradient.direct, Gradient.reconstructed])
@for_each("scheme", PARTITIONED)
@for_each(("slope", "message"), RETURNED)
def test_a_slope_unlike_the_state_is_refused(
    scheme: Scheme, gradient: Gradient, slope: Callable[[Tensor], Any], message: str
) -> None:
    rate = lambda t, h: slope(h)  # noqa: E731
    pair, h0 = (rate, rate), torch.ones(4, requires_grad=True)
    refused(message, pair, h0, scheme=scheme, gradient=gradient)
    if scheme is not Scheme.verlet:
        refused(message, rate, h0[:2], scheme=scheme, gradient=gradient)
