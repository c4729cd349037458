"""Whatever recomputes has first derivatives by backward() only; more than that is refused by one message."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from odenet import Gradient, ModelConfig, Network, Scheme, build_model, integrate
from odenet.integrators.schemes import ADAPTIVE, refusal
from tests.grids import for_each

# torch's own, when it first sees dual numbers
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")

SCHEMES = [scheme for scheme in Scheme if scheme is not Scheme.lm]  # which needs a k_n
RECOMPUTING = [
    (scheme, gradient)
    for scheme in SCHEMES
    for gradient in (Gradient.checkpointed, Gradient.reconstructed)
    if not refusal(scheme, gradient)
]
FIXED = [scheme for scheme in SCHEMES if scheme not in ADAPTIVE]
H0 = torch.linspace(-1, 1, 4, dtype=torch.float64)
Map = Callable[[Tensor], Tensor]


class Swirl(nn.Module):
    """tanh(W h), of any width that it divides."""

    def __init__(self) -> None:
        super().__init__()
        draws = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(2, 2, dtype=torch.float64, generator=draws))

    def forward(self, t: float, h: Tensor) -> Tensor:
        return torch.tanh(h.reshape(-1, 2) @ self.weight).reshape(h.shape)


RATE = Swirl()


def flow(scheme: Scheme, gradient: Gradient) -> Map:
    rate = (RATE, RATE) if scheme is Scheme.verlet else RATE
    return lambda h0: integrate(rate, h0, scheme=scheme, steps=3, gradient=gradient)


def by_dual_numbers(f: Map) -> Tensor:
    with forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(f(forward_ad.make_dual(H0, torch.ones_like(H0)))).tangent
    assert tangent is not None
    return tangent


def by_double_backward(f: Map) -> Tensor:
    h0 = H0.clone().requires_grad_()
    (once,) = torch.autograd.grad(f(h0).square().sum(), h0, create_graph=True)
    return torch.autograd.grad(once.sum(), h0)[0]


def by_weight_then_state(f: Map) -> Tensor:
    h0 = H0.clone().requires_grad_()
    (once,) = torch.autograd.grad(f(h0).square().sum(), RATE.weight, create_graph=True)
    return torch.autograd.grad(once.sum(), h0)[0]


def by_penalty(f: Map) -> Tensor:
    h0 = H0.clone().requires_grad_()
    loss = f(h0).sum()
    (once,) = torch.autograd.grad(loss, h0, create_graph=True)
    return torch.autograd.grad(loss + once.square().sum(), RATE.weight)[0]


BACKWARD: dict[str, Callable[[Map], object]] = {
    "double_backward": by_double_backward,
    "weight_then_state": by_weight_then_state,
    "gradient_penalty": by_penalty,
    "hessian": lambda f: torch.autograd.functional.hessian(lambda h: f(h).square().sum(), H0),
    "jvp_by_two_backward_passes": lambda f: torch.autograd.functional.jvp(f, H0, H0),
}
TRANSFORMS: dict[str, Callable[[Map], object]] = {
    "dual_numbers": by_dual_numbers,
    "func.grad": lambda f: torch.func.grad(lambda h: f(h).sum())(H0),
    "func.jvp": lambda f: torch.func.jvp(f, (H0,), (H0,)),
    "func.vjp": lambda f: torch.func.vjp(f, H0)[1](H0),
    "func.jacrev": lambda f: torch.func.jacrev(f)(H0),
    "func.vmap": lambda f: torch.func.vmap(f)(torch.stack([H0, 2 * H0])),
    "func.hessian": lambda f: torch.func.hessian(lambda h: f(h).sum())(H0),
}


@for_each("way", BACKWARD | TRANSFORMS)
@for_each(("scheme", "gradient"), RECOMPUTING)
def test_more_than_first_derivatives_are_refused_by_one_message(scheme: Scheme, gradient: Gradient, way: str) -> None:
    message = (
        f"gradient={gradient.value} recomputes the integration and has first derivatives by backward() only: second "
        "derivatives, forward mode and the transforms of torch.func need gradient=direct."
    )
    with pytest.raises(ValueError, match=r"^gradient=") as refused:
        (BACKWARD | TRANSFORMS)[way](flow(scheme, gradient))
    assert str(refused.value) == message


@for_each("way", BACKWARD | TRANSFORMS)
@for_each("scheme", FIXED)
def test_direct_has_them_all(scheme: Scheme, way: str) -> None:
    (BACKWARD | TRANSFORMS)[way](flow(scheme, Gradient.direct))


@for_each(("scheme", "gradient"), RECOMPUTING)
def test_a_graph_of_the_gradient_that_nobody_differentiates_does_no_harm(scheme: Scheme, gradient: Gradient) -> None:
    h0, f = H0.clone().requires_grad_(), flow(scheme, gradient)
    once, plain = (torch.autograd.grad(f(h0).sum(), (h0, RATE.weight), create_graph=way) for way in (True, False))
    assert all(map(torch.equal, once, plain))


@for_each("scheme", FIXED)
def test_a_vectorized_jacobian_is_a_first_derivative(scheme: Scheme) -> None:
    jacobian, exact = (
        torch.autograd.functional.jacobian(flow(scheme, gradient), H0, vectorize=True)
        for gradient in (Gradient.checkpointed, Gradient.direct)
    )
    torch.testing.assert_close(jacobian, exact, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("gradient", [Gradient.checkpointed, Gradient.reconstructed])
def test_a_network_refuses_them_as_well(gradient: Gradient) -> None:
    model = build_model(ModelConfig(network=Network.revnet, width=4, gradient=gradient), channels=1, classes=2)
    x_BCHW = torch.ones(2, 1, 8, 8, requires_grad=True)
    (once,) = torch.autograd.grad(model(x_BCHW).square().sum(), x_BCHW, create_graph=True)
    with pytest.raises(ValueError, match=r"need gradient=direct\.$"):
        once.sum().backward()
    with pytest.raises(ValueError, match=r"need gradient=direct\.$"):
        torch.func.grad(lambda x: model.eval()(x).sum())(x_BCHW)
