"""Classifiers of 8x8 images whose robustness is known, or masked, and images that they classify right."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from odenet import AttackConfig, Classifier, ImageFormat
from odenet.data.images import Images
from odenet.robustness.config import Norm

N, CLASSES = 16, 10
FORMAT = ImageFormat(
    dataset="digits", channels=1, height=8, width=8, highest=255, labels=[str(k) for k in range(CLASSES)], mean=[0.0],
    std=[1.0],
)  # fmt: skip
QUICK = {
    "images": N, "check_images": N, "square_queries": 100, "pgd_steps": 20, "pgd_restarts": 2, "apgd_steps": 20,
    "fab_steps": 20,
}  # fmt: skip
LINF_255, L2 = [0.4, 1.8], [0.01, 0.045]  # a third and two thirds of the linear network's distances are below


def quick(**changes: object) -> AttackConfig:
    return AttackConfig(**{"linf_255": LINF_255, "l2": L2, **QUICK, **changes})  # type: ignore[arg-type]


class Wrapped(nn.Module):
    """A network with something before and something after it."""

    def __init__(self, network: nn.Module, before: Callable[[Tensor], Tensor], after: Callable[[Tensor], Tensor]):
        super().__init__()
        self.network, self.before, self.after = network, before, after

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.after(self.network(self.before(x_BCHW)))


def linear(
    before: Callable[[Tensor], Tensor] = lambda x: x, after: Callable[[Tensor], Tensor] = lambda logits: logits
) -> Classifier:
    """Ten classes, divided by hyperplanes that pass near grey images."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, CLASSES))
    weights = torch.randn(CLASSES, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        network[1].weight.copy_(weights)
        network[1].bias.copy_(-weights.sum(1) / 2)  # a grey image has equal logits
    return Classifier(Wrapped(network, before, after), FORMAT)  # type: ignore[arg-type]


def images_of(classifier: Classifier, n: int = N) -> Images:
    """Images so grey that no epsilon of these tests reaches 0 or 1; every eighth has a wrong label."""
    pixels = np.random.default_rng(2).integers(96, 160, (n, 1, 8, 8), dtype=np.uint8)
    with torch.no_grad():
        labels = classifier(torch.tensor(pixels) / 255).argmax(1).numpy()
    labels = np.where(np.arange(n) % 8 == 7, (labels + 1) % CLASSES, labels)
    return Images(pixels, labels, np.arange(n))


def distances(classifier: Classifier, images: Images, norm: Norm) -> np.ndarray:
    """The distance of each image from the nearest hyperplane between its class and another: |margin| over the dual norm
    of the difference of weights; 0 where it is wrong already."""
    layer = next(module for module in classifier.modules() if isinstance(module, nn.Linear))
    weights, bias = layer.weight.detach().double(), layer.bias.detach().double()
    x, least = torch.tensor(images.pixels_BCHW).double().flatten(1) / 255, []
    for image, label in zip(x, images.labels_B.tolist(), strict=True):
        others = [k for k in range(CLASSES) if k != label]
        margins = (weights[label] - weights[others]) @ image + bias[label] - bias[others]
        lengths = (weights[label] - weights[others]).norm(p=1 if norm is Norm.linf else 2, dim=1)
        least.append(max(0.0, float((margins / lengths).min())))
    return np.array(least)
