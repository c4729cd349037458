"""Part a of `gpu.py`: are the numbers right?

* `error`: relative error of the logits and of the gradients of the loss (all parameters as one vector) in training
  mode at initialisation, against float64 on the CPU: `logits` and `gradients` against the same gradient mode, so what
  device and arithmetic add; `gradients_in_all` against the exact gradient, so also what an approximate mode costs.
* `resume`: two epochs on the digits against one, a checkpoint and one more, with runtime.deterministic: all weights
  and statistics bit for bit.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path

import torch
from gpu_case import Case, Result, Size, arithmetics, autocast, set_products
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
from odenet.networks.table import NETWORKS
from odenet.seeding import generator

CLASSES, CHANNELS = 10, 3
GROUPED = (Network.resnext, Network.lm_resnext)


def accuracy(size: Size) -> Iterator[Case]:
    """Every network with the first seed, then resuming, then the other seeds."""
    for seed in range(size.seeds):
        for network in Network:
            yield from _errors(size, network, seed)
        if seed == 0:
            for network in Network:
                yield from _resumed(size, network)


def small(network: Network, size: Size, gradient: Gradient = Gradient.direct) -> ModelConfig:
    """The network, a few nodes deep."""
    nodes = min(size.nodes, NETWORKS[network].capability.most_nodes or size.nodes)
    cardinality = 2 if network in GROUPED else 1
    return ModelConfig(network=network, width=size.width, nodes=nodes, cardinality=cardinality, gradient=gradient)


# --- against float64 -------------------------------------------------------------------------------------------------


def _errors(size: Size, network: Network, seed: int) -> Iterator[Case]:
    for gradient in Gradient:
        for arithmetic in arithmetics(size.device):
            labels = {"network": network.value, "gradient": gradient.value, "arithmetic": arithmetic, "seed": seed}
            measure = partial(_error, size, small(network, size, gradient), arithmetic, seed)
            yield Case({"what": "error", **labels}, measure)


def _error(size: Size, config: ModelConfig, arithmetic: str, seed: int) -> Result:
    try:
        ExperimentConfig(model=config)
    except ValueError as refusal:
        return {"refused": str(refusal)}
    exact = replace(config, gradient=Gradient.direct)
    logits, gradients = _reference(size, *_key(config), seed)
    _, true = _reference(size, *_key(exact), seed)
    found_logits, found = _pass(size, config, seed, arithmetic)
    return {
        "logits": relative_error([found_logits], [logits]),
        "gradients": relative_error(found, gradients),
        "gradients_in_all": relative_error(found, true),
    }


def _key(config: ModelConfig) -> tuple[Network, Gradient]:
    return config.network, config.gradient


@lru_cache(maxsize=len(Gradient))
def _reference(size: Size, network: Network, gradient: Gradient, seed: int) -> tuple[Tensor, list[Tensor]]:
    return _pass(replace(size, device="cpu"), small(network, size, gradient), seed, "fp64")


def _pass(size: Size, config: ModelConfig, seed: int, arithmetic: str) -> tuple[Tensor, list[Tensor]]:
    """Logits and gradients of one training pass, as float64 on the CPU."""
    dtype = torch.float64 if arithmetic == "fp64" else torch.float32
    model = build_model(config, channels=CHANNELS, classes=CLASSES, seed=seed).to(size.device, dtype)
    x_BCHW = torch.randn(size.images, CHANNELS, size.side, size.side, generator=generator(seed, "images"))
    x_BCHW = x_BCHW.to(size.device, dtype, memory_format=torch.channels_last)
    labels_B = torch.arange(size.images, device=size.device) % CLASSES
    set_products(arithmetic)
    with autocast(arithmetic, size.device):
        logits_BK = model(x_BCHW)
        loss = F.cross_entropy(logits_BK if arithmetic == "fp64" else logits_BK.float(), labels_B)
    loss.backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    return logits_BK.detach().double().cpu(), [gradient.double().cpu() for gradient in gradients]


# --- resumed training ------------------------------------------------------------------------------------------------


def _resumed(size: Size, network: Network) -> Iterator[Case]:
    """Twice: as it comes, and recomputing in bf16 where that can be."""
    reconstructs = Gradient.checkpointed if "lm" in network.value else Gradient.reconstructed
    for gradient, precision in ((Gradient.direct, Precision.fp32), (reconstructs, Precision.bf16)):
        labels = {"network": network.value, "gradient": gradient.value, "arithmetic": precision.value}
        yield Case({"what": "resume", **labels}, partial(_resume, size, small(network, size, gradient), precision))


def _resume(size: Size, model: ModelConfig, precision: Precision) -> Result:
    config = ExperimentConfig(
        model=model,
        data=DataConfig(per_class=size.per_class),
        optim=OptimConfig(lr=0.01, batch_size=4 * size.per_class),
        training=TrainingConfig(epochs=2, precision=precision),
    )
    runtime = RuntimeConfig(device=Device[size.device], deterministic=True)
    try:
        whole, begun = Training(config, runtime), Training(config, runtime)
        for _ in whole:
            pass
        next(begun)
        with tempfile.TemporaryDirectory() as place:
            begun.save(Path(place) / "checkpoint")
            resumed = Training(config, runtime, checkpoint=load_checkpoint(Path(place) / "checkpoint"))
        for _ in resumed:
            pass
    finally:
        torch.use_deterministic_algorithms(False)
    pairs = list(zip(whole.model.state_dict().items(), resumed.model.state_dict().values(), strict=True))
    return {"differ": [name for (name, mine), theirs in pairs if not torch.equal(mine, theirs)], "tensors": len(pairs)}
