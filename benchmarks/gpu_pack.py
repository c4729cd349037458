"""CIFAR-10 in three files of at most 55 MB that can be carried, and used, one by one: `gpu.py --pack DATA_DIR FOLDER`.

    train-1.xz, train-2.xz   the first and the second 25,000 training images
    test.xz                  the test images
    manifest.json            of each file: number of images, bytes, sha256

A file is LZMA of the labels, a byte each, and then of the pixels: green, red less green and blue less green, each less
what its neighbours to the left and above let expect (the median predictor of LOCO-I, Weinberger et al. 2000), so that
a pixel of three bytes takes about 12.7 bits. What a pack gives is read back byte for byte.

Legend: `B` images, `C` channels, `H W` space, `Y X` a pixel.
"""

import hashlib
import json
import lzma
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from odenet.data.config import DataConfig, DataSet
from odenet.data.sets import Images, read_images

PARTS = ("train-1", "train-2", "test")
MOST_BYTES = 55_000_000
MANIFEST = "manifest.json"
# Residuals hardly repeat: what matters is four bits of context, not long matches, which take six times as long.
FILTER = {
    "id": lzma.FILTER_LZMA2, "lc": 4, "lp": 0, "pb": 0, "mode": lzma.MODE_NORMAL,
    "mf": lzma.MF_BT4, "depth": 1, "nice_len": 8, "dict_size": 4096,
}  # fmt: skip


class MissingPart(ValueError):
    """A file of the pack is not there."""


class DamagedPart(ValueError):
    """A file of the pack is not what was packed."""


def pack(directory: Path, folder: Path, names: Sequence[str] = PARTS) -> Mapping[str, Any]:
    """Packs these parts of CIFAR-10 from torchvision's files; the manifest."""
    train, test = (read_images(DataConfig(dataset=DataSet.cifar10), directory, test=test) for test in (False, True))
    half = len(train) // 2
    parts = (train.take(np.arange(half)), train.take(np.arange(half, len(train))), test)
    return write({name: part for name, part in zip(PARTS, parts, strict=True) if name in names}, folder)


def write(parts: Mapping[str, Images], folder: Path) -> Mapping[str, Any]:
    """Writes a file for each part, and the manifest last."""
    folder.mkdir(parents=True, exist_ok=True)
    manifest = {}
    for name, images in parts.items():
        packed = lzma.compress(encoded(images), filters=[FILTER])
        if len(packed) > MOST_BYTES:
            raise ValueError(f"{name} has {len(packed)} bytes when packed, at most {MOST_BYTES} can be carried.")
        (folder / f"{name}.xz").write_bytes(packed)
        digest = hashlib.sha256(packed).hexdigest()
        shape = list(images.pixels_BCHW.shape)
        manifest[name] = {"shape": shape, "bytes": len(packed), "sha256": digest}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
    return manifest


def missing(folder: Path, *names: str) -> list[str]:
    """The files of these parts that are not in the folder."""
    wanted = [MANIFEST, *(f"{name}.xz" for name in names)]
    return [name for name in wanted if not (folder / name).is_file()]


def read(folder: Path, name: str) -> Images:
    """The images of a part, if it is what was packed.

    Raises:
        MissingPart, DamagedPart: naming the file and what to do.
    """
    absent = missing(folder, name)
    if absent:
        raise MissingPart(f"{folder} lacks {', '.join(absent)}: carry it there, or pack anew with --pack.")
    try:
        said = json.loads((folder / MANIFEST).read_text())[name]
        packed = (folder / f"{name}.xz").read_bytes()
        if hashlib.sha256(packed).hexdigest() != said["sha256"]:
            raise DamagedPart(f"{folder / name}.xz has another sha256 than {MANIFEST} says: carry it there again.")
        return decoded(lzma.decompress(packed), tuple(said["shape"]))
    except (KeyError, TypeError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DamagedPart(
            f"{folder / MANIFEST} does not describe {name} ({error!r}): pack anew with --pack."
        ) from error


def encoded(images: Images) -> bytes:
    """The labels and what the pixels differ from what is expected, small numbers of either sign as small bytes.

    Everything is modulo 256, from -128 to 127, so that a byte is enough.
    """
    red, green, blue = images.pixels_BCHW.transpose(1, 0, 2, 3)
    values_CBHW = np.stack([green ^ 128, red - green, blue - green]).view(np.int8).astype(np.int16)
    west, north, corner = (np.zeros_like(values_CBHW) for _ in range(3))
    west[..., :, 1:], north[..., 1:, :] = values_CBHW[..., :, :-1], values_CBHW[..., :-1, :]
    corner[..., 1:, 1:] = values_CBHW[..., :-1, :-1]
    residual = (values_CBHW - _expected(west, north, corner)).astype(np.int8)
    sign_last = (residual << 1) ^ (residual >> 7)
    return images.labels_B.astype(np.uint8).tobytes() + sign_last.tobytes()


def decoded(data: bytes, shape: tuple[int, ...]) -> Images:
    """The images of `encoded`: pixel by pixel, each of all images at once."""
    count, channels, height, width = shape
    labels_B = np.frombuffer(data, np.uint8, count).astype(np.int64)
    sign_last = np.frombuffer(data, np.uint8, offset=count).reshape(channels, count, height, width)
    residual_HWCB = ((sign_last >> 1) ^ -(sign_last & 1)).view(np.int8).transpose(2, 3, 0, 1).astype(np.int16)
    values_YXCB = np.zeros((height + 1, width + 1, channels, count), np.int16)  # a row and a column of zeros first
    for y in range(height):
        for x in range(width):
            expected = _expected(values_YXCB[y + 1, x], values_YXCB[y, x + 1], values_YXCB[y, x])
            values_YXCB[y + 1, x + 1] = (expected + residual_HWCB[y, x]).astype(np.int8)
    green, red, blue = values_YXCB[1:, 1:].astype(np.uint8).transpose(2, 3, 0, 1)
    green = green ^ 128
    pixels_BCHW = np.stack([red + green, green, blue + green]).transpose(1, 0, 2, 3)
    return Images(np.ascontiguousarray(pixels_BCHW), labels_B, np.arange(count))


def _expected(west: np.ndarray, north: np.ndarray, corner: np.ndarray) -> np.ndarray:
    return np.clip(west + north - corner, np.minimum(west, north), np.maximum(west, north))
