"""Images with their labels, and what can be wrong with the files they are read from.

Legend: `B` images, `C` channels, `H W` space.
"""

from dataclasses import dataclass

import numpy as np


class MissingData(ValueError):
    """Files of the data set are not where they were looked for."""


class DamagedData(ValueError):
    """A file of the data set is there, but is not what was published."""


@dataclass(frozen=True, slots=True, eq=False)
class Images:
    """Labelled images, as published except that grey levels fill 0 ... 255."""

    pixels_BCHW: np.ndarray  # uint8
    labels_B: np.ndarray  # int64, from 0
    indices_B: np.ndarray  # int64, positions in the set's official file order

    def __len__(self) -> int:
        return len(self.labels_B)

    def take(self, positions: np.ndarray) -> "Images":
        """Return a copy of the images at these positions, in this order."""
        return Images(self.pixels_BCHW[positions], self.labels_B[positions], self.indices_B[positions])
