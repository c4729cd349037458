"""What the stages of a manifestation read: constant matrices between nodes and evaluations.

Shapes: `N` nodes, `S` slots (rows of weights that stages read), `E` rate evaluations of a forward pass.
"""

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from odenet.depth.bases import BASES, mix_nodes
from odenet.enums import Basis, Scheme
from odenet.integrators.scheme import Stage
from odenet.integrators.schemes import SCHEMES

Slots = dict[tuple[int, int, int], int]  # `Stage.key` to the number of its row


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


def readout(basis: Basis, nodes: int, scheme: Scheme, steps: int, device: torch.device) -> Readout:
    """Return the readout of a manifestation: a constant, so computed once in a process."""
    if type(torch.empty(0)) is not Tensor:  # a network is traced: tensors made now stand for others, and must not stay
        return _constants(basis, nodes, scheme, steps).on(device)
    # The cache stands one call below, so that what torch.compile takes for a constant is a function.
    return _readout(basis, nodes, scheme, steps, device)


# What torch.compiler.assume_constant_result does, which would import the compiler for everybody.
readout._dynamo_marked_constant = True  # type: ignore[attr-defined]


@lru_cache(maxsize=1024)
def _readout(basis: Basis, nodes: int, scheme: Scheme, steps: int, device: torch.device) -> Readout:
    return _constants(basis, nodes, scheme, steps).on(device)


@dataclass(frozen=True, slots=True)
class _Reading:
    matrix_SN: np.ndarray | None
    rows_EN: np.ndarray
    fit_NE: np.ndarray

    def on(self, device: torch.device) -> tuple[Tensor | None, Tensor, Tensor]:
        matrix_SN = None if self.matrix_SN is None else torch.as_tensor(self.matrix_SN, device=device)
        return matrix_SN, torch.as_tensor(self.rows_EN, device=device), torch.as_tensor(self.fit_NE, device=device)


@dataclass(frozen=True, slots=True)
class _Constants:
    """A readout in numbers: found without torch, which may be tracing when they are asked for."""

    slots: Slots
    plain: _Reading
    positive: _Reading

    def on(self, device: torch.device) -> Readout:
        plain = self.plain.on(device)
        return Readout(self.slots, *plain, *(plain if self.positive is self.plain else self.positive.on(device)))


@lru_cache(maxsize=1024)
def _constants(basis: Basis, nodes: int, scheme: Scheme, steps: int) -> _Constants:
    stages = SCHEMES[scheme].stages(steps)
    assert nodes == 1 or stages, "a scheme that chooses its own stages needs weights that are constant in depth"
    slots, shown = _slots(basis, nodes, stages) if nodes > 1 else ({}, None)
    plain, positive = (_reading(basis, nodes, stages, shown, positive=positive) for positive in (False, True))
    same = plain.matrix_SN is None or bool((plain.matrix_SN == positive.matrix_SN).all())
    return _Constants(slots, plain, plain if same else positive)


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


def _reading(basis: Basis, nodes: int, stages: list[Stage], shown: list[Stage] | None, *, positive: bool) -> _Reading:
    def values(at: list[Stage]) -> np.ndarray:
        return np.array(BASES[basis].values(nodes, at, positive=positive)).reshape(len(at), nodes)

    rows_EN = values(stages)
    selects = bool(((rows_EN != 0).sum(1) == 1).all())  # then fitting is the mean of what each node has seen
    fit_NE = rows_EN.T / rows_EN.sum(0).clip(min=1)[:, None] if selects else np.linalg.pinv(rows_EN)
    return _Reading(None if shown is None else values(shown), rows_EN, fit_NE)
