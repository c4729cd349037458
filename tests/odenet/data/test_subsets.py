"""What a draw of the data is and what is refused."""

import os
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from odenet.data.config import Augment, DataConfig, DataSet, Order, Portion
from odenet.data.sets import SETS, Images, duplicate_free, load_test
from odenet.data.subsets import Splits, balanced_test, load_data

FILES = Path(os.environ.get("ODENET_DATA", Path(__file__).parents[4] / "shared" / "data"))
needs_cifar10 = pytest.mark.skipif(
    not (FILES / "cifar-10-batches-py").is_dir(), reason="no CIFAR-10 files in ODENET_DATA or ../shared/data"
)
SET_AT_HAND = [DataSet.digits, pytest.param(DataSet.cifar10, marks=needs_cifar10)]


def load(dataset: DataSet = DataSet.digits, **choices: object) -> Splits:
    return load_data(DataConfig(dataset=dataset, **choices), FILES)


def indices(images: Images | None) -> set[int]:
    assert images is not None
    assert len(set(images.indices_B)) == len(images)
    return set(images.indices_B.tolist())


def noise(count: int, dataset: DataSet) -> Images:
    """Random pixels in the format of the set; the labels count the images."""
    shape = (count, SETS[dataset].channels, SETS[dataset].size, SETS[dataset].size)
    pixels = np.random.default_rng(count).integers(0, 256, shape, dtype=np.uint8)
    return Images(pixels, np.arange(count), np.arange(count))


def test_every_data_set_has_a_row() -> None:
    assert set(SETS) == set(DataSet)


# Draws


@pytest.mark.parametrize("dataset", SET_AT_HAND)
def test_a_draw_of_20_is_12_to_train_and_8_to_validate_in_every_class(dataset: DataSet) -> None:
    for draw in range(3):
        splits = load(dataset, draw=draw)
        assert np.bincount(splits.train.labels_B).tolist() == [12] * 10
        assert np.bincount(splits.val.labels_B).tolist() == [8] * 10
        assert splits.classes == 10
        assert not indices(splits.train) & indices(splits.val)


@pytest.mark.parametrize("dataset", SET_AT_HAND)
def test_no_test_image_is_learned_from(dataset: DataSet) -> None:
    everything = load(dataset, per_class=None, portion=Portion.trainval).train
    tested = {image.tobytes() for image in load_test(DataConfig(dataset=dataset), FILES).pixels_BCHW}
    assert not tested & {image.tobytes() for image in everything.pixels_BCHW}


def test_the_digits_tested_are_a_stratified_third_whatever_the_draw() -> None:
    tests = [load_test(DataConfig(draw=draw, per_class=per_class)) for draw, per_class in ((0, 20), (7, 5))]
    assert np.array_equal(tests[0].indices_B, tests[1].indices_B)
    pool = load(per_class=None, portion=Portion.trainval).train
    assert indices(tests[0]) | indices(pool) == set(range(1797))
    share = np.bincount(tests[0].labels_B) / (np.bincount(tests[0].labels_B) + np.bincount(pool.labels_B))
    assert np.abs(share - 1 / 3).max() < 0.01


def test_learning_never_reads_the_test_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def read(directory: Path, test: bool) -> Images:
        assert not test
        return replace(noise(40, DataSet.mnist), labels_B=np.arange(40) % 10)

    monkeypatch.setitem(SETS, DataSet.mnist, replace(SETS[DataSet.mnist], read=read))
    assert len(load_data(DataConfig(dataset=DataSet.mnist, per_class=4), tmp_path).train) == 30


@pytest.mark.parametrize("dataset", SET_AT_HAND)
@pytest.mark.parametrize("val_fraction", [0.4, 0.1, 1 / 3])
def test_smaller_draws_are_nested_in_larger_ones(dataset: DataSet, val_fraction: float) -> None:
    sizes = [load(dataset, per_class=n, val_fraction=val_fraction, draw=2) for n in (10, 13, 20, 50)]
    for small, large in pairwise(sizes):
        assert indices(small.train) < indices(large.train)
        assert indices(small.val) <= indices(large.val)


@pytest.mark.parametrize("dataset", SET_AT_HAND)
@pytest.mark.parametrize("first", [0, 5])
def test_five_draws_share_no_image(dataset: DataSet, first: int) -> None:
    draws = [load(dataset, draw=first + k, portion=Portion.trainval).train for k in range(5)]
    assert len(set.union(*map(indices, draws))) == 5 * 10 * 20


def test_draws_of_another_round_are_other_draws() -> None:
    assert len({load(draw=draw).hash for draw in range(15)}) == 15


def test_the_default_draw_is_the_same_on_every_machine_and_version() -> None:
    assert load().hash == "df334e01e00f36f7"


@needs_cifar10
@pytest.mark.parametrize("draw", [0, 1, 2])
def test_in_file_order_50_per_class_are_the_draws_of_deic_and_gem(draw: int) -> None:
    splits = load(DataSet.cifar10, per_class=50, order=Order.file, draw=draw)
    everything = load(DataSet.cifar10, per_class=None, portion=Portion.trainval).train
    for label in range(10):
        members = [index for index, other in enumerate(everything.labels_B) if other == label]
        for images, start, stop in ((splits.train, 0, 30), (splits.val, 30, 50)):
            expected = members[50 * draw + start : 50 * draw + stop]
            assert images.indices_B[images.labels_B == label].tolist() == expected


@pytest.mark.parametrize(
    ("n", "fraction", "val"), [(50, 0.4, 20), (3, 0.4, 1), (10, 0.3, 3), (100, 0.29, 29), (7, 0.999, 6)]
)
@pytest.mark.parametrize("order", Order)
def test_the_validation_fraction_is_exact(n: int, fraction: float, val: int, order: Order) -> None:
    splits = load(per_class=n, val_fraction=fraction, order=order)
    assert np.bincount(splits.val.labels_B).tolist() == [val] * 10
    assert np.bincount(splits.train.labels_B).tolist() == [n - val] * 10


@pytest.mark.parametrize("order", Order)
def test_final_training_learns_from_train_and_val_together(order: Order) -> None:
    splits, both = load(order=order), load(order=order, portion=Portion.trainval)
    assert both.val is None
    assert indices(both.train) == indices(splits.train) | indices(splits.val)


@pytest.mark.parametrize("dataset", SET_AT_HAND)
def test_equal_configs_give_equal_data_that_callers_may_change(dataset: DataSet) -> None:
    first = load(dataset)
    pixels = first.train.pixels_BCHW.copy()
    first.train.pixels_BCHW[:] = 0
    assert np.array_equal(load(dataset).train.pixels_BCHW, pixels)
    assert load(dataset).hash == first.hash
    load_test(DataConfig(dataset=dataset), FILES).pixels_BCHW[:] = 0
    assert load_test(DataConfig(dataset=dataset), FILES).pixels_BCHW.max() == 255


def test_the_hash_changes_with_the_draw_and_with_every_pixel_label_and_split(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    original = replace(noise(60, DataSet.mnist), labels_B=np.arange(60) % 10)
    brighter, relabelled = original.pixels_BCHW.copy(), original.labels_B.copy()
    brighter[-1, 0, -1, -1] ^= 1
    relabelled[[0, 1]] = relabelled[[1, 0]]
    contents = [original, replace(original, pixels_BCHW=brighter), replace(original, labels_B=relabelled)]
    row = SETS[DataSet.mnist]
    hashes = []
    for k, images in enumerate([*contents, original]):
        monkeypatch.setitem(SETS, DataSet.mnist, replace(row, read=lambda directory, test, images=images: images))
        config = DataConfig(dataset=DataSet.mnist, per_class=None, val_fraction=0.5)
        hashes.append(load_data(config, tmp_path / str(k)).hash)
    assert hashes[3] == hashes[0]
    hashes += [load(**choices).hash for choices in ({}, {"per_class": 10}, {"val_fraction": 0.3}, {"draw": 1})]
    hashes += [load(portion=Portion.trainval).hash, load(order=Order.file).hash]
    assert len(set(hashes)) == len(hashes) - 1
    assert load(augment=Augment.none).hash == load().hash


# What is refused


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"per_class": 0}, "data.per_class=0 is no number of images; use 1 or more, or null for all"),
        ({"val_fraction": 0.0}, r"val_fraction=0.0 is not in \[0.001, 0.999\]; .* data.portion=trainval"),
        ({"val_fraction": 1.0}, r"val_fraction=1.0 is not in"),
        ({"val_fraction": float("nan")}, r"val_fraction=nan is not in"),
        ({"draw": -1}, "data.draw=-1 is negative; draws are counted from 0"),
        (
            {"order": Order.file, "per_class": None, "draw": 1},
            "draw 0 holds every image; use data.draw=0, a data.per_class",
        ),
        ({"per_class": 2}, "0.4 of 2 images per class leaves none for validation; use at least 3 per class"),
        (
            {"per_class": None, "val_fraction": 0.005},
            "0.005 of 119 images per class leaves none .* at least 200 per class",
        ),
        (
            {"per_class": 121},
            "per_class=121: class 0 of digits has only 119 .*; at most 116 fit into every class, or .*null",
        ),
        (
            {"per_class": 20, "order": Order.file, "draw": 5},
            "data.per_class=20 data.draw=5: class 0 of digits has only 119 .*; draws 0 ... 4 fit in file order",
        ),
    ],
)
def test_an_impossible_draw_is_refused(choices: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load(**choices)


def test_one_image_per_class_can_be_learned_from_without_validation() -> None:
    assert len(load(per_class=1, portion=Portion.trainval).train) == 10


@pytest.mark.slow
def test_reading_the_digits_does_not_import_torchvision() -> None:
    code = "import sys, odenet; odenet.load_data(odenet.DataConfig()); assert 'torchvision' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120, cwd=Path(__file__).parents[3])


# Fixed images of the test set


@pytest.mark.parametrize("dataset", SET_AT_HAND)
def test_fixed_test_images_are_balanced_nested_and_the_same_for_every_draw(dataset: DataSet) -> None:
    config, test = DataConfig(dataset=dataset), load_test(DataConfig(dataset=dataset), FILES)
    many = balanced_test(config, FILES, count=505)
    assert len(indices(many)) == 505
    picked = test.take(np.searchsorted(test.indices_B, many.indices_B))
    assert np.array_equal(many.pixels_BCHW, picked.pixels_BCHW)
    assert np.array_equal(many.labels_B, picked.labels_B)
    for count in (1, 10, 64):
        few = balanced_test(replace(config, draw=3, per_class=7), FILES, count=count)
        assert np.array_equal(few.indices_B, many.indices_B[:count])
        assert np.ptp(np.bincount(few.labels_B, minlength=10)) <= 1
    assert many.indices_B[:10].tolist() != sorted(many.indices_B[:10])


def test_more_test_images_than_the_smallest_class_allows_are_refused() -> None:
    smallest = int(np.bincount(load_test(DataConfig()).labels_B).min())
    assert len(balanced_test(DataConfig(), count=10 * smallest)) == 10 * smallest
    for count in (0, 10 * smallest + 1):
        message = f"{count} test images of digits: its smallest class has {smallest}, so 1 to {10 * smallest} are"
        with pytest.raises(ValueError, match=message):
            balanced_test(DataConfig(), count=count)


@needs_cifar10
def test_fixed_test_images_repeat_no_others_where_that_is_known(tmp_path: Path) -> None:
    config = DataConfig(dataset=DataSet.cifar10)
    if not (FILES / "cifair").is_dir():
        pytest.skip("no ciFAIR lists beside the CIFAR-10 files")
    keep_B = duplicate_free(config, FILES)
    assert keep_B is not None
    assert keep_B[balanced_test(config, FILES, count=1000).indices_B].all()
    (tmp_path / "cifar-10-batches-py").symlink_to(FILES / "cifar-10-batches-py")
    assert not keep_B[balanced_test(config, tmp_path, count=1000).indices_B].all()
    with pytest.raises(
        ValueError, match=r"smallest class has 9\d\d that repeat no others, so 1 to 9\d\d0 are possible"
    ):
        balanced_test(config, FILES, count=10_000)
