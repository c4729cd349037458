"""Refinement in depth: twice the cells, the same function of depth, the momentum carried along; and the way back.

Shapes: `N` depth nodes, `M` nodes of the refined grid.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

import torch
from torch import nn
from torch.optim import Optimizer

from odenet.depth.bases import BASES, mix_nodes
from odenet.depth.moments import Matrices, move_state
from odenet.depth.projection import interpolation_MN, projection_MN
from odenet.enums import Basis
from odenet.networks.blocks import Depth, DepthStage
from odenet.networks.model import DepthNet
from odenet.networks.table import NETWORKS


@dataclass(kw_only=True, slots=True)
class RefinementConfig:
    """When a network grows: `count` times, first after the fraction `first` of the epochs, then every `interval`.

    Or at the start of the epochs `at`, counted from 0. After the fraction `coarsen` its cells are merged pairwise.
    """

    count: int = 0
    first: float = 0.3
    interval: float = 0.2
    coarsen: float | None = None
    at: list[int] | None = None  # instead of count, first and interval

    def __post_init__(self) -> None:
        if not 0 <= self.count <= 10:
            raise ValueError(f"refinement.count={self.count}: must be from 0 to 10.")
        if self.at is not None:
            self._check_at(self.at)
        for name in ("first", "interval"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"refinement.{name}={getattr(self, name)}: a fraction of the epochs, between 0 and 1.")
        if self.coarsen is not None and not 0 < self.coarsen < 1:
            raise ValueError(f"refinement.coarsen={self.coarsen}: a fraction of the epochs, between 0 and 1, or null.")

    def _check_at(self, at: list[int]) -> None:
        if self.count:
            raise ValueError(f"refinement.count={self.count} with refinement.at={at}: either says when; use one.")
        if not 1 <= len(at) <= 10 or at != sorted(set(at)) or at[0] < 1:
            raise ValueError(f"refinement.at={at}: 1 to 10 epochs (counted from 0), above 0 and rising, or null.")

    @property
    def times(self) -> int:
        """How many refinements there are."""
        return self.count if self.at is None else len(self.at)

    @property
    def asked(self) -> str:
        """The key that says how many, with its value."""
        return f"count={self.count}" if self.at is None else f"at={self.at}"

    def due(self, epochs: int) -> list[int]:
        """The epochs, counted from 0, at whose start the network is refined.

        Raises:
            ValueError: they do not fit before the last epoch, each after the one before.
        """
        if self.at is not None:
            if self.at[-1] >= epochs:
                raise ValueError(f"refinement.at={self.at}: training has {epochs} epochs, 0 to {epochs - 1}.")
            return list(self.at)
        first, interval = max(1, round(self.first * epochs)), max(1, round(self.interval * epochs))
        due = [first + index * interval for index in range(self.count)]
        if due and due[-1] >= epochs:
            raise ValueError(
                f"refinement.count={self.count} with first={self.first} and interval={self.interval} falls on the "
                f"epochs {due} (from 0), but training has {epochs}: refine less often, earlier, or train longer."
            )
        return due

    def coarsens(self, epochs: int) -> int | None:
        """The epoch, counted from 0, at whose start cells are merged; None: never.

        Raises:
            ValueError: it is not after the last refinement and before the end.
        """
        if self.coarsen is None:
            return None
        epoch, due = max(1, round(self.coarsen * epochs)), self.due(epochs)
        if epoch >= epochs or (due and epoch <= due[-1]):
            raise ValueError(
                f"refinement.coarsen={self.coarsen} falls on epoch {epoch} (from 0) of {epochs}: it must come after "
                f"the last refinement {due[-1:]} and before the last epoch ends."
            )
        return epoch


class Projection(Enum):
    """How a function of depth is carried to another grid or basis."""

    l2 = "l2"  # the nearest in the mean square over depth; variances are interpolated
    interpolation = "interpolation"  # its values at the new nodes


def refine(model: DepthNet, optimizer: Optimizer | None = None) -> list[str]:
    """Halves every cell of every stage in place; theta(t) stays what it was, and so does depth_time.

    Weights, biases, batch-norm parameters and statistics and the optimizer's state all move by matrices on the node
    axis, variances and second moments by one of non-negative rows, so that they stay positive. The authors (arXiv
    2008.02389) reset the momentum; without `optimizer` it is not looked at.

    Args:
        optimizer: any of torch's, or of your own, of all or some parameters; schedulers of its learning rate go on.
            SGD, Adam, AdamW, Adamax, NAdam, RAdam, RMSprop, Adagrad, Adadelta, ASGD, Rprop and Muon keep all that they
            know. Parameters of which an optimizer knows something that cannot be moved (Adafactor's rows and columns,
            LBFGS's directions, names that torch does not have) start anew in it, as before its first step.

    Returns:
        the sorted names in the optimizer's state of what was reset, such as "row_var"; empty if all was kept.

    Raises:
        ValueError: the network cannot be refined.
    """
    _check_refines(model)
    reset = set[str]()
    for stage in model.depth_stages():
        depth, basis = stage.depth, BASES[stage.depth.basis]
        positive_MN = basis.refinement_MN(depth.nodes, positive=True)
        matrices = Matrices(basis.refinement_MN(depth.nodes), positive_MN, positive_MN)
        reset |= _move(stage, matrices, depth.refined(), optimizer)
    return sorted(reset)


def coarsen(model: DepthNet, optimizer: Optimizer | None = None) -> list[str]:
    """Merges the cells of every stage pairwise (L2 projection) and takes half the steps; a stage of one cell stays.

    Returns:
        the sorted names of what was reset in the optimizer's state, as `refine` does.

    Raises:
        ValueError: the network's depth cannot change.
    """
    _check_refines(model)
    reset = set[str]()
    for stage in model.depth_stages():
        coarser = stage.depth.with_nodes(_merged(stage.depth))
        if coarser != stage.depth:
            reset |= _project_stage(stage, coarser, Projection.l2, optimizer)
    return sorted(reset)


def _merged(depth: Depth) -> int:
    """The number of nodes with half the cells, of which the present one is the refinement; else the present one."""
    basis, nodes = BASES[depth.basis], depth.nodes
    coarser = [n for n in range(1, nodes) if basis.refined(n) == nodes and 2 * basis.cells(n) == basis.cells(nodes)]
    return coarser[0] if coarser else nodes


def project(
    model: DepthNet, *, basis: Basis | None = None, nodes: int | None = None, how: Projection = Projection.l2
) -> None:
    """Carries every stage to another basis or number of nodes in place, without data; depth_time stays.

    For compression after training (Queiruga et al. 2021, arXiv 2106.10820). Steps change with the cells; `manifest`
    sets other ones. Running variances are interpolated in either case: a projection could make them negative.

    Args:
        basis: of the result; None: the present one.
        nodes: per stage; None: the present number.

    Raises:
        ValueError: the network's depth cannot change, or the basis cannot have so many nodes.
    """
    _check_refines(model)
    for stage in model.depth_stages():
        target = stage.depth.with_nodes(nodes or stage.depth.nodes, basis)
        BASES[target.basis].check(target.nodes)
        _project_stage(stage, target, how, None)


def _check_refines(model: DepthNet) -> None:
    config = model.config
    if not NETWORKS[config.network].capability.refines:
        possible = ", ".join(name.value for name, row in NETWORKS.items() if row.capability.refines)
        raise ValueError(f"model.network={config.network.value} cannot be refined; {possible} can.")


def _project_stage(stage: DepthStage, target: Depth, how: Projection, optimizer: Optimizer | None) -> set[str]:
    grids = (stage.depth.basis, stage.depth.nodes, target.basis, target.nodes)
    matrix_MN = projection_MN(*grids) if how is Projection.l2 else interpolation_MN(*grids)
    # A second moment is the mean of those of all nodes that the momentum beside it comes from, by their shares: picked
    # from one node, of weights that had no gradient there, it would be 0 under a momentum that is not.
    shares_MN = matrix_MN.abs()
    moments_MN = shares_MN / shares_MN.sum(1, keepdim=True)
    return _move(stage, Matrices(matrix_MN, interpolation_MN(*grids, positive=True), moments_MN), target, optimizer)


def _move(stage: DepthStage, matrices: Matrices, target: Depth, optimizer: Optimizer | None) -> set[str]:
    moved = dict(_move_nodes(stage.rate, matrices))
    stage.depth = target
    return set() if optimizer is None else move_state(optimizer, moved, matrices)


@torch.no_grad()
def _move_nodes(rate: nn.Module, matrices: Matrices) -> Iterator[tuple[nn.Parameter, nn.Parameter]]:
    """Everything in a rate has a node axis. Yields (old, new) parameters."""
    for module in rate.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            moved = nn.Parameter(mix_nodes(matrices.any_MN, parameter), requires_grad=parameter.requires_grad)
            setattr(module, name, moved)
            yield parameter, moved
        for name, buffer in list(module.named_buffers(recurse=False)):
            matrix_MN = matrices.variances_MN if name == "running_var" else matrices.any_MN
            setattr(module, name, mix_nodes(matrix_MN, buffer))
