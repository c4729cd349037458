"""Images of the user's own: a folder for each class, all images of one size.

DIR/train/CLASS/*.png and DIR/test/CLASS/*.png; or DIR/CLASS/*.png, of which every third image of each class is kept for
the test, as of the digits. Classes are numbered in the order of their names, images in that of class and name.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np

from odenet.data.images import DamagedData, Images, MissingData

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".pgm", ".ppm", ".tif", ".tiff", ".webp")
GREY, COLOUR = "L", "RGB"
MODES = {"1": GREY, "L": GREY, "RGB": COLOUR, "P": COLOUR}  # of a file, as Pillow calls them, to what is read
READING = (OSError, SyntaxError, ValueError)  # what Pillow raises of damaged files
SMALLEST = 4  # pixels: networks halve them twice
HOW = "data.path=DIR must hold a folder for each class with its images, or train/ and test/ with such folders"


def read_folder(directory: Path, test: bool) -> Images:
    """Read all training or all test images.

    Raises:
        MissingData: there is no such directory, or none of images in it.
        DamagedData: something in it is no image, or images or classes differ from the others.
    """
    classes = classes_in(directory)
    train = _files(directory, classes, test=False)
    size, mode = _form(train[0][1])
    if any(_form(file)[1] == COLOUR for _, file in train):
        mode = COLOUR
    tested = _files(directory, classes, test=True)
    for _, file in [*train, *tested]:  # the test images, too, before anything is trained that only they would stop
        _check_form(file, (size, mode), train[0][1])
    wanted = tested if test else train
    pixels = np.stack([_picture(file, mode) for _, file in wanted])
    pixels_BHWC = pixels[..., None] if mode == GREY else pixels
    labels = np.array([label for label, _ in wanted], dtype=np.int64)
    return Images(np.ascontiguousarray(pixels_BHWC.transpose(0, 3, 1, 2)), labels, np.arange(len(labels)))


def classes_in(directory: Path) -> list[str]:
    """Return the names of the classes. MissingData, DamagedData: as `read_folder`."""
    if not os.path.isdir(directory):  # noqa: PTH112 - which does not raise where there can be no such path
        raise MissingData(f"data.dataset=folder: there is no directory {directory}; {HOW}.")
    places = [directory / "train", directory / "test"] if _is_split(directory) else [directory]
    for place in places:
        if not place.is_dir():
            raise MissingData(f"data.dataset=folder: {directory} has no {place.name}/ beside the other; {HOW}.")
    first, *others = [_folders(place) for place in places]
    for other in others:
        if other != first:
            lone = sorted(set(first) ^ set(other))
            raise DamagedData(f"{directory}: train/ and test/ must have the same classes; only one has {lone[0]}.")
    if len(first) < 2:
        count = f"{len(first)} folder{'s' * (len(first) != 1)}"
        raise MissingData(f"data.dataset=folder: {places[0]} has {count}, two classes are needed; {HOW}.")
    return first


def _is_split(directory: Path) -> bool:
    return (directory / "train").is_dir() or (directory / "test").is_dir()


def _folders(place: Path) -> list[str]:
    return sorted(path.name for path in place.iterdir() if path.is_dir() and not path.name.startswith("."))


def _images_in(folder: Path) -> list[Path]:
    files = [path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")]
    if not files:
        raise MissingData(f"{folder} has no image: files that end in {', '.join(SUFFIXES)} are read.")
    return sorted(files, key=lambda path: path.name)


def _files(directory: Path, classes: list[str], *, test: bool) -> list[tuple[int, Path]]:
    """List the training or the test images with their labels."""
    if _is_split(directory):
        part = directory / ("test" if test else "train")
        return [(label, file) for label, name in enumerate(classes) for file in _images_in(part / name)]
    files = [(label, _images_in(directory / name)) for label, name in enumerate(classes)]
    for label, own in files:
        if len(own) < 3:
            count = f"{len(own)} image{'s' * (len(own) != 1)}"
            raise MissingData(
                f"{directory / classes[label]} has {count}, and every third is kept for the test: at least three are "
                "needed."
            )
    return [(label, file) for label, own in files for i, file in enumerate(own) if (i % 3 == 2) == test]


def _form(file: Path) -> tuple[tuple[int, int], str]:
    """Read how large an image is, and whether it is grey or of colour, from the head of its file."""
    from PIL import Image

    try:
        with Image.open(file) as image:
            size, mode = image.size, image.mode
    except READING as error:
        raise DamagedData(f"{file} cannot be read as an image: {error}.") from error
    if mode not in MODES:
        raise DamagedData(
            f"{file} is stored as {mode}: grey and RGB images of 8 bits are read; convert it, for example by Pillow's "
            'convert("RGB").'
        )
    return size, MODES[mode]


def _check_form(file: Path, form: tuple[tuple[int, int], str], like: Path) -> None:
    """Raise DamagedData where an image has another size than one of the training images, or colours that none has."""
    (width, height), mode = _form(file)
    if (width, height) != form[0]:
        raise DamagedData(
            f"{file} has {width}x{height} pixels, {like} has {form[0][0]}x{form[0][1]}: all must be of one size."
        )
    if min(width, height) < SMALLEST:
        raise DamagedData(f"{file} has {width}x{height} pixels: at least {SMALLEST}x{SMALLEST} are needed.")
    if (mode, form[1]) == (COLOUR, GREY):
        raise DamagedData(f"{file} is of colour, and all training images are grey.")


def _picture(file: Path, mode: str) -> Any:
    """Read a file as bytes: (H, W) where grey is asked for, else (H, W, 3)."""
    from PIL import Image

    try:
        with Image.open(file) as image:
            return np.asarray(image.convert(mode))
    except READING as error:
        raise DamagedData(f"{file} cannot be read as an image: {error}.") from error
