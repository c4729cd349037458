"""Batch normalisation by the batch's own statistics: accurate in fp32 in any layout, differentiable in every way."""

import copy
import statistics
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from odenet import ModelConfig, Network, Scheme, build_model
from odenet.networks import batch_norm as batch_norms
from odenet.networks.batch_norm import BatchNorm, batch_norm
from odenet.networks.model import DepthNet
from odenet.networks.norms import NodeBatchNorm

pytestmark = pytest.mark.filterwarnings(
    "ignore:`torch.jit.script` is deprecated"
)  # torch's own, in forward derivatives

LAST, FIRST = torch.channels_last, torch.contiguous_format


def normal(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def channels_last(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return normal(*shape, dtype=dtype).contiguous(memory_format=LAST).requires_grad_()


def apart(found: Tensor, true: Tensor) -> float:
    return float((found.double() - true).norm() / true.norm())


@pytest.mark.parametrize("shape", [(128, 16, 32, 32), (512, 16, 32, 32), (128, 64, 8, 8), (1, 3, 4, 4), (64, 5, 1, 1)])
def test_values_and_gradients_are_as_accurate_channels_last_as_contiguous(shape: tuple[int, ...]) -> None:
    x, direction, weight, bias = 2 * normal(*shape) + 1, normal(*shape, seed=1), normal(shape[1]), normal(shape[1])

    def normalised(dtype: torch.dtype, layout: torch.memory_format, accurate: bool) -> list[Tensor]:
        inputs = [x.to(dtype).contiguous(memory_format=layout), weight.to(dtype), bias.to(dtype)]
        for tensor in inputs:
            tensor.requires_grad_()
        if accurate:
            y, mean, variance = batch_norm(*inputs)
        else:
            mean, variance = torch.zeros(shape[1], dtype=dtype), torch.ones(shape[1], dtype=dtype)
            y = F.batch_norm(inputs[0], mean, variance, *inputs[1:], training=True, momentum=1.0)
        return [y.detach(), mean, variance, *torch.autograd.grad(y, inputs, direction.to(dtype))]

    true = normalised(torch.float64, FIRST, False)
    ours, contiguous = normalised(torch.float32, LAST, True), normalised(torch.float32, FIRST, False)
    for found, peer, value in zip(ours, contiguous, true, strict=True):
        assert apart(found, value) <= 3 * max(apart(peer, value), 1e-7)


def test_running_statistics_take_the_unbiased_variance() -> None:
    ours, theirs = BatchNorm(4), nn.BatchNorm2d(4)
    x = 3 * normal(6, 4, 5, 5) + 2
    for _ in range(2):
        torch.testing.assert_close(ours(x.contiguous(memory_format=LAST)), theirs(x))
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict())
    ours.momentum = theirs.momentum = None  # torch's cumulative mean
    torch.testing.assert_close(ours(x.contiguous(memory_format=LAST)), theirs(x))
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict())
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))


@pytest.mark.parametrize("layout", [LAST, FIRST])
def test_no_memory_is_read_before_it_is_written(layout: torch.memory_format) -> None:
    try:
        torch.use_deterministic_algorithms(True)  # which fills new memory with NaN
        x, weight = normal(4, 3, 5, 5).contiguous(memory_format=layout).requires_grad_(), normal(3).requires_grad_()
        y, mean, variance = batch_norm(x, weight, normal(3))
        gradients = torch.autograd.grad(y.square().sum(), [x, weight])
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(bool(found.isfinite().all()) for found in (y, mean, variance, *gradients))


def test_derivatives_are_right_forwards_backwards_twice_and_many_at_a_time() -> None:
    inputs = (channels_last(5, 3, 4, 2), *(normal(3, dtype=torch.float64).requires_grad_() for _ in range(2)))

    def y(*tensors: Tensor) -> Tensor:
        return batch_norm(*tensors)[0]

    everything = {"check_forward_ad": True, "check_batched_grad": True, "check_batched_forward_grad": True}
    assert torch.autograd.gradcheck(y, inputs, **everything)
    assert torch.autograd.gradgradcheck(y, inputs, check_fwd_over_rev=True, check_rev_over_rev=True)


def test_torch_func_takes_hessians_and_gradients_of_many_batches() -> None:
    weight, bias = normal(3, dtype=torch.float64), normal(3, dtype=torch.float64, seed=1)
    x = channels_last(5, 3, 2, 2).detach()

    def ours(x: Tensor) -> Tensor:
        return batch_norm(x, weight, bias)[0].pow(3).sum()

    def theirs(x: Tensor) -> Tensor:
        return F.batch_norm(x, None, None, weight, bias, training=True).pow(3).sum()

    torch.testing.assert_close(torch.func.hessian(ours)(x), torch.func.hessian(theirs)(x))
    batches = torch.stack([x, 2 * x + 1, x.flip(0)])
    found = torch.vmap(torch.func.grad(ours))(batches)
    torch.testing.assert_close(found, torch.stack([torch.func.grad(theirs)(batch) for batch in batches]))


def test_gradients_that_need_not_be_channels_last_are_taken() -> None:
    x, weight, bias = channels_last(4, 3, 2, 2), *(normal(3, dtype=torch.float64).requires_grad_() for _ in range(2))
    y, *_ = batch_norm(x, weight, bias)
    expanded = torch.autograd.grad(y.mean((2, 3)), [x, weight, bias], normal(4, 3, dtype=torch.float64))
    reference = F.batch_norm(x, None, None, weight, bias, training=True)
    expected = torch.autograd.grad(reference.mean((2, 3)), [x, weight, bias], normal(4, 3, dtype=torch.float64))
    torch.testing.assert_close(expanded, expected)


@pytest.mark.slow
def test_every_network_trains_as_accurately_channels_last_as_contiguous() -> None:
    for network in Network:
        errors = [layout_errors(network, seed) for seed in range(3)]
        (logits, gradients), (logits_first, gradients_first) = (
            tuple(zip(*each, strict=True)) for each in zip(*errors, strict=True)
        )
        assert statistics.median(logits) <= 3 * max(statistics.median(logits_first), 1e-7), network
        # A single ReLU that flips moves gradients by 1e-3 in any layout, so the seed with the fewest is compared.
        assert min(gradients) <= 3 * max(min(gradients_first), 1e-6), network


def layout_errors(network: Network, seed: int) -> tuple[tuple[float, float], tuple[float, float]]:
    """Errors in fp32 against float64, channels_last and contiguous, of the logits and of the gradients."""
    constant = network is Network.neural_ode
    config = ModelConfig(network=network, width=8, nodes=1 if constant else 3, scheme=Scheme.rk4 if constant else None)
    model, x = build_model(config, channels=3, classes=10, seed=seed), normal(16, 3, 24, 24, seed=seed)
    true = training_pass(copy.deepcopy(model).double(), x.double())
    last = training_pass(copy.deepcopy(model), x.contiguous(memory_format=LAST))
    first = training_pass(copy.deepcopy(model).to(memory_format=FIRST), x)
    return (apart(last[0], true[0]), apart(last[1], true[1])), (apart(first[0], true[0]), apart(first[1], true[1]))


def training_pass(model: DepthNet, x: Tensor) -> tuple[Tensor, Tensor]:
    logits_BK = model.train()(x)
    loss = F.cross_entropy(logits_BK, torch.arange(len(x)) % 10)
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    return logits_BK.detach(), torch.cat([gradient.flatten() for gradient in gradients])


@pytest.mark.parametrize("network", Network)
def test_momentum_and_eps_are_set_in_one_place_for_every_norm_of_every_network(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_norms, "MOMENTUM", 0.5)
    monkeypatch.setattr(batch_norms, "EPS", 0.25)
    monkeypatch.setattr(batch_norms, "_is_summed_in_order", lambda _: False)  # all by torch's function, which tells
    used: set[float] = set()
    theirs = F.batch_norm

    def noting(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        used.add(kwargs["eps"] if "eps" in kwargs else args[-1])
        return theirs(x, *args, **kwargs)

    monkeypatch.setattr(F, "batch_norm", noting)
    nodes = 1 if network is Network.neural_ode else 2
    model = build_model(ModelConfig(network=network, width=8, nodes=nodes), channels=3, classes=2)
    norms = [module for module in model.modules() if isinstance(module, BatchNorm | NodeBatchNorm)]
    model(normal(4, 3, 16, 16))
    moved = [1 - norm.running_var.detach().clone() for norm in norms]
    monkeypatch.setattr(batch_norms, "MOMENTUM", 1.0)
    again = build_model(ModelConfig(network=network, width=8, nodes=nodes), channels=3, classes=2)
    again(normal(4, 3, 16, 16))
    twice = [module for module in again.modules() if isinstance(module, BatchNorm | NodeBatchNorm)]
    for half, norm in zip(moved, twice, strict=True):
        torch.testing.assert_close(2 * half, 1 - norm.running_var)
    again.eval()(normal(4, 3, 16, 16))
    assert norms and used == {0.25}
