"""Refinement in depth: twice the cells, the same function of depth, the momentum carried along.

Shapes: `N` depth nodes, `M` nodes of the refined grid.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from odenet.bases import BASES, mix_nodes
from odenet.models import NETWORKS, DepthNet


@dataclass(kw_only=True, slots=True)
class RefinementConfig:
    """When a network grows: `count` times, first after the fraction `first` of the epochs, then every `interval`."""

    count: int = 0
    first: float = 0.3
    interval: float = 0.2

    def __post_init__(self) -> None:
        if not 0 <= self.count <= 10:
            raise ValueError(f"refinement.count={self.count}: must be from 0 to 10.")
        for name in ("first", "interval"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"refinement.{name}={getattr(self, name)}: a fraction of the epochs, between 0 and 1.")

    def due(self, epochs: int) -> list[int]:
        """The epochs, counted from 0, at whose start the network is refined.

        Raises:
            ValueError: they do not fit before the last epoch, each after the one before.
        """
        first, interval = max(1, round(self.first * epochs)), max(1, round(self.interval * epochs))
        due = [first + index * interval for index in range(self.count)]
        if due and due[-1] >= epochs:
            raise ValueError(
                f"refinement.count={self.count} with first={self.first} and interval={self.interval} falls on the "
                f"epochs {due} (from 0), but training has {epochs}: refine less often, earlier, or train longer."
            )
        return due


def refine(model: DepthNet, optimizer: Optimizer | None = None) -> None:
    """Halves every cell of every stage in place; theta(t) stays what it was, and so does depth_time.

    Weights, biases, batch-norm parameters and statistics and the optimizer's state all move by one matrix of
    non-negative rows, so variances and second moments stay positive. The authors (arXiv 2008.02389) reset the momentum;
    without `optimizer` it is not looked at.

    Raises:
        ValueError: the network cannot be refined.
    """
    config = model.config
    if not NETWORKS[config.network].capability.refines:
        possible = ", ".join(name.value for name, row in NETWORKS.items() if row.capability.refines)
        raise ValueError(f"model.network={config.network.value} cannot be refined; {possible} can.")
    for stage in model.depth_stages():
        matrix_MN = BASES[stage.depth.basis].refinement_MN(stage.depth.nodes)
        moved = dict(_move_nodes(stage.rate, matrix_MN))
        if optimizer is not None:
            _move_state(optimizer, moved, matrix_MN)
        stage.depth = stage.depth.refined()
    depth = model.depth_stages()[0].depth
    model.config = replace(config, nodes=depth.nodes, depth_time=depth.depth_time)


@torch.no_grad()
def _move_nodes(rate: nn.Module, matrix_MN: Tensor) -> Iterator[tuple[nn.Parameter, nn.Parameter]]:
    """Everything in a rate has a node axis. Yields (old, new) parameters."""
    for module in rate.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            moved = nn.Parameter(mix_nodes(matrix_MN, parameter), requires_grad=parameter.requires_grad)
            setattr(module, name, moved)
            yield parameter, moved
        for name, buffer in list(module.named_buffers(recurse=False)):
            setattr(module, name, mix_nodes(matrix_MN, buffer))


@torch.no_grad()
def _move_state(optimizer: Optimizer, moved: dict[nn.Parameter, nn.Parameter], matrix_MN: Tensor) -> None:
    for group in optimizer.param_groups:
        group["params"] = [moved.get(parameter, parameter) for parameter in group["params"]]
    for old, new in moved.items():
        state = optimizer.state.pop(old, {})
        optimizer.state[new] = {
            name: mix_nodes(matrix_MN, value) if _is_moment(value, old) else value for name, value in state.items()
        }


def _is_moment(value: object, parameter: Tensor) -> bool:
    """Momentum and second moments are shaped like the parameter; step counters are not."""
    return isinstance(value, Tensor) and value.shape == parameter.shape
