"""The data sets: one row each, and how its files become arrays.

Legend: `B` images, `C` channels, `H W` space.
Adding a data set takes a member of `DataSet`, a row of `SETS` and a reader.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from odenet.data.config import DataConfig, DataSet
from odenet.data.folder import classes_in, read_folder
from odenet.data.images import DamagedData, Images, MissingData


@dataclass(frozen=True, slots=True)
class SetRow:
    """The facts about a data set, None where its files decide. `read(directory, test)` gives its training or its test
    images."""

    classes: int | None
    channels: int | None
    size: int | None  # height and width in pixels
    padding: int | None  # pixels of zeros on each side before the random crop; None: an eighth of the size
    flip: bool  # whether the mirror image means the same
    read: Callable[[Path, bool], Images]
    labels: str = ""  # names of the classes with blanks between them; none: their numbers
    highest: int = 255  # raw pixels, as files have them, are whole numbers from 0 to this


def _images(pixels_BCHW: Any, labels_B: Any) -> Images:
    pixels = np.ascontiguousarray(pixels_BCHW, dtype=np.uint8)
    return Images(pixels, np.asarray(labels_B, dtype=np.int64), np.arange(len(pixels)))


def _digits(_directory: Path, test: bool) -> Images:
    """Read scikit-learn's 1,797 digits, which have no official test set: every third image of each class is ours."""
    package = find_spec("sklearn")  # its file is read here, because importing it takes as long as importing torch
    if package is None or package.origin is None:
        raise MissingData(
            "data.dataset=digits comes with scikit-learn, which is not installed here: install scikit-learn, "
            "or choose a data set that is read from files with data.dataset and runtime.data_dir=DIR."
        )
    file = Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"
    if not file.is_file():
        raise MissingData(f"data.dataset=digits needs {file}: this scikit-learn lacks it; install another version.")
    table = np.loadtxt(file, delimiter=",")  # 64 shades from 0 to 16 and the label
    everything = _images(np.round(table[:, :-1].reshape(-1, 1, 8, 8) * (255 / 16)), table[:, -1])
    held_out = np.zeros(len(everything), dtype=bool)
    for label in range(10):
        held_out[np.flatnonzero(everything.labels_B == label)[2::3]] = True
    return everything.take(np.flatnonzero(held_out == test))


def _cifar(publisher: Any, directory: Path, test: bool) -> Images:
    files = {f"{publisher.base_folder}/{name}": md5 for name, md5 in [*publisher.train_list, *publisher.test_list]}
    files[f"{publisher.base_folder}/{publisher.meta['filename']}"] = publisher.meta["md5"]
    published = _published(publisher, files, directory, train=not test)
    return _images(published.data.transpose(0, 3, 1, 2), published.targets)


def _cifar10(directory: Path, test: bool) -> Images:
    from torchvision.datasets import CIFAR10  # type: ignore[import-untyped]

    return _cifar(CIFAR10, directory, test)


def _cifar100(directory: Path, test: bool) -> Images:
    from torchvision.datasets import CIFAR100

    return _cifar(CIFAR100, directory, test)


def _stl10(directory: Path, test: bool) -> Images:
    """Read the 5,000 labelled training images or the official 8,000 test images; no unlabelled ones, no folds."""
    from torchvision.datasets import STL10

    files = {f"{STL10.base_folder}/{name}": md5 for name, md5 in [*STL10.train_list, *STL10.test_list]}
    published = _published(STL10, files, directory, split="test" if test else "train")
    return _images(published.data, published.labels)


def _idx(publisher: Any, directory: Path, test: bool) -> Images:
    """Read MNIST or its kin. No checksums of the unpacked files are published: only broken formats are found."""
    files = {f"{publisher.__name__}/raw/{Path(name).stem}": None for name, _ in publisher.resources}
    published = _published(publisher, files, directory, train=not test)
    return _images(published.data[:, None], published.targets)


def _mnist(directory: Path, test: bool) -> Images:
    from torchvision.datasets import MNIST

    return _idx(MNIST, directory, test)


def _fashion_mnist(directory: Path, test: bool) -> Images:
    from torchvision.datasets import FashionMNIST

    return _idx(FashionMNIST, directory, test)


_CIFAR10 = "airplane automobile bird cat deer dog frog horse ship truck"
_CIFAR100 = """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
    caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant
    flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree
    motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate
    poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider
    squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle
    wardrobe whale willow_tree wolf woman worm
"""
_STL10 = "airplane bird car cat deer dog horse monkey ship truck"
_FASHION = "T-shirt/top trouser pullover dress coat sandal shirt sneaker bag ankle_boot"

SETS: dict[DataSet, SetRow] = {
    DataSet.digits: SetRow(classes=10, channels=1, size=8, padding=1, flip=False, read=_digits, highest=16),
    DataSet.cifar10: SetRow(classes=10, channels=3, size=32, padding=4, flip=True, read=_cifar10, labels=_CIFAR10),
    DataSet.cifar100: SetRow(classes=100, channels=3, size=32, padding=4, flip=True, read=_cifar100, labels=_CIFAR100),
    DataSet.stl10: SetRow(classes=10, channels=3, size=96, padding=12, flip=True, read=_stl10, labels=_STL10),
    DataSet.mnist: SetRow(classes=10, channels=1, size=28, padding=2, flip=False, read=_mnist),
    DataSet.fashion_mnist: SetRow(
        classes=10, channels=1, size=28, padding=2, flip=True, read=_fashion_mnist, labels=_FASHION
    ),
    DataSet.folder: SetRow(classes=None, channels=None, size=None, padding=None, flip=False, read=read_folder),
}


def _published(publisher: Any, files: Mapping[str, str | None], directory: Path, **which: Any) -> Any:
    """Call torchvision's reader on files that are all there; it verifies each checksum before it unpickles anything."""
    from torchvision.datasets.utils import check_integrity  # type: ignore[import-untyped]

    name = publisher.__name__
    download = f"""python -c "from torchvision.datasets import {name}; {name}({str(directory)!r}, download=True)\""""
    missing = [file for file in files if not (directory / file).is_file()]
    if missing:
        raise MissingData(
            f"{name} was asked for, but {directory} lacks {', '.join(missing)}. "
            f"Say where the files are with runtime.data_dir=DIR, or download them: {download}"
        )
    try:
        return publisher(root=directory, download=False, **which)
    except (RuntimeError, ValueError, TypeError, AssertionError, KeyError) as error:
        damaged = [file for file, md5 in files.items() if not check_integrity(directory / file, md5)]
        raise DamagedData(
            f"{name} in {directory} cannot be used, damaged: {', '.join(damaged) or 'one of ' + ', '.join(files)}. "
            f"Delete what is damaged and download it again: {download}, or name another runtime.data_dir=DIR."
        ) from error


@lru_cache(maxsize=2)
def _read(dataset: DataSet, directory: Path, test: bool) -> Images:
    row = SETS[dataset]
    images = row.read(directory, test)
    shape, labels = images.pixels_BCHW.shape, images.labels_B
    expected, classes = (row.channels, row.size, row.size), row.classes
    wrong = classes is not None and (shape[1:] != expected or not set(np.unique(labels)) <= set(range(classes)))
    if wrong or len(labels) != shape[0]:
        raise DamagedData(
            f"data.dataset={dataset.name} in {directory}: {shape[0]} images of shape {shape[1:]} with {len(labels)} "
            f"labels were read, but it has images of shape {expected} with one label each, 0 ... {(classes or 0) - 1}. "
            "Delete its files and download them again, or name another runtime.data_dir=DIR."
        )
    for array in (images.pixels_BCHW, images.labels_B, images.indices_B):
        array.setflags(write=False)
    return images


def read_images(config: DataConfig, directory: Path | str, *, test: bool) -> Images:
    """Return all training or all test images, read once per process: the arrays are shared and read-only."""
    place = directory if config.path is None else config.path
    try:
        return _read(config.dataset, Path(place).expanduser().resolve(), test)
    except RuntimeError as error:  # another user's home that there is not, or a circle of links
        raise MissingData(f"{place} cannot be followed: {error}.") from error


def load_test(config: DataConfig, directory: Path | str = "data") -> Images:
    """Return the official test set, whole whatever the draw; of the digits, and of a folder without one, a fixed third
    of each class.

    Raises:
        MissingData, DamagedData: naming the files and what to do.
    """
    images = read_images(config, directory, test=True)
    return images.take(np.arange(len(images)))


def duplicate_free(config: DataConfig, directory: Path | str = "data") -> np.ndarray | None:
    """Return a mask (B,) over the test images: False where one nearly repeats a training or another test image.

    From the ciFAIR lists `cifair/duplicates_*.csv` (Barz and Denzler 2020, arXiv 1902.00423); of a pair within the test
    set the first named is left out. None where the two lists of the data set are not in the directory.

    Raises:
        DamagedData: a list cannot be read as such.
    """
    name, folder = config.dataset.name, Path(directory).expanduser() / "cifair"
    lists = [folder / f"duplicates_{name}.csv", folder / f"duplicates_{name}_test.csv"]
    if not all(file.is_file() for file in lists):
        return None
    keep_B = np.ones(len(read_images(config, directory, test=True)), dtype=bool)
    for file in lists:
        try:
            keep_B[np.loadtxt(file, delimiter=",", skiprows=1, usecols=0, dtype=np.int64)] = False
        except (ValueError, IndexError) as error:
            raise DamagedData(
                f"{file} is not a ciFAIR list (a header, then rows TestID,TrainID,Distance,Judgment): {error}. "
                "Replace it, or remove it to go without the duplicate-free accuracy."
            ) from error
    return keep_B


def class_names(config: DataConfig, classes: int) -> tuple[str, ...]:
    """Return the names of the classes, in the order of their numbers; the numbers where none are published."""
    if config.path is not None:
        return tuple(classes_in(Path(config.path)))
    return tuple(SETS[config.dataset].labels.split() or map(str, range(classes)))
