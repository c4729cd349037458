"""Blur. Lengths are in pixels of an image of side 32 and are scaled with the side.

Legend: `B` images, `C` channels, `H W` space; `x` is a pixel in [0, 1].
"""

from math import ceil, cos, sin

import numpy as np

from odenet.robustness.originals import LEVELS, Originals, quantise


def gaussian(x: np.ndarray, sigma: float) -> np.ndarray:
    """Return the last two axes blurred by a Gaussian that is cut off at four sigma; pixels repeat beyond the border."""
    from scipy import ndimage  # type: ignore[import-untyped]

    return ndimage.gaussian_filter(x, sigma, mode="nearest", truncate=4.0, axes=(-2, -1))


def gaussian_blur(images: Originals, sigma: float) -> np.ndarray:
    """Return images out of focus of a lens whose spot is a Gaussian."""
    return gaussian(images.x_BCHW, sigma * images.scale)


def disk(radius: float, alias: float, scale: float = 1.0) -> np.ndarray:
    """Return the kernel of a round aperture, sum 1: pixels within `radius` alike, smoothed by a Gaussian of sigma
    `alias` that is three pixels wide at scale 1."""
    from scipy import ndimage

    half = max(1, round(scale))
    reach = int(radius * scale) + half
    squares = np.arange(-reach, reach + 1) ** 2
    inside = (squares[:, None] + squares <= (radius * scale) ** 2).astype(np.float64)
    taps = np.exp(-(np.arange(-half, half + 1) ** 2) / (2 * (alias * scale) ** 2))
    for axis in (0, 1):
        inside = ndimage.correlate1d(inside, taps, axis=axis, mode="constant")
    return inside / inside.sum()


def defocus_blur(images: Originals, radius: float, alias: float) -> np.ndarray:
    """Return images out of focus of a lens with a round aperture; the image is mirrored at its border."""
    from scipy import ndimage

    return ndimage.correlate(images.x_BCHW, disk(radius, alias, images.scale)[None, None], mode="mirror")


def glass_blur(images: Originals, sigma: float, reach: int, rounds: int) -> np.ndarray:
    """Return images seen through frosted glass: blurred, each pixel taken from a neighbour `rounds` times, blurred.

    The published code means to swap two pixels and overwrites one by the other; so is what it published, and so is
    this. Pixels less than `reach` (above and to the left: and one more) from the border keep their place.
    """
    sigma, reach = sigma * images.scale, max(1, round(reach * images.scale))
    x_BCHW = quantise(gaussian(images.x_BCHW, sigma)) / LEVELS
    height, width = images.shape[1:]
    rows, columns = np.arange(reach + 1, height - reach + 1), np.arange(reach + 1, width - reach + 1)
    size = (rounds, 2, len(rows), len(columns))
    moves_BR2HW = images.draw("moves", lambda stream: stream.randint(-reach, reach, size))
    for turn in range(rounds):
        down_BHW, right_BHW = moves_BR2HW[:, turn, 0], moves_BR2HW[:, turn, 1]
        index_B11 = np.arange(len(x_BCHW))[:, None, None]
        moved_BHWC = x_BCHW[index_B11, :, rows[:, None] + down_BHW, columns + right_BHW]
        x_BCHW[:, :, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = moved_BHWC.transpose(0, 3, 1, 2)
    return gaussian(x_BCHW, sigma)


def smear(x_BCHW: np.ndarray, radius: float, sigma: float, angle_B: np.ndarray) -> np.ndarray:
    """Return each image smeared along its angle (degrees) by one half of a Gaussian, as ImageMagick does it.

    The taps are the nearest pixels at distances 0 ... 2 ceil(radius); pixels repeat beyond the border.
    """
    reach, (height, width) = 2 * ceil(radius), x_BCHW.shape[2:]
    weights = np.exp(-(np.arange(reach + 1) ** 2) / (2 * sigma**2))
    weights /= weights.sum()
    padded_BCHW = np.pad(x_BCHW, [(0, 0), (0, 0), (reach, reach), (reach, reach)], mode="edge")
    smeared_BCHW = np.zeros_like(x_BCHW)
    for image, angle in enumerate(np.radians(angle_B).tolist()):
        for distance, weight in enumerate(weights.tolist()):
            top = reach + ceil(distance * sin(angle) - 0.5)
            left = reach + ceil(distance * cos(angle) - 0.5)
            smeared_BCHW[image] += weight * padded_BCHW[image, :, top : top + height, left : left + width]
    return smeared_BCHW


def round_levels(x: np.ndarray) -> np.ndarray:
    """Return x at the nearest of the 256 levels, to which ImageMagick rounds."""
    return np.floor(x * LEVELS + 0.5) / LEVELS


def motion_blur(images: Originals, radius: float, sigma: float) -> np.ndarray:
    """Return images that moved to one side, within 45 degrees of level, while they were taken."""
    angle_B = images.draw("angle", lambda stream: stream.uniform(-45, 45))
    return round_levels(smear(images.x_BCHW, radius * images.scale, sigma * images.scale, angle_B))


def magnify(x_BCHW: np.ndarray, factor: float) -> np.ndarray:
    """Return the middle of each image, `factor` times as large and of the size of the image, interpolated linearly."""
    for axis in (2, 3):
        size = x_BCHW.shape[axis]
        part = ceil(size / factor)
        zoomed = round(part * factor)  # corners fall on corners
        places = (np.arange(size) + (zoomed - size) // 2) * (part - 1) / (zoomed - 1)
        before = np.minimum(places.astype(int), part - 2)
        share = (places - before).reshape((-1,) + (1,) * (3 - axis))
        first = before + (size - part) // 2
        x_BCHW = (1 - share) * x_BCHW.take(first, axis) + share * x_BCHW.take(first + 1, axis)
    return x_BCHW


def zoom_blur(images: Originals, count: int) -> np.ndarray:
    """Return the mean of an image, itself and `count` magnified ones: by 1, 1.01, 1.02, ..."""
    x_BCHW = images.x_BCHW
    total_BCHW = x_BCHW.copy()
    step = 1.01 - 1  # a little above 0.01, as NumPy's arange has it: 26 pixels times 1.25 are 33 for it, not 32
    for k in range(count):
        total_BCHW += magnify(x_BCHW, 1 + k * step)
    return total_BCHW / (count + 1)
