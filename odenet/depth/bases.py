"""How weights depend on depth: theta(t) = sum_a phi_a(t) theta_a over the leading node axis of one tensor.

Shapes: `N` nodes, `M` nodes of another grid, `S` stages, `Q` points of a quadrature.

A stage reads theta as the limit from *inside* its step: a stage at the right end of a step (abscissa 1) reads the cell
that ends there, not the one that begins. Otherwise Heun and RK4 fall to first order on weights that jump. So a step
aligned with a cell sees its own cell only, and a step longer than a cell sees the cells it stands in.

Everything done to nodes is a matrix on the node axis: refining, interpolating and projecting weights, biases,
batch-norm parameters and momentum. Variances and second moments have a rule of their own, `positive_row`, whose
weights are never negative: a polynomial through positive values may be negative, and so may a projection.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_right
from fractions import Fraction
from math import sqrt
from typing import TYPE_CHECKING

from odenet.depth.quadrature import barycentric, lobatto, piece_ends, quadrature
from odenet.enums import Basis
from odenet.integrators.scheme import Stage

if TYPE_CHECKING:  # a configuration is checked against the table of bases, before torch is loaded
    from torch import Tensor

Row = dict[int, Fraction]  # node -> weight
ONE = Fraction(1)


def cell_of(cells: int, stage: Stage) -> int:
    """The cell of a grid of equal cells that a stage reads: integer arithmetic, the limit from inside the step."""
    step, steps, c = stage
    if c == 1:
        return -(-cells * (step + 1) // steps) - 1
    return cells * (step * c.denominator + c.numerator) // (steps * c.denominator)


class DepthBasis(ABC):
    """Functions phi_a on [0, 1], one for each node, that sum to 1: equal values at all nodes are a constant."""

    def check(self, nodes: int) -> None:  # noqa: B027
        """Raises ValueError where the basis cannot have so many nodes; most can have any number from 1."""

    @abstractmethod
    def cells(self, nodes: int) -> int:
        """The elements of the depth axis; a training step is a whole fraction of one."""

    def pieces(self, nodes: int) -> int:
        """Equal parts of [0, 1], on each of which theta is a polynomial of `degree`."""
        return self.cells(nodes)

    @abstractmethod
    def degree(self, nodes: int) -> int:
        """Of the polynomial that theta is on a piece."""

    @abstractmethod
    def refined(self, nodes: int) -> int:
        """Nodes after a refinement, which halves every cell (a single hat or polynomial node becomes two)."""

    @abstractmethod
    def positions(self, nodes: int) -> list[Stage]:
        """The place in depth whose value each node holds."""

    @abstractmethod
    def row(self, nodes: int, stage: Stage) -> Row:
        """The non-zero phi_a at a stage; exact where theta is piecewise constant or linear, else rounded to float64."""

    def positive_row(self, nodes: int, stage: Stage) -> Row:
        """How variances are read at a stage: exact weights, none negative, that sum to 1."""
        return self.row(nodes, stage)

    @abstractmethod
    def roughness_MN(self, nodes: int, initial_nodes: int) -> Tensor:
        """A matrix D (float64) for which ||D theta||^2 is the integral of ||dtheta/dt||^2 over [0, 1].

        A jump counts as a slope over one cell of the initial grid, which is why refinement leaves the value unchanged.
        """

    def mass_NN(self, nodes: int) -> Tensor:
        """M (float64): the integrals of phi_a phi_b over [0, 1], exact; theta^T M theta is ||theta||^2 in L2."""
        stages, scale = quadrature(piece_ends(self.pieces(nodes)), self.degree(nodes) + 1)
        phi_QN = scale * self.values_SN(nodes, stages)
        return phi_QN.T @ phi_QN

    def values(self, nodes: int, stages: list[Stage], *, positive: bool = False) -> list[list[float]]:
        """The rows of `values_SN` as plain numbers."""
        read = self.positive_row if positive else self.row
        rows = [read(nodes, stage) for stage in stages]
        return [[float(row.get(node, 0)) for node in range(nodes)] for row in rows]

    def values_SN(self, nodes: int, stages: list[Stage], *, positive: bool = False) -> Tensor:
        """Node values to theta at the stages (float64)."""
        import torch

        rows = self.values(nodes, stages, positive=positive)
        return torch.tensor(rows, dtype=torch.float64).view(len(stages), nodes)

    def refinement_MN(self, nodes: int, *, positive: bool = False) -> Tensor:
        """Node values to those after a refinement: theta(t) stays what it was (float64).

        Args:
            nodes: before the refinement.
            positive: the matrix of variances; it keeps what `positive_row` reads.
        """
        return self.values_SN(nodes, self.positions(self.refined(nodes)), positive=positive)


class PiecewiseConstant(DepthBasis):
    """phi_a = 1 on cell a of N equal cells, else 0 (Queiruga et al. 2020, arXiv 2008.02389)."""

    def cells(self, nodes: int) -> int:
        return nodes

    def degree(self, nodes: int) -> int:  # noqa: ARG002
        return 0

    def refined(self, nodes: int) -> int:
        return 2 * nodes

    def positions(self, nodes: int) -> list[Stage]:
        return [Stage(cell, nodes, Fraction(1, 2)) for cell in range(nodes)]

    def row(self, nodes: int, stage: Stage) -> Row:
        return {cell_of(nodes, stage): ONE}

    def roughness_MN(self, nodes: int, initial_nodes: int) -> Tensor:
        return sqrt(initial_nodes) * _differences(nodes)


class Hat(DepthBasis):
    """Continuous and piecewise linear between N equidistant nodes, both ends included; N = 1 is a constant.

    Source: `fem_linear` of Queiruga et al. 2021, arXiv 2106.10820. HeunNet (Sander et al. 2022, arXiv 2205.14612)
    is Heun on this basis with N - 1 steps.
    """

    def cells(self, nodes: int) -> int:
        return max(nodes - 1, 1)

    def degree(self, nodes: int) -> int:
        return min(nodes - 1, 1)

    def refined(self, nodes: int) -> int:
        return max(2 * nodes - 1, 2)

    def positions(self, nodes: int) -> list[Stage]:
        if nodes == 1:
            return [Stage(0, 1, Fraction(1, 2))]
        return [Stage(0, 1, Fraction(node, nodes - 1)) for node in range(nodes)]

    def row(self, nodes: int, stage: Stage) -> Row:
        if nodes == 1:
            return {0: ONE}
        cell = cell_of(nodes - 1, stage)
        return _between(cell, (nodes - 1) * _depth(stage) - cell)

    def roughness_MN(self, nodes: int, initial_nodes: int) -> Tensor:  # noqa: ARG002
        return sqrt(self.cells(nodes)) * _differences(nodes)


class DiscontinuousLinear(DepthBasis):
    """Linear on each of N/2 equal elements: nodes 2e and 2e + 1 are the ends of element e, seen from inside it.

    Source: `piecewise_linear` of Queiruga et al. 2021, arXiv 2106.10820.
    """

    def check(self, nodes: int) -> None:
        if nodes % 2:
            raise ValueError(
                f"model.nodes={nodes} with model.basis={Basis.discontinuous_linear.value}: every element has a node at "
                f"each of its two ends, so the number of nodes must be even, such as {nodes + 1}."
            )

    def cells(self, nodes: int) -> int:
        return nodes // 2

    def degree(self, nodes: int) -> int:  # noqa: ARG002
        return 1

    def refined(self, nodes: int) -> int:
        return 2 * nodes

    def positions(self, nodes: int) -> list[Stage]:
        return [Stage(node // 2, nodes // 2, Fraction(node % 2)) for node in range(nodes)]

    def row(self, nodes: int, stage: Stage) -> Row:
        element = cell_of(nodes // 2, stage)
        return _between(2 * element, nodes // 2 * _depth(stage) - element)

    def roughness_MN(self, nodes: int, initial_nodes: int) -> Tensor:
        differences = _differences(nodes)
        differences[0::2] *= sqrt(nodes // 2)  # slopes of elements
        differences[1::2] *= sqrt(initial_nodes // 2)  # jumps between them
        return differences


class Polynomial(DepthBasis):
    """One polynomial of degree N - 1, held by its values at the Chebyshev-Lobatto points; N = 1 is a constant.

    Read by barycentric interpolation, which is stable at these points (Berrut and Trefethen 2004, SIAM Review 46).
    2 N - 1 points contain N, so refinement keeps the old values. Variances are linear between the points.
    """

    def cells(self, nodes: int) -> int:
        return max(nodes - 1, 1)

    def pieces(self, nodes: int) -> int:  # noqa: ARG002
        return 1

    def degree(self, nodes: int) -> int:
        return nodes - 1

    def refined(self, nodes: int) -> int:
        return max(2 * nodes - 1, 2)

    def positions(self, nodes: int) -> list[Stage]:
        return [Stage(0, 1, point) for point in lobatto(nodes)]

    def row(self, nodes: int, stage: Stage) -> Row:
        points, t = lobatto(nodes), _depth(stage)
        if nodes == 1:
            return {0: ONE}
        if t in points:
            return {points.index(t): ONE}
        terms = [weight / float(t - point) for weight, point in zip(barycentric(nodes), points, strict=True)]
        return {node: Fraction(term / sum(terms)) for node, term in enumerate(terms)}

    def positive_row(self, nodes: int, stage: Stage) -> Row:
        if nodes == 1:
            return {0: ONE}
        points, t = lobatto(nodes), _depth(stage)
        left = min(bisect_right(points, t), nodes - 1) - 1
        return _between(left, (t - points[left]) / (points[left + 1] - points[left]))

    def roughness_MN(self, nodes: int, initial_nodes: int) -> Tensor:  # noqa: ARG002
        if nodes == 1:
            return _differences(nodes)
        import torch

        points = torch.tensor([float(point) for point in lobatto(nodes)], dtype=torch.float64)
        weights = torch.tensor(barycentric(nodes), dtype=torch.float64)
        slope_NN = weights / weights[:, None] / (points[:, None] - points).fill_diagonal_(1)
        slope_NN.fill_diagonal_(0)
        slope_NN -= slope_NN.sum(1).diag()  # so that constants have none
        stages, scale = quadrature(piece_ends(1), nodes - 1)
        return scale * self.values_SN(nodes, stages) @ slope_NN


def _depth(stage: Stage) -> Fraction:
    return (stage.step + stage.abscissa) / stage.steps


def _between(left: int, weight: Fraction) -> Row:
    """Linear interpolation between a node and the next one, which has the weight."""
    return {node: share for node, share in ((left, 1 - weight), (left + 1, weight)) if share}


def _differences(nodes: int) -> Tensor:
    """theta_{a+1} - theta_a; a single node differs from none, which is a row of zeros."""
    import torch

    return torch.eye(nodes, dtype=torch.float64).diff(dim=0) if nodes > 1 else torch.zeros(1, 1, dtype=torch.float64)


BASES: dict[Basis, DepthBasis] = {
    Basis.piecewise_constant: PiecewiseConstant(),
    Basis.hat: Hat(),
    Basis.discontinuous_linear: DiscontinuousLinear(),
    Basis.polynomial: Polynomial(),
}


def mix_nodes(matrix_MN: Tensor, theta_N: Tensor) -> Tensor:
    """sum_a matrix[m, a] theta_a for every m, in the arithmetic of theta, outside autocast.

    Kernels (N, Co, Ci, kh, kw) are stored as (N, Co, kh, kw, Ci), and so is the result: its slices are channels_last.
    """
    import torch

    if theta_N.dim() == 5:
        stored = theta_N.permute(0, 1, 3, 4, 2)
        return mix_nodes(matrix_MN, stored.flatten(1)).view(-1, *stored.shape[1:]).permute(0, 1, 4, 2, 3)
    device = "cpu" if theta_N.is_meta else theta_N.device.type  # costs are counted on meta tensors, unknown to autocast
    with torch.autocast(device, enabled=False):
        mixed = matrix_MN.to(theta_N.device, theta_N.dtype) @ theta_N.reshape(len(theta_N), -1)
    return mixed.view(-1, *theta_N.shape[1:])
