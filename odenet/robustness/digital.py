"""What cameras, screens and files do to images: contrast, colour, compression, resolution, distortion.

Legend: `B` images, `C` channels, `H W` space; `x` is a pixel in [0, 1].
"""

from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np

from odenet.robustness.originals import LEVELS, Originals


def contrast(images: Originals, factor: float) -> np.ndarray:
    """Return images whose differences from the mean of each channel are `factor` times as large."""
    x_BCHW = images.x_BCHW
    mean_BC11 = x_BCHW.mean(axis=(2, 3), keepdims=True)
    return (x_BCHW - mean_BC11) * factor + mean_BC11


def brightness(images: Originals, added: float) -> np.ndarray:
    """Return images with `added` to the value, the largest channel of a pixel, at its hue and saturation."""
    x_BCHW = images.x_BCHW
    value_B1HW = x_BCHW.max(axis=1, keepdims=True)
    new_B1HW = np.minimum(value_B1HW + added, 1.0)
    black_B1HW = value_B1HW == 0
    return np.where(black_B1HW, new_B1HW, x_BCHW * (new_B1HW / np.where(black_B1HW, 1.0, value_B1HW)))


def saturate(images: Originals, factor: float, added: float) -> np.ndarray:
    """Return images with the saturation, 1 - min / max of a pixel, multiplied and increased, at its hue and value.

    Grey has no hue: it is taken for red, as in the published code, and becomes reddish where something is added.
    """
    x_BCHW = images.x_BCHW
    value_B1HW = x_BCHW.max(axis=1, keepdims=True)
    spread_B1HW = value_B1HW - x_BCHW.min(axis=1, keepdims=True)
    grey_B1HW = spread_B1HW == 0
    saturation_B1HW = spread_B1HW / np.where(value_B1HW == 0, 1.0, value_B1HW)
    new_B1HW = np.clip(saturation_B1HW * factor + added, 0.0, 1.0)
    hue_BCHW = (value_B1HW - x_BCHW) / np.where(grey_B1HW, 1.0, spread_B1HW)  # 0 in the largest channel, 1 in the least
    red_311 = np.array([0.0, 1.0, 1.0])[:, None, None]
    return value_B1HW * (1 - new_B1HW * np.where(grey_B1HW, red_311, hue_BCHW))


def jpeg_compression(images: Originals, quality: int) -> np.ndarray:
    """Return images saved as JPEG by Pillow at this quality, and read again."""
    from PIL import Image

    def saved(picture: Any) -> Any:
        file = BytesIO()
        picture.save(file, "JPEG", quality=quality)
        return Image.open(file)

    return _each(images, saved)


def pixelate(images: Originals, factor: float) -> np.ndarray:
    """Return images reduced to `factor` times the size by averaging, and enlarged again by repeating, with Pillow."""
    from PIL import Image

    _, height, width = images.shape
    small, box = (int(width * factor), int(height * factor)), Image.Resampling.BOX
    return _each(images, lambda picture: picture.resize(small, box).resize((width, height), box))


def _each(images: Originals, change: Callable[[Any], Any]) -> np.ndarray:
    """Return images changed one by one as Pillow's pictures."""
    from PIL import Image

    pixels_BHWC = np.ascontiguousarray(images.pixels_BCHW.transpose(0, 2, 3, 1))
    if images.shape[0] == 1:
        pixels_BHWC = pixels_BHWC[..., 0]
    changed = np.stack([np.asarray(change(Image.fromarray(pixels))) for pixels in pixels_BHWC])
    changed_BHWC = changed.reshape(len(changed), *images.shape[1:], images.shape[0])
    return changed_BHWC.transpose(0, 3, 1, 2) / LEVELS


def elastic_transform(images: Originals, amount: float, sigma: float, corner: float) -> np.ndarray:
    """Return images distorted as a whole, and then from place to place; lengths in units of the shorter side.

    Args:
        corner: how far each coordinate of three corners of a square in the middle is moved at most.
        amount, sigma: of the displacements, which are uniform noise blurred by a Gaussian.
    """
    from scipy import ndimage  # type: ignore[import-untyped]

    _, height, width = images.shape
    side = min(height, width)
    row_BHW, column_BHW = _affine(images, corner * side)
    x_BCHW = _sample(images.x_BCHW, row_BHW, column_BHW, "mirror")
    if amount == 0:
        return x_BCHW
    noise_B2HW = images.draw("displacement", lambda stream: stream.uniform(-1, 1, (2, height, width)))
    smooth_B2HW = ndimage.gaussian_filter(noise_B2HW, sigma * side, mode="reflect", truncate=3.0, axes=(2, 3))
    place_B2HW = np.mgrid[:height, :width] + amount * side * smooth_B2HW
    return _sample(x_BCHW, place_B2HW[:, 0], place_B2HW[:, 1], "reflect")


def _affine(images: Originals, most: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows and columns (B, H, W) that pixels come from if three corners of a square move at random."""
    _, height, width = images.shape
    square = min(height, width) // 3
    corners_32 = np.array([width // 2, height // 2]) + square * np.array([[1, 1], [1, -1], [-1, -1]])
    moves_B32 = images.draw("corners", lambda stream: stream.uniform(-most, most, (3, 2)))
    moved_B33 = np.concatenate([corners_32 + moves_B32, np.ones((len(moves_B32), 3, 1))], axis=2)
    back_B32 = np.linalg.solve(moved_B33, np.broadcast_to(corners_32.astype(np.float64), moves_B32.shape))
    rows_HW, columns_HW = np.mgrid[:height, :width]
    column_BHW, row_BHW = (
        back_B32[:, 0, axis, None, None] * columns_HW
        + back_B32[:, 1, axis, None, None] * rows_HW
        + back_B32[:, 2, axis, None, None]
        for axis in (0, 1)
    )
    return row_BHW, column_BHW


def _sample(x_BCHW: np.ndarray, row_BHW: np.ndarray, column_BHW: np.ndarray, border: str) -> np.ndarray:
    """Return the pixels at these places of each image, interpolated linearly."""
    from scipy import ndimage

    image_BHW = np.broadcast_to(np.arange(len(x_BCHW))[:, None, None], row_BHW.shape)
    places = np.stack([image_BHW, row_BHW, column_BHW])
    channels = [ndimage.map_coordinates(x_BHW, places, order=1, mode=border) for x_BHW in x_BCHW.swapaxes(0, 1)]
    return np.stack(channels, axis=1)
