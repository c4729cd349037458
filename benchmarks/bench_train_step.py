"""A training step (forward, backward, SGD) against the plain torchdiffeq formulation of the same net, interleaved.

ContinuousNet 2-2-2 of width 16 (Queiruga et al. 2020, arXiv 2008.02389) on batches of 128 images of 3x32x32 with Euler,
midpoint and RK4, and 32-32-32 with Euler. The peer is written here from the paper's equations as one does it with
torchdiffeq: an ODE block that reads its modules by int(t * K), contiguous tensors, torch's default SGD; once on the
full grid linspace(0, 1, K + 1) as in the authors' code, which the goals are set against, and once on two points with
step_size = 1/K, where torchdiffeq keeps no trajectory. The ceiling is the net's convolutions alone, forward and
backward, in our memory format and arithmetic: what a step reaches of it is the time of the convolutions divided by
that of the step.

    python benchmarks/bench_train_step.py [--quick]
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any

import torch
from measure import Spread, interleaved, parser, print_table, ratio, write
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD
from torchdiffeq import odeint  # type: ignore[import-untyped]

from odenet.enums import Scheme
from odenet.networks.model import build_model
from odenet.networks.model_config import ModelConfig
from odenet.training.config import from_plain
from odenet.training.cost import train_gflops
from odenet.training.optim import build_optimizer
from odenet.training.optim_config import OptimConfig

WIDTH, CLASSES, SHAPE = 16, 10, (3, 32, 32)
EVALUATIONS = {Scheme.euler: 1, Scheme.midpoint: 2, Scheme.rk4: 4}  # per step
PEERS, OURS = ("full grid", "two points"), ("fp32", "bf16")
GOALS = "goals on the full grid: fp32 1.40 and bf16 2.30 at 2-2-2, fp32 3.50 at 32-32-32, and 70 % of the ceiling"

Step = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Row:
    """A net that is measured."""

    scheme: Scheme
    nodes: int  # and steps of each stage

    @property
    def name(self) -> str:
        return f"{self.nodes}-{self.nodes}-{self.nodes} {self.scheme.value}"


ROWS = (Row(Scheme.euler, 2), Row(Scheme.midpoint, 2), Row(Scheme.rk4, 2), Row(Scheme.euler, 32))


# --- the peer, from the equations ------------------------------------------------------------------------------------


class Residual(nn.Module):
    """R at one node: BN(relu(conv(BN(relu(conv(x))))))."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, stride=stride)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm2(F.relu(self.conv2(self.norm1(F.relu(self.conv1(x))))))


class OdeBlock(nn.Module):
    """dx/dt = K R(theta(t), x) from t = 0 to 1 in K steps, theta constant on K cells."""

    def __init__(self, channels: int, row: Row, *, full_grid: bool) -> None:
        super().__init__()
        self.cells = nn.ModuleList(Residual(channels, channels) for _ in range(row.nodes))
        self._method, self._points = row.scheme.value, row.nodes + 1 if full_grid else 2

    def rate(self, t: Tensor, x: Tensor) -> Tensor:
        nodes = len(self.cells)
        return nodes * self.cells[min(int(t * nodes), nodes - 1)](x)

    def forward(self, x: Tensor) -> Tensor:
        t = torch.linspace(0, 1, self._points, device=x.device)
        options: dict[str, Any] = {"perturb": True}  # the end of a step reads its own cell
        if self._points == 2:
            options["step_size"] = 1 / len(self.cells)
        return odeint(self.rate, x, t, method=self._method, options=options)[-1]


class PlainBlock(OdeBlock):
    """The same as a plain loop over the cells, in each of which a step lies; torchdiffeq's RK4 is the 3/8 rule."""

    def forward(self, x: Tensor) -> Tensor:
        for cell in self.cells:
            first = cell(x)
            if self._method == "euler":
                x = x + first
            elif self._method == "midpoint":
                x = x + cell(x + first / 2)
            else:
                second = cell(x + first / 3)
                third = cell(x + second - first / 3)
                x = x + (first + 3 * (second + third) + cell(x + first - second + third)) / 8
        return x


class Transition(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.skip = nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)
        self.residual = Residual(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        return self.skip(x) + self.residual(x)


def peer(row: Row, *, full_grid: bool = True, plain: bool = False) -> nn.Module:
    block = PlainBlock if plain else OdeBlock
    parts: list[nn.Module] = [nn.Conv2d(3, WIDTH, 3, padding=1, bias=False), nn.BatchNorm2d(WIDTH), nn.ReLU()]
    inputs = WIDTH
    for index, stride in enumerate((1, 2, 2)):
        outputs = WIDTH * 2**index
        parts += [Transition(inputs, outputs, stride), block(outputs, row, full_grid=full_grid)]
        inputs = outputs
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, CLASSES))


# --- what is timed ---------------------------------------------------------------------------------------------------


def training_step(model: nn.Module, optimizer: torch.optim.Optimizer, batch: tuple[Tensor, Tensor], bf16: bool) -> Step:
    x_BCHW, labels_B = batch

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(x_BCHW.device.type, dtype=torch.bfloat16, enabled=bf16):
            loss = F.cross_entropy(model(x_BCHW).float(), labels_B)
        loss.backward()
        optimizer.step()

    return step


def convolutions(row: Row) -> Iterator[tuple[int, int, int, int, int, int]]:
    """(how many, inputs, outputs, kernel size, stride, pixels of the input's side) of the whole net."""
    yield 1, SHAPE[0], WIDTH, 3, 1, SHAPE[1]
    inputs, side = WIDTH, SHAPE[1]
    for index, stride in enumerate((1, 2, 2)):
        outputs = WIDTH * 2**index
        yield 1, inputs, outputs, 1, stride, side
        yield 1, inputs, outputs, 3, stride, side
        inputs, side = outputs, side // stride
        yield 1 + 2 * row.nodes * EVALUATIONS[row.scheme], inputs, inputs, 3, 1, side


def convolutions_alone(row: Row, batch_size: int, device: str, bf16: bool) -> Step:
    """Forward and backward of every convolution of the net, channels_last, of tensors that are there already."""
    dtype = torch.bfloat16 if bf16 else torch.float32

    def tensor(*shape: int, wanted: bool = True) -> Tensor:
        made = torch.randn(*shape, device=device, dtype=dtype)
        return made.contiguous(memory_format=torch.channels_last).requires_grad_(wanted)

    def prepared(inputs: int, outputs: int, size: int, stride: int, side: int) -> Callable[[], object]:
        x = tensor(batch_size, inputs, side, side, wanted=inputs != SHAPE[0])
        kernel = tensor(outputs, inputs, size, size)
        out = tensor(batch_size, outputs, side // stride, side // stride, wanted=False)
        wanted = [kernel, x] if x.requires_grad else [kernel]
        return lambda: torch.autograd.grad(F.conv2d(x, kernel, stride=stride, padding=size // 2), wanted, out)

    # Like a net's, they find their tensors in no cache: each has its own, up to eight of a kind.
    calls = [(count, [prepared(*shape) for _ in range(min(count, 8))]) for count, *shape in convolutions(row)]

    def every_one() -> None:
        for count, of_kind in calls:
            for call in islice(cycle(of_kind), count):
                call()

    return every_one


def measure(row: Row, batch_size: int, rounds: int, device: str) -> dict[str, Any]:
    torch.manual_seed(0)
    x_BCHW, labels_B = (
        torch.randn(batch_size, *SHAPE, device=device),
        torch.randint(CLASSES, (batch_size,), device=device),
    )
    config = from_plain(ModelConfig, {"width": WIDTH, "nodes": row.nodes, "scheme": row.scheme.value}, "model")
    ours = build_model(config, channels=SHAPE[0], classes=CLASSES).to(device)
    peers = {name: peer(row, full_grid=name == "full grid").to(device) for name in PEERS}
    last = (x_BCHW.contiguous(memory_format=torch.channels_last), labels_B)
    optimizer = build_optimizer(ours, OptimConfig())
    calls = {
        **{n: training_step(p, SGD(p.parameters(), 0.1, 0.9), (x_BCHW, labels_B), False) for n, p in peers.items()},
        "fp32": training_step(ours, optimizer, last, False),
        "bf16": training_step(ours, optimizer, last, True),
        "convolutions fp32": convolutions_alone(row, batch_size, device, False),
        "convolutions bf16": convolutions_alone(row, batch_size, device, True),
    }
    seconds = interleaved(calls, rounds, device)
    gflop = train_gflops(ours, SHAPE) * batch_size
    return {
        "parameters": {name: sum(p.numel() for p in net.parameters()) for name, net in {"ours": ours, **peers}.items()},
        "gflop": gflop,
        "gflops_per_second": {name: Spread.of(gflop / s for s in each) for name, each in seconds.items()},
        "speed_up": {f"{kind}, {name}": ratio(seconds, name, kind) for name in PEERS for kind in OURS},
        "of_ceiling": {kind: ratio(seconds, f"convolutions {kind}", kind) for kind in OURS},
    }


def main() -> None:
    options = parser(__doc__).parse_args()
    torch.set_num_threads(options.threads)
    rounds, batch_size = options.rounds or (2 if options.quick else 5), 32 if options.quick else 128
    measured = {row.name: measure(row, batch_size, rounds, options.device) for row in ROWS}
    title = f"training step, batch {batch_size}, {options.threads} thread(s): times as fast as torchdiffeq"
    first = next(iter(measured.values()))
    heads = ["", "GFLOP", *first["speed_up"], *(f"of ceiling {kind}" for kind in OURS)]
    cells = [
        [
            name,
            f"{m['gflop']:.1f}",
            *(speed_up.text() for speed_up in m["speed_up"].values()),
            *(f"{100 * share.median:.0f} %" for share in m["of_ceiling"].values()),
        ]
        for name, m in measured.items()
    ]
    print_table(f"{title} (min-max of n = {rounds}); {GOALS}", heads, cells)
    speeds = [[name, *(s.text(0) for s in m["gflops_per_second"].values())] for name, m in measured.items()]
    print_table("GFLOP/s", ["", *first["gflops_per_second"]], speeds)
    write("train_step", {"rounds": rounds, "batch_size": batch_size, "rows": measured}, device=options.device)


if __name__ == "__main__":
    main()
