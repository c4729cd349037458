"""What a layer on the node axis is, and the normalising ones.

Shapes: `C` channels, `N` depth nodes, `E` rate evaluations of one forward pass; x and y are (B, C, H, W).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from odenet.depth.bases import mix_nodes
from odenet.depth.node_weights import Readout
from odenet.networks import batch_norm

OpenLayer = Callable[[int, Tensor], Tensor]  # (slot, x) -> y
Reads = list[tuple[Tensor, ...]]  # by tensor, then by slot: what a pass reads and gradients are wanted of


class NodeLayer(nn.Module, ABC):
    """A layer with its tensors on the node axis."""

    @abstractmethod
    def open(self, readout: Readout, reads: Reads) -> OpenLayer:
        """Take the nodes apart for one forward pass, add them to `reads`, return the layer as a function."""

    def commit(self, readout: Readout) -> None:
        """End a forward pass; only layers with running state that are in training mode have something to do."""

    def multiply_adds(self, pixels: int) -> int:  # noqa: ARG002
        """Return those of one evaluation for one image of so many pixels."""
        return 0

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "NodeLayer":
        """Move or convert as any module, kernels (N, C_out, C_in, k, k) as one with N C_out outputs.

        So `to(memory_format=torch.channels_last)`, which is for tensors of four dimensions, means what it says.
        """

        def each(tensor: Tensor) -> Tensor:
            return fn(tensor.flatten(0, 1)).unflatten(0, tensor.shape[:2]) if tensor.dim() == 5 else fn(tensor)

        return super()._apply(each, recurse)


def take(readout: Readout, reads: Reads, theta_N: Tensor) -> tuple[Tensor, ...]:
    taken = readout.take(theta_N)
    reads.append(taken)
    return taken


class NodeBatchNorm(NodeLayer):
    """Batch normalisation whose affine parameters and running statistics are functions of depth.

    Running statistics move once per forward pass: the statistics seen at all evaluations are fitted to the nodes by
    least squares around the present values (the mean per cell for piecewise constant weights), and the running ones go
    a step of `momentum` towards the fit. Nodes that no stage reads stay, and a fitted variance is never
    below both the smallest one seen and its present value. In evaluation mode, of this layer alone too, it reads them
    and leaves them.
    """

    momentum: float | None = None  # None: `batch_norm.MOMENTUM`

    def __init__(self, nodes: int, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(nodes, channels))
        self.bias = nn.Parameter(torch.zeros(nodes, channels))
        self.register_buffer("running_mean", torch.zeros(nodes, channels))
        self.register_buffer("running_var", torch.ones(nodes, channels))
        self._seen: list[tuple[Tensor, Tensor]] | None = None  # means and variances of the training pass under way

    running_mean: Tensor
    running_var: Tensor

    def open(self, readout: Readout, reads: Reads) -> OpenLayer:
        weights, biases = take(readout, reads, self.weight), take(readout, reads, self.bias)
        if not self.training:
            self._seen = None
            means, variances = readout.take(self.running_mean), readout.take(self.running_var, positive=True)
            eps = batch_norm.EPS
            return lambda slot, x: F.batch_norm(x, means[slot], variances[slot], weights[slot], biases[slot], eps=eps)
        evaluations = len(readout.rows_EN)
        seen: list[tuple[Tensor, Tensor]] = []
        self._seen = seen

        def normalise(slot: int, x: Tensor) -> Tensor:
            y, mean, variance = batch_norm.batch_norm(x, weights[slot], biases[slot])
            if len(seen) < evaluations:  # those of the forward pass; recomputed ones leave no trace
                seen.append((mean, variance))
            return y

        return normalise

    @torch.no_grad()
    def commit(self, readout: Readout) -> None:
        if not self._seen:
            return
        mean_EC, var_EC = (torch.stack(each) for each in zip(*self._seen, strict=True))
        self._seen = None
        share = batch_norm.MOMENTUM if self.momentum is None else self.momentum
        fit = _fit(self.running_mean, mean_EC, readout.rows_EN, readout.fit_NE)
        self.running_mean.lerp_(fit, share)
        lowest_NC = self.running_var.minimum(var_EC.amin(0))
        fitted = _fit(self.running_var, var_EC, readout.positive_rows_EN, readout.positive_fit_NE).maximum(lowest_NC)
        self.running_var.lerp_(fitted, share)


def _fit(running_NC: Tensor, seen_EC: Tensor, rows_EN: Tensor, fit_NE: Tensor) -> Tensor:
    """Return the node values nearest to the running ones among those that fit best what was seen; unread nodes stay."""
    return running_NC + mix_nodes(fit_NE, seen_EC - mix_nodes(rows_EN, running_NC))


class NodeGroupNorm(NodeLayer):
    """Group normalisation in up to 32 groups: no running state."""

    def __init__(self, nodes: int, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(nodes, channels))
        self.bias = nn.Parameter(torch.zeros(nodes, channels))
        self._groups = next(groups for groups in range(min(32, channels), 0, -1) if channels % groups == 0)

    def open(self, readout: Readout, reads: Reads) -> OpenLayer:
        weights, biases, groups = take(readout, reads, self.weight), take(readout, reads, self.bias), self._groups
        # Contiguous: the channels_last kernel has errors six times as large, and no forward derivative.
        return lambda slot, x: F.group_norm(x.contiguous(), groups, weights[slot], biases[slot])
