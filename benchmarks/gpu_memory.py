"""Part e of `gpu.py`: what does it save to reconstruct the states of a very deep network instead of keeping them?

The Hamiltonian and the MidPoint network of 1202 layers of Chang et al. 2018 (arXiv 1709.03698; 100 and 200 blocks a
stage, widths 32, 64, 128), batch 128 of CIFAR-10's size, a step of SGD without a graph. `peak_mib` is the most that
torch's allocator gave at once, weights and momentum included (`weights_mib` without gradients); on a CPU there is none.
`ms` is the median of a few steps. What does not fit says so.
"""

import gc
from collections.abc import Iterator
from functools import partial

import torch
from gpu_case import Case, Result, Size
from measure import Spread, interleaved

from odenet.enums import Gradient, Network, Precision
from odenet.networks.model import build_model
from odenet.networks.model_config import ModelConfig
from odenet.training.config import ExperimentConfig, TrainingConfig
from odenet.training.optim import build_optimizer
from odenet.training.optim_config import OptimConfig
from odenet.training.step import TrainStep

CLASSES, MOST_ROUNDS = 10, 3
RATE = 1e-3


def memory(size: Size) -> Iterator[Case]:
    """In bf16, then in fp32; of each network first what must fit."""
    for precision in (Precision.bf16, Precision.fp32):
        for network, blocks in zip((Network.hamiltonian, Network.midpoint), size.blocks_1202, strict=True):
            for gradient in (Gradient.reconstructed, Gradient.direct):
                config = _experiment(size, network, blocks, gradient, precision)
                labels = {"network": f"{network.value}-1202", "gradient": gradient.value, "arithmetic": precision.value}
                yield Case({"what": "memory", **labels}, partial(_peak, size, config))


def _experiment(
    size: Size, network: Network, blocks: int, gradient: Gradient, precision: Precision
) -> ExperimentConfig:
    width = 32 if size.device == "cuda" else size.width
    return ExperimentConfig(
        model=ModelConfig(network=network, width=width, final_width=4 * width, nodes=blocks, gradient=gradient),
        optim=OptimConfig(batch_size=size.batch_sizes[0]),
        training=TrainingConfig(precision=precision),
    )


def _peak(size: Size, config: ExperimentConfig) -> Result:
    on_gpu = size.device == "cuda"
    if on_gpu:
        gc.collect()  # of the row before
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    draws = torch.Generator().manual_seed(0)
    images = (config.optim.batch_size, 3, size.timed_side, size.timed_side)
    x_BCHW = torch.randn(images, generator=draws).to(size.device, memory_format=torch.channels_last)
    labels_B = torch.randint(CLASSES, images[:1], generator=draws).to(size.device)
    model = build_model(config.model, channels=3, classes=CLASSES).to(size.device)
    step = TrainStep(model, build_optimizer(model, config.optim), config, model)
    try:
        seconds = interleaved(
            {"step": lambda: step(x_BCHW, labels_B, RATE, 0)}, min(size.rounds, MOST_ROUNDS), size.device
        )
    except torch.OutOfMemoryError as error:
        return {"does_not_fit": str(error).splitlines()[0]}
    return {
        "peak_mib": (torch.cuda.max_memory_allocated() - before) / 2**20 if on_gpu else None,
        "weights_mib": 2 * sum(p.numel() * p.element_size() for p in model.parameters()) / 2**20,
        "ms": Spread.of(1000 * s for s in seconds["step"]),
        "parameters": model.parameter_count,
    }
