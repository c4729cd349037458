"""Rates: batch normalisation in depth, transposed convolutions, the spectra of what the papers call stable."""

from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from torch import Tensor, nn

from odenet import Basis, Scheme
from odenet.depth.node_weights import Readout, readout
from odenet.integrators.scheme import Stage, Stepping
from odenet.integrators.schemes import SCHEMES
from odenet.networks.batch_norm import MOMENTUM
from odenet.networks.layers import NodeActivation, NodeSymmetric
from odenet.networks.norms import NodeBatchNorm
from odenet.networks.orders import HAMILTONIAN, HAMILTONIAN_BARE, RateOrder
from odenet.networks.rates import Rate
from odenet.networks.widths import Widths
from odenet.seeding import global_seed

CHANNELS = 3
FIXED = {name: scheme for name, scheme in SCHEMES.items() if isinstance(scheme, Stepping)}


def passed(basis: Basis, nodes: int, scheme: Scheme, steps: int) -> Readout:
    return readout(basis, nodes, scheme, steps, torch.device("cpu"))


def images(evaluations: int, seed: int = 0) -> Tensor:
    """(E, B, C, H, W), every evaluation with a mean and a scale of its own."""
    draws = torch.Generator().manual_seed(seed)
    x = torch.randn(evaluations, 5, CHANNELS, 4, 4, dtype=torch.float64, generator=draws)
    shift, scale = torch.randn(2, evaluations, 1, CHANNELS, 1, 1, dtype=torch.float64, generator=draws)
    return shift + scale.exp() * x


def forward(norm: NodeBatchNorm, read: Readout, scheme: Scheme, x_EBCHW: Tensor) -> list[Tensor]:
    """One forward pass in which evaluation e sees x[e]."""
    layer = norm.open(read, [])
    stages = FIXED[scheme].stages(len(x_EBCHW) // FIXED[scheme].evaluations)
    out = [layer(read.slot(stage), x) for stage, x in zip(stages, x_EBCHW, strict=True)]
    if norm.training:
        norm.commit(read)
    return out


# Batch normalisation: one update of the statistics per forward pass, whatever the scheme


def test_under_euler_on_its_own_cells_every_node_is_a_torch_batch_norm() -> None:
    ours, read = NodeBatchNorm(3, CHANNELS).double(), passed(Basis.piecewise_constant, 3, Scheme.euler, 3)
    theirs = [nn.BatchNorm2d(CHANNELS).double() for _ in range(3)]
    for seed in range(4):
        x_EBCHW = images(3, seed)
        for out, norm, x in zip(forward(ours, read, Scheme.euler, x_EBCHW), theirs, x_EBCHW, strict=True):
            torch.testing.assert_close(out, norm(x))
    for n, norm in enumerate(theirs):
        torch.testing.assert_close(ours.running_mean[n], norm.running_mean)
        torch.testing.assert_close(ours.running_var[n], norm.running_var)


@pytest.mark.parametrize("scheme", FIXED)
def test_the_evaluations_of_a_cell_make_one_update_by_their_mean(scheme: Scheme) -> None:
    norm, read = NodeBatchNorm(2, CHANNELS).double(), passed(Basis.piecewise_constant, 2, scheme, 4)
    x_EBCHW = images(4 * FIXED[scheme].evaluations)
    forward(norm, read, scheme, x_EBCHW)
    var_NC = x_EBCHW.var(dim=(1, 3, 4)).unflatten(0, (2, -1)).mean(1)
    mean_NC = x_EBCHW.mean(dim=(1, 3, 4)).unflatten(0, (2, -1)).mean(1)
    torch.testing.assert_close(norm.running_mean, MOMENTUM * mean_NC)
    torch.testing.assert_close(norm.running_var, (1 - MOMENTUM) + MOMENTUM * var_NC)


@pytest.mark.parametrize("scheme", FIXED)
def test_statistics_that_are_linear_in_depth_are_found_by_hats(scheme: Scheme) -> None:
    norm, read = NodeBatchNorm(3, CHANNELS).double(), passed(Basis.hat, 3, scheme, 8)
    x_EBCHW = images(len(read.rows_EN))
    x_EBCHW = (x_EBCHW - x_EBCHW.mean(dim=(1, 3, 4), keepdim=True)) / x_EBCHW.std(dim=(1, 3, 4), keepdim=True)
    mean_NC = torch.randn(3, CHANNELS, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    var_NC = 1 + mean_NC**2
    mean_EC, var_EC = read.rows_EN @ mean_NC, read.rows_EN @ var_NC
    for _ in range(200):
        forward(norm, read, scheme, mean_EC[:, None, :, None, None] + var_EC.sqrt()[:, None, :, None, None] * x_EBCHW)
    torch.testing.assert_close(norm.running_mean, mean_NC)
    torch.testing.assert_close(norm.running_var, var_NC)


def test_variances_stay_positive_where_least_squares_alone_would_not() -> None:
    norm, read = NodeBatchNorm(5, CHANNELS).double(), passed(Basis.hat, 5, Scheme.midpoint, 4)
    x_EBCHW = 1e-3 * images(8)
    x_EBCHW[6] *= 1e6  # loud at node 3 and dead halfway to node 4, which nothing else reads: its fit is below zero
    x_EBCHW[7] *= 0
    var_EC = x_EBCHW.var(dim=(1, 3, 4))
    norm.running_var.fill_(1e-6)
    fit_NC = norm.running_var + read.fit_NE @ (var_EC - read.rows_EN @ norm.running_var)
    assert float(((1 - MOMENTUM) * norm.running_var + MOMENTUM * fit_NC).min()) < 0
    for seed in range(20):
        forward(norm, read, Scheme.midpoint, x_EBCHW * (1 + seed))
        assert float(norm.running_var.min()) > 0


def test_nodes_that_no_stage_reads_keep_their_statistics() -> None:
    norm, read = NodeBatchNorm(8, CHANNELS).double(), passed(Basis.piecewise_constant, 8, Scheme.euler, 2)
    norm.running_var.fill_(1e-3)  # below all that is seen
    before = norm.running_mean.clone(), norm.running_var.clone()
    forward(norm, read, Scheme.euler, images(2))
    for old, new in zip(before, (norm.running_mean, norm.running_var), strict=True):
        assert [bool((old[n] != new[n]).any()) for n in range(8)] == [n in (0, 4) for n in range(8)]


def test_in_evaluation_mode_the_running_statistics_are_used_and_left_alone() -> None:
    norm, read = NodeBatchNorm(3, CHANNELS).double(), passed(Basis.hat, 3, Scheme.rk4, 2)
    norm.running_mean.copy_(torch.tensor([[1.0], [2], [3]]))
    norm.running_var.copy_(torch.tensor([[4.0], [9], [16]]))
    before = norm.running_mean.clone(), norm.running_var.clone()
    x_EBCHW = images(8)
    out = forward(norm.eval(), read, Scheme.rk4, x_EBCHW)
    assert torch.equal(norm.running_mean, before[0])
    assert torch.equal(norm.running_var, before[1])
    # The second evaluation is half a step, a quarter of the depth, in: between nodes 0 and 1.
    torch.testing.assert_close(out[1], (x_EBCHW[1] - 1.5) / (6.5 + 1e-5) ** 0.5)


def test_the_batch_statistics_are_differentiated_through_as_in_torch() -> None:
    ours, theirs = NodeBatchNorm(1, CHANNELS).double(), nn.BatchNorm2d(CHANNELS).double()
    read = passed(Basis.piecewise_constant, 1, Scheme.euler, 1)
    x_BCHW, weight_BCHW = images(1)[0].requires_grad_(), images(1, seed=5)[0]
    (expected,) = torch.autograd.grad((theirs(x_BCHW) * weight_BCHW).sum(), x_BCHW)
    (out,) = forward(ours, read, Scheme.euler, x_BCHW[None])
    (gradient,) = torch.autograd.grad((out * weight_BCHW).sum(), x_BCHW)
    torch.testing.assert_close(gradient, expected)


# Transposed convolutions


@pytest.mark.parametrize("sign", [1, -1])
def test_the_second_half_of_a_symmetric_layer_is_the_transpose_of_its_first(sign: int) -> None:
    """<K x, y> = <x, K^T y>: what stands between the halves takes K x and gives y."""
    draws = torch.Generator().manual_seed(0)
    x_BCHW, y_BCHW = torch.randn(2, 2, CHANNELS, 5, 6, dtype=torch.float64, generator=draws)
    seen: list[Tensor] = []

    def between(h_BCHW: Tensor) -> Tensor:
        seen.append(h_BCHW)
        return y_BCHW

    layer = NodeSymmetric(1, CHANNELS, [NodeActivation(between)], sign=sign, bias=False).double()
    back_BCHW = layer.open(passed(Basis.piecewise_constant, 1, Scheme.euler, 1), [])(0, x_BCHW)
    torch.testing.assert_close((seen[0] * y_BCHW).sum(), sign * (x_BCHW * back_BCHW).sum(), rtol=1e-12, atol=1e-12)


# Spectra: d rate / d state at a random point, without batch norm and with a smooth activation

SMOOTH_HAMILTONIAN = replace(HAMILTONIAN_BARE, inner=("tanh",))
SMOOTH_MIDPOINT = RateOrder(("antisymmetric", "tanh"), bias=True)
SMOOTH_LEAPFROG = RateOrder(("minus_symmetric",), bias=True, inner=("tanh",))


def jacobian(order: RateOrder, seed: int, batch: int = 1) -> Tensor:
    """(n, n) of a rate in training mode, with biases drawn too; n = B C H W with C = 4, H = W = 4."""
    draws = torch.Generator().manual_seed(seed)
    with global_seed(seed, "init"):
        rate = Rate(order, 1, Widths(4, 4)).double()
    with torch.no_grad():
        for parameter in rate.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=draws, dtype=torch.float64) / 10)
    x_BCHW = torch.randn(batch, 4, 4, 4, dtype=torch.float64, generator=draws)
    slope = rate.open(passed(Basis.piecewise_constant, 1, Scheme.euler, 1)).slope
    found = torch.autograd.functional.jacobian(lambda x: slope(Stage(0, 1, Fraction(0)), x), x_BCHW)
    return found.reshape(x_BCHW.numel(), x_BCHW.numel())


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("order", [SMOOTH_HAMILTONIAN, SMOOTH_MIDPOINT])
def test_the_spectra_of_the_hamiltonian_and_of_midpoint_are_imaginary(order: RateOrder, seed: int) -> None:
    eigenvalues = torch.linalg.eigvals(jacobian(order, seed))
    assert float(eigenvalues.real.abs().max()) <= 1e-10 * float(eigenvalues.abs().max())
    assert float(eigenvalues.imag.abs().max()) > 0.1


def test_the_jacobian_of_the_hamiltonian_couples_the_halves_by_semidefinite_blocks() -> None:
    n = 32
    whole = jacobian(SMOOTH_HAMILTONIAN, 0)
    assert not whole[:n, :n].any()
    assert not whole[n:, n:].any()
    for block in (whole[:n, n:], -whole[n:, :n]):
        torch.testing.assert_close(block, block.T, rtol=0, atol=1e-13)
        assert float(torch.linalg.eigvalsh(block).min()) > -1e-13


def test_the_jacobian_of_leapfrog_is_symmetric_and_negative_semidefinite() -> None:
    found = jacobian(SMOOTH_LEAPFROG, 0)
    torch.testing.assert_close(found, found.T, rtol=0, atol=1e-13)
    assert float(torch.linalg.eigvalsh(found).max()) < 1e-13


def test_with_batch_norm_the_spectrum_of_the_hamiltonian_is_finite_but_no_longer_imaginary() -> None:
    """Measured, no wish: the statistics couple the images of a batch."""
    eigenvalues = torch.linalg.eigvals(jacobian(HAMILTONIAN, 0, batch=2))
    assert bool(eigenvalues.isfinite().all())
    assert float(eigenvalues.real.abs().max()) > 1e-3 * float(eigenvalues.abs().max())


# Refused


def test_a_partitioned_rate_refuses_an_odd_number_of_channels() -> None:
    with pytest.raises(ValueError, match=r"^a partitioned rate halves its channels: 5 is odd\.$"):
        Rate(HAMILTONIAN, 1, Widths(5, 5))
