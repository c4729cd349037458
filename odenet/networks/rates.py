"""Right-hand sides R(theta(t), h). Every parameter and buffer of a rate has a leading node axis, and nothing else may
live in a rate: so refinement, projection and the optimizer find node tensors by where they are.

A rate is data: a `RateOrder` names its layers (see `layers`). It is *opened* for one forward pass: its nodes are taken
apart once, and what comes back is a plain function of (stage, h). In training the pass is *committed* afterwards:
batch-norm statistics of all its evaluations together make one update, whatever the scheme, the steps or the
recomputation; otherwise integrators could not be compared.

Shapes: `B` batch, `C` channels, `H W` space, `N` depth nodes.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from odenet.depth.node_weights import Readout
from odenet.enums import Initialisation
from odenet.integrators.scheme import OpenRate, Slope, Stage, composed
from odenet.networks.layers import LayerSpec, NodeScale, build_layer
from odenet.networks.norms import NodeLayer
from odenet.networks.orders import RateOrder
from odenet.networks.widths import Widths


class Rate(nn.Module):
    """The layers of a `RateOrder`, one after another; state and slope are (B, C, H, W)."""

    def __init__(self, order: RateOrder, nodes: int, widths: Widths, *, skip_init: bool = False) -> None:
        super().__init__()
        self.order = order
        if order.second:
            widths = widths.halved()
        spec = LayerSpec(nodes, widths, order.bias, order.inner)
        self.layers = _stack(order.layers, spec, scale=skip_init)
        self.second = _stack(order.second, spec, scale=skip_init) if order.second else None
        # U(-0.1, 0), as the authors' k_n (arXiv 1710.10121).
        self.memory = nn.Parameter(torch.rand(nodes).sub(1).mul(0.1)) if order.memory else None

    def open(self, readout: Readout) -> OpenRate:
        """Return the rate as a function of (stage, h) for one forward pass."""
        reads: list[tuple[Tensor, ...]] = []
        first = _open(self.layers, readout, reads)
        halves = None if self.second is None else (first, _open(self.second, readout, reads))
        slope = first if halves is None else composed(*halves)
        memory = None
        if self.memory is not None:
            k_S = readout.take(self.memory)
            reads.append(k_S)
            memory = lambda stage: k_S[readout.slot(stage)]  # noqa: E731
        return OpenRate(slope, lambda stage: [taken[readout.slot(stage)] for taken in reads], halves, memory)

    def commit(self, readout: Readout) -> None:
        """End a forward pass: batch norms in training mode move their running statistics."""
        for layer in self.node_layers():
            layer.commit(readout)

    def multiply_adds(self, pixels: int) -> int:
        """Return those of one evaluation for one image of so many pixels."""
        return sum(layer.multiply_adds(pixels) for layer in self.node_layers())

    @torch.no_grad()
    def initialise(self, how: Initialisation) -> None:
        """Make the drawn weights smooth in depth, or the rate zero."""
        if how is Initialisation.smooth:
            for parameter in self.parameters():
                parameter.copy_(parameter[:1].expand_as(parameter))
        if how is Initialisation.zero:
            for stack in (self.layers, self.second):
                for parameter in _last_with_parameters(stack or []):
                    parameter.zero_()

    def node_layers(self) -> list[NodeLayer]:
        """Return the layers; those inside a layer are its own affair."""
        return [layer for stack in (self.layers, self.second or ()) for layer in stack if isinstance(layer, NodeLayer)]


def _stack(names: Sequence[str], spec: LayerSpec, *, scale: bool) -> nn.ModuleList:
    widths = spec.widths.along(names)
    layers = [build_layer(name, replace(spec, widths=at)) for name, at in zip(names, widths, strict=True)]
    return nn.ModuleList([*layers, NodeScale(spec.nodes)] if scale else layers)


def _open(stack: nn.ModuleList, readout: Readout, reads: list[tuple[Tensor, ...]]) -> Slope:
    layers = [layer.open(readout, reads) for layer in stack if isinstance(layer, NodeLayer)]

    def slope(stage: Stage, h: Tensor) -> Tensor:
        slot = readout.slot(stage)
        for layer in layers:
            h = layer(slot, h)
        return h

    return slope


def _last_with_parameters(stack: Sequence[nn.Module] | nn.ModuleList) -> list[nn.Parameter]:
    owned = [list(layer.parameters()) for layer in stack]
    return next((parameters for parameters in reversed(owned) if parameters), [])
