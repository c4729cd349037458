"""What a network takes where it runs: memory in training, and time and operations for an answer."""

import copy
import statistics
import time
from dataclasses import dataclass

import torch
from torch import Tensor

from odenet.inference.classifier import evaluating
from odenet.networks.model import DepthNet
from odenet.training.cost import forward_gflops, noise_image

MIB = 2**20
LATENCY_IMAGES, LATENCY_PASSES = 32, 5


@dataclass(frozen=True, slots=True)
class Footprint:
    """The parameters, cost, memory and latency of a network at its present depth."""

    parameters: int
    gflops: float  # of one image's forward pass
    rate_evaluations: int  # of that pass
    memory_mib: float  # in training
    latency_ms: float  # of `LATENCY_IMAGES` images, on this device, with the threads torch now has


def footprint(model: DepthNet, shape: tuple[int, int, int], batch_size: int, *, moments: int = 1) -> Footprint:
    """Measure a network, on the device where it is; it stays as it was.

    Args:
        shape: of one image, (C, H, W).
        moments: 1 of SGD with momentum, 2 of AdamW.
    """
    gflops = forward_gflops(model, shape)
    return Footprint(
        parameters=model.parameter_count,
        gflops=gflops,
        rate_evaluations=model.rate_evaluations,
        memory_mib=training_mib(model, shape, batch_size, moments=moments),
        latency_ms=_latency_ms(model, shape),
    )


def training_mib(model: DepthNet, shape: tuple[int, int, int], batch_size: int, *, moments: int = 1) -> float:
    """Return the MiB that training takes; arguments as of `footprint`.

    Counted are weights, gradients, `moments` tensors of the optimizer for each weight, buffers, and what one forward
    pass of `batch_size` images saves for its backward pass, in the precision that the caller's autocast gives. It is no
    peak: what is alive only inside an operation, and the gradients of states, come on top.
    """
    return (_bytes_at_rest(model, moments) + _bytes_saved(model, shape, batch_size)) / MIB


def _bytes_at_rest(model: DepthNet, moments: int) -> int:
    return (2 + moments) * sum(p.nbytes for p in model.parameters()) + sum(b.nbytes for b in model.buffers())


def _bytes_saved(model: DepthNet, shape: tuple[int, int, int], batch_size: int) -> int:
    """Extend from two and three images, so that a network too large for this device is measured all the same.

    Every tensor saved is proportional to the batch or independent of it.
    """
    two, three = (_saved_by(model, shape, images) for images in (2, 3))
    return two + (batch_size - 2) * (three - two)


def _saved_by(model: DepthNet, shape: tuple[int, int, int], images: int) -> int:
    """Count each storage once; the copy keeps the running statistics of `model` as they are."""
    measured = copy.deepcopy(model).train()
    at_rest = {t.untyped_storage().data_ptr() for t in (*measured.parameters(), *measured.buffers())}
    saved: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    x_BCHW = noise_image(model, shape).expand(images, *shape).contiguous()
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        logits_BK = measured(x_BCHW)
    assert logits_BK.requires_grad, "the graph keeps what it saved, so that no address is used twice"
    return sum(nbytes for address, nbytes in saved.items() if address not in at_rest)


def _latency_ms(model: DepthNet, shape: tuple[int, int, int]) -> float:
    return statistics.median(latencies_ms(model, shape, LATENCY_PASSES))


def latencies_ms(model: DepthNet, shape: tuple[int, int, int], passes: int) -> list[float]:
    """Time forward passes of `LATENCY_IMAGES` images each, after one that warms up."""
    x_BCHW, seconds = noise_image(model, shape).expand(LATENCY_IMAGES, *shape).contiguous(), []
    with evaluating(model):
        for _ in range(1 + passes):
            _wait(x_BCHW.device)
            started = time.perf_counter()
            model(x_BCHW)
            _wait(x_BCHW.device)
            seconds.append(time.perf_counter() - started)
    return [1000 * one for one in seconds[1:]]


def _wait(device: torch.device) -> None:
    """Wait for a GPU to finish what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
