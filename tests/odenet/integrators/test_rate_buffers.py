"""Buffers of a rate under gradients that recompute: seen as in the forward pass, and left as direct leaves them."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from odenet import Gradient, Scheme, integrate
from odenet.integrators.schemes import ADAPTIVE, SCHEMES
from tests.grids import for_each

FIXED = [scheme for scheme in Scheme if scheme not in (*ADAPTIVE, Scheme.lm)]
RECOMPUTED = [(scheme, gradient) for scheme in FIXED for gradient in (Gradient.checkpointed, Gradient.reconstructed)]
EXACT = [
    (scheme, gradient)
    for scheme, gradient in RECOMPUTED
    if gradient is Gradient.checkpointed or SCHEMES[scheme].reversible
]


class Normed(nn.Module):
    """Batch norm in training mode."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(width, width).double(), nn.BatchNorm1d(width).double()

    def forward(self, t: float, h: Tensor) -> Tensor:
        return torch.tanh(self.norm(self.linear(h))) * (1 + t)


class Spectral(Normed):
    """A power iteration for each evaluation, which reads what the one before has left."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.linear, self.norm = nn.utils.parametrizations.spectral_norm(self.linear), nn.Identity()


class Counting(nn.Module):
    """A counter of evaluations that the slope depends on: in place, or a new tensor for each."""

    count: Tensor

    def __init__(self, width: int, *, in_place: bool) -> None:
        super().__init__()
        self.linear, self._in_place = nn.Linear(width, width).double(), in_place
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))

    def forward(self, t: float, h: Tensor) -> Tensor:
        if self._in_place:
            self.count.add_(1)
        else:
            self.count = self.count + 1
        return torch.tanh(self.linear(h)) / self.count.clone()


class Drawing(Normed):
    """Dropout, of which batch norm sees what is left."""

    def forward(self, t: float, h: Tensor) -> Tensor:
        return super().forward(t, F.dropout(h, 0.3))


RATES = {
    "batch_norm": Normed,
    "spectral_norm": Spectral,
    "counter_in_place": lambda width: Counting(width, in_place=True),
    "counter_replaced": lambda width: Counting(width, in_place=False),
    "dropout": Drawing,
}


def differentiated(kind: str, scheme: Scheme, gradient: Gradient, steps: int = 5) -> tuple[list[Tensor], list[Tensor]]:
    """The result with the gradients, and the buffers after the backward pass."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        h0 = torch.randn(5, 8, dtype=torch.float64)
        width = 4 if scheme is Scheme.verlet else 8
        rates = [RATES[kind](width) for _ in range(8 // width)]
        h = integrate(tuple(rates) if len(rates) > 1 else rates[0], h0, scheme=scheme, steps=steps, gradient=gradient)
        h.square().sum().backward()
    grads = [parameter.grad for rate in rates for parameter in rate.parameters() if parameter.grad is not None]
    return [h.detach(), *grads], [buffer for rate in rates for buffer in rate.buffers()]


@for_each("steps", [1, 5])
@for_each("kind", RATES)
@for_each(("scheme", "gradient"), RECOMPUTED)
def test_buffers_end_as_after_direct(scheme: Scheme, gradient: Gradient, kind: str, steps: int) -> None:
    (_, exact), (_, found) = (differentiated(kind, scheme, how, steps) for how in (Gradient.direct, gradient))
    assert len(found) == len(exact)
    assert all(map(torch.equal, found, exact))


@for_each("steps", [1, 5])
@for_each("kind", RATES)
@for_each(("scheme", "gradient"), EXACT)
def test_a_recomputation_sees_the_buffers_and_draws_of_the_forward_pass(
    scheme: Scheme, gradient: Gradient, kind: str, steps: int
) -> None:
    (exact, _), (found, _) = (differentiated(kind, scheme, how, steps) for how in (Gradient.direct, gradient))
    assert torch.equal(found[0], exact[0])
    largest = max(float(tensor.abs().max()) for tensor in exact)
    assert max(float((a - b).abs().max()) for a, b in zip(found, exact, strict=True)) <= 1e-13 * largest


@pytest.mark.parametrize("pair", [True, False])
def test_the_adjoint_equation_leaves_buffers_as_the_forward_pass_did(pair: bool) -> None:
    rates = (Normed(4), Normed(4)) if pair else (Normed(8),)
    h0 = torch.randn(5, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    rate = rates if len(rates) == 2 else rates[0]
    h = integrate(rate, h0, scheme=Scheme.dopri5, steps=1, gradient=Gradient.reconstructed)
    after = [buffer.clone() for rate in rates for buffer in rate.buffers()]
    h.sum().backward()
    assert all(map(torch.equal, after, (buffer for rate in rates for buffer in rate.buffers())))
    assert min(int(rate.norm.num_batches_tracked) for rate in rates) > 0


@pytest.mark.parametrize("gradient", [Gradient.checkpointed, Gradient.reconstructed])
def test_a_buffer_is_the_same_tensor_afterwards_with_what_happened_meanwhile(gradient: Gradient) -> None:
    rate, h0 = Normed(8), torch.randn(5, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    mean = rate.norm.running_mean
    h = integrate(rate, h0, scheme=Scheme.two_step_midpoint, steps=4, gradient=gradient)
    with torch.no_grad():
        rate(0.0, h0)  # another pass before the backward pass
    expected = mean.clone()
    h.sum().backward()
    assert rate.norm.running_mean is mean
    assert torch.equal(mean, expected)
