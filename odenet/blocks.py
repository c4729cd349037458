"""The parts networks are wired from: a stage that integrates over depth, and the transitions between stages.

Shapes: `B` batch, `C` channels, `H W` space, `N` depth nodes.
"""

from dataclasses import dataclass, replace
from math import sqrt

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from odenet.bases import BASES, readout
from odenet.integrate import integrate_stages
from odenet.rates import LayeredRate, LayerOrder
from odenet.schemes import SCHEMES
from odenet.terms import Basis, Scheme


@dataclass(frozen=True, slots=True)
class Depth:
    """The depth of one stage: dx/dt = depth_time * R(theta(t), x), t in [0, 1].

    (scheme, steps) is the manifestation, no part of the weights; depth_time never changes once a network is built.
    """

    basis: Basis
    nodes: int
    scheme: Scheme
    steps: int
    depth_time: float

    @property
    def evaluations(self) -> int:
        """Rate evaluations of one forward pass."""
        return self.steps * SCHEMES[self.scheme].evaluations

    def refined(self) -> "Depth":
        """Every cell halved, and so every step."""
        cells = BASES[self.basis].cells(self.nodes)
        nodes = len(BASES[self.basis].refinement_MN(self.nodes))
        return replace(self, nodes=nodes, steps=self.steps * BASES[self.basis].cells(nodes) // cells)


class DepthStage(nn.Module):
    """x(1) of dx/dt = T R(theta(t), x) with x(0) the input, (B, C, H, W) to the same shape."""

    def __init__(self, order: LayerOrder, channels: int, depth: Depth) -> None:
        super().__init__()
        self.rate = LayeredRate(order, depth.nodes, channels)
        self.depth = depth

    def forward(self, x_BCHW: Tensor) -> Tensor:
        depth = self.depth
        read = readout(depth.basis, depth.nodes, depth.scheme, depth.steps, x_BCHW.device)
        rate = self.rate.open(read)
        h = integrate_stages(rate, x_BCHW, scheme=depth.scheme, steps=depth.steps, depth_time=depth.depth_time)
        if self.training:
            self.rate.commit(read)
        return h


def convolution(inputs: int, outputs: int, *, size: int = 3, stride: int = 1, bias: bool = False) -> nn.Conv2d:
    """A convolution with same padding, initialised N(0, sqrt(2 / (k k C_out))) as in the authors' code."""
    conv = nn.Conv2d(inputs, outputs, size, stride=stride, padding=size // 2, bias=bias)
    nn.init.normal_(conv.weight, std=sqrt(2 / (size * size * outputs)))
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    conv.weight = nn.Parameter(conv.weight.detach().contiguous(memory_format=torch.channels_last))
    return conv


class Stitch(nn.Module):
    """The transition of Queiruga et al. 2020: conv1x1(x) + conv-ReLU-BN-conv-ReLU-BN(x), never refined.

    The authors' main branch creates the second batch norm and leaves it out; here it is applied, as in their version of
    May 2020, so that no parameter is without a gradient.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.skip = convolution(inputs, outputs, size=1, stride=stride)
        self.residual = nn.Sequential(
            convolution(inputs, outputs, stride=stride, bias=True),
            nn.ReLU(),
            nn.BatchNorm2d(outputs),
            convolution(outputs, outputs, bias=True),
            nn.ReLU(),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.skip(x_BCHW) + self.residual(x_BCHW)


class ProjectionBlock(nn.Module):
    """The pre-activation residual block that changes width: BN(conv1x1(x)) + BN-ReLU-conv-BN-ReLU-conv(x)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.skip = nn.Sequential(convolution(inputs, outputs, size=1, stride=stride), nn.BatchNorm2d(outputs))
        self.residual = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.ReLU(),
            convolution(inputs, outputs, stride=stride),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            convolution(outputs, outputs),
        )

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.skip(x_BCHW) + self.residual(x_BCHW)


class Head(nn.Module):
    """[BN - ReLU -] global average pool - linear: (B, C, H, W) to logits (B, K)."""

    def __init__(self, channels: int, classes: int, *, norm: bool) -> None:
        super().__init__()
        self.norm = nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU()) if norm else nn.Identity()
        self.linear = nn.Linear(channels, classes)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.linear(F.adaptive_avg_pool2d(self.norm(x_BCHW), 1).flatten(1))
