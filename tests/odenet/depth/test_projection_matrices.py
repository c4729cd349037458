"""Theta between grids and bases: refinement, interpolation, projection and roughness, matrices on the node axis.

Functions of depth are read here by formulae of this file (`reference`), and integrated by a fine midpoint rule.
"""

from collections.abc import Callable
from fractions import Fraction
from itertools import product
from math import cos, pi

import pytest
import torch
from torch import Tensor

from odenet.depth.bases import BASES, mix_nodes
from odenet.depth.projection import interpolation_MN, projection_MN
from odenet.enums import Basis
from odenet.integrators.scheme import Stage
from tests.grids import for_each

GRIDS = [
    *((Basis.piecewise_constant, nodes) for nodes in (1, 2, 3, 8)),
    *((Basis.hat, nodes) for nodes in (1, 2, 4, 5)),
    *((Basis.discontinuous_linear, nodes) for nodes in (2, 6, 8)),
    *((Basis.polynomial, nodes) for nodes in (1, 2, 3, 6)),
]
PAIRS = list(product(GRIDS, GRIDS))
FINE = 2**7 * 3 * 5 * 7  # midpoints of a grid that every grid above divides
T = (torch.arange(FINE, dtype=torch.float64) + 0.5) / FINE

Grid = tuple[Basis, int]


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(shape[0]))


def chebyshev(nodes: int) -> list[float]:
    return [(1 - cos(pi * j / (nodes - 1))) / 2 for j in range(nodes)]


def lagrange(points: list[float], t: Tensor) -> Tensor:
    """The Lagrange polynomials of the points as products, (T, N)."""
    columns = []
    for j, point in enumerate(points):
        factors = [(t - other) / (point - other) for k, other in enumerate(points) if k != j]
        columns.append(torch.stack([*factors, torch.ones_like(t)]).prod(0))
    return torch.stack(columns, dim=1)


def reference(grid: Grid, t: Tensor) -> Tensor:
    """phi_a(t) where theta is smooth, (T, N), by the textbook formula of each basis."""
    basis, nodes = grid
    if basis is Basis.piecewise_constant:
        return torch.nn.functional.one_hot((nodes * t).long(), nodes).double()
    if basis is Basis.hat:
        centre = torch.arange(nodes, dtype=torch.float64)
        return (1 - ((nodes - 1) * t[:, None] - centre).abs()).clamp(min=0)
    if basis is Basis.discontinuous_linear:
        element = nodes / 2 * t
        right = element.frac()
        inside = torch.nn.functional.one_hot(element.long(), nodes // 2).double()
        return torch.stack([inside * (1 - right)[:, None], inside * right[:, None]], dim=2).flatten(1)
    return lagrange(chebyshev(nodes) if nodes > 1 else [0.5], t)


def stages_of(t: Tensor) -> list[Stage]:
    return [Stage(0, 1, Fraction(place)) for place in t.tolist()]


@for_each("grid", GRIDS)
def test_theta_is_what_the_textbook_says(grid: Grid) -> None:
    t = T[::97]
    torch.testing.assert_close(BASES[grid[0]].values_SN(grid[1], stages_of(t)), reference(grid, t), rtol=0, atol=1e-13)


# Refinement


@for_each("grid", GRIDS)
@for_each("positive", [False, True])
def test_refinement_halves_the_cells_and_leaves_theta_and_variances_where_they_were(grid: Grid, positive: bool) -> None:
    (basis, nodes), stages = grid, stages_of(T[::97])
    refined = BASES[basis].refined(nodes)
    if nodes > 1:
        assert BASES[basis].cells(refined) == 2 * BASES[basis].cells(nodes)
    else:
        assert refined == 2
    before = BASES[basis].values_SN(nodes, stages, positive=positive)
    after = BASES[basis].values_SN(refined, stages, positive=positive)
    matrix_MN = BASES[basis].refinement_MN(nodes, positive=positive)
    torch.testing.assert_close(after @ matrix_MN, before, rtol=0, atol=1e-13)


@for_each("grid", GRIDS)
def test_refining_variances_takes_weights_that_are_not_negative_and_sum_to_one(grid: Grid) -> None:
    matrix_MN = BASES[grid[0]].refinement_MN(grid[1], positive=True)
    assert bool((matrix_MN >= 0).all())
    torch.testing.assert_close(matrix_MN.sum(1), torch.ones(len(matrix_MN), dtype=torch.float64), rtol=0, atol=2e-16)


def test_a_polynomial_between_positive_nodes_can_be_negative_but_its_variances_are_not() -> None:
    positive_N = torch.tensor([1.0, 0.01, 0.01, 1.0], dtype=torch.float64)
    refine = BASES[Basis.polynomial].refinement_MN
    assert float((refine(4) @ positive_N).min()) < -0.05
    assert float((refine(4, positive=True) @ positive_N).min()) == pytest.approx(0.01)


# Interpolation


@for_each(("source", "target"), PAIRS)
def test_interpolated_variances_are_means_of_the_given_ones(source: Grid, target: Grid) -> None:
    matrix_MN = interpolation_MN(*source, *target, positive=True)
    assert matrix_MN.shape == (target[1], source[1])
    assert bool((matrix_MN >= 0).all())
    torch.testing.assert_close(matrix_MN.sum(1), torch.ones(target[1], dtype=torch.float64), rtol=0, atol=2e-16)


@for_each("move", [interpolation_MN, projection_MN])
@for_each(("source", "target"), PAIRS)
def test_a_constant_stays_that_constant(move: Callable[..., Tensor], source: Grid, target: Grid) -> None:
    ones_N = torch.ones(source[1], dtype=torch.float64)
    torch.testing.assert_close(move(*source, *target) @ ones_N, torch.ones(target[1]).double(), rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        ((Basis.piecewise_constant, 4), (Basis.piecewise_constant, 2), [1, 3]),
        ((Basis.piecewise_constant, 4), (Basis.hat, 3), [0, 2, 3]),
        ((Basis.piecewise_constant, 4), (Basis.discontinuous_linear, 4), [0, 1, 2, 3]),
        ((Basis.piecewise_constant, 4), (Basis.polynomial, 4), [0, 1, 3, 3]),
        ((Basis.hat, 3), (Basis.piecewise_constant, 2), [0.5, 1.5]),
        ((Basis.discontinuous_linear, 4), (Basis.hat, 3), [0, 2, 3]),
        ((Basis.discontinuous_linear, 4), (Basis.piecewise_constant, 1), [2]),
        ((Basis.polynomial, 3), (Basis.hat, 5), [0, 0.5, 1, 1.5, 2]),
    ],
)
def test_interpolation_reads_theta_where_the_target_has_its_nodes(
    source: Grid, target: Grid, expected: list[float]
) -> None:
    interpolated = interpolation_MN(*source, *target) @ torch.arange(source[1], dtype=torch.float64)
    torch.testing.assert_close(interpolated, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-15)


# Projection


@for_each(("source", "target"), PAIRS)
def test_a_projection_leaves_a_residual_orthogonal_to_every_function_of_the_target(source: Grid, target: Grid) -> None:
    theta_N = normal(source[1])
    phi_TM = reference(target, T)
    residual_T = reference(source, T) @ theta_N - phi_TM @ (projection_MN(*source, *target) @ theta_N)
    inner_M = phi_TM.T @ residual_T / FINE
    # The midpoint rule is off by its step squared over 24, times the second derivative of the product.
    torch.testing.assert_close(inner_M, torch.zeros_like(inner_M), rtol=0, atol=1e-6)


@for_each(("source", "target"), PAIRS)
def test_projecting_twice_is_projecting_once(source: Grid, target: Grid) -> None:
    once_MN = projection_MN(*source, *target)
    torch.testing.assert_close(projection_MN(*target, *target) @ once_MN, once_MN, rtol=0, atol=1e-12)


@for_each("grid", GRIDS)
def test_projecting_back_after_a_refinement_is_the_identity(grid: Grid) -> None:
    basis, nodes = grid
    back_NM = projection_MN(basis, BASES[basis].refined(nodes), basis, nodes)
    identity = back_NM @ BASES[basis].refinement_MN(nodes)
    torch.testing.assert_close(identity, torch.eye(nodes, dtype=torch.float64), rtol=0, atol=1e-12)


@pytest.mark.parametrize("nodes", [1, 3, 4])
def test_coarsening_constants_takes_the_mean_of_each_pair(nodes: int) -> None:
    pairs_MN = torch.eye(nodes, dtype=torch.float64).repeat_interleave(2, dim=1) / 2
    projected = projection_MN(Basis.piecewise_constant, 2 * nodes, Basis.piecewise_constant, nodes)
    torch.testing.assert_close(projected, pairs_MN, rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ((Basis.hat, 5), (Basis.discontinuous_linear, 8)),
        ((Basis.piecewise_constant, 4), (Basis.discontinuous_linear, 8)),
        ((Basis.hat, 2), (Basis.polynomial, 6)),
        ((Basis.polynomial, 2), (Basis.hat, 4)),
        ((Basis.polynomial, 4), (Basis.polynomial, 6)),
    ],
)
def test_projecting_into_a_larger_space_is_interpolation(source: Grid, target: Grid) -> None:
    theta_N = normal(source[1])
    projected = projection_MN(*source, *target) @ theta_N
    torch.testing.assert_close(reference(target, T) @ projected, reference(source, T) @ theta_N, rtol=0, atol=1e-12)


def test_projected_variances_can_be_negative_and_interpolated_ones_cannot() -> None:
    grids = (Basis.piecewise_constant, 8, Basis.hat, 5)
    positive_N = torch.tensor([0.01, 0.01, 0.01, 0.5, 0.01, 0.01, 0.01, 0.01], dtype=torch.float64)
    assert float((projection_MN(*grids) @ positive_N).min()) == pytest.approx(-0.0727, abs=1e-3)
    assert float((interpolation_MN(*grids, positive=True) @ positive_N).min()) > 0


# The inner product


@for_each("grid", GRIDS)
def test_the_mass_matrix_holds_the_integrals_of_products_and_refinement_keeps_them(grid: Grid) -> None:
    (basis, nodes), phi_TN = grid, reference(grid, T)
    mass_NN = BASES[basis].mass_NN(nodes)
    # The midpoint rule is off by its step squared over 24, times the second derivative of the product.
    torch.testing.assert_close(mass_NN, phi_TN.T @ phi_TN / FINE, rtol=0, atol=1e-6)
    refine_MN, fine_MM = BASES[basis].refinement_MN(nodes), BASES[basis].mass_NN(BASES[basis].refined(nodes))
    torch.testing.assert_close(refine_MN.T @ fine_MM @ refine_MN, mass_NN, rtol=0, atol=1e-15)


@pytest.mark.parametrize(
    ("grid", "expected"),
    [
        ((Basis.piecewise_constant, 2), [[1 / 2, 0], [0, 1 / 2]]),
        ((Basis.hat, 3), [[1 / 6, 1 / 12, 0], [1 / 12, 1 / 3, 1 / 12], [0, 1 / 12, 1 / 6]]),
        ((Basis.discontinuous_linear, 2), [[1 / 3, 1 / 6], [1 / 6, 1 / 3]]),
        ((Basis.polynomial, 3), [[2 / 15, 1 / 15, -1 / 30], [1 / 15, 8 / 15, 1 / 15], [-1 / 30, 1 / 15, 2 / 15]]),
    ],
)
def test_mass_matrices_are_those_of_the_textbook(grid: Grid, expected: list[list[float]]) -> None:
    mass_NN = BASES[grid[0]].mass_NN(grid[1])
    torch.testing.assert_close(mass_NN, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-15)


# Roughness


def roughness(grid: Grid, theta_N: Tensor, initial_nodes: int | None = None) -> float:
    """||D theta||^2."""
    return float(mix_nodes(BASES[grid[0]].roughness_MN(grid[1], initial_nodes or grid[1]), theta_N).square().sum())


@for_each("grid", GRIDS)
def test_refining_twice_leaves_the_roughness_what_it_was(grid: Grid) -> None:
    (basis, nodes), theta_N = grid, normal(grid[1], 4)
    expected = roughness(grid, theta_N)
    for _ in range(2):
        theta_N, now = mix_nodes(BASES[basis].refinement_MN(len(theta_N)), theta_N), BASES[basis].refined(len(theta_N))
        assert roughness((basis, now), theta_N, initial_nodes=nodes) == pytest.approx(expected, rel=1e-11, abs=1e-20)


@pytest.mark.parametrize("grid", [grid for grid in GRIDS if grid[0] in (Basis.hat, Basis.polynomial)])
def test_roughness_is_the_integral_of_the_squared_slope(grid: Grid) -> None:
    theta_N, width = normal(grid[1], 4), 1 / FINE
    left, right = reference(grid, T - width / 4) @ theta_N, reference(grid, T + width / 4) @ theta_N
    integral = float(((right - left) / (width / 2)).square().sum() / FINE)
    assert roughness(grid, theta_N) == pytest.approx(integral, rel=1e-6, abs=1e-15)


@for_each("grid", GRIDS)
def test_a_constant_is_not_rough_at_all(grid: Grid) -> None:
    # The slope of a polynomial is a sum of many terms, which cancel to rounding only.
    ones_N = torch.ones(grid[1], 3, dtype=torch.float64)
    assert roughness(grid, ones_N) <= (1e-25 if grid[0] is Basis.polynomial else 0)


@pytest.mark.parametrize(
    ("grid", "initial_nodes", "expected"),
    [
        ((Basis.piecewise_constant, 4), 4, 4 * (1 + 4 + 9)),
        ((Basis.piecewise_constant, 4), 2, 2 * (1 + 4 + 9)),
        ((Basis.discontinuous_linear, 4), 4, 2 * 1 + 2 * 4 + 2 * 9),
        ((Basis.discontinuous_linear, 4), 2, 2 * 1 + 1 * 4 + 2 * 9),
    ],
)
def test_a_jump_is_a_slope_over_a_cell_of_the_initial_grid(grid: Grid, initial_nodes: int, expected: float) -> None:
    theta_N = torch.tensor([0.0, 1.0, 3.0, 6.0], dtype=torch.float64)
    assert roughness(grid, theta_N, initial_nodes) == pytest.approx(expected)


def test_a_cell_boundary_at_a_rational_chebyshev_point_is_not_missed_by_rounding() -> None:
    t_N = [stage.abscissa for stage in BASES[Basis.polynomial].positions(4)]
    assert t_N == [0, Fraction(1, 4), Fraction(3, 4), 1]
