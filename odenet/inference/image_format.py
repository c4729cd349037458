"""The images that a network takes: shape, range and normalisation, and how raw arrays become such images.

Legend: `B` images, `C` channels, `H W` space.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

LEVELS = 255  # of grey, to which the readers of the data sets bring whole-numbered pixels
LEVEL = 1e-3  # of [0, 1], by which a normalised image may miss it when normalisation is undone
ROUNDING = 1e-6  # by which a float image may exceed 1

ValueRange = tuple[float, float]  # the values that black and white have


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFormat:
    """The images of a data set as its files hold them, and the normalisation of a network that learned from them."""

    dataset: str
    channels: int
    height: int
    width: int
    highest: int  # raw pixels are whole numbers from 0 to this
    labels: list[str]  # names of the classes, in the order of the logits
    mean: list[float]  # per channel, of pixels in [0, 1]
    std: list[float]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Return (C, H, W)."""
        return self.channels, self.height, self.width

    def convert(self, images: Any, value_range: ValueRange | None = None) -> Tensor:
        """Return raw images as float32 (B, C, H, W) in [0, 1]; one image is a batch of one.

        Raw pixels, also divided by the highest, take the nearest of 256 levels, as the readers of the data sets have
        it: digits in 0..16 become the very images that the network learned from.

        Args:
            images: array, tensor or list; (B, C, H, W), (B, H, W, C), the same without B, and without C for grey ones.
            value_range: the values of black and white; needed where they cannot be known, see `ranges`.

        Raises:
            ValueError: the shape is another one, or the range cannot be known; says what is possible.

        >>> grey = dict(channels=1, height=2, width=2, labels=["a", "b"], mean=[0.5], std=[0.5])
        >>> digits = ImageFormat(dataset="digits", highest=16, **grey)
        >>> digits.convert([[0.0, 16.0], [8.0, 4.0]]).shape  # one image, in the range of the set
        torch.Size([1, 1, 2, 2])
        >>> digits.convert([[0, 1], [1, 0]])  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        ValueError: Images of type int64 with values from 0 to 1: they can be of 0..1 or 0..16; say which ...
        """
        pixels = _numbers(images)
        if not pixels.numel():
            raise ValueError(f"Images of shape {tuple(pixels.shape)} have no pixel.")
        arranged, dtype = self._arranged(pixels), str(pixels.dtype).removeprefix("torch.")
        low, high = self._range(arranged, dtype, value_range)
        unit = (arranged - low) / (high - low)
        if _whole(arranged) or _whole(unit * self.highest):
            unit = torch.round(unit * LEVELS) / LEVELS
        return unit.clamp(0.0, 1.0)

    def normalised(self, images_BCHW: Tensor) -> bool:
        """Tell whether images with negative values are those of files after normalisation, by the mean and standard
        deviation of the data or to [-1, 1]: undone, each pixel is one of the levels that files have. Noise is not."""
        pixels_BCHW = images_BCHW.detach().double()
        for mean, std in ((self.mean, self.std), ([0.5], [0.5])):
            mean_C11, std_C11 = (torch.tensor(v, device=pixels_BCHW.device).view(-1, 1, 1) for v in (mean, std))
            unit_BCHW = pixels_BCHW * std_C11 + mean_C11
            if bool(((unit_BCHW < -LEVEL) | (unit_BCHW > 1 + LEVEL)).any()):
                continue
            if any(_whole(unit_BCHW * levels, tolerance=0.01) for levels in (LEVELS, self.highest)):
                return True
        return False

    def ranges(self, dtype: str) -> list[ValueRange]:
        """List what images of a type can have as black and white: [0, 1], the set's own values, and all of a uint8."""
        found = [(0.0, 1.0), (0.0, float(self.highest))]
        return list(dict.fromkeys([*found, (0.0, 255.0)] if dtype == "uint8" else found))

    def _range(self, pixels: Tensor, dtype: str, asked: ValueRange | None) -> ValueRange:
        lowest, highest = float(pixels.min()), float(pixels.max())
        said = f"Images of type {dtype} with values from {lowest:g} to {highest:g}"
        if not np.isfinite([lowest, highest]).all():
            raise ValueError(f"{said}: every pixel must be a finite number.")
        if asked is not None:
            low, high = _limits(asked)
            if not low < high or lowest < low or highest > high + ROUNDING * (high - low):
                raise ValueError(f"{said} with value_range=({low:g}, {high:g}): they must lie in it, low before high.")
            return low, high
        possible = [
            (low, high)
            for low, high in self.ranges(dtype)
            if low <= lowest and highest <= high + ROUNDING and (high == 1 or _whole(pixels))
        ]
        if len(possible) == 1 or (possible and lowest == highest == 0):
            return possible[0]
        if possible:
            told = " or ".join(f"{low:g}..{high:g}" for low, high in possible)
            raise ValueError(f"{said}: they can be of {told}; say which by value_range=(LOW, HIGH).")
        raise ValueError(
            f"{said}: it cannot be known which are black and white. Images of {self.dataset} are whole numbers in "
            f"0..{self.highest}, uint8 in 0..255, or floats in 0..1, not normalised; say another range by "
            "value_range=(LOW, HIGH)."
        )

    def _arranged(self, pixels: Tensor) -> Tensor:
        """Return float32 pixels as (B, C, H, W)."""
        channels, height, width = self.shape
        layouts: dict[str, tuple[int, ...]] = {
            "(B, C, H, W)": (channels, height, width),
            "(B, H, W, C)": (height, width, channels),
        }
        if channels == 1:
            layouts["(B, H, W)"] = (height, width)
        shape = tuple(pixels.shape)
        found = [
            name
            for name, image in layouts.items()
            if shape[-len(image) :] == image and len(shape) - len(image) in (0, 1)
        ]
        if not found or (len(found) > 1 and channels > 1):
            which = f"can be {' and '.join(found)}" if found else "is not possible"
            raise ValueError(
                f"Images of shape {shape}: that {which}. Possible are {', '.join(layouts)}, each also without B, with "
                f"C={channels}, H={height}, W={width}."
            )
        pixels = pixels.float()
        if channels > 1 and found == ["(B, H, W, C)"]:
            pixels = pixels.movedim(-1, -3)
        return pixels.reshape(-1, channels, height, width)


def _limits(asked: Any) -> ValueRange:
    """Return the two values of a range. ValueError: it has not two, or one is not finite."""
    try:
        low, high = map(float, asked)
    except (TypeError, ValueError):
        low = high = float("nan")
    if not np.isfinite([low, high]).all():
        raise ValueError(f"value_range={asked!r}: write the two values of black and white, as in value_range=(0, 255).")
    return low, high


def _numbers(images: Any) -> Tensor:
    """Return the pixels as a dense tensor. ValueError: they are no real numbers, or no array."""
    if not isinstance(images, Tensor):
        array = _array(images)
        if array.dtype.kind not in "uif":
            raise ValueError(f"Images of type {array.dtype} are no real numbers: use uint8, whole numbers or floats.")
        if array.dtype.kind == "f" and array.dtype.itemsize > 8:  # torch has no longer floats
            array = array.astype(np.float64)
        images = torch.tensor(array.astype(array.dtype.newbyteorder("="), order="C"))  # torch takes no negative strides
    elif images.layout is not torch.strided:
        images = images.to_dense()
    if images.dtype is torch.bool or images.is_complex():
        raise ValueError(f"Images of type {images.dtype} are no real numbers: use uint8, whole numbers or floats.")
    return images.detach()


def _array(images: Any) -> np.ndarray:
    """Return what is not a tensor as an array. ValueError: its images differ in size, or numpy cannot read them."""
    try:
        if isinstance(images, list | tuple) and any(isinstance(image, Tensor) for image in images):
            return torch.stack([torch.as_tensor(image) for image in images]).detach().cpu().numpy()
        return np.asarray(images)
    except (ValueError, TypeError, RuntimeError) as error:
        raise ValueError(
            f"Images of type {type(images).__name__} are no array of images of one size: {error}"
        ) from error


def _whole(pixels: Tensor, tolerance: float = 0.0) -> bool:
    return bool(((pixels - pixels.round()).abs() <= tolerance).all())
