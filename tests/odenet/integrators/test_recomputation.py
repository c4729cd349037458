"""Recomputing a forward pass: random draws, batch norm, autocast, and what is refused or is torch's error."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from odenet import Basis, Gradient, ModelConfig, Network, Scheme, build_model, integrate
from odenet.integrators.gradients import Drift
from odenet.integrators.integrate import integrate_stages
from odenet.integrators.scheme import Course, OpenRate, Stage
from odenet.integrators.schemes import ADAPTIVE, SCHEMES
from odenet.networks.model import DepthNet
from odenet.networks.perturbation import Draws, Perturbation

FIXED = [scheme for scheme in Scheme if scheme not in ADAPTIVE]
REVERSIBLE = [scheme for scheme in FIXED if SCHEMES[scheme].reversible]
RECOMPUTED = [Gradient.checkpointed, Gradient.reconstructed]
# What is exact up to rounding.
EXACT = [(scheme, Gradient.checkpointed) for scheme in FIXED] + [(s, Gradient.reconstructed) for s in REVERSIBLE]
WIDTH = 6
H0 = torch.linspace(-1, 1, WIDTH, dtype=torch.float64)


def off(found: list[Tensor], exact: list[Tensor]) -> float:
    """The largest error relative to the largest entry of all."""
    largest = max(float(tensor.abs().max()) for tensor in exact)
    return max(float((a - b).abs().max()) for a, b in zip(found, exact, strict=True)) / largest


# Randomness


class Dropping(nn.Module):
    """A rate that draws."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(-1, 1, WIDTH**2, dtype=torch.float64).view(WIDTH, WIDTH))

    def forward(self, t: float, h: Tensor) -> Tensor:
        return F.dropout(torch.tanh(self.weight[:, : len(h)] @ h)[: len(h)], 0.5) * (1 + t)


def drawn(scheme: Scheme, gradient: Gradient) -> tuple[list[Tensor], Tensor, Tensor]:
    """The result and its gradient, the generator's state after the forward pass and after the backward pass."""
    rate, other = Dropping(), Dropping()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        both = (rate, other) if scheme is Scheme.verlet else rate
        h = integrate(both, H0, scheme=scheme, steps=11, gradient=gradient)
        after = torch.get_rng_state()
        h.sum().backward()
        assert rate.weight.grad is not None
        return [h.detach(), rate.weight.grad], after, torch.get_rng_state()


@pytest.mark.parametrize(("scheme", "gradient"), [pair for pair in EXACT if pair[0] is not Scheme.lm])
def test_random_draws_are_repeated_and_the_generator_is_left_as_autograd_leaves_it(
    scheme: Scheme, gradient: Gradient
) -> None:
    (exact, after, _), (found, found_after, end) = drawn(scheme, Gradient.direct), drawn(scheme, gradient)
    assert off(found, exact) <= 1e-13
    assert torch.equal(after, found_after)
    assert torch.equal(after, end)


# Networks


def images() -> Tensor:
    return torch.randn(4, 2, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(7))


NETS = {
    "euler": ModelConfig(network=Network.continuous, scheme=Scheme.euler, width=4, nodes=3),
    "rk4": ModelConfig(network=Network.continuous, scheme=Scheme.rk4, basis=Basis.hat, width=4, nodes=3),
    "verlet": ModelConfig(network=Network.hamiltonian, width=4, nodes=3),
    "midpoint": ModelConfig(network=Network.midpoint, width=4, nodes=3),
}
NETS_EXACT = [(net, Gradient.checkpointed) for net in NETS] + [
    (n, Gradient.reconstructed) for n in ("verlet", "midpoint")
]


def trained_once(
    name: str, gradient: Gradient, perturbation: Perturbation | None = None, *, drift: bool = False
) -> tuple[list[Tensor], list[Tensor]]:
    """Gradients and buffers after one pass forward and backward in training mode."""
    model: DepthNet = build_model(replace(NETS[name], gradient=gradient), channels=2, classes=3).double().train()
    for stage in model.depth_stages():
        stage.drift = Drift() if drift else None
    F.cross_entropy(model(images(), perturbation), torch.tensor([0, 1, 2, 0])).backward()
    found = [parameter.grad for parameter in model.parameters()]
    return [gradient for gradient in found if gradient is not None], list(model.buffers())


@pytest.mark.parametrize("gradient", RECOMPUTED)
@pytest.mark.parametrize("net", NETS)
def test_batch_norm_moves_its_statistics_once_however_often_a_step_is_computed(net: str, gradient: Gradient) -> None:
    (_, expected), (_, moved) = trained_once(net, Gradient.direct), trained_once(net, gradient, drift=True)
    assert len(moved) == len(expected) > 0
    assert all(map(torch.equal, moved, expected))


@pytest.mark.parametrize(
    "perturbation", [None, Perturbation(0.5, 0.1, Draws(3))], ids=["plain", "stochastic_depth_and_noise"]
)
@pytest.mark.parametrize(("net", "gradient"), NETS_EXACT)
def test_every_parameter_of_a_network_gets_the_gradient_of_autograd(
    net: str, gradient: Gradient, perturbation: Perturbation | None
) -> None:
    exact, found = (trained_once(net, how, perturbation)[0] for how in (Gradient.direct, gradient))
    assert off(found, exact) <= 1e-11


def test_a_perturbed_pass_differs_from_a_plain_one_and_from_another_seed() -> None:
    plain, once, other = (
        trained_once("verlet", Gradient.reconstructed, perturbation)[0]
        for perturbation in (None, Perturbation(0.5, 0.1, Draws(3)), Perturbation(0.5, 0.1, Draws(4)))
    )
    assert off(once, plain) > 1e-3
    assert off(once, other) > 1e-3


# Autocast


def half_precision(gradient: Gradient) -> list[Tensor]:
    model = build_model(replace(NETS["verlet"], gradient=gradient), channels=2, classes=3).train()
    with torch.autocast("cpu", torch.bfloat16):
        loss = F.cross_entropy(model(images().float()).float(), torch.tensor([0, 1, 2, 0]))
    loss.backward()
    return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]


def test_recomputation_reenters_autocast() -> None:
    checkpointed, reconstructed = map(half_precision, RECOMPUTED)
    assert {gradient.dtype for gradient in reconstructed} == {torch.float32}
    assert off(reconstructed, checkpointed) < 1e-5
    exact = trained_once("verlet", Gradient.direct)[0]
    assert off(checkpointed, [gradient.float() for gradient in exact]) > 1e-2  # it was bf16 indeed


@pytest.mark.parametrize("gradient", Gradient)
def test_under_autocast_the_state_is_kept_in_full_precision(gradient: Gradient) -> None:
    seen: list[torch.dtype] = []
    kernel = torch.eye(WIDTH // 2, requires_grad=True)

    def half(stage: Stage, h: Tensor) -> Tensor:
        seen.append(h.dtype)
        return h @ kernel

    rate = OpenRate(half, lambda _: [kernel], halves=(half, half))
    h0 = H0.bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        h = integrate_stages(rate, h0, Course(Scheme.verlet, 4, gradient=gradient))
    h.sum().backward()
    assert set(seen) == {torch.float32}
    assert h.dtype == torch.float32
    assert h0.grad is not None
    assert h0.grad.dtype == torch.bfloat16


# Errors


def integrated(gradient: Gradient, weight: Tensor, parameters: list[Tensor]) -> Tensor:
    rate: Callable[[float, Tensor], Tensor] = lambda t, h: torch.tanh(weight * h)  # noqa: E731
    return read_by(rate, parameters, gradient).sum()


def read_by(rate: Callable[[float, Tensor], Tensor], reads: list[Tensor], gradient: Gradient) -> Tensor:
    """With the tensors that the rate says it reads."""
    opened = OpenRate(lambda stage, h: rate(stage.t, h), lambda _: reads)
    return integrate_stages(opened, H0, Course(Scheme.euler, 16, gradient=gradient))


@pytest.mark.parametrize("gradient", RECOMPUTED)
def test_a_tensor_computed_from_a_parameter_may_be_the_one_that_is_shown(gradient: Gradient) -> None:
    weight = torch.full((WIDTH,), 0.5, dtype=torch.float64, requires_grad=True)
    doubled = 2 * weight
    (found,) = torch.autograd.grad(integrated(gradient, doubled, [doubled]), weight)
    (exact,) = torch.autograd.grad(integrated(Gradient.direct, 2 * weight, []), weight)
    assert off([found], [exact]) < (1e-13 if gradient is Gradient.checkpointed else 0.2)


@pytest.mark.parametrize("gradient", RECOMPUTED)
def test_a_parameter_changed_in_place_before_backward_is_the_error_of_torch(gradient: Gradient) -> None:
    weight = torch.full((WIDTH,), 0.5, dtype=torch.float64, requires_grad=True)
    h = integrated(gradient, weight, [weight])
    with torch.no_grad():
        weight.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        h.backward()


@pytest.mark.parametrize("gradient", RECOMPUTED)
def test_a_second_backward_pass_is_the_error_of_torch_unless_the_graph_is_retained(gradient: Gradient) -> None:
    weight = torch.full((WIDTH,), 0.5, dtype=torch.float64, requires_grad=True)
    h = integrated(gradient, weight, [weight])
    first, again = (torch.autograd.grad(h, weight, retain_graph=retain)[0] for retain in (True, False))
    assert torch.equal(first, again)
    with pytest.raises(RuntimeError, match="second time"):
        h.backward()
