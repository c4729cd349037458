"""Images and overlays for the tests of corruptions: the same on every machine, photograph-like, no file needed."""

from pathlib import Path

import numpy as np
from PIL import Image

from odenet.data.images import Images
from odenet.robustness.weather import OVERLAYS

SHAPE = (3, 32, 32)


def pictures(count: int, shape: tuple[int, int, int] = SHAPE) -> Images:
    """Smooth shapes with edges and a little texture, of all brightnesses; whole-number arithmetic only."""
    channels, height, width = shape
    b, c, h, w = np.meshgrid(*map(np.arange, (count, channels, height, width)), indexing="ij")
    ramp = (h * (160 + 40 * c) // height + w * (90 + 17 * (b % 5)) // width + 37 * b) % 256
    inside = (h - height // 2) ** 2 + (w - width // 2) ** 2 < (min(height, width) // (3 + b % 3)) ** 2
    texture = (h * 7 + w * 13 + h * w * (1 + b % 3)) % 23
    pixels = (np.where(inside, 230 - ramp // 2 - 60 * c, ramp) + texture) % 256
    return Images(pixels.astype(np.uint8), np.arange(count) % 10, np.arange(100, 100 + count))


def constant(level: int, count: int = 8, shape: tuple[int, int, int] = SHAPE) -> Images:
    """Images of one level throughout."""
    pixels = np.full((count, *shape), level, dtype=np.uint8)
    return Images(pixels, np.zeros(count, dtype=np.int64), np.arange(count))


def write_overlays(directory: Path) -> Path:
    """Write five overlays of frost, ramps of different colours, as files without loss under the published names."""
    directory.mkdir()
    for number, name in enumerate(OVERLAYS):
        h, w, c = np.meshgrid(np.arange(240), np.arange(300), np.arange(3), indexing="ij")
        pixels = ((h + 2 * w) // 5 * (number + 1) + 60 * c + 20 * number) % 256
        Image.fromarray(pixels.astype(np.uint8)).save(directory / name, format="PNG")
    return directory
