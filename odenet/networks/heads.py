"""From the state of the last stage to logits.

Shapes: `B` batch, `C` channels, `H W` space, `K` classes.
"""

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from odenet.networks.blocks import layers_of
from odenet.networks.table import Pool
from odenet.networks.widths import Change, Widths


class Head(nn.Module):
    """layers - average pool to size x size - linear: (B, C, H, W) to logits (B, K)."""

    def __init__(self, channels: int, classes: int, *, layers: tuple[str, ...] = (), pool: Pool) -> None:
        super().__init__()
        self.norm = layers_of(layers, Change(channels, Widths(channels, channels), 1), bias=False)
        self.linear = nn.Linear(channels * pool.size**2, classes)
        self._pool = pool

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take the state of a pickle, also of an older one, which keeps the pool's size alone."""
        pool = state["_pool"]
        super().__setstate__({**state, "_pool": Pool(size=pool) if isinstance(pool, int) else pool})

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.linear(pooled(self.norm(x_BCHW), self._pool).flatten(1))


def pooled(x_BCHW: Tensor, pool: Pool) -> Tensor:
    """To (B, C, size, size): by the published kernel where that gives this size, else by equal parts of each side.

    Halves of an odd side share its middle. They are written out because a GPU has no deterministic adaptive pool.
    """
    sides, kernel = x_BCHW.shape[2:], pool.kernel
    if kernel is not None and all(side // kernel == pool.size for side in sides):
        return F.avg_pool2d(x_BCHW, kernel)
    if pool.size == 2 and min(sides) > 1:
        return F.avg_pool2d(x_BCHW, [side - side // 2 for side in sides], [side // 2 for side in sides])
    return F.adaptive_avg_pool2d(x_BCHW, pool.size)
