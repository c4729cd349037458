"""The threat model: which images, how far they may be moved, and the network as every attack sees it.

Shapes: `B` batch, `C` channels, `H W` space, `K` classes.
"""

import copy
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from odenet.data.images import Images
from odenet.enums import Gradient, Scheme
from odenet.inference.classifier import Classifier
from odenet.integrators.schemes import SCHEMES, Adaptive
from odenet.networks.blocks import DepthStage
from odenet.networks.model import DepthNet
from odenet.networks.table import NETWORKS
from odenet.robustness.config import Norm
from odenet.seeding import generator

ROUNDING = 1e-5  # by which a float32 perturbation may exceed epsilon, relative, and a pixel [0, 1]
ADAPTIVE_AS = (Scheme.rk4, 4)  # the manifestation from which an adaptive scheme's surrogates are counted


@dataclass(frozen=True, slots=True)
class Ball:
    """The images within `epsilon` of one, and in [0, 1]."""

    norm: Norm
    epsilon: float

    @staticmethod
    def whole(norm: Norm, shape: Sequence[int]) -> "Ball":
        """Return the one that holds every image (C, H, W)."""
        return Ball(norm, 1.0 if norm is Norm.linf else float(torch.Size(shape).numel() ** 0.5))

    def length(self, delta_BCHW: Tensor) -> Tensor:
        """Return the norm (B,) of perturbations."""
        flat = delta_BCHW.flatten(1)
        return flat.abs().amax(1) if self.norm is Norm.linf else flat.norm(dim=1)

    def project(self, x_BCHW: Tensor, center_BCHW: Tensor) -> Tensor:
        """Return the nearest perturbation within epsilon, then cut to [0, 1], which only shortens it."""
        delta = x_BCHW - center_BCHW
        if self.norm is Norm.linf:
            delta = delta.clamp(-self.epsilon, self.epsilon)
        else:
            delta = delta * (self.epsilon / _column(self.length(delta)).clamp(min=self.epsilon))
        return (center_BCHW + delta).clamp(0, 1)

    def direction(self, gradient_BCHW: Tensor) -> Tensor:
        """Return the steepest direction of length 1; zero for a zero gradient."""
        if self.norm is Norm.linf:
            return gradient_BCHW.sign()
        return gradient_BCHW / _column(self.length(gradient_BCHW)).clamp(min=1e-30)

    def random(self, cases: "Cases", seed: int, purpose: str) -> Tensor:
        """Return a point on the sphere about each image, cut to [0, 1], drawn from (seed, purpose, image)."""
        shape = cases.x_BCHW.shape[1:]
        draw = torch.rand if self.norm is Norm.linf else torch.randn
        drawn = [draw(shape, generator=generator(seed, purpose, index)) for index in cases.indices_B.tolist()]
        delta = torch.stack(drawn).to(cases.x_BCHW.device)
        delta = 2 * delta - 1 if self.norm is Norm.linf else delta
        return (cases.x_BCHW + self.epsilon * delta / _column(self.length(delta))).clamp(0, 1)

    def holds(self, x_BCHW: Tensor, center_BCHW: Tensor) -> Tensor:
        """Return a mask (B,): what attacks return is looked at, not believed."""
        near = self.length(x_BCHW - center_BCHW) <= self.epsilon * (1 + ROUNDING) + 1e-7
        lowest, highest = x_BCHW.flatten(1).aminmax(dim=1)
        return near & (lowest >= -ROUNDING) & (highest <= 1 + ROUNDING)  # false, too, of what is not a number


def _column(values_B: Tensor) -> Tensor:
    return values_B.view(-1, 1, 1, 1)


@dataclass(frozen=True, slots=True, eq=False)
class Cases:
    """Images in [0, 1] with labels and their numbers within the data set, from which random starts are drawn."""

    x_BCHW: Tensor
    labels_B: Tensor
    indices_B: Tensor

    def __len__(self) -> int:
        return len(self.labels_B)

    def take(self, which: Tensor | slice) -> "Cases":
        return Cases(self.x_BCHW[which], self.labels_B[which], self.indices_B[which])

    def parts(self, size: int) -> Iterator["Cases"]:
        for start in range(0, len(self), size):
            yield self.take(slice(start, start + size))


class Subject(nn.Module):
    """A classifier as it is attacked: a frozen float32 copy in evaluation mode, differentiated by stored activations.

    Other gradients are as good as their reconstruction, whose error would hide directions from an attack. A network
    that cuts the graph has a gradient of zero, so that attacks go on and the checks can say so.
    """

    def __init__(self, classifier: Classifier, *, batch_size: int) -> None:
        super().__init__()
        self.classifier = by_stored_activations(classifier).float().eval().requires_grad_(False)
        self.batch_size = batch_size

    def forward(self, x_BCHW: Tensor) -> Tensor:
        logits_BK = self.classifier(x_BCHW)
        cut = torch.is_grad_enabled() and x_BCHW.requires_grad and not logits_BK.requires_grad
        return logits_BK + 0 * x_BCHW.sum() if cut else logits_BK

    def in_parts(self, x_BCHW: Tensor) -> Tensor:
        """Return the logits without gradients, at most `batch_size` images at once."""
        with torch.no_grad():
            return torch.cat([self(part) for part in x_BCHW.split(self.batch_size)])

    def right(self, x_BCHW: Tensor, labels_B: Tensor) -> Tensor:
        """Return a mask (B,): logits that are not numbers are wrong."""
        logits_BK = self.in_parts(x_BCHW)
        return (logits_BK.argmax(1) == labels_B) & logits_BK.isfinite().all(1)

    def gradient(self, x_BCHW: Tensor, labels_B: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (B, K), and the gradient of each image's cross-entropy."""
        x = x_BCHW.detach().requires_grad_()
        with torch.enable_grad():
            logits_BK = self(x)
            loss = F.cross_entropy(logits_BK, labels_B, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, x)
        return logits_BK.detach(), gradient

    @property
    def classes(self) -> int:
        return self.classifier.classes

    @property
    def device(self) -> torch.device:
        return self.classifier.scale_C11.device


def depth_stages(classifier: Classifier) -> list[DepthStage]:
    """Return the stages that integrate over depth, also where the network is wrapped."""
    return [module for module in classifier.modules() if isinstance(module, DepthStage)]


def differentiated(classifier: Classifier, gradient: Gradient) -> Classifier:
    """Return a copy whose stages differentiate so."""
    other = copy.deepcopy(classifier)
    for stage in depth_stages(other):
        stage.depth = replace(stage.depth, course=replace(stage.depth.course, gradient=gradient))
    return other


def by_stored_activations(classifier: Classifier) -> Classifier:
    """Return a copy that autograd differentiates through every step, whatever the network was trained with."""
    return differentiated(classifier, Gradient.direct)


def is_adaptive(classifier: Classifier) -> bool:
    """Tell whether a stage chooses its own steps."""
    return any(isinstance(SCHEMES[stage.depth.course.scheme], Adaptive) for stage in depth_stages(classifier))


def solver_surrogates(classifier: Classifier) -> dict[str, Classifier]:
    """Return the same weights under another scheme and at 2 and 4 times the steps, by SCHEME_STEPS.

    Nothing for a network without depth stages of ours; no other scheme where the network can have none. Of an adaptive
    scheme, RK4 stands for it.
    """
    if not isinstance(classifier.network, DepthNet):
        return {}
    courses = [depth.course for depth in classifier.network.depths()]
    scheme, steps = courses[-1].scheme, max(course.steps for course in courses)
    if is_adaptive(classifier):
        scheme, steps = ADAPTIVE_AS
    possible = NETWORKS[classifier.network.config.network].capability.manifestations
    others = [one for one in (Scheme.rk4, Scheme.euler) if one in possible and one is not scheme]
    pairs = [*((other, steps) for other in others[:1]), (scheme, 2 * steps), (scheme, 4 * steps)]
    return {f"{one.value}_{n}": classifier.manifest(scheme=one, steps=n) for one, n in pairs}


def fingerprint(classifier: Classifier) -> str:
    """Return a hash of what decides the logits: weights, structure, manifestation and normalisation."""
    courses = [replace(stage.depth.course, gradient=Gradient.direct) for stage in depth_stages(classifier)]
    digest = hashlib.blake2b(repr((classifier.network, courses, asdict(classifier.images))).encode(), digest_size=16)
    for name, tensor in classifier.network.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def digest_of_images(images: Images) -> str:
    digest = hashlib.blake2b(str(images.pixels_BCHW.shape).encode(), digest_size=16)
    for array in (images.pixels_BCHW, images.labels_B, images.indices_B):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
