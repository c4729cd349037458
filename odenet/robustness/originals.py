"""Images that are to be corrupted, and the random numbers of each.

Legend: `B` images, `C` channels, `H W` space; `x` is a pixel in [0, 1].
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from odenet.seeding import derive

SIDE = 32  # of the images that the published severities are meant for
LEVELS = 255
TOLERANCE = 1e-6  # of a grey level, by which rounding may fall short of a whole one
LUMINANCE = (0.299, 0.587, 0.114)  # of red, green and blue (ITU-R BT.601)


@dataclass(frozen=True, slots=True, eq=False)
class Originals:
    """A few images of one set, one corruption and one severity of it."""

    pixels_BCHW: np.ndarray  # uint8
    indices_B: np.ndarray  # positions in the set's official file order
    corruption: str
    severity: int
    overlays: Sequence[np.ndarray] = ()  # of frost: (C, H', W') from 0 to 255

    @property
    def x_BCHW(self) -> np.ndarray:
        """Return a copy of the pixels as float64 in [0, 1]."""
        return self.pixels_BCHW / float(LEVELS)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Return (C, H, W)."""
        return self.pixels_BCHW.shape[1:]

    @property
    def scale(self) -> float:
        """Return the shorter side in units of 32 pixels, by which lengths are multiplied."""
        return min(self.shape[1:]) / SIDE

    def draw(self, purpose: str, numbers: Callable[[np.random.RandomState], Any]) -> np.ndarray:
        """Return `numbers` of a generator for each image, stacked: (B, ...).

        A generator depends on (corruption, purpose, severity, index) alone, so an image gets the same numbers in any
        batch. NumPy has frozen what RandomState draws (NEP 19), of the newer Generator it has not.
        """
        stream, drawn = np.random.RandomState(0), []
        for index in self.indices_B.tolist():
            seed = derive(0, f"corruption/{self.corruption}/{purpose}", self.severity, index)
            stream.seed(np.array([seed & 0xFFFFFFFF, seed >> 32], dtype=np.uint32))
            drawn.append(numbers(stream))
        return np.stack(drawn)


def quantise(x: np.ndarray) -> np.ndarray:
    """Return uint8 of pixels that should be in [0, 1]: clipped and rounded down, as in the published arrays."""
    return np.floor(np.clip(x, 0.0, 1.0) * LEVELS + TOLERANCE).astype(np.uint8)


def luminance(x_BCHW: np.ndarray) -> np.ndarray:
    """Return (B, 1, H, W): how bright each pixel looks."""
    if x_BCHW.shape[1] == 1:
        return x_BCHW
    return sum(weight * x_BCHW[:, c : c + 1] for c, weight in enumerate(LUMINANCE))  # type: ignore[return-value]
