"""Part b of `gpu.py`: how fast is a training step (forward, backward, SGD), and what does it reach of the card?

The ceilings are measured first: the best of a large matrix product in each arithmetic, and of a large copy (bytes read
and written). `of_matmul` is a step's arithmetic (`odenet.training.cost.train_gflops`) at the first, over the measured
time; `of_copy` its traffic at the second, the traffic being an estimate: five times what a forward pass keeps for its
backward pass, because an activation is written and read forward, read again backward, and its gradient written and
read. Weights are not counted, and what a kernel reads twice is not either.

`graph` is the same step as one CUDA graph. ContinuousNets are timed in turns with the same net over torchdiffeq on the
full grid and as a plain loop (see bench_train_step.py), in the same arithmetic; ratios are taken within a turn, and
`speed_up` is that of our eager step over torchdiffeq's.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from bench_train_step import CLASSES, WIDTH, Row, peer, training_step
from gpu_case import Case, Result, Size, arithmetics
from measure import Seconds, Spread, interleaved, ratio, saved_mib, synchronise
from torch import Tensor
from torch.optim import SGD

from odenet.arithmetic import autocast, products
from odenet.enums import Network, Precision, Scheme
from odenet.networks.model import DepthNet, build_model
from odenet.networks.model_config import ModelConfig
from odenet.training.config import ExperimentConfig, TrainingConfig
from odenet.training.cost import train_gflops
from odenet.training.optim import build_optimizer
from odenet.training.optim_config import OptimConfig
from odenet.training.step import WARM_UP, GraphStep, StaticStep

PASSES = 5  # over what a forward pass keeps
Step = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Timed:
    """A network that is timed, and the row of bench_train_step.py that is its peer."""

    config: ModelConfig
    peer: Row | None = None


NETS = {
    "continuous 2-2-2 euler": Timed(ModelConfig(width=WIDTH, scheme=Scheme.euler), Row(Scheme.euler, 2)),
    "continuous 2-2-2 rk4": Timed(ModelConfig(width=WIDTH, scheme=Scheme.rk4), Row(Scheme.rk4, 2)),
    "continuous 8-8-8 euler": Timed(ModelConfig(width=WIDTH, scheme=Scheme.euler, nodes=8), Row(Scheme.euler, 8)),
    "resnet-20": Timed(ModelConfig(network=Network.preact_resnet)),
    "hamiltonian-74": Timed(ModelConfig(network=Network.hamiltonian, width=32, final_width=112, nodes=6)),
    "lm-resnet-20": Timed(ModelConfig(network=Network.lm_resnet)),
}


@dataclass(slots=True)
class Ceilings:
    """What the card reaches; filled as it is measured."""

    gflops: dict[Precision, float]  # per second, of each arithmetic
    gib: float | None = None  # per second


def speed(size: Size) -> Iterator[Case]:
    """The ceilings, then every net at every batch size in every arithmetic."""
    ceilings = Ceilings({})
    for precision in arithmetics(size.device):
        yield Case({"what": "ceiling", "arithmetic": precision.value}, partial(_matmul, size, precision, ceilings))
    yield Case({"what": "ceiling", "arithmetic": "copy"}, partial(_copy, size, ceilings))
    for batch_size in size.batch_sizes:
        for name, net in NETS.items():
            for precision in arithmetics(size.device):
                labels = {"what": "step", "network": name, "batch_size": batch_size, "arithmetic": precision.value}
                yield Case(labels, partial(_step, size, net, batch_size, precision, ceilings))


def _matmul(size: Size, precision: Precision, ceilings: Ceilings) -> Result:
    dtype = torch.bfloat16 if precision is Precision.bf16 else torch.float32
    a, b = (torch.randn(size.matrix, size.matrix, device=size.device, dtype=dtype) for _ in range(2))
    out = torch.empty_like(a)
    with products(precision):
        seconds = interleaved({"matmul": lambda: torch.mm(a, b, out=out)}, size.rounds, size.device)
    ceilings.gflops[precision] = 2e-9 * size.matrix**3 / min(seconds["matmul"])
    return {"gflops_per_second": ceilings.gflops[precision]}


def _copy(size: Size, ceilings: Ceilings) -> Result:
    source = torch.zeros(size.copy_mib, 2**20, dtype=torch.uint8, device=size.device)
    target = torch.empty_like(source)
    seconds = interleaved({"copy": lambda: target.copy_(source)}, size.rounds, size.device)
    ceilings.gib = 2 * size.copy_mib / 2**10 / min(seconds["copy"])
    return {"gib_per_second": ceilings.gib}


def _step(size: Size, net: Timed, batch_size: int, precision: Precision, ceilings: Ceilings) -> Result:
    x_BCHW, labels_B = batch(size, batch_size)
    last = x_BCHW.contiguous(memory_format=torch.channels_last)
    bf16, shape = precision is Precision.bf16, x_BCHW.shape[1:]
    model = build_model(net.config, channels=shape[0], classes=CLASSES).to(size.device)
    calls: dict[str, Step] = {
        "ours": training_step(model, build_optimizer(model, OptimConfig()), (last, labels_B), bf16),
        "graph": graph(size, build_model(net.config, channels=shape[0], classes=CLASSES), (last, labels_B), precision),
    }
    if net.peer is not None:
        for name, theirs in (("torchdiffeq", peer(net.peer)), ("plain_loop", peer(net.peer, plain=True))):
            theirs.to(size.device)
            calls[name] = training_step(theirs, SGD(theirs.parameters(), 0.1, 0.9), (x_BCHW, labels_B), bf16)
    with products(precision):
        seconds = interleaved(calls, size.rounds, size.device)
        with autocast(torch.device(size.device), precision):
            moved_gib = PASSES * saved_mib(lambda: model(last), model.parameters()) / 2**10
    gflop = train_gflops(model, tuple(shape)) * batch_size
    eager, as_graph = (Spread.of(seconds[name]).median for name in ("ours", "graph"))
    return {
        **_figures(seconds, batch_size),
        **{"gflop": gflop, "moved_gib": moved_gib},
        **_shares("", gflop / eager, moved_gib / eager, ceilings, precision),
        **_shares("graph_", gflop / as_graph, moved_gib / as_graph, ceilings, precision),
    }


def batch(size: Size, batch_size: int) -> tuple[Tensor, Tensor]:
    draws = torch.Generator().manual_seed(0)
    x_BCHW = torch.randn(batch_size, 3, size.timed_side, size.timed_side, generator=draws)
    labels_B = torch.randint(CLASSES, (batch_size,), generator=draws)
    return x_BCHW.to(size.device), labels_B.to(size.device)


def graph(size: Size, model: DepthNet, images: tuple[Tensor, Tensor], precision: Precision) -> Step:
    """An iteration as one CUDA graph; on a CPU what it would repeat."""
    x_BCHW, labels_B = images
    experiment = ExperimentConfig(
        model=model.config,
        optim=OptimConfig(batch_size=len(x_BCHW)),
        training=TrainingConfig(precision=precision),
    )
    model.to(size.device)
    kind = GraphStep if size.device == "cuda" else StaticStep
    step = kind(model, build_optimizer(model, experiment.optim), experiment, model)
    for _ in range(WARM_UP + 1):  # until it is captured
        step(x_BCHW, labels_B, 0.1, 0)
    return lambda: step(x_BCHW, labels_B, 0.1, 0)


def compiled(size: Size) -> Iterator[Case]:
    """Part g: one network under torch.compile, beside the same step as a graph. Compiling takes a minute or more."""
    yield Case({"what": "compile", "network": "continuous 2-2-2 euler"}, partial(_compiled, size))


def _compiled(size: Size) -> Result:
    config, (x_BCHW, labels_B) = NETS["continuous 2-2-2 euler"].config, batch(size, size.batch_sizes[0])
    images = x_BCHW.contiguous(memory_format=torch.channels_last), labels_B
    model = build_model(config, channels=3, classes=CLASSES).to(size.device)
    forward = torch.compile(model, backend=size.compiler)
    step = training_step(forward, build_optimizer(model, OptimConfig()), images, bf16=True)
    with products(Precision.bf16):
        started = time.perf_counter()
        step()
        synchronise(size.device)
        cold_seconds = time.perf_counter() - started
        as_graph = graph(size, build_model(config, channels=3, classes=CLASSES), images, Precision.bf16)
        seconds = interleaved({"compiled": step, "graph": as_graph}, size.rounds, size.device)
    return {
        "cold_seconds": cold_seconds,
        "ms": Spread.of(1000 * s for s in seconds["compiled"]),
        "graph_ms": Spread.of(1000 * s for s in seconds["graph"]),
    }


def _figures(seconds: Seconds, batch_size: int) -> Result:
    found: Result = {
        "ms": Spread.of(1000 * s for s in seconds["ours"]),
        "images_per_second": Spread.of(batch_size / s for s in seconds["ours"]),
        "graph_ms": Spread.of(1000 * s for s in seconds["graph"]),
        "graph_images_per_second": Spread.of(batch_size / s for s in seconds["graph"]),
        "graph_speed_up": ratio(seconds, "ours", "graph"),
    }
    if "torchdiffeq" in seconds:
        for name in ("torchdiffeq", "plain_loop"):
            found[f"{name}_ms"] = Spread.of(1000 * s for s in seconds[name])
        found["speed_up"] = ratio(seconds, "torchdiffeq", "ours")
        found["plain_loop_speed_up"] = ratio(seconds, "plain_loop", "ours")
    return found


def _shares(prefix: str, gflops: float, gib: float, ceilings: Ceilings, precision: Precision) -> Result:
    """Null where the ceiling could not be measured; both are per second."""
    matmul, copy = ceilings.gflops.get(precision), ceilings.gib
    return {
        f"{prefix}of_matmul": gflops / matmul if matmul else None,
        f"{prefix}of_copy": gib / copy if copy else None,
    }
