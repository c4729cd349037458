"""Corrupted images as an evaluation takes them: the published arrays where they are, else generated once and kept.

A file of the cache is the line b"odenet corrupted 1", the SHA-256 of the rest in hex, then the pixels (B, C, H, W).
"""

import hashlib
import uuid
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from odenet.data.config import DataConfig, DataSet
from odenet.data.images import DamagedData, Images, MissingData
from odenet.data.sets import load_test
from odenet.enums import Corruption, member
from odenet.robustness.corruptions import VERSION, check_images, check_severity, corrupt
from odenet.robustness.weather import OVERLAYS

MAGIC = b"odenet corrupted 1\n"
HEADER_BYTES = len(MAGIC) + 65
TESTED = 10_000  # images of a published array at each severity
# The benchmark of each set's test images, and the folder of the set.
PUBLISHED = {
    DataSet.cifar10: ("CIFAR-10-C", "cifar-10-batches-py"),
    DataSet.cifar100: ("CIFAR-100-C", "cifar-100-python"),
}
OTHERS = "regenerated"


@dataclass(frozen=True, slots=True, eq=False)
class Corrupted:
    """Corrupted images, in the order of the originals, and what may be said of them.

    `source` is "CIFAR-10-C" (or "CIFAR-100-C") for the published arrays, "CIFAR-10-C-regen" for test images of that set
    corrupted here, which are other pixels, and "regenerated" for any other images.
    """

    images: Images
    source: str


def corrupted(
    images: Images, corruption: Corruption | str, severity: int, *, data_dir: Path | str, cache_dir: Path | str
) -> Corrupted:
    """Return the images with a corruption of a severity: published, from the cache, or made and put there.

    Several processes may share a cache; a damaged file of it is made again.

    Args:
        data_dir: where the data set is, and beside it what of these a user has: CIFAR-10-C/NAME.npy and labels.npy,
            CIFAR-100-C alike, frost/ with the overlays. Published arrays are taken if the images are those of the test
            set, all or some, which is seen by their pixels: the files of the set must be here, too.
        cache_dir: is created where there is none.

    Raises:
        MissingData: the overlays of frost are not there, or published arrays without labels.
        DamagedData: a published file is not what was published.
        ValueError: as `corrupt`.
        OSError: the cache cannot be written.
    """
    kind, level = member(Corruption, corruption, "corruption"), check_severity(severity)
    check_images(images)
    data_dir = Path(data_dir).expanduser()
    benchmark = _benchmark(images, data_dir.resolve())
    if benchmark and (data_dir / benchmark / f"{kind.name}.npy").is_file():
        return Corrupted(_published(images, data_dir / benchmark, kind, level), benchmark)
    source = f"{benchmark}-regen" if benchmark else OTHERS
    frost = data_dir / "frost"
    file = Path(cache_dir).expanduser() / f"{kind.name}-{level}-{_key(images, kind, level, frost)}"
    pixels_BCHW = _read(file, images.pixels_BCHW.shape)
    if pixels_BCHW is None:
        made = corrupt(images, kind, level, frost=frost)
        _write(file, made.pixels_BCHW)
        return Corrupted(made, source)
    return Corrupted(Images(pixels_BCHW, images.labels_B.copy(), images.indices_B.copy()), source)


@lru_cache(maxsize=2)
def _test_set(dataset: DataSet, directory: Path) -> Images | None:
    try:
        return load_test(DataConfig(dataset=dataset, per_class=None), directory)
    except (MissingData, DamagedData):
        return None  # so these images were not read from there


def _benchmark(images: Images, data_dir: Path) -> str | None:
    """Return the published benchmark whose originals these images are: whole or in part, in any order."""
    indices_B = images.indices_B
    if images.pixels_BCHW.shape[1:] != (3, 32, 32) or not len(images):
        return None
    if indices_B.min() < 0 or indices_B.max() >= TESTED:
        return None
    for dataset, (name, folder) in PUBLISHED.items():
        tested = _test_set(dataset, data_dir) if (data_dir / folder).is_dir() else None
        if tested is not None and np.array_equal(tested.pixels_BCHW[indices_B], images.pixels_BCHW):
            return name
    return None


def _published(images: Images, folder: Path, kind: Corruption, level: int) -> Images:
    file, rows_B = folder / f"{kind.name}.npy", (level - 1) * TESTED + images.indices_B
    pixels_NHWC, labels_N = _array(file, (5 * TESTED, 32, 32, 3)), _array(folder / "labels.npy", (5 * TESTED,))
    if not np.array_equal(labels_N[rows_B], images.labels_B):
        raise DamagedData(
            f"{folder / 'labels.npy'} gives other labels than the test images have: it is not that of {folder.name}. "
            f"Replace it, or move {folder.name} away to have the corruptions generated."
        )
    pixels_BCHW = np.ascontiguousarray(pixels_NHWC[rows_B].transpose(0, 3, 1, 2))
    return Images(pixels_BCHW, images.labels_B.copy(), images.indices_B.copy())


def _array(file: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Return a published array, of which only those rows are read that are asked for."""
    what = f"replace it, or move {file.parent.name} away to have the corruptions generated."
    if not file.is_file():
        raise MissingData(f"{file.parent} lacks {file.name}, by which its images are checked: {what}")
    try:
        array = np.load(file, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise DamagedData(f"{file} cannot be read as an array of NumPy ({error}): {what}") from error
    if not isinstance(array, np.ndarray) or array.shape != shape or array.dtype != np.uint8:
        found = f"{array.dtype} of shape {array.shape}" if isinstance(array, np.ndarray) else "several arrays"
        raise DamagedData(f"{file} holds {found}, not uint8 of shape {shape}, as published: {what}")
    return array


def _key(images: Images, kind: Corruption, level: int, frost: Path) -> str:
    """Return 32 hex digits of all that the pixels depend on."""
    digest = hashlib.sha256(f"{VERSION}/{kind.name}/{level}/{images.pixels_BCHW.shape}".encode())
    for array in (images.indices_B.astype("<i8"), images.pixels_BCHW):
        digest.update(np.ascontiguousarray(array).data)
    if kind is Corruption.frost:
        for file in (frost / name for name in OVERLAYS):
            digest.update(hashlib.sha256(file.read_bytes() if file.is_file() else b"").digest())
    return digest.hexdigest()[:32]


def _read(file: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    """Return the pixels of a file of the cache; None where there is none or it is damaged."""
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        return None
    header, payload = content[:HEADER_BYTES], memoryview(content)[HEADER_BYTES:]
    if header != _header(payload) or len(payload) != np.prod(shape):
        return None
    return np.frombuffer(payload, dtype=np.uint8).reshape(shape).copy()


def _write(file: Path, pixels_BCHW: np.ndarray) -> None:
    """Write beside the target, then rename: another process finds a whole file or none."""
    file.parent.mkdir(parents=True, exist_ok=True)
    payload = np.ascontiguousarray(pixels_BCHW).data.cast("B") if pixels_BCHW.size else memoryview(b"")
    temporary = file.with_name(f".{file.name}.{uuid.uuid4().hex}")
    try:
        with temporary.open("xb") as opened:
            opened.writelines([_header(payload), payload])
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


def _header(payload: memoryview) -> bytes:
    return MAGIC + hashlib.sha256(payload).hexdigest().encode() + b"\n"
