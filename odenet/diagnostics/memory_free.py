"""How exact the gradient is that walks back through depth, and the walk itself.

Source: Sander et al. 2022, arXiv 2205.14612.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from odenet.data.images import Images
from odenet.diagnostics.probing import Input, copied, first_pixels, opened, stage_inputs, states
from odenet.enums import Gradient
from odenet.inference.classifier import Classifier
from odenet.integrators.scheme import Stepping
from odenet.integrators.schemes import SCHEMES, Adaptive, refusal
from odenet.networks.blocks import DepthStage


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryFree:
    """The reconstructed gradient against the direct one, and a stage's first state against the one walked back to.

    Both are relative errors in the Euclidean norm, of all parameters and of the stage where it is largest.
    """

    gradient_error: float | None = None
    cosine: float | None = None
    reconstruction_error: float | None = None
    reason: str = ""  # why one of them is None


def memory_free(
    classifier: Classifier, images: Images, *, dtype: torch.dtype = torch.float32, count: int = 16
) -> MemoryFree:
    """Measure both at the first `count` images, in the arithmetic asked for, with batch norm in evaluation mode.

    Raises:
        ValueError: there are fewer images, or they are not shaped as the classifier's.
    """
    x_BCHW = first_pixels(classifier, images, count).to(dtype)
    labels_B = torch.tensor(images.labels_B[:count], device=x_BCHW.device)
    scheme = classifier.network.depths()[-1].course.scheme
    reason = refusal(scheme, Gradient.reconstructed)
    if reason:
        return MemoryFree(reason=reason)
    direct, walked = (
        _gradient(copied(classifier, dtype, how), x_BCHW, labels_B) for how in (Gradient.direct, Gradient.reconstructed)
    )
    error, cosine = float((walked - direct).norm() / direct.norm()), float(F.cosine_similarity(walked, direct, dim=0))
    if isinstance(SCHEMES[scheme], Adaptive):
        return MemoryFree(gradient_error=error, cosine=cosine, reason="an adaptive scheme has no steps to undo")
    other = copied(classifier, dtype)
    pairs = zip(other.network.depth_stages(), stage_inputs(other, x_BCHW), strict=True)
    return MemoryFree(
        gradient_error=error, cosine=cosine, reconstruction_error=max(_strayed(stage, x) for stage, x in pairs)
    )


def _gradient(classifier: Classifier, x_BCHW: Tensor, labels_B: Tensor) -> Tensor:
    loss = F.cross_entropy(classifier(x_BCHW), labels_B)
    found = torch.autograd.grad(loss, list(classifier.parameters()), allow_unused=True, materialize_grads=True)
    return torch.cat([one.flatten() for one in found])


@torch.no_grad()
def _strayed(stage: DepthStage, x: Input) -> float:
    """Return |x0 - x0 walked back to| / |x0| of a stage's states."""
    course = stage.depth.course
    method, rate, passed = SCHEMES[course.scheme], opened(stage, course), states(stage, x, course)
    assert isinstance(method, Stepping)
    state = passed[-1]
    for step in reversed(range(course.steps)):
        state = method.unstep(rate, state, step, course)
    first = torch.stack(passed[0])
    return float((torch.stack(state) - first).norm() / first.norm())
