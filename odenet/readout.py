"""What the stages of a manifestation read: constant matrices between nodes and evaluations.

Shapes: `N` nodes, `S` slots (rows of weights that stages read), `E` rate evaluations of a forward pass.
"""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache, partial
from typing import NamedTuple

import torch
from torch import Tensor

from odenet.bases import BASES, mix_nodes
from odenet.schemes import SCHEMES
from odenet.terms import Basis, Scheme, Stage

Slots = dict[tuple[int, int, int], int]  # `Stage.key` to the number of its row


class _Reading(NamedTuple):
    matrix_SN: Tensor | None
    rows_EN: Tensor
    fit_NE: Tensor


@dataclass(frozen=True, slots=True)
class Readout:
    """How the stages of one manifestation (scheme, steps) read the nodes: each stage has a slot, each slot is a row.

    Stages that read the same share a slot. There are slots also for the mirrored stages (abscissa 1 - c), which a walk
    backward reads. Where rows are plain selections (piecewise constant weights) slots are the nodes themselves and
    nothing is mixed. A scheme that chooses its own stages has none listed: E = 0.
    """

    slots: Slots  # empty: a single node, which every stage reads
    matrix_SN: Tensor | None  # float64; None: slots are nodes
    rows_EN: Tensor  # float64, one row for each evaluation in the order in which they happen
    fit_NE: Tensor  # float64, its pseudo-inverse: node values by least squares from what was seen at the evaluations
    positive_SN: Tensor | None  # the same three for variances
    positive_rows_EN: Tensor
    positive_fit_NE: Tensor

    def slot(self, stage: Stage) -> int:
        """Which of the tensors of `take` a stage reads."""
        # Not "if self.slots": torch.compile cannot ask of a constant dictionary whether it is empty.
        return self.slots[stage.key] if self.rows_EN.shape[1] > 1 else 0

    def take(self, theta_N: Tensor, *, positive: bool = False) -> tuple[Tensor, ...]:
        """The tensor of every slot, taken apart once per forward pass: indexing at each evaluation would cost a
        full-size zero gradient each time. `positive` is for variances: no slot is below the smallest node."""
        matrix_SN = self.positive_SN if positive else self.matrix_SN
        return (theta_N if matrix_SN is None else mix_nodes(matrix_SN, theta_N)).unbind(0)


def unread_nodes(basis: Basis, nodes: int, scheme: Scheme, steps: int) -> list[int]:
    """Nodes that no stage of a manifestation reads: trained under it, their weights would stay as they are."""
    if nodes == 1:
        return []
    read = {node for stage in SCHEMES[scheme].stages(steps) for node in BASES[basis].row(nodes, stage)}
    return sorted(set(range(nodes)) - read)


def readout(basis: Basis, nodes: int, scheme: Scheme, steps: int, device: torch.device) -> Readout:
    """The readout of a manifestation; a constant, so computed once in a process."""
    # The cache stands one call below: torch.compile looks through a cached function and would trace what it computes.
    return _readout(basis, nodes, scheme, steps, device)


@lru_cache(maxsize=1024)
def _readout(basis: Basis, nodes: int, scheme: Scheme, steps: int, device: torch.device) -> Readout:
    stages = SCHEMES[scheme].stages(steps)
    assert nodes == 1 or stages, "a scheme that chooses its own stages needs weights that are constant in depth"
    slots, shown = _slots(basis, nodes, stages) if nodes > 1 else ({}, None)
    values = partial(BASES[basis].values_SN, nodes)
    plain = _reading(values, stages, shown, device)
    if shown is None or torch.equal(values(shown), values(shown, positive=True)):
        return Readout(slots, *plain, *plain)
    return Readout(slots, *plain, *_reading(partial(values, positive=True), stages, shown, device))


def _slots(basis: Basis, nodes: int, stages: list[Stage]) -> tuple[Slots, list[Stage] | None]:
    """The slot of every stage and mirrored stage, and for each slot a stage that reads it; None: slots are nodes."""
    mirrored = [stage._replace(abscissa=1 - stage.abscissa) for stage in stages]
    rows = {stage: tuple(BASES[basis].row(nodes, stage).items()) for stage in stages + mirrored}
    if all(len(row) == 1 for row in rows.values()):
        return {stage.key: row[0][0] for stage, row in rows.items()}, None
    shown: dict[tuple[tuple[int, Fraction], ...], Stage] = {}
    for stage, row in rows.items():
        shown.setdefault(row, stage)
    number = {row: slot for slot, row in enumerate(shown)}
    return {stage.key: number[row] for stage, row in rows.items()}, list(shown.values())


def _reading(
    values: Callable[[list[Stage]], Tensor], stages: list[Stage], shown: list[Stage] | None, device: torch.device
) -> _Reading:
    rows_EN = values(stages)
    fit_NE = rows_EN.T / rows_EN.sum(0).clamp(min=1)[:, None] if _selects(rows_EN) else torch.linalg.pinv(rows_EN)
    return _Reading(None if shown is None else values(shown).to(device), rows_EN.to(device), fit_NE.to(device))


def _selects(rows_EN: Tensor) -> bool:
    """Whether every row is a single node: then fitting is the mean of what each node has seen."""
    return bool(((rows_EN != 0).sum(1) == 1).all())
