"""Right-hand sides R(theta(t), h). Every parameter and buffer of a rate has a leading node axis, and nothing else may
live in a rate: so refinement, projection and the optimizer find node tensors by where they are.

Shapes: `B` batch, `C` channels, `H W` space, `N` depth nodes, `E` rate evaluations of one forward pass.

A rate is *opened* for one forward pass: its nodes are taken apart once, and what comes back is a plain function of
(stage, h). In training the pass is *committed* afterwards: batch-norm statistics of all its evaluations together make
one update, whatever the scheme, the steps or the recomputation; otherwise integrators could not be compared.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from math import sqrt

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from odenet.bases import Readout, mix_nodes
from odenet.schemes import StagedRate
from odenet.terms import Stage

BATCH_NORM_EPS = 1e-5
BATCH_NORM_MOMENTUM = 0.1

OpenLayer = Callable[[int, Tensor], Tensor]  # (slot, x) -> y


class NodeLayer(nn.Module, ABC):
    """A layer with its tensors on the node axis."""

    @abstractmethod
    def open(self, readout: Readout) -> OpenLayer:
        """The layer with its nodes taken apart for one forward pass."""

    def commit(self, readout: Readout) -> None:
        """Ends a forward pass in training mode; only layers with running state have something to do."""

    def multiply_adds(self, pixels: int) -> int:  # noqa: ARG002
        """Of one evaluation for one image of so many pixels."""
        return 0


class NodeConv(NodeLayer):
    """3x3 convolution, padding 1: kernel (N, C, C, 3, 3) stored so that each node's slice is channels_last."""

    def __init__(self, nodes: int, channels: int, *, bias: bool) -> None:
        super().__init__()
        kernel = torch.empty(nodes, channels, 3, 3, channels).permute(0, 1, 4, 2, 3)
        self.kernel = nn.Parameter(kernel.normal_(std=sqrt(2 / (9 * channels))))
        self.bias = nn.Parameter(torch.zeros(nodes, channels)) if bias else None

    def open(self, readout: Readout) -> OpenLayer:
        kernels = readout.take(self.kernel)
        if self.bias is None:
            return lambda slot, x: F.conv2d(x, kernels[slot], padding=1)
        biases = readout.take(self.bias)
        return lambda slot, x: F.conv2d(x, kernels[slot], biases[slot], padding=1)

    def multiply_adds(self, pixels: int) -> int:
        return self.kernel[0].numel() * pixels


class NodeBatchNorm(NodeLayer):
    """Batch normalisation whose affine parameters and running statistics are functions of depth.

    Running statistics move once per forward pass: the statistics seen at all evaluations are fitted to the nodes by
    least squares around the present values (the mean per cell for piecewise constant weights), and the running ones go
    a step of `BATCH_NORM_MOMENTUM` towards the fit. Nodes that no stage reads stay, and a fitted variance is never
    below both the smallest one seen and its present value.
    """

    def __init__(self, nodes: int, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(nodes, channels))
        self.bias = nn.Parameter(torch.zeros(nodes, channels))
        self.register_buffer("running_mean", torch.zeros(nodes, channels))
        self.register_buffer("running_var", torch.ones(nodes, channels))
        self._seen: tuple[Tensor, Tensor] | None = None  # means and variances (E, C) of the pass under way

    running_mean: Tensor
    running_var: Tensor

    def open(self, readout: Readout) -> OpenLayer:
        weights, biases = readout.take(self.weight), readout.take(self.bias)
        if not self.training:
            means, variances = readout.take(self.running_mean), readout.take(self.running_var)
            return lambda slot, x: F.batch_norm(
                x, means[slot], variances[slot], weights[slot], biases[slot], eps=BATCH_NORM_EPS
            )
        shape = (len(readout.rows_EN), self.weight.shape[1])
        self._seen = (self.weight.new_zeros(shape), self.weight.new_zeros(shape))
        seen, evaluation = list(zip(*self._seen, strict=True)), count()

        def normalise(slot: int, x: Tensor) -> Tensor:
            # With momentum 1 the kernel writes this batch's own statistics, which it computes anyway.
            mean, variance = seen[next(evaluation)]
            return F.batch_norm(
                x, mean, variance, weights[slot], biases[slot], training=True, momentum=1.0, eps=BATCH_NORM_EPS
            )

        return normalise

    @torch.no_grad()
    def commit(self, readout: Readout) -> None:
        assert self._seen is not None, "commit ends a pass that open has begun"
        (mean_EC, var_EC), self._seen = self._seen, None
        self.running_mean.lerp_(_fit(readout, self.running_mean, mean_EC), BATCH_NORM_MOMENTUM)
        lowest_NC = self.running_var.minimum(var_EC.amin(0))
        fitted = _fit(readout, self.running_var, var_EC).maximum(lowest_NC)
        self.running_var.lerp_(fitted, BATCH_NORM_MOMENTUM)


def _fit(readout: Readout, running_NC: Tensor, seen_EC: Tensor) -> Tensor:
    """Node values nearest to the running ones among those that fit best what was seen; unread nodes stay."""
    return running_NC + mix_nodes(readout.fit_NE, seen_EC - mix_nodes(readout.rows_EN, running_NC))


class NodeReLU(NodeLayer):
    """max(x, 0)."""

    def open(self, readout: Readout) -> OpenLayer:  # noqa: ARG002
        return lambda slot, x: F.relu(x)  # noqa: ARG005


@dataclass(frozen=True, slots=True)
class LayerOrder:
    """A rate as data: its layers in order ("conv", "relu", "norm"), and whether convolutions have a bias."""

    layers: tuple[str, ...]
    bias: bool


# Queiruga et al. 2020 (arXiv 2008.02389), the authors' default order.
POST_ACTIVATION = LayerOrder(("conv", "relu", "norm", "conv", "relu", "norm"), bias=True)
# He et al. 2016 (arXiv 1603.05027), full pre-activation.
PRE_ACTIVATION = LayerOrder(("norm", "relu", "conv", "norm", "relu", "conv"), bias=False)


class LayeredRate(nn.Module):
    """The layers of a `LayerOrder`, one after another; state and slope are (B, C, H, W)."""

    def __init__(self, order: LayerOrder, nodes: int, channels: int) -> None:
        super().__init__()
        make: dict[str, Callable[[], NodeLayer]] = {
            "conv": lambda: NodeConv(nodes, channels, bias=order.bias),
            "norm": lambda: NodeBatchNorm(nodes, channels),
            "relu": NodeReLU,
        }
        self.layers = nn.ModuleList(make[name]() for name in order.layers)

    def open(self, readout: Readout) -> StagedRate:
        """The rate as a function of (stage, h) for one forward pass."""
        layers = [layer.open(readout) for layer in self._node_layers()]

        def rate(stage: Stage, h: Tensor) -> Tensor:
            slot = readout.slots[stage.key]
            for layer in layers:
                h = layer(slot, h)
            return h

        return rate

    def commit(self, readout: Readout) -> None:
        """Ends a forward pass in training mode."""
        for layer in self._node_layers():
            layer.commit(readout)

    def multiply_adds(self, pixels: int) -> int:
        """Of one evaluation for one image of so many pixels."""
        return sum(layer.multiply_adds(pixels) for layer in self._node_layers())

    def _node_layers(self) -> list[NodeLayer]:
        return [layer for layer in self.layers if isinstance(layer, NodeLayer)]
