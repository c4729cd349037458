"""The convolutions of stems and transitions.

Shapes: `B` batch, `C` channels, `H W` space.
"""

from math import sqrt

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class StridedPointwise(nn.Conv2d):
    """A 1x1 convolution of every `stride`-th pixel, without bias.

    Of fewer than 8 channels the pixels are picked first: oneDNN 3.12 (torch 2.13, a CPU with AVX2) writes beyond its
    buffer in the weight gradient of its strided channels_last kernel there, which ends the process.
    """

    def forward(self, x_BCHW: Tensor) -> Tensor:
        if self.in_channels >= 8:
            return super().forward(x_BCHW)
        down, right = self.stride
        return F.conv2d(x_BCHW[:, :, ::down, ::right], self.weight)


def convolution(
    channels: tuple[int, int], *, size: int = 3, stride: int = 1, groups: int = 1, bias: bool = False
) -> nn.Conv2d:
    """Of (in, out) channels, with same padding, initialised N(0, sqrt(2 / (k k C_out))) as in the authors' code."""
    inputs, outputs = channels
    kind = StridedPointwise if size == 1 and stride > 1 else nn.Conv2d
    conv = kind(inputs, outputs, size, stride=stride, padding=size // 2, groups=groups, bias=bias)
    nn.init.normal_(conv.weight, std=sqrt(2 / (size * size * outputs)))
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    conv.weight = nn.Parameter(conv.weight.detach().contiguous(memory_format=torch.channels_last))
    return conv
