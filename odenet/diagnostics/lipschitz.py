"""How much the logits of a network can move with its image: local Lipschitz constants at real images.

Shapes: `B` batch, `K` classes, `P` pixels of an image.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from odenet.data.images import Images
from odenet.diagnostics.probing import copied, first_pixels
from odenet.inference.classifier import Classifier


@dataclass(frozen=True, slots=True)
class Lipschitz:
    """Quantiles over images of |d logits / d image|, the largest singular value at each: logits, in the Euclidean norm,
    per pixels in [0, 1], in the Euclidean norm. The largest is a lower bound of the network's Lipschitz constant.

    Not a certificate: between these images and beyond them it may be larger.
    """

    median: float
    upper: float  # the 0.9 quantile
    largest: float
    images: int


def lipschitz(classifier: Classifier, images: Images, *, count: int = 32) -> Lipschitz:
    """Measure at the first `count` images, in float32 and evaluation mode; costs a backward pass for every class.

    Raises:
        ValueError: there are fewer images, or they are not shaped as the classifier's.
    """
    x_BCHW = first_pixels(classifier, images, count).float()
    norms_B = local_constants(copied(classifier, torch.float32), x_BCHW)
    median, upper = (float(norms_B.quantile(level)) for level in (0.5, 0.9))
    return Lipschitz(median, upper, float(norms_B.max()), count)


def local_constants(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Return the spectral norm of the Jacobian of a function of a batch, whose rows do not mix, at each of its rows.

    >>> matrix = torch.tensor([[3.0, 0.0], [4.0, 0.0]])
    >>> local_constants(lambda x: x @ matrix.T, torch.zeros(1, 2))  # |(3, 4)|
    tensor([5.])
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        logits_BK = function(x)
        rows = [
            torch.autograd.grad(logit_B.sum(), x, retain_graph=True)[0].flatten(1) for logit_B in logits_BK.unbind(1)
        ]
    jacobian_BKP = torch.stack(rows, dim=1)
    # The Gram matrix is K x K: singular values of K x P cost more, and only the largest is asked for.
    gram_BKK = (jacobian_BKP @ jacobian_BKP.mT).double()
    return torch.linalg.eigvalsh(gram_BKK)[:, -1].clamp(min=0).sqrt().to(x.dtype)
