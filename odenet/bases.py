"""How weights depend on depth: theta(t) = sum_a phi_a(t) theta_a over the leading node axis of one tensor.

Shapes: `N` nodes, `M` nodes of another grid, `S` slots (rows of weights that stages read), `E` rate evaluations.

A stage reads theta as the limit from *inside* its step: a stage at the right end of a step (abscissa 1) reads the cell
that ends there, not the one that begins. Otherwise Heun and RK4 fall to first order on weights that jump. So a step
aligned with a cell sees its own cell only, and a step longer than a cell sees the cells it stands in.

Everything done to nodes is a matrix on the node axis: refining weights, biases, batch-norm parameters and momentum.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import torch
from torch import Tensor

from odenet.schemes import SCHEMES
from odenet.terms import Basis, Scheme, Stage

Row = dict[int, Fraction]  # node -> weight


def cell_of(cells: int, stage: Stage) -> int:
    """The cell of a grid of equal cells that a stage reads: integer arithmetic, the limit from inside the step."""
    step, steps, c = stage
    if c == 1:
        return -(-cells * (step + 1) // steps) - 1
    return cells * (step * c.denominator + c.numerator) // (steps * c.denominator)


class DepthBasis(ABC):
    """Functions phi_a on [0, 1], one for each node."""

    @abstractmethod
    def cells(self, nodes: int) -> int:
        """Elements on which theta is smooth; a training step is a whole fraction of one."""

    @abstractmethod
    def row(self, nodes: int, stage: Stage) -> Row:
        """The non-zero phi_a at a stage."""

    @abstractmethod
    def refinement_MN(self, nodes: int) -> Tensor:
        """The matrix that halves every cell and keeps theta(t): non-negative rows that sum to 1 (float64)."""


class PiecewiseConstant(DepthBasis):
    """phi_a = 1 on cell a of N equal cells, else 0 (Queiruga et al. 2020, arXiv 2008.02389)."""

    def cells(self, nodes: int) -> int:
        return nodes

    def row(self, nodes: int, stage: Stage) -> Row:
        return {cell_of(nodes, stage): Fraction(1)}

    def refinement_MN(self, nodes: int) -> Tensor:
        return torch.eye(nodes, dtype=torch.float64).repeat_interleave(2, dim=0)


class Hat(DepthBasis):
    """Continuous and piecewise linear between N equidistant nodes, both ends included; N = 1 is a constant.

    Source: `fem_linear` of Queiruga et al. 2021, arXiv 2106.10820. HeunNet (Sander et al. 2022, arXiv 2205.14612)
    is Heun on this basis with N - 1 steps.
    """

    def cells(self, nodes: int) -> int:
        return max(nodes - 1, 1)

    def row(self, nodes: int, stage: Stage) -> Row:
        if nodes == 1:
            return {0: Fraction(1)}
        cell = cell_of(nodes - 1, stage)
        right = (nodes - 1) * (stage.step + stage.abscissa) / stage.steps - cell
        return {node: weight for node, weight in ((cell, 1 - right), (cell + 1, Fraction(right))) if weight}

    def refinement_MN(self, nodes: int) -> Tensor:
        if nodes == 1:
            return torch.ones(2, 1, dtype=torch.float64)
        eye = torch.eye(nodes, dtype=torch.float64)
        between = (eye[:-1] + eye[1:]) / 2
        return torch.cat([torch.stack([eye[:-1], between], dim=1).flatten(0, 1), eye[-1:]])


BASES: dict[Basis, DepthBasis] = {Basis.piecewise_constant: PiecewiseConstant(), Basis.hat: Hat()}


def mix_nodes(matrix_MN: Tensor, theta_N: Tensor) -> Tensor:
    """sum_a matrix[m, a] theta_a for every m, in the arithmetic of theta, outside autocast.

    Kernels (N, Co, Ci, kh, kw) are stored as (N, Co, kh, kw, Ci), and so is the result: its slices are channels_last.
    """
    if theta_N.dim() == 5:
        stored = theta_N.permute(0, 1, 3, 4, 2)
        return mix_nodes(matrix_MN, stored.flatten(1)).view(-1, *stored.shape[1:]).permute(0, 1, 4, 2, 3)
    device = "cpu" if theta_N.is_meta else theta_N.device.type  # costs are counted on meta tensors, unknown to autocast
    with torch.autocast(device, enabled=False):
        mixed = matrix_MN.to(theta_N.device, theta_N.dtype) @ theta_N.reshape(len(theta_N), -1)
    return mixed.view(-1, *theta_N.shape[1:])


@dataclass(frozen=True, slots=True)
class Readout:
    """How the stages of one manifestation (scheme, steps) read the nodes: each stage has a slot, each slot is a row.

    Where rows are plain selections (piecewise constant weights) slots are the nodes themselves and nothing is mixed.
    """

    slots: dict[tuple[int, int, int], int]  # by `Stage.key`
    matrix_SN: Tensor | None  # float64; None: slots are nodes
    rows_EN: Tensor  # float64, one row for each evaluation in the order in which they happen
    fit_NE: Tensor  # float64, its pseudo-inverse: node values by least squares from what was seen at the evaluations

    def take(self, theta_N: Tensor) -> tuple[Tensor, ...]:
        """The tensor of every slot, taken apart once per forward pass: indexing at each evaluation would cost a
        full-size zero gradient each time."""
        return (theta_N if self.matrix_SN is None else mix_nodes(self.matrix_SN, theta_N)).unbind(0)


def unread_nodes(basis: Basis, nodes: int, scheme: Scheme, steps: int) -> list[int]:
    """Nodes that no stage of a manifestation reads: trained under it, their weights would stay as they are."""
    read = {node for stage in SCHEMES[scheme].stages(steps) for node in BASES[basis].row(nodes, stage)}
    return sorted(set(range(nodes)) - read)


def readout(basis: Basis, nodes: int, scheme: Scheme, steps: int, device: torch.device) -> Readout:
    """The readout of a manifestation; a constant, so computed once in a process."""
    # The cache stands one call below: torch.compile looks through a cached function and would trace what it computes.
    return _readout(basis, nodes, scheme, steps, device)


@lru_cache(maxsize=1024)
def _readout(basis: Basis, nodes: int, scheme: Scheme, steps: int, device: torch.device) -> Readout:
    stages = SCHEMES[scheme].stages(steps)
    rows = [BASES[basis].row(nodes, stage) for stage in stages]
    rows_EN = _dense(rows, nodes)
    if all(len(row) == 1 for row in rows):
        slots = {stage.key: next(iter(row)) for stage, row in zip(stages, rows, strict=True)}
        mean_NE = rows_EN.T / rows_EN.sum(0).clamp(min=1)[:, None]
        return Readout(slots, None, rows_EN.to(device), mean_NE.to(device))
    distinct = {stage.key: row for stage, row in zip(stages, rows, strict=True)}
    slots = {key: slot for slot, key in enumerate(distinct)}
    matrix_SN, fit_NE = _dense(list(distinct.values()), nodes), torch.linalg.pinv(rows_EN)
    return Readout(slots, matrix_SN.to(device), rows_EN.to(device), fit_NE.to(device))


def _dense(rows: list[Row], nodes: int) -> Tensor:
    return torch.tensor([[float(row.get(node, 0)) for node in range(nodes)] for row in rows], dtype=torch.float64)
