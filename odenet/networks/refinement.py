"""Refinement in depth: twice the cells, the same function of depth, the momentum carried along; and the way back.

Shapes: `N` depth nodes, `M` nodes of the refined grid.
"""

from collections.abc import Iterator

import torch
from torch import nn
from torch.optim import Optimizer

from odenet.depth.bases import BASES, mix_nodes
from odenet.depth.discretisation import Depth
from odenet.depth.moments import Matrices, move_state
from odenet.depth.projection import Projection, interpolation_MN, projection_MN
from odenet.enums import Basis
from odenet.networks.blocks import DepthStage
from odenet.networks.model import DepthNet
from odenet.networks.table import NETWORKS


def refine(model: DepthNet, optimizer: Optimizer | None = None) -> list[str]:
    """Halve every cell of every stage in place; theta(t) stays what it was, and so does depth_time.

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

    >>> from odenet import ModelConfig, build_model
    >>> model = build_model(ModelConfig(nodes=2), channels=3, classes=10)
    >>> refine(model)
    []
    >>> [depth.nodes for depth in model.depths()]
    [4, 4, 4]
    """
    _check_refines(model)
    reset = set[str]()
    for stage in model.depth_stages():
        depth, basis = stage.depth, BASES[stage.depth.basis]
        positive_MN = basis.refinement_MN(depth.nodes, positive=True)
        matrices = Matrices(basis.refinement_MN(depth.nodes), positive_MN, positive_MN)
        reset |= move_stage(stage, matrices, depth.refined(), optimizer)
    return sorted(reset)


def coarsen(model: DepthNet, optimizer: Optimizer | None = None) -> list[str]:
    """Merge the cells of every stage pairwise (L2 projection) and take half the steps; a stage of one cell stays.

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
            reset |= project_stage(stage, coarser, Projection.l2, optimizer)
    return sorted(reset)


def _merged(depth: Depth) -> int:
    """Return the nodes of half the cells, of which the present ones are the refinement; else the present number."""
    basis, nodes = BASES[depth.basis], depth.nodes
    coarser = [n for n in range(1, nodes) if basis.refined(n) == nodes and 2 * basis.cells(n) == basis.cells(nodes)]
    return coarser[0] if coarser else nodes


def project(
    model: DepthNet, *, basis: Basis | None = None, nodes: int | None = None, how: Projection = Projection.l2
) -> None:
    """Carry every stage to another basis or number of nodes in place, without data; depth_time stays.

    For compression after training (Queiruga et al. 2021, arXiv 2106.10820). Steps change with the cells; `manifest`
    sets other ones. Running variances are interpolated in either case: a projection could make them negative.

    Args:
        basis: of the result; None: the present one.
        nodes: per stage; None: the present number.

    Raises:
        ValueError: the network's depth cannot change, or the basis cannot have so many nodes.

    >>> from odenet import ModelConfig, build_model
    >>> model = build_model(ModelConfig(nodes=8), channels=3, classes=10)
    >>> project(model, basis=Basis.hat, nodes=5)
    >>> [(depth.basis.name, depth.nodes, depth.course.steps) for depth in model.depths()]
    [('hat', 5, 4), ('hat', 5, 4), ('hat', 5, 4)]
    """
    _check_refines(model)
    for stage in model.depth_stages():
        target = stage.depth.with_nodes(nodes or stage.depth.nodes, basis)
        BASES[target.basis].check(target.nodes)
        project_stage(stage, target, how, None)


def _check_refines(model: DepthNet) -> None:
    config = model.config
    if not NETWORKS[config.network].capability.refines:
        possible = ", ".join(name.value for name, row in NETWORKS.items() if row.capability.refines)
        raise ValueError(f"model.network={config.network.value} cannot be refined; {possible} can.")


def project_stage(stage: DepthStage, target: Depth, how: Projection, optimizer: Optimizer | None) -> set[str]:
    """Carry one stage to another depth; return what was reset of the optimizer's state."""
    grids = (stage.depth.basis, stage.depth.nodes, target.basis, target.nodes)
    matrix_MN = projection_MN(*grids) if how is Projection.l2 else interpolation_MN(*grids)
    # A second moment is the mean of those of all nodes that the momentum beside it comes from, by their shares: picked
    # from one node, of weights that had no gradient there, it would be 0 under a momentum that is not.
    shares_MN = matrix_MN.abs()
    moments_MN = shares_MN / shares_MN.sum(1, keepdim=True)
    matrices = Matrices(matrix_MN, interpolation_MN(*grids, positive=True), moments_MN)
    return move_stage(stage, matrices, target, optimizer)


def move_stage(stage: DepthStage, matrices: Matrices, target: Depth, optimizer: Optimizer | None) -> set[str]:
    """Move all that a stage has on nodes by these matrices, and give it the depth that they lead to."""
    moved = dict(_move_nodes(stage.rate, matrices))
    stage.depth = target
    return set() if optimizer is None else move_state(optimizer, moved, matrices)


@torch.no_grad()
def _move_nodes(rate: nn.Module, matrices: Matrices) -> Iterator[tuple[nn.Parameter, nn.Parameter]]:
    """Move everything in a rate, which all has a node axis, and yield (old, new) parameters."""
    for module in rate.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            moved = nn.Parameter(mix_nodes(matrices.any_MN, parameter), requires_grad=parameter.requires_grad)
            setattr(module, name, moved)
            yield parameter, moved
        for name, buffer in list(module.named_buffers(recurse=False)):
            matrix_MN = matrices.variances_MN if name == "running_var" else matrices.any_MN
            setattr(module, name, mix_nodes(matrix_MN, buffer))
