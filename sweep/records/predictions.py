"""predictions.npz: the class that every final network of a sweep gives every test image, as trained.

Networks that were tested on the same images share their luck; only these say how much.

Shapes: `R` networks, `N` test images.
"""

import io
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sweep.errors import InputError
from sweep.records.files import read_bytes, write_bytes

ARRAYS = ("labels_N", "indices_N", "classes_RN", "seeds_R")


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """The classes that R networks give N images; a network that failed is not among them.

    Raises:
        ValueError: the arrays are not of one size, or empty; a seed or an image is there twice; or they are no whole
            numbers.
    """

    labels_N: np.ndarray  # the true class
    indices_N: np.ndarray  # the image's place in the published test set
    classes_RN: np.ndarray  # the class given
    seeds_R: np.ndarray  # the seed that the network was trained with

    def __post_init__(self) -> None:
        arrays = [getattr(self, name) for name in ARRAYS]
        if not all(array.dtype.kind in "iu" for array in arrays):
            raise ValueError("all arrays must hold whole numbers")
        if self.labels_N.ndim != 1 or self.labels_N.shape != self.indices_N.shape or self.seeds_R.ndim != 1:
            raise ValueError("labels, places and seeds must be rows, labels and places of one length")
        if self.classes_RN.shape != (len(self.seeds_R), len(self.labels_N)):
            raise ValueError("there must be one class for every network and image")
        if not len(self.labels_N) or len(np.unique(self.indices_N)) < len(self.indices_N):
            raise ValueError("there must be images, each once")
        if len(np.unique(self.seeds_R)) < len(self.seeds_R):
            raise ValueError("a seed is there twice")

    @property
    def hits_RN(self) -> np.ndarray:
        """Return which images each network has right."""
        return self.classes_RN == self.labels_N


def write_predictions(path: Path, predictions: Predictions) -> None:
    """Replace the file atomically. StorageError: it could not be written."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{name: getattr(predictions, name) for name in ARRAYS})
    write_bytes(path, buffer.getvalue())


def read_predictions(path: Path) -> Predictions:
    """Read the file. InputError: it is absent or damaged."""
    try:
        with np.load(io.BytesIO(read_bytes(path)), allow_pickle=False) as content:
            return Predictions(**{name: content[name] for name in ARRAYS})
    except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path} cannot be read: {error}.") from error
