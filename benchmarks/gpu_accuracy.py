"""Part a of `gpu.py`: are the numbers right?

* `error`: relative error of the logits and of the gradients of the loss (all parameters as one vector) in training
  mode, at initialisation and after `iterations` of SGD in float64, against float64 on the CPU: `logits` and `gradients`
  against the same gradient mode, so what device and arithmetic add; `gradients_in_all` against the exact gradient, so
  also what an approximate mode costs.
* `graph`: two epochs on the digits with and without CUDA graphs, with runtime.deterministic and stochastic depth: all
  weights and statistics bit for bit, or why there is no graph. On a CPU both are without.
* `resume`: two epochs on the digits against one, a checkpoint and one more, with runtime.deterministic: all weights
  and statistics bit for bit.
"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import torch
from gpu_case import Case, Result, Size, arithmetics
from measure import relative_error
from torch import Tensor
from torch.nn import functional as F

from odenet import (
    DataConfig,
    Device,
    ExperimentConfig,
    Gradient,
    ModelConfig,
    Network,
    OptimConfig,
    Precision,
    RuntimeConfig,
    Training,
    TrainingConfig,
    build_model,
    load_checkpoint,
)
from odenet.arithmetic import autocast, products
from odenet.enums import CudaGraphs, Stem
from odenet.integrators.schemes import refusal
from odenet.networks.table import NETWORKS
from odenet.seeding import generator
from odenet.training.regularization_config import RegularizationConfig

CLASSES, CHANNELS = 10, 3
GROUPED = (Network.resnext, Network.lm_resnext)


def accuracy(size: Size) -> Iterator[Case]:
    """Graphs, every network with the first seed, resuming, then the other seeds."""
    for network in Network:
        yield from _twice(size, network, "graph", _graph)
    for seed in range(size.seeds):
        yield from errors(size, seed)
        if seed == 0:
            for network in Network:
                yield from _twice(size, network, "resume", _resume)


def small(network: Network, size: Size, gradient: Gradient = Gradient.direct) -> ModelConfig:
    """The network, a few nodes deep."""
    row = NETWORKS[network]
    stem = Stem.cifar if row.stem.pool else None  # of so small images a stem with a pool would leave one pixel
    nodes = min(size.nodes, row.capability.most_nodes or size.nodes)
    cardinality = 2 if network in GROUPED else 1
    shape = {"width": size.width, "nodes": nodes, "cardinality": cardinality, "stem": stem}
    return ModelConfig(network=network, gradient=gradient, **shape)


# --- against float64 -------------------------------------------------------------------------------------------------


def errors(size: Size, seed: int) -> Iterator[Case]:
    """Every network at initialisation, then every network after some iterations."""
    for iterations in size.iterations:
        for network in Network:
            for gradient in Gradient:
                for precision in arithmetics(size.device):
                    labels = {"network": network.value, "gradient": gradient.value, "arithmetic": precision.value}
                    measure = partial(_error, size, Point(network, iterations, seed), gradient, precision)
                    yield Case({"what": "error", **labels, "iterations": iterations, "seed": seed}, measure)


class Point(NamedTuple):
    """Weights that training visits."""

    network: Network
    iterations: int
    seed: int


def _error(size: Size, point: Point, gradient: Gradient, precision: Precision) -> Result:
    try:
        ExperimentConfig(model=small(point.network, size, gradient))
    except ValueError as refusal:
        return {"refused": str(refusal)}
    logits, gradients = _reference(size, point, gradient)
    _, true = _reference(size, point, Gradient.direct)
    found_logits, found = _pass(size, point, gradient, precision)
    return {
        "logits": relative_error([found_logits], [logits]),
        "gradients": relative_error(found, gradients),
        "gradients_in_all": relative_error(found, true),
    }


@lru_cache(maxsize=len(Gradient))
def _reference(size: Size, point: Point, gradient: Gradient) -> tuple[Tensor, list[Tensor]]:
    return _pass(replace(size, device="cpu"), point, gradient, None)


@lru_cache(maxsize=1)
def _weights(size: Size, point: Point) -> dict[str, Tensor]:
    """After SGD on batches of noise, the same on every device because it happens on the CPU in float64."""
    config = small(point.network, size)
    model = build_model(config, channels=CHANNELS, classes=CLASSES, seed=point.seed).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for iteration in range(point.iterations):
        x_BCHW, labels_B = _batch(size, "cpu", torch.float64, point.seed, 1 + iteration)
        optimizer.zero_grad()
        F.cross_entropy(model(x_BCHW), labels_B).backward()
        optimizer.step()
    return model.state_dict()


def _batch(size: Size, device: str, dtype: torch.dtype, *indices: int) -> tuple[Tensor, Tensor]:
    x_BCHW = torch.randn(size.images, CHANNELS, size.side, size.side, generator=generator(0, "images", *indices))
    labels_B = torch.arange(size.images, device=device) % CLASSES
    return x_BCHW.to(device, dtype, memory_format=torch.channels_last), labels_B


def _pass(size: Size, point: Point, gradient: Gradient, precision: Precision | None) -> tuple[Tensor, list[Tensor]]:
    """Logits and gradients of one training pass, as float64 on the CPU; without a precision computed in it, too."""
    dtype = torch.float64 if precision is None else torch.float32
    model = build_model(small(point.network, size, gradient), channels=CHANNELS, classes=CLASSES)
    model.load_state_dict(_weights(replace(size, device="cpu"), point))
    model.to(size.device, dtype)
    x_BCHW, labels_B = _batch(size, size.device, dtype, point.seed, 0)
    with products(precision or Precision.fp32):
        with autocast(torch.device(size.device), precision or Precision.fp32):
            logits_BK = model(x_BCHW)
            loss = F.cross_entropy(logits_BK if precision is None else logits_BK.float(), labels_B)
        loss.backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    return logits_BK.detach().double().cpu(), [gradient.double().cpu() for gradient in gradients]


# --- equal to the bit ------------------------------------------------------------------------------------------------


def _twice(
    size: Size, network: Network, what: str, measure: Callable[[Size, ModelConfig, Precision], Result]
) -> Iterator[Case]:
    """As it comes, and recomputing in bf16 where that can be."""
    row = NETWORKS[network]
    undone = Gradient.reconstructed in row.capability.gradients and not refusal(row.scheme, Gradient.reconstructed)
    reconstructs = Gradient.reconstructed if undone else Gradient.checkpointed
    for gradient, precision in ((Gradient.direct, Precision.fp32), (reconstructs, Precision.bf16)):
        labels = {"network": network.value, "gradient": gradient.value, "arithmetic": precision.value}
        yield Case({"what": what, **labels}, partial(measure, size, small(network, size, gradient), precision))


def _experiment(size: Size, model: ModelConfig, precision: Precision) -> ExperimentConfig:
    """Two epochs, each of which ends in a smaller batch."""
    return ExperimentConfig(
        model=model,
        data=DataConfig(per_class=size.per_class),
        optim=OptimConfig(lr=0.01, batch_size=size.training_batch),
        training=TrainingConfig(epochs=2, precision=precision),
        regularization=RegularizationConfig(stochastic_depth=0.2),
    )


@contextmanager
def _deterministic(size: Size, graphs: CudaGraphs = CudaGraphs.auto) -> Iterator[RuntimeConfig]:
    try:
        yield RuntimeConfig(device=Device[size.device], deterministic=True, cuda_graphs=graphs)
    finally:
        torch.use_deterministic_algorithms(False)


def _graph(size: Size, model: ModelConfig, precision: Precision) -> Result:
    config, found = _experiment(size, model, precision), list[Training]()
    for graphs in (CudaGraphs.auto, CudaGraphs.never):
        with _deterministic(size, graphs) as runtime:
            found.append(Training(config, runtime))
            for _ in found[-1]:
                pass
    return _differences(*found) | {"obstacle": found[0].graph_obstacle}


def _resume(size: Size, model: ModelConfig, precision: Precision) -> Result:
    config = _experiment(size, model, precision)
    with _deterministic(size) as runtime, tempfile.TemporaryDirectory() as place:
        whole, begun = Training(config, runtime), Training(config, runtime)
        for _ in whole:
            pass
        next(begun)
        begun.save(Path(place) / "checkpoint")
        resumed = Training(config, runtime, checkpoint=load_checkpoint(Path(place) / "checkpoint"))
        for _ in resumed:
            pass
    return _differences(whole, resumed)


def _differences(one: Training, other: Training) -> Result:
    pairs = list(zip(one.model.state_dict().items(), other.model.state_dict().values(), strict=True))
    return {"differ": [name for (name, mine), theirs in pairs if not torch.equal(mine, theirs)], "tensors": len(pairs)}
