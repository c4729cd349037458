"""Every network once more with the layers of torch.nn, one module to a block, its equations as loops.

Nothing of `odenet` is in here; parameters are registered in the order in which `odenet` has them at a node.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CLASSES = 5
Block = Callable[[int], nn.Module]
Transition = Callable[[int, int, int], nn.Module]  # of (channels in, channels out, stride)
Solve = Callable[[Sequence[nn.Module], Any], Tensor]  # of (blocks, state)


def conv(i: int, o: int, stride: int = 1, *, size: int = 3, groups: int = 1, bias: bool = False) -> nn.Conv2d:
    return nn.Conv2d(i, o, size, stride, padding=size // 2, groups=groups, bias=bias)


# Residual functions


def post_activation(i: int, o: int, stride: int = 1) -> nn.Sequential:
    first = [conv(i, o, stride, bias=True), nn.ReLU(), nn.BatchNorm2d(o)]
    return nn.Sequential(*first, conv(o, o, bias=True), nn.ReLU(), nn.BatchNorm2d(o))


def pre_activation(i: int, o: int, stride: int = 1, *, bias: bool = False) -> nn.Sequential:
    first = [nn.BatchNorm2d(i), nn.ReLU(), conv(i, o, stride, bias=bias)]
    return nn.Sequential(*first, nn.BatchNorm2d(o), nn.ReLU(), conv(o, o, bias=bias))


def bottleneck(i: int, o: int, inner: int, groups: int, stride: int = 1) -> nn.Sequential:
    reduce = [nn.BatchNorm2d(i), nn.ReLU(), conv(i, inner, size=1)]
    grouped = [nn.BatchNorm2d(inner), nn.ReLU(), conv(inner, inner, stride, groups=groups)]
    return nn.Sequential(*reduce, *grouped, nn.BatchNorm2d(inner), nn.ReLU(), conv(inner, o, size=1))


def basic(i: int, o: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(conv(i, o, stride), nn.BatchNorm2d(o), nn.ReLU(), conv(o, o), nn.BatchNorm2d(o))


def basic_bottleneck(i: int, o: int, stride: int = 1) -> nn.Sequential:
    inner = o // 4
    reduce = [conv(i, inner, size=1), nn.BatchNorm2d(inner), nn.ReLU()]
    middle = [conv(inner, inner, stride), nn.BatchNorm2d(inner), nn.ReLU()]
    return nn.Sequential(*reduce, *middle, conv(inner, o, size=1), nn.BatchNorm2d(o))


def norm_last(c: int) -> nn.Sequential:
    first = [conv(c, c, bias=True), nn.BatchNorm2d(c), nn.ReLU()]
    return nn.Sequential(*first, conv(c, c, bias=True), nn.BatchNorm2d(c))


def group_norm(c: int) -> nn.Sequential:
    first = [nn.GroupNorm(c, c), nn.ReLU(), conv(c, c, bias=True)]
    return nn.Sequential(*first, nn.GroupNorm(c, c), nn.ReLU(), conv(c, c, bias=True))


class Symmetric(nn.Module):
    """sign K^T relu(norm(K x))."""

    def __init__(self, c: int, sign: int) -> None:
        super().__init__()
        self.kernel, self.norm, self.sign = nn.Parameter(torch.empty(c, c, 3, 3)), nn.BatchNorm2d(c), sign

    def forward(self, x: Tensor) -> Tensor:
        inside = F.relu(self.norm(F.conv2d(x, self.kernel, padding=1)))
        return self.sign * F.conv_transpose2d(inside, self.kernel, padding=1)


class Antisymmetric(nn.Module):
    """K x - K^T x."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.empty(c, c, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.kernel, padding=1) - F.conv_transpose2d(x, self.kernel, padding=1)


class Halves(nn.Module):
    """f and g of the partitioned y' = f(z), z' = g(y)."""

    def __init__(self, f: nn.Module, g: nn.Module) -> None:
        super().__init__()
        self.f, self.g = f, g


def hamiltonian(c: int, *, first: bool = False) -> Halves:
    f = Symmetric(c // 2, 1) if first else nn.Sequential(nn.BatchNorm2d(c // 2), Symmetric(c // 2, 1))
    return Halves(f, nn.Sequential(nn.BatchNorm2d(c // 2), Symmetric(c // 2, -1)))


class Fractal(nn.Module):
    """f_3 of f_1 = g, f_{c+1} = (g + f_c o f_c) / 2; seven g, each a convolution, batch norm and ReLU."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(conv(c, c) for _ in range(7))
        self.norms = nn.ModuleList(nn.BatchNorm2d(c) for _ in range(7))

    def forward(self, x: Tensor) -> Tensor:
        def g(n: int, x: Tensor) -> Tensor:
            return F.relu(self.norms[n](self.convs[n](x)))

        once = (g(1, x) + g(3, g(2, x))) / 2
        twice = (g(4, once) + g(6, g(5, once))) / 2
        return (g(0, x) + twice) / 2


class WithMemory(nn.Module):
    """A residual function and its k_n."""

    def __init__(self, f: nn.Module) -> None:
        super().__init__()
        self.k, self.f = nn.Parameter(torch.empty(())), f

    def forward(self, x: Tensor) -> Tensor:
        return self.f(x)


# Equations


def residual(blocks: Sequence[nn.Module], x: Tensor) -> Tensor:
    for f in blocks:
        x = x + f(x)
    return x


def clipped(blocks: Sequence[nn.Module], x: Tensor) -> Tensor:
    for f in blocks:
        x = F.relu(x + f(x))
    return x


def scaled(blocks: Sequence[nn.Module], x: Tensor) -> Tensor:
    for f in blocks:
        x = x + f(x) / len(blocks)
    return x


def heun(blocks: Sequence[nn.Module], x: Tensor) -> Tensor:
    """N functions, N - 1 steps, divisor N (papers.md, section 3)."""
    n = len(blocks)
    for f, g in pairwise(blocks):
        slope = f(x)
        x = x + (slope + g(x + slope / n)) / (2 * n)
    return x


def euler_of_one_function(blocks: Sequence[nn.Module], x: Tensor) -> Tensor:
    for _ in range(3):
        x = x + blocks[0](x) / 3
    return x


def polynet(blocks: Sequence[nn.Module], x: Tensor) -> Tensor:
    for f in blocks:
        once = f(x)
        x = x + once + f(once)
    return x


def replaced(blocks: Sequence[nn.Module], x: Tensor) -> Tensor:
    for f in blocks:
        x = f(x)
    return x


def coupled(blocks: Sequence[nn.Module], x: Tensor) -> Tensor:
    y, z = x.chunk(2, dim=1)
    for block in blocks:
        assert isinstance(block, Halves)
        y = y + block.f(z)
        z = z + block.g(y)
    return torch.cat([y, z], dim=1)


def midpoint(blocks: Sequence[nn.Module], x: Tensor) -> Tensor:
    before, x = x, x + blocks[0](x)
    for f in blocks[1:]:
        before, x = x, before + 2 * f(x)
    return x


def leapfrog(blocks: Sequence[nn.Module], x: Tensor) -> Tensor:
    before, x = x, x + blocks[0](x) / 2
    for f in blocks[1:]:
        before, x = x, 2 * x - before + f(x)
    return x


def multistep(blocks: Sequence[nn.Module], pair: tuple[Tensor, Tensor]) -> Tensor:
    x, before = pair
    for block in blocks:
        assert isinstance(block, WithMemory)
        before, x = x, (1 - block.k) * x + block.k * before + block(x)
    return x


# Transitions


class Sum(nn.Module):
    """skip(x) + residual(x), both of shared(x)."""

    def __init__(self, skip: nn.Module, residual: nn.Module, shared: nn.Module | None = None) -> None:
        super().__init__()
        self.shared = shared if shared is not None else nn.Identity()
        self.skip, self.residual = skip, residual

    def forward(self, x: Tensor) -> Tensor:
        skip = x if isinstance(self.skip, nn.Identity) else self.skip(self.shared(x))
        return skip + self.residual(self.shared(x))


class Restart(nn.Module):
    """The first block of an LM stage is plain: (skip(x) + residual(x), skip(x))."""

    def __init__(self, total: Sum) -> None:
        super().__init__()
        self.total = total

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.total(x), self.total.skip(x)


class PoolPad(nn.Module):
    """2x2 average pool, then zero channels on both sides of each part of the state."""

    def __init__(self, parts: int) -> None:
        super().__init__()
        self.parts = parts

    def forward(self, x: Tensor) -> Tensor:
        out = []
        for part in F.avg_pool2d(x, 2).chunk(self.parts, dim=1):
            zeros = torch.zeros_like(part[:, : part.shape[1] // 2])  # widths double: half as many on each side
            out += [zeros, part, zeros]
        return torch.cat(out, dim=1)


def stitch(i: int, o: int, stride: int) -> Sum:
    return Sum(conv(i, o, stride, size=1), post_activation(i, o, stride))


def preact_stitch(i: int, o: int, stride: int) -> Sum:
    return Sum(conv(i, o, stride, size=1), pre_activation(i, o, stride, bias=True))


def stateful_stitch(i: int, o: int, stride: int) -> Sum:
    skip = nn.Identity() if stride == 1 else nn.Sequential(conv(i, o, stride, size=1), nn.BatchNorm2d(o))
    inside = nn.Sequential(conv(i, o, stride), nn.BatchNorm2d(o), nn.ReLU(), conv(o, o))
    return Sum(skip, inside, shared=nn.Sequential(nn.BatchNorm2d(i), nn.ReLU()))


def projection(residual: Transition) -> Transition:
    def make(i: int, o: int, stride: int) -> Sum:
        plain = stride == 1 and i == o
        skip = nn.Identity() if plain else nn.Sequential(conv(i, o, stride, size=1), nn.BatchNorm2d(o))
        return Sum(skip, residual(i, o, stride))

    return make


def lm_restart(residual: Transition) -> Transition:
    def make(i: int, o: int, stride: int) -> Restart:
        down = nn.Sequential(nn.BatchNorm2d(i), nn.ReLU(), conv(i, o, stride, size=1))
        return Restart(Sum(nn.Identity() if stride == 1 and i == o else down, residual(i, o, stride)))

    return make


def plain(i: int, o: int, stride: int) -> nn.Sequential:
    return nn.Sequential(conv(i, o, stride), nn.BatchNorm2d(o), nn.ReLU())


# Whole networks


class Stage(nn.Module):
    """Blocks and the equation that makes a stage of them."""

    def __init__(self, solve: Solve, blocks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.solve, self.blocks = solve, nn.ModuleList(blocks)

    def forward(self, x: Tensor | tuple[Tensor, Tensor]) -> Tensor:
        return self.solve(list(self.blocks), x)


def four(block: Transition, widths: tuple[int, ...], nodes: int) -> list[nn.Module]:
    """Stages of relu(x + f(x)), of which the first block changes the shape."""
    layers: list[nn.Module] = []
    for (i, o), stride in zip(pairwise(widths), (1, 2, 2, 2), strict=True):
        first = nn.Sequential(projection(block)(i, o, stride), nn.ReLU())
        layers += [first, Stage(clipped, [block(o, o, 1) for _ in range(nodes)])]
    return layers


def three(solve: Solve, block: Block, transition: Transition, widths: tuple[int, ...], nodes: int) -> list[nn.Module]:
    """Three stages behind their transitions; `widths` begins with that of the stem."""
    layers: list[nn.Module] = []
    for (i, o), stride in zip(pairwise(widths), (1, 2, 2), strict=True):
        layers += [transition(i, o, stride), Stage(solve, [block(o) for _ in range(nodes)])]
    return layers


def pooled(solve: Solve, block: Block, parts: int, width: int, counts: tuple[int, ...]) -> list[nn.Module]:
    """Stages of so many blocks, each of twice the width of the one before, with PoolPad between them."""
    layers: list[nn.Module] = []
    for index, count in enumerate(counts):
        stage = Stage(solve, [block(width * 2**index) for _ in range(count)])
        layers += [PoolPad(parts), stage] if index else [stage]
    return layers


def head(c: int, *before: nn.Module, pool: int = 1) -> list[nn.Module]:
    return [*before, nn.AdaptiveAvgPool2d(pool), nn.Flatten(), nn.Linear(c * pool**2, CLASSES)]
