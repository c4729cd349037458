"""Part h of `gpu.py`: which memory format and arithmetic suit a network of which width?

ContinuousNet 2-2-2 (Euler, batch 128) as one CUDA graph, in each arithmetic: stored channels_last, as this project does
it, stored contiguous, and channels_last with kernels that cuDNN has chosen by trying them (`cudnn.benchmark`). They are
timed in turns; `channels_last_speed_up` and `benchmark_speed_up` are ratios within a turn.
"""

from collections.abc import Iterator
from functools import partial

import torch
from bench_train_step import CLASSES
from gpu_case import Case, Result, Size, arithmetics
from gpu_speed import batch, graph
from measure import Spread, interleaved, ratio

from odenet.enums import Precision, Scheme
from odenet.networks.model import DepthNet, build_model
from odenet.networks.model_config import ModelConfig


def formats(size: Size) -> Iterator[Case]:
    for width in size.widths:
        for precision in arithmetics(size.device):
            labels = {"what": "format", "width": width, "arithmetic": precision.value}
            yield Case(labels, partial(_formats, size, width, precision))


def _formats(size: Size, width: int, precision: Precision) -> Result:
    x_BCHW, labels_B = batch(size, size.batch_sizes[0])
    last = x_BCHW.contiguous(memory_format=torch.channels_last)
    calls = {
        "channels_last": graph(size, _network(width), (last, labels_B), precision),
        "contiguous": graph(size, contiguous(_network(width)), (x_BCHW, labels_B), precision),
    }
    torch.backends.cudnn.benchmark = True  # a graph keeps the kernels that it was captured with
    try:
        calls["benchmark"] = graph(size, _network(width), (last, labels_B), precision)
    finally:
        torch.backends.cudnn.benchmark = False
    seconds = interleaved(calls, size.rounds, size.device)
    return {
        **{f"{name}_ms": Spread.of(1000 * s for s in seconds[name]) for name in calls},
        "channels_last_speed_up": ratio(seconds, "contiguous", "channels_last"),
        "benchmark_speed_up": ratio(seconds, "channels_last", "benchmark"),
    }


def _network(width: int) -> DepthNet:
    return build_model(ModelConfig(width=width, scheme=Scheme.euler), channels=3, classes=CLASSES)


def contiguous(model: DepthNet) -> DepthNet:
    """The same network with kernels in torch's usual order, which their inputs then keep."""
    for parameter in model.parameters():
        parameter.data = parameter.data.contiguous()
    return model
