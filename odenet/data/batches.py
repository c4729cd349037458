"""A set of images held on a device as uint8, cropped and mirrored there a whole batch at a time.

Legend: `B` batch, `N` images held, `C` channels, `H W` space, `Y X` crop offsets. A row of an image is W*C bytes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from odenet.data.config import Augment, DataConfig, DataSet
from odenet.data.images import Images
from odenet.data.sets import SETS
from odenet.inference.image_format import ImageFormat
from odenet.seeding import generator


@dataclass(frozen=True, slots=True, eq=False)
class Statistics:
    """Mean and standard deviation per channel of pixels in [0, 1]: float32 tensors on the CPU."""

    mean_C: Tensor
    std_C: Tensor  # at least one grey level (1/255), so that constant channels can be divided by it

    @staticmethod
    def of(images: Images) -> "Statistics":
        """Return the statistics of these images, the training portion only: sums of integers, so exact in any order."""
        count = images.pixels_BCHW[:, 0].size
        channels = [images.pixels_BCHW[:, c] for c in range(images.pixels_BCHW.shape[1])]
        mean = np.array([channel.sum(dtype=np.int64) for channel in channels]) / count
        square = np.array([np.square(channel, dtype=np.uint16).sum(dtype=np.int64) for channel in channels]) / count
        std = np.sqrt(np.maximum(square - mean**2, 1.0))
        return Statistics(torch.tensor(mean / 255, dtype=torch.float32), torch.tensor(std / 255, dtype=torch.float32))

    @staticmethod
    def identity(channels: int) -> "Statistics":
        """Return those that leave pixels in [0, 1], for what normalises by itself."""
        return Statistics(torch.zeros(channels), torch.ones(channels))

    def image_format(self, data: DataConfig, labels: Sequence[str], shape: tuple[int, int, int]) -> ImageFormat:
        """Describe images (C, H, W) for a network that takes them normalised so; `labels` names their classes."""
        channels, height, width = shape
        return ImageFormat(
            dataset=data.name, channels=channels, height=height, width=width, highest=SETS[data.dataset].highest,
            labels=list(labels), mean=self.mean_C.tolist(), std=self.std_C.tolist(),
        )  # fmt: skip


class Batches:
    """Normalised float32 batches of one set of images, channels_last, on its device.

    The set is kept padded, as uint8, and twice where mirror images are wanted; a batch of crops is one gather from a
    strided view of it. Padding is black (0 before normalisation), as torchvision's RandomCrop has it.
    """

    def __init__(
        self,
        images: Images,
        *,
        statistics: Statistics,
        dataset: DataSet | None = None,
        augment: Augment = Augment.none,
        device: torch.device | str = "cpu",
    ) -> None:
        """Put the images on the device.

        Args:
            statistics: of the training portion, whatever set this is.
            dataset: needed for augment=standard: its row of `SETS` tells how far to pad and whether to flip.
        """
        self.shape: tuple[int, int, int] = images.pixels_BCHW.shape[1:]  # (C, H, W)
        self.labels_N = torch.tensor(images.labels_B, device=device)
        self._padding, flip = 0, False
        if augment is Augment.standard:
            assert dataset is not None, "augment=standard needs the data set"
            row = SETS[dataset]
            self._padding, flip = (max(self.shape[1:]) // 8 if row.padding is None else row.padding), row.flip
        self._sides = 2 if flip else 1
        self._windows_NYXHR = self._windows(torch.tensor(images.pixels_BCHW, device=device))
        scale_C, shift_C = 1 / (255 * statistics.std_C), -statistics.mean_C / statistics.std_C
        self._scale_R, self._shift_R = (v_C.repeat(self.shape[2]).to(device) for v_C in (scale_C, shift_C))

    def _windows(self, pixels_NCHW: Tensor) -> Tensor:
        """Return a view in which [image, y, x] is the crop at offset (y, x); mirror images follow the originals."""
        channels, height, width = self.shape
        padded_NHWC = F.pad(pixels_NCHW, (self._padding,) * 4).permute(0, 2, 3, 1)
        if self._sides == 2:
            padded_NHWC = torch.cat([padded_NHWC, padded_NHWC.flip(2)])
        rows_NHR = padded_NHWC.contiguous().flatten(2)
        return rows_NHR.unfold(1, height, 1).unfold(2, width * channels, channels)

    def __len__(self) -> int:
        return len(self.labels_N)

    def epoch(self, seed: int, epoch: int, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield pairs (x_BCHW, labels_B), shuffled and augmented; a function of its arguments only.

        Every image comes once; the last batch is smaller where batch_size does not divide the set.
        """
        for picked_4B in self._picked(seed, epoch, batch_size).split(batch_size, dim=1):
            yield self._batch(picked_4B)

    def _picked(self, seed: int, epoch: int, batch_size: int) -> Tensor:
        """Draw order, crops and mirror images of an epoch on the CPU, and move them to the device at once."""
        order_N = torch.randperm(len(self), generator=generator(seed, "order", epoch))
        offsets, codes = 2 * self._padding + 1, list[Tensor]()
        for iteration, index_B in enumerate(order_N.split(batch_size)):
            draws = generator(seed, "augment", epoch, iteration)
            codes.append(torch.randint(self._sides * offsets**2, index_B.shape, generator=draws))
        code_N = torch.cat(codes)
        mirrored_N, top_N, left_N = code_N // offsets**2, code_N // offsets % offsets, code_N % offsets
        picked_4N = torch.stack([order_N, order_N + mirrored_N * len(self), top_N, left_N])
        device = self.labels_N.device
        return picked_4N.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else picked_4N

    def ordered(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield pairs (x_BCHW, labels_B) for measuring: in the order given, neither shuffled nor augmented."""
        for index_B in torch.arange(len(self), device=self.labels_N.device).split(batch_size):
            middle_B = torch.full_like(index_B, self._padding)
            yield self._batch(torch.stack([index_B, index_B, middle_B, middle_B]))

    def _batch(self, picked_4B: Tensor) -> tuple[Tensor, Tensor]:
        """Return the batch of rows of four: image, image or its mirror image, top and left offset."""
        index_B, source_B, top_B, left_B = picked_4B
        crops_BHR = self._windows_NYXHR[source_B, top_B, left_B]
        x_BHR = crops_BHR.float().mul_(self._scale_R).add_(self._shift_R)
        channels, height, width = self.shape
        return x_BHR.view(-1, height, width, channels).permute(0, 3, 1, 2), self.labels_N[index_B]
