"""Batch-norm statistics of a network as it is manifested, from training images.

Running statistics are those of the manifestation in training; under another one they may be wrong, and a loss of
accuracy would be theirs and not the weights'. Each pass normalises by its own batch, as in training (so statistics
behind the first norm depend on the size of batches), and the passes are pooled as one sample: the variance has the part
between batches, too.

Shapes: `B` batch, `C` channels, `H W` space, `N` depth nodes.
"""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from odenet.data.images import Images
from odenet.diagnostics.probing import check_images
from odenet.inference.classifier import Classifier
from odenet.networks.batch_norm import BatchNorm
from odenet.networks.blocks import DepthStage
from odenet.networks.norms import NodeBatchNorm
from odenet.seeding import generator

LEAST_TRAINING_IMAGES = 32
AnyBatchNorm = BatchNorm | NodeBatchNorm


@torch.no_grad()
def reestimate(classifier: Classifier, images: Images, *, batch_size: int = 512) -> Classifier:
    """Return a copy whose batch norms have the statistics of these images; the classifier stays as it is.

    Args:
        images: of the training portion, never of the test set: their order does not matter, they are shuffled.
        batch_size: the most images of a pass; all passes have about as many.

    Raises:
        ValueError: fewer than 32 images, or images of another shape.
    """
    check_images(classifier, images, LEAST_TRAINING_IMAGES)
    other = Classifier(copy.deepcopy(classifier.network), classifier.images, classifier.about)
    device = other.scale_C11.device
    pools = {norm: _PooledStatistics(_buffers(norm)[0]) for norm in other.modules() if isinstance(norm, AnyBatchNorm)}
    former = {norm: norm.momentum for norm in pools}
    handles = [module.register_forward_pre_hook(_note_pixels(module, pools)) for module in _hosts(other)]
    order_B = torch.randperm(len(images), generator=generator(0, "reestimate"))
    pixels_BCHW = torch.tensor(images.pixels_BCHW)  # a copy: what a file is mapped to may not be written
    for norm in pools:
        norm.momentum = 1.0  # the running statistics are then those of the last batch
    try:
        other.train()
        for chosen_B in order_B.tensor_split(-(-len(images) // batch_size)):
            other(pixels_BCHW[chosen_B].to(device, other.scale_C11.dtype) / 255)
            for norm, pool in pools.items():
                pool.add(*_buffers(norm), images=len(chosen_B))
    finally:
        for handle in handles:
            handle.remove()
    for norm, pool in pools.items():
        norm.momentum = former[norm]
        for buffer, value in zip(_buffers(norm), pool.pooled(), strict=True):
            buffer.copy_(value)
    return other.eval()


def _hosts(classifier: Classifier) -> list[BatchNorm | DepthStage]:
    return [module for module in classifier.modules() if isinstance(module, BatchNorm | DepthStage)]


def _note_pixels(host: nn.Module, pools: dict[AnyBatchNorm, "_PooledStatistics"]) -> Callable[[nn.Module, Any], None]:
    """Return a hook that notes the resolution at which the norms of a module, or of a stage's rate, stand."""

    def note(_: nn.Module, arguments: Any) -> None:
        x = arguments[0] if isinstance(arguments[0], Tensor) else arguments[0][0]
        for norm in host.modules():
            if isinstance(norm, AnyBatchNorm):
                pools[norm].pixels = x.shape[-1] * x.shape[-2]

    return note


def _buffers(norm: AnyBatchNorm) -> tuple[Tensor, Tensor]:
    assert norm.running_mean is not None and norm.running_var is not None
    return norm.running_mean, norm.running_var


class _PooledStatistics:
    """The mean and unbiased variance of all batches as of one sample, from those of each."""

    def __init__(self, like: Tensor) -> None:
        self.pixels = 1  # of an image where the norm stands
        self._n = 0
        self._sums = torch.zeros(3, *like.shape, dtype=torch.float64, device=like.device)

    def add(self, mean: Tensor, var: Tensor, *, images: int) -> None:
        n, mean, var = images * self.pixels, mean.double(), var.double()
        self._n += n
        self._sums += torch.stack([n * mean, n * mean.square(), (n - 1) * var])

    def pooled(self) -> tuple[Tensor, Tensor]:
        total, squares, within = self._sums
        mean = total / self._n
        return mean, (within + squares - total * mean).clamp(min=0) / (self._n - 1)
