"""Class-balanced low-data draws: nested across sizes, disjoint across draws, the same on every machine.

Legend: `B` images, `C` channels, `H W` space; `n` images of one class, train and validation together.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from odenet.data.config import DataConfig, DataSet, Order, Portion
from odenet.data.images import Images
from odenet.data.sets import SETS, class_names, duplicate_free, read_images
from odenet.seeding import derive

DRAWS_PER_ROUND = 5


@dataclass(frozen=True, slots=True, eq=False)
class Splits:
    """The images that a run may see. `hash` is equal for two splits if and only if their data are."""

    train: Images
    val: Images | None  # None: the run learns from all of it (data.portion=trainval)
    classes: int
    hash: str  # 16 hex digits of sha256
    labels: tuple[str, ...] = ()  # names of the classes, in the order of their numbers


def load_data(config: DataConfig, directory: Path | str = "data") -> Splits:
    """Return the draw that the config describes, sorted by index. It never reads a test image.

    With `per_class` given every class has as many images, and with equal `val_fraction` a smaller draw's train (val)
    images are among a larger one's (not so in file order). Draws 0-4, 5-9, ... are disjoint while five of them fit into
    a class; rounds of five overlap. STL-10 means its 5,000 labelled training images.

    Args:
        directory: where the files of the published sets are (`runtime.data_dir`); not used for the digits and a folder.

    Raises:
        MissingData, DamagedData: naming the files and what to do.
        ValueError: a class has fewer images than asked for, or none would be left for validation.

    >>> data = load_data(DataConfig(dataset=DataSet.digits, per_class=10))
    >>> len(data.train), len(data.val), data.classes
    (60, 40, 10)
    """
    pool = read_images(config, directory, test=False)
    classes = SETS[config.dataset].classes or int(pool.labels_B.max()) + 1
    chosen = [_choose(config, pool, label) for label in range(classes)]
    train, val = (np.sort(np.concatenate(part)) for part in zip(*chosen, strict=True))
    if config.portion is Portion.trainval:
        parts = [pool.take(np.sort(np.concatenate([train, val])))]
    else:
        parts = [pool.take(train), pool.take(val)]
    val_images, labels = parts[1] if len(parts) > 1 else None, class_names(config, classes)
    return Splits(parts[0], val_images, classes, _hash(config.dataset, parts), labels)


def balanced_test(config: DataConfig, directory: Path | str = "data", *, count: int) -> Images:
    """Return `count` test images, the same whatever the draw or the network, one class after another in turn.

    So the first n of them are balanced, too, to one image, and are what is returned for `count=n`. Images that nearly
    repeat others are left out where the directory has their lists, see `odenet.data.sets.duplicate_free`.

    Raises:
        MissingData, DamagedData: naming the files and what to do.
        ValueError: there are not as many in every class.

    >>> images = balanced_test(DataConfig(dataset=DataSet.digits), count=13)
    >>> images.labels_B.tolist()
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2]
    """
    images, keep_B = read_images(config, directory, test=True), duplicate_free(config, directory)
    allowed = np.arange(len(images)) if keep_B is None else np.flatnonzero(keep_B)
    labels_B = images.labels_B[allowed]
    sizes = np.bincount(labels_B)
    if not 1 <= count <= len(sizes) * int(sizes.min()):
        raise ValueError(
            f"{count} test images of {config.name}: its smallest class has {sizes.min()}"
            f"{'' if keep_B is None else ' that repeat no others'}, so 1 to {len(sizes) * sizes.min()} are possible."
        )
    each = -(-count // len(sizes))
    turns = [_test_order(config.dataset, allowed[labels_B == label], label)[:each] for label in range(len(sizes))]
    return images.take(np.stack(turns, axis=1).flatten()[:count])


def _test_order(dataset: DataSet, members: np.ndarray, label: int) -> np.ndarray:
    """Return the images of a class in an order that NumPy promises never to change."""
    bits = np.random.PCG64(derive(0, f"test/{dataset.name}", label)).random_raw(len(members))
    return members[np.argsort(bits, kind="stable")]


def _choose(config: DataConfig, pool: Images, label: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions in the pool of one class's training and validation images."""
    members = np.flatnonzero(pool.labels_B == label)
    n = len(members) if config.per_class is None else config.per_class
    config.check_validation(n)
    first = config.draw * n if config.order is Order.file else 0
    if first + n > len(members):
        raise ValueError(_too_small(config, label, np.bincount(pool.labels_B, minlength=label + 1)))
    validated = _validation_flags(config, n)
    if config.order is Order.shuffled:
        members = members[_ordering(config.dataset, label, config.draw, len(members))]
    members = members[first : first + n]
    return members[~validated], members[validated]


def _validation_flags(config: DataConfig, n: int) -> np.ndarray:
    """Return a mask (n,): in file order the last ones validate; else they are spread evenly, so sizes nest."""
    fraction = config.fraction
    before = np.arange(n + 1) * fraction.numerator // fraction.denominator  # exact: images for validation before each
    if config.order is Order.file:
        return np.arange(n) >= n - before[-1]
    return np.diff(before) == 1


def _ordering(dataset: DataSet, label: int, draw: int, size: int) -> np.ndarray:
    """Return the order (size,) in which a draw takes a class: its own fifth of the round's permutation first.

    Part of the definition of the data, so drawn from a bit stream that NumPy promises never to change.
    """
    turn, own = divmod(draw, DRAWS_PER_ROUND)
    bits = np.random.PCG64(derive(0, f"draw/{dataset.name}", turn, label)).random_raw(size)
    permutation = np.argsort(bits, kind="stable")
    slices = [permutation[(own + k) % DRAWS_PER_ROUND :: DRAWS_PER_ROUND] for k in range(DRAWS_PER_ROUND)]
    return np.concatenate(slices)


def _too_small(config: DataConfig, label: int, sizes: np.ndarray) -> str:
    n, smallest = config.per_class, int(sizes.min())
    asked = f"data.per_class={n}" + (f" data.draw={config.draw}" if config.order is Order.file else "")
    if config.order is Order.file and n is not None and n <= smallest:
        possible = f"draws 0 ... {smallest // n - 1} fit in file order"
    else:
        possible = f"at most {smallest} fit into every class, or data.per_class=null for all"
    return f"{asked}: class {label} of {config.dataset.name} has only {sizes[label]} images to learn from; {possible}."


def _hash(dataset: DataSet, parts: Iterable[Images]) -> str:
    digest = hashlib.sha256(dataset.name.encode())
    for images in parts:
        digest.update(str(images.pixels_BCHW.shape).encode())
        for array in (images.indices_B.astype("<i8"), images.labels_B.astype("<i8"), images.pixels_BCHW):
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:16]
