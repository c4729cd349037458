"""Observed orders of whole networks, and the smoothness of their weights, where they are known."""

import numpy as np
import pytest
import torch

from odenet import Basis, Scheme, Start
from odenet.depth.bases import BASES
from odenet.diagnostics.convergence import observed_order
from odenet.diagnostics.smoothness import smoothness
from odenet.integrators.schemes import SCHEMES
from odenet.networks.model import DepthNet
from odenet.networks.orders import RateOrder
from tests.grids import for_each
from tests.odenet.diagnostics.probes import SMOOTH, images, row, tiny

RUNGE_KUTTA = [Scheme.euler, Scheme.midpoint, Scheme.heun, Scheme.rk4]


@for_each("basis", [Basis.piecewise_constant, Basis.hat])
@for_each("scheme", RUNGE_KUTTA)
def test_a_scheme_shows_its_order_on_a_smooth_rate_in_blocks_and_logits(scheme: Scheme, basis: Basis) -> None:
    with row("continuous", rate=SMOOTH, strides=(1,)) as name:
        model = tiny(name, scheme=scheme, basis=basis, nodes=2, substeps=2, depth_time=1.0)
        found = observed_order(model, images(), factors=(4, 8), count=1)
    assert found.blocks == pytest.approx(SCHEMES[scheme].order, abs=0.1)
    assert found.logits == pytest.approx(SCHEMES[scheme].order, abs=0.1)
    assert found.block_errors[0] > found.block_errors[1] > 0
    assert found.reason == ""


def test_a_second_order_ode_is_integrated_as_such_and_its_start_decides_the_order() -> None:
    smooth = RateOrder(("minus_symmetric",), inner=("tanh",), bias=True)
    for start, order in ((Start.consistent, 2.0), (Start.repeat, 1.0)):
        with row("leapfrog", rate=smooth, strides=(1,)) as name:
            model = tiny(name, start=start, nodes=1, depth_time=0.5)
            assert observed_order(model, images(), factors=(16, 32), count=1).blocks == pytest.approx(order, abs=0.1)


def test_a_scheme_on_halves_shows_its_order() -> None:
    smooth = RateOrder(("symmetric",), second=("minus_symmetric",), inner=("tanh",), bias=True)
    with row("hamiltonian", rate=smooth, opening=None, last_extra=0, strides=(1,)) as name:
        found = observed_order(tiny(name, nodes=2, depth_time=0.5), images(), factors=(8, 16), count=1)
    assert found.blocks == pytest.approx(1, abs=0.1)


@for_each(
    ("name", "reason"),
    [
        ("lm_resnet", "LM approximates no ODE"),
        ("polynet", "no RK4 reference: PolyNet's block is one step"),
        ("neural_ode", "an adaptive scheme has no steps to halve"),
    ],
)
def test_what_approximates_no_ode_has_no_order_but_a_reason(name: str, reason: str) -> None:
    found = observed_order(tiny(name, nodes=1), images())
    assert (found.blocks, found.logits, found.reason) == (None, None, reason)


def test_a_rate_that_is_zero_has_no_order() -> None:
    found = observed_order(tiny("continuous", nodes=1, skip_init=True), images(), factors=(1, 2), count=1)
    assert (found.blocks, found.block_errors) == (None, (0.0, 0.0))
    assert "rounding" in found.reason


@for_each("factors", [(1,), (1, 3), (0, 0), (2, 4, 7)])
def test_factors_that_are_no_row_are_refused(factors: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="at least two whole numbers, each twice the one before"):
        observed_order(tiny("continuous"), images(), factors=factors)


# Smoothness


def with_weights(network: DepthNet, of_node: list[float], basis: Basis) -> DepthNet:
    """Let every kernel and bias of the rates be that of the first node, times a number of its own for each node."""
    numbers = torch.tensor(of_node)
    assert BASES[basis].cells(len(of_node)) <= len(of_node)
    with torch.no_grad():
        for stage in network.depth_stages():
            for parameter in stage.rate.parameters():
                parameter.copy_(parameter[:1] * numbers.view(-1, *[1] * (parameter.dim() - 1)))
    return network


@for_each("basis", [Basis.piecewise_constant, Basis.hat])
@for_each(
    ("of_node", "first", "second"),
    [
        ([1.0, 1.0, 1.0, 1.0], 0.0, 0.0),
        ([1.0, 2.0, 3.0, 4.0], 3 / 10, 0.0),
        ([1.0, -1.0, 1.0, -1.0], 6 / 4, 8 / 4),
        ([0.0, 0.0, 1.0, 0.0], 2 / 1, 3 / 1),
    ],
)
def test_smoothness_is_the_sum_of_differences_over_that_of_norms(
    of_node: list[float], first: float, second: float, basis: Basis
) -> None:
    model = tiny("continuous", nodes=4, basis=basis, scheme=Scheme.rk4).network
    found = smoothness(with_weights(model, of_node, basis))
    assert found.first == pytest.approx(first, abs=1e-6)
    assert found.second == pytest.approx(second, abs=1e-6)
    assert all(share_K.sum() == pytest.approx(1) for share_K in found.spectra)


def test_the_spectrum_of_a_cosine_along_depth_is_one_mode() -> None:
    cosine = np.cos(np.pi * 2 * (np.arange(8) + 0.5) / 8)  # the third mode
    found = smoothness(with_weights(tiny("continuous", nodes=8).network, cosine.tolist(), Basis.piecewise_constant))
    for share_K in found.spectra:
        assert share_K == pytest.approx(np.eye(8)[2], abs=1e-6)


def test_a_network_of_one_node_has_no_smoothness() -> None:
    found = smoothness(tiny("continuous", nodes=1).network)
    assert (found.first, found.second) == (None, None)
