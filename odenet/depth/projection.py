"""Matrices that carry a function of depth from one basis or number of nodes to another.

Shapes: `N` nodes, `M` nodes of another grid, `Q` points of a quadrature.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from odenet.depth.bases import BASES
from odenet.depth.quadrature import piece_ends, quadrature
from odenet.enums import Basis

if TYPE_CHECKING:
    from torch import Tensor


class Projection(Enum):
    """How a function of depth is carried to another grid or basis."""

    l2 = "l2"  # the nearest in the mean square over depth; variances are interpolated
    interpolation = "interpolation"  # its values at the new nodes


def interpolation_MN(source: Basis, nodes: int, target: Basis, target_nodes: int, *, positive: bool = False) -> Tensor:
    """Node values of a source basis to those of a target basis: theta at the places of the target's nodes (float64).

    Where theta jumps at such a place it is the limit from the right, except at the right end of [0, 1] and of an
    element of a discontinuous target. `positive` gives the matrix of variances: no entry negative, rows sum to 1.
    """
    return BASES[source].values_SN(nodes, BASES[target].positions(target_nodes), positive=positive)


def projection_MN(source: Basis, nodes: int, target: Basis, target_nodes: int) -> Tensor:
    """Node values of a source basis to those of the target function nearest in L2 over depth (float64).

    Exact: Gauss-Legendre on the union of both grids. Not for variances: eight positive constants may become negative
    hats. Cost: one row for each point of the quadrature, of which each piece of the union has the larger degree plus 1.
    """
    import torch

    given, wanted = BASES[source], BASES[target]
    ends = piece_ends(given.pieces(nodes)) | piece_ends(wanted.pieces(target_nodes))
    stages, scale = quadrature(ends, max(given.degree(nodes), wanted.degree(target_nodes)) + 1)
    given_QN, wanted_QM = given.values_SN(nodes, stages), wanted.values_SN(target_nodes, stages)
    return torch.linalg.lstsq(scale * wanted_QM, scale * given_QN).solution
