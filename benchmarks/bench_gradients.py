"""Gradient modes against torch.utils.checkpoint and revlib over depth: time, saved bytes and error, interleaved.

The Hamiltonian block of Chang et al. 2018 (arXiv 1709.03698, Eq. 7 and 10) without batch norm, N steps over depth time
1 on 16 channels of 32x32 pixels, a convolution, ReLU and its transposed convolution in each half; and the discrete
adjoint of Sander et al. 2022 (arXiv 2205.14612) over Euler and Heun of conv-ReLU-conv. Times are those of a forward and
a backward pass, relative to the same integration with gradient=direct. Saved is what the forward pass keeps for the
backward pass. Errors are those of all gradients in float64, relative to keeping everything.

    python benchmarks/bench_gradients.py [--quick]
"""

from collections.abc import Callable
from functools import partial
from math import isqrt
from typing import Any

import torch
from measure import Spread, installed, interleaved, parser, print_table, ratio, relative_error, saved_mib, write
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from odenet.depth.node_weights import readout
from odenet.enums import Basis, Gradient, Scheme
from odenet.integrators.integrate import integrate_stages
from odenet.integrators.scheme import Course
from odenet.networks.orders import HAMILTONIAN_BARE, RateOrder
from odenet.networks.rates import Rate
from odenet.networks.widths import Widths

CHANNELS, PIXELS = 16, 32
DEPTHS = (8, 32, 128, 512)
RESIDUAL = RateOrder(("conv", "relu", "conv"), bias=True)
GOALS = {
    Scheme.verlet: "1.40 from N = 32 on, no slower than revlib, error 1e-13",
    Scheme.euler: "1.65",
    Scheme.heun: "1.65",
}

Pass = Callable[[Tensor], Tensor]  # h0 (B, C, H, W) -> h1


# --- peers -----------------------------------------------------------------------------------------------------------


class Half(nn.Module):
    """size * K^T relu(K x + b), half of a step of the Hamiltonian block."""

    def __init__(self, size: float) -> None:
        super().__init__()
        width = CHANNELS // 2
        kernel = torch.empty(width, width, 3, 3).normal_(std=(2 / (9 * width)) ** 0.5)
        self.kernel = nn.Parameter(kernel.contiguous(memory_format=torch.channels_last))
        self.bias = nn.Parameter(torch.zeros(width))
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu(F.conv2d(x, self.kernel, self.bias, padding=1))
        return self.size * F.conv_transpose2d(inner, self.kernel, padding=1)


class Written(nn.Module):
    """The block as a loop over modules, in segments that are recomputed in the backward pass."""

    def __init__(self, steps: int, segments: int) -> None:
        super().__init__()
        self.halves = nn.ModuleList(Half((1 - 2 * (i % 2)) / steps) for i in range(2 * steps))
        self._length, self._segments = 2 * -(-steps // segments), segments

    def forward(self, h: Tensor) -> Tensor:
        y, z = h.chunk(2, dim=1)
        for start in range(0, len(self.halves), self._length):
            if self._segments == 1:
                y, z = self._run(start, y, z)
            else:
                y, z = checkpoint(self._run, start, y, z, use_reentrant=False)
        return torch.cat([y, z], dim=1)

    def _run(self, start: int, y: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        for i in range(start, min(start + self._length, len(self.halves)), 2):
            y = y + self.halves[i](z)
            z = z + self.halves[i + 1](y)
        return y, z


def revlib_block(steps: int, *, saving: bool = True) -> nn.Module:
    """revlib's coupling is x0 + f(x1) and then an exchange: two of them are one Verlet step."""
    from revlib import MemoryModes, ReversibleSequential  # type: ignore[import-untyped]

    mode = MemoryModes.autograd_function if saving else MemoryModes.no_savings
    halves = [Half((1 - 2 * (i % 2)) / steps) for i in range(2 * steps)]
    block: nn.Module = ReversibleSequential(*halves, memory_mode=mode)
    return block


# --- ours ------------------------------------------------------------------------------------------------------------


class Integration(nn.Module):
    """A rate with a node per step, integrated over depth time 1."""

    def __init__(self, order: RateOrder, scheme: Scheme, steps: int) -> None:
        super().__init__()
        self.rate = Rate(order, steps, Widths(CHANNELS, CHANNELS))
        self._scheme, self._steps = scheme, steps

    def forward(self, h: Tensor, gradient: Gradient) -> Tensor:
        read = readout(Basis.piecewise_constant, self._steps, self._scheme, self._steps, h.device)
        course = Course(self._scheme, self._steps, gradient=gradient)
        return integrate_stages(self.rate.open(read), h, course)


def contestants(scheme: Scheme, steps: int, device: str) -> dict[str, tuple[Pass, nn.Module]]:
    """By name: the forward pass and whose parameters it has."""
    order = HAMILTONIAN_BARE if scheme is Scheme.verlet else RESIDUAL
    ours = Integration(order, scheme, steps).to(device)
    found: dict[str, tuple[Pass, nn.Module]] = {
        f"odenet, {gradient.value}": (partial(ours, gradient=gradient), ours) for gradient in Gradient
    }
    if scheme is not Scheme.verlet:
        return found
    peers: dict[str, nn.Module] = {
        "written out, everything kept": Written(steps, 1),
        "torch checkpoint": Written(steps, isqrt(steps)),
    }
    if installed("revlib"):
        peers["revlib"] = revlib_block(steps)
    return found | {name: (peer.to(device), peer) for name, peer in peers.items()}


def images(batch: int, device: str, dtype: torch.dtype = torch.float32) -> Tensor:
    h0 = torch.randn(batch, CHANNELS, PIXELS, PIXELS, device=device, dtype=dtype)
    return h0.contiguous(memory_format=torch.channels_last).requires_grad_()


def measure(scheme: Scheme, steps: int, batch: int, rounds: int, device: str) -> dict[str, dict[str, Any]]:
    """Ratio of times to gradient=direct and MiB saved, of each contestant."""
    h0 = images(batch, device)
    found = contestants(scheme, steps, device)

    def train(forward: Pass) -> None:
        forward(h0).sum().backward()

    seconds = interleaved({name: partial(train, forward) for name, (forward, _) in found.items()}, rounds, device)
    return {
        name: {
            "ratio": ratio(seconds, name, "odenet, direct"),
            "milliseconds": Spread.of(1e3 * s for s in seconds[name]),
            "saved_mib": saved_mib(partial(forward, h0), owner.parameters()),
        }
        for name, (forward, owner) in found.items()
    }


def errors(scheme: Scheme, steps: int) -> dict[str, float]:
    """Of the gradients in float64 of two images, each relative to its own net with everything kept."""
    torch.manual_seed(0)
    h0 = images(2, "cpu", torch.float64)
    order = HAMILTONIAN_BARE if scheme is Scheme.verlet else RESIDUAL
    ours = Integration(order, scheme, steps).double()
    pairs: dict[str, tuple[Pass, Pass, nn.Module]] = {
        f"odenet, {gradient.value}": (partial(ours, gradient=gradient), partial(ours, gradient=Gradient.direct), ours)
        for gradient in (Gradient.checkpointed, Gradient.reconstructed)
    }
    if scheme is Scheme.verlet and installed("revlib"):
        saving, keeping = revlib_block(steps).double(), revlib_block(steps, saving=False).double()
        saving.load_state_dict(keeping.state_dict())
        pairs["revlib"] = (saving, keeping, saving)
    return {name: _error(h0, *pair) for name, pair in pairs.items()}


def _error(h0: Tensor, found: Pass, true: Pass, owner: nn.Module) -> float:
    def gradients(forward: Pass, of: list[nn.Parameter]) -> list[Tensor]:
        for parameter in of:
            parameter.grad = None
        h0.grad = None
        forward(h0).square().sum().backward()
        return [p.grad.clone() for p in [h0, *of] if p.grad is not None]

    other = true if isinstance(true, nn.Module) else owner
    return relative_error(gradients(found, [*owner.parameters()]), gradients(true, [*other.parameters()]))


def main() -> None:
    options = parser(__doc__).parse_args()
    torch.set_num_threads(options.threads)
    rounds, batch = options.rounds or (2 if options.quick else 5), 4 if options.quick else 16
    depths = DEPTHS[:-1] if options.quick else DEPTHS
    document: dict[str, Any] = {"rounds": rounds, "batch": batch}
    for scheme, goal in GOALS.items():
        of_scheme = depths if scheme is Scheme.verlet else depths[:3]
        rows = {n: measure(scheme, n, batch, rounds, options.device) for n in of_scheme}
        wrong = {n: errors(scheme, n) for n in of_scheme}
        heads = ["", *(f"N = {n}" for n in of_scheme)]
        title = f"{scheme.value}, batch {batch}: time relative to gradient=direct (min-max of n = {rounds})"
        names = list(rows[of_scheme[0]])
        table = [[name, *(rows[n][name]["ratio"].text() for n in of_scheme)] for name in names]
        print_table(f"{title}; goal for reconstructed {goal}", heads, table)
        table = [[name, *(f"{rows[n][name]['saved_mib']:.1f}" for n in of_scheme)] for name in names]
        print_table("MiB saved between forward and backward", heads, table)
        table = [[name, *(f"{wrong[n][name]:.1e}" for n in of_scheme)] for name in wrong[of_scheme[0]]]
        print_table("relative error of the gradients, float64", heads, table)
        document[scheme.value] = {"measured": rows, "errors": wrong}
    write("gradients", document, device=options.device)


if __name__ == "__main__":
    main()
