"""Images of the user's own in class folders: read as every other set, and what is said where they cannot be."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from odenet.data.config import DataConfig, DataSet, Portion
from odenet.data.sets import DamagedData, Images, MissingData, load_test
from odenet.data.subsets import load_data
from odenet.training.config import ExperimentConfig, TrainingConfig
from odenet.training.loop import Training

CLASSES = ("ant", "bee", "cat")


def picture(seed: int, *shape: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape or (10, 12, 3), dtype=np.uint8))


def write(directory: Path, count: int = 12, *shape: int) -> Path:
    for label, name in enumerate(CLASSES):
        (directory / name).mkdir(parents=True)
        for index in range(count):
            picture(100 * label + index, *shape).save(directory / name / f"{index:02d}.png")
    return directory


def config(directory: Path, **changes: int | None) -> DataConfig:
    given = {"dataset": DataSet.folder, "path": str(directory), "per_class": None, **changes}
    return DataConfig(**given)  # type: ignore[arg-type]


def test_a_folder_is_a_class_and_every_third_image_is_kept_for_the_test(tmp_path: Path) -> None:
    write(tmp_path)
    test, data = load_test(config(tmp_path)), load_data(replace(config(tmp_path), portion=Portion.trainval))
    assert data.classes == 3
    assert (len(test), len(data.train)) == (12, 24)
    assert test.labels_B.tolist() == 4 * [0] + 4 * [1] + 4 * [2]
    expected = np.asarray(picture(102)).transpose(2, 0, 1)  # the third bee
    np.testing.assert_array_equal(test.pixels_BCHW[4], expected)
    learned = {image.tobytes() for image in data.train.pixels_BCHW}
    assert not learned & {image.tobytes() for image in test.pixels_BCHW}


def test_train_and_test_folders_are_taken_as_they_are(tmp_path: Path) -> None:
    write(tmp_path / "train", 6)
    write(tmp_path / "test", 2)
    assert len(load_test(config(tmp_path))) == 6
    assert len(load_data(replace(config(tmp_path), portion=Portion.trainval)).train) == 18


def test_draws_and_hashes_are_as_of_every_other_set(tmp_path: Path) -> None:
    first, copy = write(tmp_path / "a"), write(tmp_path / "b")
    small, large = (load_data(config(first, per_class=n)) for n in (4, 6))
    assert set(small.train.indices_B) <= set(large.train.indices_B)
    assert load_data(config(copy, per_class=4)).hash == small.hash, "what the images are counts, not where they are"
    assert load_data(config(first, per_class=4, draw=1)).hash != small.hash
    picture(999).save(copy / "ant/00.png")
    hashes = {load_data(config(copy, draw=draw)).hash for draw in range(2)}  # another file than was read before
    assert small.hash not in hashes


@pytest.mark.parametrize(("shape", "channels"), [((8, 8), 1), ((8, 8, 3), 3)])
def test_a_network_trains_on_grey_and_on_colour(tmp_path: Path, shape: tuple[int, ...], channels: int) -> None:
    data = config(write(tmp_path, 6, *shape))
    training = Training(ExperimentConfig(data=data, training=TrainingConfig(epochs=1)))
    assert training.train_batches.shape == (channels, 8, 8)
    assert next(training).epoch == 1


def remove(name: str) -> Callable[[Path], object]:
    def change(directory: Path) -> None:
        for file in (directory / name).iterdir():
            file.unlink()

    return change


def put(name: str, content: bytes | Image.Image) -> Callable[[Path], object]:
    def change(directory: Path) -> None:
        file = directory / name
        file.parent.mkdir(exist_ok=True, parents=True)
        if isinstance(content, bytes):
            file.write_bytes(content)
        else:
            content.save(file)

    return change


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        (remove("bee"), MissingData, "bee has no image: files that end in .png, .jpg"),
        (put("bee/00.png", b"no image"), DamagedData, "bee/00.png cannot be read as an image"),
        (put("bee/02.png", b"no image"), DamagedData, "bee/02.png cannot be read as an image"),  # of the test
        (put("bee/02.png", picture(0, 9, 9, 3)), DamagedData, "02.png has 9x9 pixels, "),
        (put("bee/00.png", picture(0).convert("RGBA")), DamagedData, "00.png is stored as RGBA: grey and RGB images"),
        (put("bee/00.png", picture(0, 9, 9, 3)), DamagedData, "00.png has 9x9 pixels, "),
        (put("train/bee/00.png", picture(0)), MissingData, "has no test/ beside the other"),
        (put("few/00.png", picture(0)), MissingData, "few has 1 image, and every third is kept for the test"),
    ],
)
def test_what_cannot_be_read_is_named(
    tmp_path: Path, change: Callable[[Path], object], kind: type[ValueError], message: str
) -> None:
    write(tmp_path, 3)
    change(tmp_path)
    with pytest.raises(kind) as refusal:
        load_data(config(tmp_path))
    assert message in str(refusal.value)


def test_a_truncated_image_is_named(tmp_path: Path) -> None:
    file = write(tmp_path, 3) / "cat/00.png"
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(DamagedData, match=r"cat/00\.png cannot be read as an image"):
        load_data(config(tmp_path))


def test_classes_colours_and_sizes_of_the_test_are_those_of_training(tmp_path: Path) -> None:
    write(tmp_path / "train", 3, 8, 8)
    test = write(tmp_path / "test", 3, 8, 8)
    picture(0, 8, 8, 3).save(test / "ant/00.png")
    with pytest.raises(DamagedData, match=r"ant/00\.png is of colour, and all training images are grey"):
        load_data(config(tmp_path))
    (test / "dog").mkdir()
    with pytest.raises(DamagedData, match="must have the same classes; only one has dog"):
        load_data(config(tmp_path))


def test_a_directory_that_is_not_there_or_holds_no_classes_is_refused(tmp_path: Path) -> None:
    for place, message in ((tmp_path / "no", "there is no directory"), (tmp_path, "has 0 folders, two classes")):
        with pytest.raises(MissingData, match=message):
            load_data(config(place))
    with pytest.raises(ValueError, match=r"data\.dataset=folder needs data\.path=DIR"):
        DataConfig(dataset=DataSet.folder)
    with pytest.raises(ValueError, match=r"data\.path='x' is for images of your own"):
        DataConfig(path="x")
    with pytest.raises(DamagedData, match="has 3x3 pixels: at least 4x4"):
        load_data(config(write(tmp_path / "tiny", 3, 3, 3)))


def test_images_are_those_of_the_type_that_all_sets_have(tmp_path: Path) -> None:
    images = load_test(config(write(tmp_path, 3)))
    assert isinstance(images, Images)
    assert (images.pixels_BCHW.dtype, images.labels_B.dtype) == (np.uint8, np.int64)
