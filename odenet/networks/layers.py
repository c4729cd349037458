"""The layers of rates, their tensors on the node axis.

Shapes: `N` depth nodes; x and y are (B, C, H, W).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import sqrt

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from odenet.depth.node_weights import Readout
from odenet.networks.norms import NodeBatchNorm, NodeGroupNorm, NodeLayer, OpenLayer, Reads, take
from odenet.networks.widths import Widths


def _kernel(nodes: int, outputs: int, inputs: int, size: int) -> nn.Parameter:
    """Return (N, C_out, C_in, k, k), stored so that each node's slice is channels_last."""
    kernel = torch.empty(nodes, outputs, size, size, inputs).permute(0, 1, 4, 2, 3)
    return nn.Parameter(kernel.normal_(std=sqrt(2 / (size * size * outputs))))


class NodeConv(NodeLayer):
    """A convolution with same padding, initialised N(0, 2 / (k k C_out)) as in the papers' code."""

    def __init__(self, nodes: int, channels: tuple[int, int], *, size: int = 3, groups: int = 1, bias: bool) -> None:
        """Draw the kernels; `channels` are those of x and of y."""
        super().__init__()
        inputs, outputs = channels
        self.kernel = _kernel(nodes, outputs, inputs // groups, size)
        self.bias = nn.Parameter(torch.zeros(nodes, outputs)) if bias else None
        self._padding, self._groups = size // 2, groups

    def open(self, readout: Readout, reads: Reads) -> OpenLayer:
        kernels, padding, groups = take(readout, reads, self.kernel), self._padding, self._groups
        if self.bias is None:
            return lambda slot, x: F.conv2d(x, kernels[slot], padding=padding, groups=groups)
        biases = take(readout, reads, self.bias)
        return lambda slot, x: F.conv2d(x, kernels[slot], biases[slot], padding=padding, groups=groups)

    def multiply_adds(self, pixels: int) -> int:
        return self.kernel[0].numel() * pixels


class NodeSymmetric(NodeLayer):
    """sign K^T s(K x), s the inner layers; K^T is the transposed convolution with the same kernel.

    Its Jacobian sign K^T diag(s') K is symmetric (Chang et al. 2018, arXiv 1709.03698, Eq. 7).
    """

    def __init__(self, nodes: int, channels: int, inner: Sequence[NodeLayer], *, sign: int, bias: bool) -> None:
        super().__init__()
        self.kernel = _kernel(nodes, channels, channels, 3)
        self.bias = nn.Parameter(torch.zeros(nodes, channels)) if bias else None
        self.inner = nn.ModuleList(inner)
        self._sign = sign

    def open(self, readout: Readout, reads: Reads) -> OpenLayer:
        kernels = take(readout, reads, self.kernel)
        biases = None if self.bias is None else take(readout, reads, self.bias)
        inner = [layer.open(readout, reads) for layer in self._inner()]

        def symmetric(slot: int, x: Tensor) -> Tensor:
            x = F.conv2d(x, kernels[slot], None if biases is None else biases[slot], padding=1)
            for layer in inner:
                x = layer(slot, x)
            back = kernels[slot] if self._sign > 0 else -kernels[slot]  # kernels are small, and states are not
            return F.conv_transpose2d(x, back, padding=1)

        return symmetric

    def commit(self, readout: Readout) -> None:
        for layer in self._inner():
            layer.commit(readout)

    def multiply_adds(self, pixels: int) -> int:
        return 2 * self.kernel[0].numel() * pixels

    def _inner(self) -> list[NodeLayer]:
        return [layer for layer in self.inner if isinstance(layer, NodeLayer)]


class NodeAntisymmetric(NodeLayer):
    """(K - K^T) x + b: imaginary eigenvalues (Chang et al. 2018, MidPoint)."""

    def __init__(self, nodes: int, channels: int, *, bias: bool) -> None:
        super().__init__()
        self.kernel = _kernel(nodes, channels, channels, 3)
        self.bias = nn.Parameter(torch.zeros(nodes, channels)) if bias else None

    def open(self, readout: Readout, reads: Reads) -> OpenLayer:
        transposed_N = self.kernel.transpose(1, 2).flip(3, 4)
        kernels = take(readout, reads, _stored_channels_last(self.kernel - transposed_N))
        biases = None if self.bias is None else take(readout, reads, self.bias)
        return lambda slot, x: F.conv2d(x, kernels[slot], None if biases is None else biases[slot], padding=1)

    def multiply_adds(self, pixels: int) -> int:
        return self.kernel[0].numel() * pixels


def _stored_channels_last(kernel_N: Tensor) -> Tensor:
    return kernel_N.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)


class NodeActivation(NodeLayer):
    """A function of each entry."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self._function = function

    def open(self, readout: Readout, reads: Reads) -> OpenLayer:  # noqa: ARG002
        function = self._function
        return lambda slot, x: function(x)  # noqa: ARG005


class NodeScale(NodeLayer):
    """Times a number per node that starts at 0 (SkipInit, De and Smith 2020, arXiv 2002.10444)."""

    def __init__(self, nodes: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(nodes))

    def open(self, readout: Readout, reads: Reads) -> OpenLayer:
        scales = take(readout, reads, self.scale)
        return lambda slot, x: scales[slot] * x


class NodeFractal(NodeLayer):
    """F_3(x) - x of F_1 = g, F_{c+1}(x) = (g(x) + F_c(F_c(x))) / 2, every g a convolution, batch norm, ReLU of its own.

    A step of Euler of length 1 replaces x by F_3(x): seven convolutions in three columns, the joined paths averaged
    (Larsson et al. 2017, arXiv 1605.07648).
    """

    COLUMNS = 3

    def __init__(self, nodes: int, channels: int) -> None:
        super().__init__()
        parts = [(NodeConv(nodes, (channels, channels), bias=False), NodeBatchNorm(nodes, channels)) for _ in range(7)]
        self.convs = nn.ModuleList(conv for conv, _ in parts)
        self.norms = nn.ModuleList(norm for _, norm in parts)

    def open(self, readout: Readout, reads: Reads) -> OpenLayer:
        opened = [layer.open(readout, reads) for layer in self._parts()]
        convs, norms = opened[: len(self.convs)], opened[len(self.convs) :]

        def fractal(slot: int, x: Tensor, columns: int, first: int) -> Tensor:
            """Apply the parts from `first` on: a column of c uses 2^c - 1."""
            shallow = F.relu(norms[first](slot, convs[first](slot, x)))
            if columns == 1:
                return shallow
            half = 2 ** (columns - 1) - 1
            deep = fractal(slot, x, columns - 1, first + 1)
            return (shallow + fractal(slot, deep, columns - 1, first + 1 + half)) / 2

        return lambda slot, x: fractal(slot, x, self.COLUMNS, 0) - x

    def commit(self, readout: Readout) -> None:
        for part in self._parts():
            part.commit(readout)

    def multiply_adds(self, pixels: int) -> int:
        return sum(part.multiply_adds(pixels) for part in self._parts())

    def _parts(self) -> list[NodeLayer]:
        return [layer for layer in (*self.convs, *self.norms) if isinstance(layer, NodeLayer)]


class NodeClipped(NodeLayer):
    """relu(x + f(x)) - x, f the inner layers: a step of Euler of length 1 replaces x by relu(x + f(x)).

    The block of ResNets as first published (He et al. 2016, arXiv 1512.03385).
    """

    def __init__(self, inner: Sequence[NodeLayer]) -> None:
        super().__init__()
        self.inner = nn.ModuleList(inner)

    def open(self, readout: Readout, reads: Reads) -> OpenLayer:
        opened = [layer.open(readout, reads) for layer in self._inner()]

        def clipped(slot: int, x: Tensor) -> Tensor:
            y = x
            for layer in opened:
                y = layer(slot, y)
            return (x + y).relu_() - x

        return clipped

    def commit(self, readout: Readout) -> None:
        for layer in self._inner():
            layer.commit(readout)

    def multiply_adds(self, pixels: int) -> int:
        return sum(layer.multiply_adds(pixels) for layer in self._inner())

    def _inner(self) -> list[NodeLayer]:
        return [layer for layer in self.inner if isinstance(layer, NodeLayer)]


@dataclass(frozen=True, slots=True)
class LayerSpec:
    """The values a layer is made from. `inner` are the layers between K and K^T of the symmetric ones."""

    nodes: int
    widths: Widths
    bias: bool
    inner: tuple[str, ...]

    def clipped(self) -> NodeClipped:
        along = zip(self.inner, self.widths.along(self.inner), strict=True)
        return NodeClipped([build_layer(name, replace(self, widths=at)) for name, at in along])

    def symmetric(self, sign: int) -> NodeSymmetric:
        inner = [build_layer(name, self) for name in self.inner]
        return NodeSymmetric(self.nodes, self.widths.outer, inner, sign=sign, bias=self.bias)


LAYERS: dict[str, Callable[[LayerSpec], NodeLayer]] = {
    "conv": lambda s: NodeConv(s.nodes, (s.widths.outer, s.widths.outer), bias=s.bias),
    "reduce": lambda s: NodeConv(s.nodes, (s.widths.outer, s.widths.inner), size=1, bias=s.bias),
    "grouped": lambda s: NodeConv(s.nodes, (s.widths.inner, s.widths.inner), groups=s.widths.groups, bias=s.bias),
    "expand": lambda s: NodeConv(s.nodes, (s.widths.inner, s.widths.outer), size=1, bias=s.bias),
    "symmetric": lambda s: s.symmetric(1),
    "minus_symmetric": lambda s: s.symmetric(-1),
    "antisymmetric": lambda s: NodeAntisymmetric(s.nodes, s.widths.outer, bias=s.bias),
    "norm": lambda s: NodeBatchNorm(s.nodes, s.widths.outer),
    "group_norm": lambda s: NodeGroupNorm(s.nodes, s.widths.outer),
    "relu": lambda _: NodeActivation(torch.relu_),  # in place: what comes before it keeps its input only
    "tanh": lambda _: NodeActivation(torch.tanh),  # smooth, for orders and spectra
    "softplus": lambda _: NodeActivation(F.softplus),  # smooth, for adjoint equations
    "clipped": lambda s: s.clipped(),
    "fractal": lambda s: NodeFractal(s.nodes, s.widths.outer),
}


def build_layer(name: str, spec: LayerSpec) -> NodeLayer:
    """Build a layer by its name. ValueError: there is none of that name."""
    if name not in LAYERS:
        raise ValueError(f"There is no layer called {name!r}; layers are {', '.join(LAYERS)}.")
    return LAYERS[name](spec)
