"""A trained network with all that it needs to be right elsewhere: normalisation, labels, where it comes from.

Shapes: `B` batch, `C` channels, `H W` space, `K` classes.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from odenet.enums import Scheme
from odenet.inference.image_format import ImageFormat, ValueRange
from odenet.networks.model import DepthNet, manifest

BRIGHTEST = 2.0  # images without a negative value and with one above this were never in [0, 1], however perturbed


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluate inside the block, without gradients; every module's mode is restored after it."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training


class Classifier(nn.Module):
    """Images in [0, 1] to logits, and raw images to classes; what leaves the project.

    `forward` is a part of any graph: differentiable, exportable, its normalisation inside. `predict` stands before it:
    it takes images as files have them, and refuses what it cannot know.

    Attributes:
        network: the bare network, which takes normalised images.
        images: what its images are: shape, raw range, labels, mean and standard deviation.
        about: plain JSON values, such as `experiment` (the whole configuration), `epoch` and `versions`.

    >>> from odenet import ExperimentConfig, Training, load_test
    >>> classifier = Training(ExperimentConfig()).checkpoint().classifier()
    >>> pixels = load_test(ExperimentConfig().data).pixels_BCHW  # uint8
    >>> classifier.predict(pixels[:5]).shape, classifier(torch.rand(5, 1, 8, 8)).shape
    ((5,), torch.Size([5, 10]))
    >>> classifier.raw_range, classifier.labels[:3], classifier.training
    ((0, 16), ['0', '1', '2'], False)
    """

    scale_C11: Tensor
    shift_C11: Tensor

    def __init__(self, network: DepthNet, images: ImageFormat, about: Mapping[str, Any] | None = None) -> None:
        """Wrap a network, which is put into evaluation mode."""
        super().__init__()
        self.network, self.images, self.about = network, images, dict(about or {})
        mean_C11, std_C11 = (torch.tensor(v_C).view(-1, 1, 1) for v_C in (images.mean, images.std))
        device = next(network.parameters()).device
        self.register_buffer("scale_C11", (1 / std_C11).to(device), persistent=False)
        self.register_buffer("shift_C11", (-mean_C11 / std_C11).to(device), persistent=False)
        self.eval()

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Return the logits (B, K) of float images in [0, 1].

        Raises:
            ValueError: the shape is another one, the pixels are whole-numbered, not finite, or unmistakably in another
                range.
        """
        self._check(images_BCHW)
        x_BCHW = images_BCHW.to(self.scale_C11.dtype) * self.scale_C11 + self.shift_C11
        return self.network(x_BCHW)

    def predict(
        self, images: Any, *, value_range: ValueRange | None = None, batch_size: int = 512
    ) -> Tensor | np.ndarray:
        """Return the class (B,) of each raw image: a tensor for tensors, else an array; one image is a batch of one.

        Takes uint8, the data set's own range (digits 0..16) or floats in [0, 1], as `ImageFormat.convert` says, on any
        device, whatever mode the network is in.

        Raises:
            ValueError: the shape is another one, or the range cannot be known; says what is possible.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size}: it must be at least 1.")
        pixels_BCHW = self.images.convert(images, value_range)
        with evaluating(self):
            found = [self(part.to(self.scale_C11.device)).argmax(1) for part in pixels_BCHW.split(batch_size)]
        classes_B = torch.cat(found)
        return classes_B.to(images.device) if isinstance(images, Tensor) else classes_B.cpu().numpy()

    def manifest(self, *, scheme: Scheme | str, steps: int | Sequence[int]) -> "Classifier":
        """Return the same weights (shared, not copied) under another scheme and number of steps, also one for each
        stage. ValueError as `odenet.manifest`."""
        return Classifier(manifest(self.network, scheme=scheme, steps=steps), self.images, self.about)

    @property
    def labels(self) -> list[str]:
        """Return the names of the classes, in the order of the logits."""
        return self.images.labels

    @property
    def classes(self) -> int:
        return len(self.images.labels)

    @property
    def input_size(self) -> tuple[int, int, int]:
        """Return (C, H, W)."""
        return self.images.shape

    @property
    def raw_range(self) -> tuple[int, int]:
        """Return the lowest and the highest value of a pixel as the data set has it."""
        return 0, self.images.highest

    @property
    def dataset(self) -> str:
        return self.images.dataset

    @property
    def experiment(self) -> dict[str, Any]:
        """Return the whole configuration that it was trained with, as plain values; empty where it is not known."""
        return self.about.get("experiment", {})

    @property
    def versions(self) -> dict[str, str]:
        """Return the versions of what it was trained with; empty where they are not known."""
        return self.about.get("versions", {})

    def _check(self, images_BCHW: Tensor) -> None:
        if not isinstance(images_BCHW, Tensor):
            raise ValueError(
                f"Images of type {type(images_BCHW).__name__}: the network takes a tensor; predict() also takes arrays."
            )
        expected = ", ".join(map(str, self.images.shape))
        if images_BCHW.dim() != 4 or tuple(images_BCHW.shape[1:]) != self.images.shape:
            raise ValueError(
                f"Images of shape {tuple(images_BCHW.shape)}: the network takes (B, {expected}); predict() also takes "
                "other layouts."
            )
        if not images_BCHW.is_floating_point():
            raise ValueError(
                f"Images of type {images_BCHW.dtype}: the network takes floats in [0, 1]; predict() takes raw images."
            )
        if _can_be_looked_at(images_BCHW):
            lowest, highest = map(float, images_BCHW.detach().aminmax())
            if not math.isfinite(lowest) or not math.isfinite(highest):
                raise ValueError(
                    f"Images with values from {lowest:g} to {highest:g}: every pixel must be a finite number."
                )
            if lowest < 0 and self.images.normalised(images_BCHW):
                raise ValueError(
                    f"Images with values from {lowest:g} to {highest:g} are normalised already: the network does that "
                    "itself, and takes floats in [0, 1]."
                )
            if lowest >= 0 and highest > BRIGHTEST:
                raise ValueError(
                    f"Images with values from {lowest:g} to {highest:g}: the network takes floats in [0, 1]; "
                    f"predict() takes raw images of {self.dataset}, which are in 0..{self.images.highest}, or uint8."
                )


def _can_be_looked_at(tensor: Tensor) -> bool:
    """Tell whether a condition on the values would disturb no graph, transform or capture."""
    return (
        type(tensor) is Tensor
        and tensor.numel() > 0
        and tensor.device.type != "meta"
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
        and not torch._C._are_functorch_transforms_active()
        and not (tensor.device.type == "cuda" and torch.cuda.is_current_stream_capturing())
    )
