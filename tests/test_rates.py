"""Batch normalisation in depth: one update of the statistics per forward pass, whatever the scheme."""

import pytest
import torch
from torch import Tensor, nn

from odenet import Basis, Scheme
from odenet.bases import Readout, readout
from odenet.rates import BATCH_NORM_MOMENTUM, NodeBatchNorm
from odenet.schemes import SCHEMES

CHANNELS = 3


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
    layer = norm.open(read)
    stages = SCHEMES[scheme].stages(len(x_EBCHW) // SCHEMES[scheme].evaluations)
    out = [layer(read.slots[stage.key], x) for stage, x in zip(stages, x_EBCHW, strict=True)]
    if norm.training:
        norm.commit(read)
    return out


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


@pytest.mark.parametrize("scheme", Scheme)
def test_the_evaluations_of_a_cell_make_one_update_by_their_mean(scheme: Scheme) -> None:
    norm, read = NodeBatchNorm(2, CHANNELS).double(), passed(Basis.piecewise_constant, 2, scheme, 4)
    x_EBCHW = images(4 * SCHEMES[scheme].evaluations)
    forward(norm, read, scheme, x_EBCHW)
    var_NC = x_EBCHW.var(dim=(1, 3, 4)).unflatten(0, (2, -1)).mean(1)
    mean_NC = x_EBCHW.mean(dim=(1, 3, 4)).unflatten(0, (2, -1)).mean(1)
    torch.testing.assert_close(norm.running_mean, BATCH_NORM_MOMENTUM * mean_NC)
    torch.testing.assert_close(norm.running_var, (1 - BATCH_NORM_MOMENTUM) + BATCH_NORM_MOMENTUM * var_NC)


@pytest.mark.parametrize("scheme", Scheme)
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
    assert float(((1 - BATCH_NORM_MOMENTUM) * norm.running_var + BATCH_NORM_MOMENTUM * fit_NC).min()) < 0
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
