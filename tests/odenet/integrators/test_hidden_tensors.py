"""Tensors that a rate reads without saying so: where gradients are recomputed they are refused in the forward pass."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from odenet import Gradient, Scheme, integrate
from odenet.integrators.integrate import integrate_stages
from odenet.integrators.scheme import Course, OpenRate, Stage
from odenet.integrators.schemes import refusal
from tests.grids import for_each

# The LM scheme needs a k_n that a plain rate does not have.
WAYS = [
    (scheme, gradient)
    for scheme in Scheme
    for gradient in (Gradient.checkpointed, Gradient.reconstructed)
    if scheme is not Scheme.lm and not refusal(scheme, gradient)
]
REFUSED = (
    r"^The rate uses a tensor of shape \(.*\) that needs a gradient and is not among its parameters: make the rate a "
    r"torch.nn.Module that holds it, or use gradient=direct.$"
)
Rate = Callable[[float, Tensor], Tensor]


class Holding(nn.Module):
    """A rate that holds some parameters and may read others."""

    def __init__(self, rate: Rate, *parameters: nn.Parameter) -> None:
        super().__init__()
        self.held = nn.ParameterList(parameters)
        self._rate = rate

    def forward(self, t: float, h: Tensor) -> Tensor:
        return self._rate(t, h)


def hiding() -> dict[str, Rate]:
    net, weight = nn.Linear(4, 4), nn.Parameter(torch.linspace(-1, 1, 4))
    doubled, grown = 2 * weight, weight.exp()
    first, second = torch.stack([weight, weight]).unbind(0)
    return {
        "a captured module": lambda t, h: torch.tanh(net(h)),
        "a bound method": Holding(lambda t, h: net(h), *net.parameters()).forward,
        "a captured tensor": lambda t, h: weight * h,
        "the captured tensor itself": lambda t, h: weight,
        "a tensor computed before": lambda t, h: doubled * h,
        "one hidden beside one held": Holding(lambda t, h: weight * net(h), *net.parameters()),
        "computed before from one held": Holding(lambda t, h: grown * h, weight),
        "held beside its sibling": Holding(lambda t, h: first * h + second, weight),
    }


def integrated(rate: Rate, scheme: Scheme, gradient: Gradient, *, needed: bool) -> Tensor:
    h0 = torch.linspace(-1, 1, 8 if scheme is Scheme.verlet else 4).requires_grad_(needed)
    return integrate((rate, rate) if scheme is Scheme.verlet else rate, h0, scheme=scheme, steps=5, gradient=gradient)


@for_each("needed", [True, False])
@for_each("name", hiding())
@for_each(("scheme", "gradient"), WAYS)
def test_a_hidden_tensor_is_refused_in_the_forward_pass(
    scheme: Scheme, gradient: Gradient, name: str, needed: bool
) -> None:
    with pytest.raises(ValueError, match=REFUSED):
        integrated(hiding()[name], scheme, gradient, needed=needed)


@for_each(("scheme", "gradient"), WAYS)
def test_what_is_hidden_in_a_later_part_of_the_depth_is_refused_before_it_could_go_untrained(
    scheme: Scheme, gradient: Gradient
) -> None:
    net = nn.Linear(4, 4)
    late: Rate = lambda t, h: -h if t < 0.4 else net(h)  # noqa: E731
    with pytest.raises(ValueError, match=REFUSED):  # nothing else asks for a backward pass
        integrated(late, scheme, gradient, needed=False)
    h = integrated(late, scheme, gradient, needed=True)
    with pytest.raises(ValueError, match=REFUSED):
        h.sum().backward()


@for_each(("scheme", "gradient"), WAYS)
def test_a_rate_that_hides_nothing_is_none_the_worse(scheme: Scheme, gradient: Gradient) -> None:
    frozen = nn.Linear(4, 4).requires_grad_(False)
    assert not integrated(lambda t, h: frozen(h), scheme, gradient, needed=False).requires_grad
    with torch.no_grad():  # nothing is differentiated, so nothing is hidden
        hidden = hiding()["a captured tensor"]
        assert torch.equal(
            integrated(hidden, scheme, gradient, needed=True),
            integrated(hidden, scheme, Gradient.direct, needed=True),
        )


@for_each(("scheme", "gradient"), WAYS)
def test_a_constant_slope_has_the_gradient_of_direct(scheme: Scheme, gradient: Gradient) -> None:
    found = []
    for how in (Gradient.direct, gradient):
        h0 = torch.linspace(-1, 1, 4).requires_grad_()
        ones: Rate = lambda t, h: torch.ones_like(h)  # noqa: E731
        rate = (ones, ones) if scheme is Scheme.verlet else ones
        h = integrate(rate, h0, scheme=scheme, steps=3, gradient=how)
        found += torch.autograd.grad(h.sum(), h0)
    torch.testing.assert_close(*found, rtol=1e-6, atol=0)


@pytest.mark.parametrize("gradient", [Gradient.checkpointed, Gradient.reconstructed])
def test_a_rate_that_differentiates_inside_may_be_recomputed(gradient: Gradient) -> None:
    weight = nn.Parameter(torch.linspace(0.5, 1, 4, dtype=torch.float64))

    def force(t: float, h: Tensor) -> Tensor:
        with torch.enable_grad():
            h = h if h.requires_grad else h.detach().requires_grad_()
            return -torch.autograd.grad((weight * h.cos()).sum(), h, create_graph=True)[0]

    rate, found = Holding(force, weight), []
    for how in (Gradient.direct, gradient):
        h = integrate(rate, torch.ones(4).double(), scheme=Scheme.two_step_midpoint, steps=6, gradient=how)
        found += torch.autograd.grad(h.sum(), weight)
    torch.testing.assert_close(found[1], found[0], rtol=1e-12, atol=0)


def test_a_rate_shared_by_both_halves_is_counted_once_in_the_adjoint_equation() -> None:
    weight, found = nn.Parameter(torch.eye(2).double() / 2), []
    rate = Holding(lambda t, h: torch.tanh(weight @ h), weight)
    for gradient in (Gradient.direct, Gradient.reconstructed):
        h = integrate((rate, rate), torch.ones(4).double(), scheme=Scheme.dopri5, steps=1, gradient=gradient)
        found += torch.autograd.grad(h.sum(), weight)
    torch.testing.assert_close(found[1], found[0], rtol=1e-2, atol=0)


# What the first evaluation costs


@pytest.mark.parametrize("scheme", [Scheme.rk4, Scheme.verlet, Scheme.two_step_midpoint])
def test_looking_for_hidden_tensors_costs_no_evaluation_and_no_saved_tensor(scheme: Scheme) -> None:
    weight, calls, saved = nn.Parameter(torch.ones(4)), list[Stage](), list[int]()

    def slope(stage: Stage, h: Tensor) -> Tensor:
        calls.append(stage)
        return weight * h.exp()

    rate = OpenRate(slope, lambda _: [weight], halves=(slope, slope))
    counts = []
    for gradient in (Gradient.direct, Gradient.reconstructed):
        with torch.autograd.graph.saved_tensors_hooks(lambda x: (saved.append(x.numel()), x)[1], lambda x: x):
            integrate_stages(
                rate, torch.ones(8 if scheme is Scheme.verlet else 4), Course(scheme, 6, gradient=gradient)
            )
        counts.append((len(calls), sum(saved)))
        calls.clear()
        saved.clear()
    assert counts[1][0] == counts[0][0]
    assert counts[1][1] <= 4 + 4 * (8 if scheme is Scheme.verlet else 4)  # the weight, and states at both ends


def test_under_autocast_a_module_may_be_integrated_twice_and_called_beside_it() -> None:
    net, found = Holding(lambda t, h: torch.tanh(linear(h))), []
    linear = net.linear = nn.Linear(4, 4)
    for gradient in (Gradient.direct, Gradient.checkpointed, Gradient.reconstructed):
        with torch.autocast("cpu", torch.bfloat16):
            h = net(0.0, torch.ones(4))
            for _ in range(2):
                h = integrate(net, h.float(), scheme=Scheme.two_step_midpoint, steps=4, gradient=gradient)
            h = net(1.0, h)
        found += torch.autograd.grad(h.float().sum(), linear.weight)
    assert all(torch.allclose(other, found[0], rtol=0.05, atol=0.01) for other in found[1:])
