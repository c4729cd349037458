"""The parts networks are wired from: a stage that integrates over depth, the transitions between stages, stem and head.

Shapes: `B` batch, `C` channels, `H W` space, `N` depth nodes.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from odenet.depth.discretisation import Depth
from odenet.depth.node_weights import readout
from odenet.integrators.gradients import Drift
from odenet.integrators.integrate import integrate_stages
from odenet.integrators.scheme import OpenRate, Stage, State
from odenet.integrators.schemes import ADAPTIVE
from odenet.networks.batch_norm import BatchNorm
from odenet.networks.convolutions import convolution
from odenet.networks.orders import TransitionOrder
from odenet.networks.perturbation import Perturbation
from odenet.networks.rates import Rate
from odenet.networks.widths import Change, zero_channels


class DepthStage(nn.Module):
    """x(1) of dx/dt = T R(theta(t), x) with x(0) the input, (B, C, H, W) to the same shape.

    The input may be a pair of states, from which a two-step scheme goes on.
    """

    def __init__(self, rate: Rate, depth: Depth, place: tuple[int, int] = (0, 1)) -> None:
        super().__init__()
        self.rate, self.depth = rate, depth
        self.drift: Drift | None = None  # where to note how far a reconstruction strays
        self._place = place
        self._evaluations = 0

    def forward(self, x_BCHW: Tensor | State, perturbation: Perturbation | None = None) -> Tensor:
        depth, course = self.depth, self.depth.course
        device = (x_BCHW if isinstance(x_BCHW, Tensor) else x_BCHW[0]).device
        read = readout(depth.basis, depth.nodes, course.scheme, course.steps, device)
        rate = self.rate.open(read)
        if perturbation is not None and self.training:
            rate = perturbation.of(rate, course, self._place)
        calls: list[Stage] = []
        adaptive = course.scheme in ADAPTIVE
        h = integrate_stages(_noting(rate, calls) if adaptive else rate, x_BCHW, course, self.drift)
        self._evaluations = len(calls)  # before those of a backward pass
        self.rate.commit(read)
        return h

    @property
    def evaluations(self) -> int:
        """Return the rate evaluations of a forward pass; of the last one where the scheme is adaptive."""
        adaptive = self.depth.course.scheme in ADAPTIVE
        return self._evaluations if adaptive and self._evaluations else self.depth.evaluations


def _noting(rate: OpenRate, calls: list[Stage]) -> OpenRate:
    def slope(stage: Stage, h: Tensor) -> Tensor:
        calls.append(stage)
        return rate.slope(stage, h)

    return replace(rate, slope=slope)


def layers_of(names: Sequence[str], change: Change, *, bias: bool) -> nn.Sequential:
    """Return the layers of a rate's order as plain ones; the first 3x3 one changes width and resolution."""
    width, stride, made = change.inputs, change.stride, list[nn.Module]()
    for name in names:
        if name == "norm":
            made.append(BatchNorm(width))
        elif name == "relu":
            made.append(nn.ReLU(inplace=True))  # what comes before it keeps its input only
        elif name == "reduce":
            made.append(convolution((width, change.widths.inner), size=1, bias=bias))
            width = change.widths.inner
        elif name == "expand":
            made.append(convolution((width, change.outputs), size=1, bias=bias))
            width = change.outputs
        else:
            outputs, groups = (change.outputs, 1) if name == "conv" else (width, change.widths.groups)
            made.append(convolution((width, outputs), stride=stride, groups=groups, bias=bias))
            width, stride = outputs, 1
    return nn.Sequential(*made)


class Transition(nn.Module):
    """Never refined. (B, C, H, W) to (B, C', H', W'), or to a pair of these where the order has `history`."""

    def __init__(self, order: TransitionOrder, change: Change) -> None:
        super().__init__()
        self._order, self._same = order, order.identity and not change.changes
        self.shared = layers_of(order.shared, change, bias=False)
        self.skip = nn.Identity() if self._same else _skip(order, change)
        self.residual = layers_of(order.residual, change, bias=order.bias) if order.residual else None
        after = replace(change, inputs=change.outputs)
        self.last = layers_of(order.last, after, bias=False) if order.last else None

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take the state of a pickle, also of an older one, which has no layers after the sum."""
        super().__setstate__(state if "last" in {**state, **state["_modules"]} else {**state, "last": None})

    def forward(self, x_BCHW: Tensor) -> Tensor | State:
        shared = self.shared(x_BCHW)
        skip = self.skip(x_BCHW if self._same else shared)
        total = skip if self.residual is None else skip + self.residual(shared)
        total = total if self.last is None else self.last(total)
        return (total, skip) if self._order.history else total


def _skip(order: TransitionOrder, change: Change) -> nn.Module:
    if order.pool_pad_halves:
        return PoolPad(change, halves=order.pool_pad_halves)
    if "conv1" not in order.skip:
        return layers_of(order.skip, change, bias=order.bias)
    place = order.skip.index("conv1")
    before = layers_of(order.skip[:place], change, bias=False)
    conv = convolution((change.inputs, change.outputs), size=1, stride=change.stride)
    after = layers_of(order.skip[place + 1 :], replace(change, inputs=change.outputs), bias=False)
    return nn.Sequential(*before, conv, *after)


class PoolPad(nn.Module):
    """2x2 average pool where the stride is 2, then zero channels, as many before as after each half."""

    def __init__(self, change: Change, *, halves: int) -> None:
        super().__init__()
        self._side, self._halves, self._stride = zero_channels(change, halves), halves, change.stride

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x = F.avg_pool2d(x_BCHW, self._stride) if self._stride > 1 else x_BCHW
        padded = [F.pad(half, (0, 0, 0, 0, self._side, self._side)) for half in x.chunk(self._halves, dim=1)]
        return torch.cat(padded, dim=1) if self._side else x
