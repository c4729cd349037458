"""How the files of the published sets are read, and what is said where they are missing or damaged."""

import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits  # type: ignore[import-untyped]

from odenet.data.config import DataConfig, DataSet, Portion
from odenet.data.sets import SETS, DamagedData, Images, MissingData, duplicate_free, load_test
from odenet.data.subsets import load_data

FILES = Path(os.environ.get("ODENET_DATA", Path(__file__).parents[4] / "shared" / "data"))
needs_cifar10 = pytest.mark.skipif(
    not (FILES / "cifar-10-batches-py").is_dir(), reason="no CIFAR-10 files in ODENET_DATA or ../shared/data"
)
FROM_FILES = [dataset for dataset in DataSet if dataset not in (DataSet.digits, DataSet.folder)]


def noise(count: int, dataset: DataSet) -> Images:
    """Random pixels in the format of the set; the labels count the images."""
    shape = (count, SETS[dataset].channels, SETS[dataset].size, SETS[dataset].size)
    pixels = np.random.default_rng(count).integers(0, 256, shape, dtype=np.uint8)
    return Images(pixels, np.arange(count), np.arange(count))


@pytest.mark.parametrize("dataset", FROM_FILES)
def test_missing_files_are_named_with_what_brings_them(dataset: DataSet, tmp_path: Path) -> None:
    import torchvision.datasets

    with pytest.raises(MissingData) as refusal:
        load_data(DataConfig(dataset=dataset), tmp_path)
    message = str(refusal.value)
    publisher = message.split(maxsplit=1)[0]
    assert publisher in torchvision.datasets.__all__
    assert publisher.lower() == dataset.name.replace("_", "")
    assert f"was asked for, but {tmp_path} lacks " in message
    assert message.count("train") >= 1 or message.count("data_batch_") == 5
    assert "runtime.data_dir=DIR" in message
    assert f"from torchvision.datasets import {publisher}; {publisher}('{tmp_path}', download=True)" in message


def test_the_digits_are_those_that_scikit_learn_loads() -> None:
    read = [SETS[DataSet.digits].read(Path(), test) for test in (False, True)]
    published = load_digits()
    pixels_BHW = np.round(published.images * (255 / 16)).astype(np.uint8)
    for images in read:
        assert np.array_equal(images.pixels_BCHW[:, 0], pixels_BHW[images.indices_B])
        assert np.array_equal(images.labels_B, published.target[images.indices_B])
    assert sorted(np.concatenate([images.indices_B for images in read])) == list(range(1797))


def test_digits_without_scikit_learn_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(MissingData, match="comes with scikit-learn, which is not installed here: install scikit-learn"):
        SETS[DataSet.digits].read(Path(), False)


@needs_cifar10
@pytest.mark.parametrize("test", [False, True])
def test_a_truncated_file_is_named_and_nothing_is_read(test: bool, tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for file in (FILES / folder.name).iterdir():
        (folder / file.name).symlink_to(file.resolve())
    (folder / "data_batch_3").unlink()
    (folder / "data_batch_3").write_bytes((FILES / folder.name / "data_batch_3").read_bytes()[:-1])
    message = r"CIFAR10 .* damaged: cifar-10-batches-py/data_batch_3\. Delete .* runtime.data_dir"
    with pytest.raises(DamagedData, match=message):
        (load_test if test else load_data)(DataConfig(dataset=DataSet.cifar10), tmp_path)


# Files in the published formats


def write_idx(file: Path, values: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    header = (2048 + values.ndim).to_bytes(4, "big") + b"".join(size.to_bytes(4, "big") for size in values.shape)
    file.write_bytes(header + values.astype(np.uint8).tobytes())


def write_mnist(directory: Path, dataset: DataSet, count: int = 30) -> np.ndarray:
    """Training images of random pixels, test images their negatives, labels 0 ... 9 in turn."""
    pixels = noise(count, dataset).pixels_BCHW[:, 0]
    folder = directory / {DataSet.mnist: "MNIST", DataSet.fashion_mnist: "FashionMNIST"}[dataset] / "raw"
    for name, images in (("train", pixels), ("t10k", 255 - pixels)):
        write_idx(folder / f"{name}-images-idx3-ubyte", images)
        write_idx(folder / f"{name}-labels-idx1-ubyte", np.arange(count) % 10)
    return pixels


@pytest.mark.parametrize("dataset", [DataSet.mnist, DataSet.fashion_mnist])
def test_idx_files_are_read_as_published(dataset: DataSet, tmp_path: Path) -> None:
    pixels = write_mnist(tmp_path, dataset)
    config = DataConfig(dataset=dataset, per_class=None, portion=Portion.trainval)
    train, test = load_data(config, tmp_path).train, load_test(config, tmp_path)
    assert np.array_equal(train.pixels_BCHW, pixels[:, None])
    assert np.array_equal(test.pixels_BCHW, 255 - pixels[:, None])
    assert train.labels_B.tolist() == test.labels_B.tolist() == list(range(10)) * 3


def test_idx_files_of_something_else_are_refused(tmp_path: Path) -> None:
    labels = tmp_path / "MNIST" / "raw" / "train-labels-idx1-ubyte"
    contents = [
        (lambda: write_idx(labels, np.arange(30) % 10 + 1), r"labels were read, but .* shape \(1, 28, 28\).* 0 ... 9"),
        (lambda: write_idx(labels, np.arange(29) % 10), r"30 images of shape \(1, 28, 28\) with 29 labels"),
        (lambda: labels.write_bytes(labels.read_bytes()[:-5]), "damaged: one of MNIST/raw/train-images-idx3-ubyte, "),
        (lambda: labels.write_bytes(b""), "damaged: one of "),
    ]
    write_mnist(tmp_path, DataSet.mnist)
    for damage, message in contents:
        damage()
        with pytest.raises(DamagedData, match=message):
            load_data(DataConfig(dataset=DataSet.mnist), tmp_path)


def write_cifar100(directory: Path, pixels: np.ndarray, labels: np.ndarray) -> None:
    folder = directory / "cifar-100-python"
    folder.mkdir()
    coarse = {"coarse_labels": [0] * len(labels), "fine_label_names": [str(k) for k in range(100)]}
    batch = {"data": pixels.reshape(len(pixels), -1), "fine_labels": labels.tolist(), **coarse}
    for name in ("train", "test", "meta"):
        (folder / name).write_bytes(pickle.dumps(batch))


def write_stl10(directory: Path, pixels: np.ndarray, labels: np.ndarray) -> None:
    folder = directory / "stl10_binary"
    folder.mkdir()
    (folder / "unlabeled_X.bin").write_bytes(b"")
    for name in ("train", "test"):
        (folder / f"{name}_X.bin").write_bytes(pixels.transpose(0, 1, 3, 2).tobytes())  # column by column
        (folder / f"{name}_y.bin").write_bytes((labels + 1).astype(np.uint8).tobytes())


@pytest.mark.parametrize(("dataset", "write"), [(DataSet.cifar100, write_cifar100), (DataSet.stl10, write_stl10)])
def test_checksummed_files_are_read_as_published_and_only_then(
    dataset: DataSet, write: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pixels, labels = noise(200, dataset).pixels_BCHW, np.arange(200) % SETS[dataset].classes
    write(tmp_path, pixels, labels)
    config = DataConfig(dataset=dataset, per_class=None, val_fraction=0.5)
    with pytest.raises(DamagedData, match=r"damaged: .*(cifar-100-python/train|stl10_binary/train_X.bin)"):
        load_data(config, tmp_path)
    module = {DataSet.cifar100: "cifar", DataSet.stl10: "stl10"}[dataset]
    monkeypatch.setattr(f"torchvision.datasets.{module}.check_integrity", lambda *_: True)
    images = load_test(config, tmp_path)
    assert np.array_equal(images.pixels_BCHW, pixels)
    assert np.array_equal(images.labels_B, labels)
    assert len(load_data(config, tmp_path).train) == 100


def test_listed_duplicates_are_masked_and_without_both_lists_there_is_no_mask(tmp_path: Path) -> None:
    write_mnist(tmp_path, DataSet.mnist)
    config, folder = DataConfig(dataset=DataSet.mnist), tmp_path / "cifair"
    folder.mkdir()
    (folder / "duplicates_mnist.csv").write_text("TestID,TrainID,Distance,Judgment\n3,17,0.1,1\n5,2,0.0,0\n")
    assert duplicate_free(config, tmp_path) is None
    within = folder / "duplicates_mnist_test.csv"
    within.write_text("TestID,TrainID,Distance,Judgment\n7,8,0.1,2\n")
    assert np.flatnonzero(~duplicate_free(config, tmp_path)).tolist() == [3, 5, 7]
    for row in ("x,8,0.1,2\n", "30,8,0.1,2\n"):
        within.write_text("TestID,TrainID,Distance,Judgment\n" + row)
        with pytest.raises(
            DamagedData, match=r"duplicates_mnist_test.csv is not a ciFAIR list .* Replace it, or remove it"
        ):
            duplicate_free(config, tmp_path)


@needs_cifar10
def test_the_cifar10_images_that_are_masked_resemble_training_images() -> None:
    pairs = FILES / "cifair" / "duplicates_cifar10.csv"
    if not pairs.is_file():
        pytest.skip("no ciFAIR lists beside the CIFAR-10 files")
    config = DataConfig(dataset=DataSet.cifar10, per_class=None, portion=Portion.trainval)
    mask_B = duplicate_free(config, FILES)
    tested, learned = np.loadtxt(pairs, delimiter=",", skiprows=1, usecols=(0, 1), dtype=int).T
    assert not mask_B[tested].any()
    assert len(set(tested)) == 286 <= (~mask_B).sum() <= 286 + 39
    test_B, train_B = load_test(config, FILES).pixels_BCHW, load_data(config, FILES).train.pixels_BCHW
    difference = np.abs(test_B[tested].astype(int) - train_B[learned]).mean()
    assert difference < np.abs(test_B[tested].astype(int) - train_B[learned[::-1]]).mean() / 2
