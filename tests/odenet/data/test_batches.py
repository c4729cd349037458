"""What a batch looks like: every image once, cropped and mirrored like a naive reference, normalised."""

import os
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch

from odenet.data.batches import Batches, Statistics
from odenet.data.config import Augment, DataConfig, DataSet
from odenet.data.sets import SETS, Images
from odenet.data.subsets import Splits, load_data

FILES = Path(os.environ.get("ODENET_DATA", Path(__file__).parents[4] / "shared" / "data"))
needs_cifar10 = pytest.mark.skipif(
    not (FILES / "cifar-10-batches-py").is_dir(), reason="no CIFAR-10 files in ODENET_DATA or ../shared/data"
)
SET_AT_HAND = [DataSet.digits, pytest.param(DataSet.cifar10, marks=needs_cifar10)]


def load(dataset: DataSet, draw: int = 0) -> Splits:
    return load_data(DataConfig(dataset=dataset, draw=draw), FILES)


def noise(count: int, dataset: DataSet) -> Images:
    """Random pixels in the format of the set; the labels count the images."""
    shape = (count, SETS[dataset].channels, SETS[dataset].size, SETS[dataset].size)
    pixels = np.random.default_rng(count).integers(0, 256, shape, dtype=np.uint8)
    return Images(pixels, np.arange(count), np.arange(count))


def grey_levels(dataset: DataSet) -> Statistics:
    """With these a normalised pixel is its grey level."""
    return Statistics(torch.zeros(SETS[dataset].channels), torch.full((SETS[dataset].channels,), 1 / 255))


def naive_crops(image_CHW: np.ndarray, padding: int, flip: bool) -> dict[bytes, tuple[int, int, bool]]:
    """Every crop of the zero-padded image, and its mirror image where allowed, with how it was made."""
    channels, height, width = image_CHW.shape
    padded = np.zeros((channels, height + 2 * padding, width + 2 * padding), dtype=np.uint8)
    padded[:, padding : padding + height, padding : padding + width] = image_CHW
    crops = {}
    for y in range(2 * padding + 1):
        for x in range(2 * padding + 1):
            crop = padded[:, y : y + height, x : x + width]
            crops[crop.tobytes()] = (y, x, False)
            if flip:
                crops[crop[:, :, ::-1].tobytes()] = (y, x, True)
    return crops


@pytest.mark.parametrize("dataset", [DataSet.cifar10, DataSet.fashion_mnist, DataSet.digits])
def test_augmented_images_are_all_the_naive_crops_and_mirror_images_about_equally_often(dataset: DataSet) -> None:
    images, row = noise(36, dataset), SETS[dataset]
    batches = Batches(images, statistics=grey_levels(dataset), dataset=dataset, augment=Augment.standard)
    crops = [naive_crops(image, row.padding, row.flip) for image in images.pixels_BCHW]
    seen: dict[tuple[int, int, bool], int] = {}
    epochs = len(crops[0])
    for epoch in range(epochs):
        for x_BCHW, labels_B in batches.epoch(seed=1, epoch=epoch, batch_size=10):
            for x_CHW, label in zip(x_BCHW.round().to(torch.uint8).numpy(), labels_B.tolist(), strict=True):
                made = crops[label][x_CHW.tobytes()]
                seen[made] = seen.get(made, 0) + 1
    assert len(seen) == (2 * row.padding + 1) ** 2 * (2 if row.flip else 1)
    excess = sum((count - 36) ** 2 / 36 for count in seen.values())  # chi-square of `epochs - 1` degrees of freedom
    assert excess < epochs - 1 + 4 * (2 * (epochs - 1)) ** 0.5


def test_an_epoch_shows_every_image_once_and_keeps_the_partial_batch() -> None:
    batches = Batches(noise(23, DataSet.mnist), statistics=grey_levels(DataSet.mnist))
    epochs = [[labels_B.tolist() for _, labels_B in batches.epoch(0, epoch, 10)] for epoch in (0, 1)]
    assert [len(labels) for labels in epochs[0]] == [10, 10, 3]
    orders = [list(chain(*epoch)) for epoch in epochs]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(23))
    assert orders[0] != orders[1] != list(range(23))


def test_an_epoch_depends_on_seed_and_epoch_alone_and_leaves_the_global_generator_alone() -> None:
    images = noise(20, DataSet.cifar10)

    def epoch(seed: int, epoch: int) -> torch.Tensor:
        batches = Batches(
            images, statistics=grey_levels(DataSet.cifar10), dataset=DataSet.cifar10, augment=Augment.standard
        )
        return torch.cat([x_BCHW for x_BCHW, _ in batches.epoch(seed, epoch, 8)])

    first = epoch(3, 2)
    torch.manual_seed(99)
    state = torch.get_rng_state()
    assert torch.equal(epoch(3, 2), first)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(epoch(3, 3), first)
    assert not torch.equal(epoch(4, 2), first)


@pytest.mark.parametrize("augment", Augment)
@pytest.mark.parametrize("dataset", SET_AT_HAND)
def test_measuring_takes_normalised_images_in_order_without_augmentation(dataset: DataSet, augment: Augment) -> None:
    splits = load(dataset)
    statistics = Statistics.of(splits.train)
    batches = Batches(splits.val, statistics=statistics, dataset=dataset, augment=augment)
    taken = list(batches.ordered(32))
    assert (len(batches), batches.shape) == (80, splits.val.pixels_BCHW.shape[1:])
    assert [len(labels_B) for _, labels_B in taken] == [32, 32, 16]
    x_BCHW = torch.cat([x_BCHW for x_BCHW, _ in taken])
    mean, std = (v_C.double().numpy()[:, None, None] for v_C in (statistics.mean_C, statistics.std_C))
    assert x_BCHW.dtype == torch.float32
    assert np.abs((splits.val.pixels_BCHW / 255 - mean) / std - x_BCHW.double().numpy()).max() < 1e-5
    assert all(x.is_contiguous(memory_format=torch.channels_last) for x, _ in taken)
    assert torch.cat([labels_B for _, labels_B in taken]).tolist() == splits.val.labels_B.tolist()


@pytest.mark.parametrize("dataset", SET_AT_HAND)
def test_statistics_are_those_of_the_images_given(dataset: DataSet) -> None:
    splits = load(dataset, draw=1)
    statistics, pixels = Statistics.of(splits.train), splits.train.pixels_BCHW / 255
    assert np.abs(statistics.mean_C.numpy() - pixels.mean((0, 2, 3))).max() < 1e-6
    assert np.abs(statistics.std_C.numpy() - pixels.std((0, 2, 3))).max() < 1e-6
    assert not torch.equal(Statistics.of(splits.val).mean_C, statistics.mean_C)


def test_a_constant_channel_is_not_divided_by_zero() -> None:
    images = noise(4, DataSet.cifar10)
    images.pixels_BCHW[:, 1] = 77
    batches = Batches(images, statistics=Statistics.of(images))
    ((x_BCHW, _),) = batches.ordered(4)
    assert x_BCHW.isfinite().all()
    assert x_BCHW[:, 1].abs().max() < 1e-3
