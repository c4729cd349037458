"""The share of images that draws have in common, against the draws themselves."""

from itertools import combinations

import numpy as np
import pytest

from odenet.data.config import DataConfig, DataSet, Order, Portion
from odenet.data.sets import read_images
from odenet.data.subsets import load_data
from sweep.report.inference.overlap import SMALLEST, overlap


def taken(n: int, draw: int) -> set[int]:
    """The images of the smallest class, that of the eights, which a draw of the digits has."""
    config = DataConfig(dataset=DataSet.digits, per_class=n, draw=draw, portion=Portion.trainval)
    images = load_data(config).train
    return set(images.indices_B[images.labels_B == 8].tolist())


@pytest.mark.parametrize(("n", "shared"), [(23, 0.0), (24, 0.0167), (50, 0.304)])
def test_it_is_what_five_draws_of_the_digits_share(n: int, shared: float) -> None:
    draws = [taken(n, draw) for draw in range(5)]
    measured = np.mean([len(a & b) / n for a, b in combinations(draws, 2)])
    assert overlap("digits", n, range(5), Order.shuffled) == pytest.approx(measured) == pytest.approx(shared, abs=1e-4)


def test_draws_of_two_rounds_share_what_chance_gives_them() -> None:
    measured = np.mean([len(taken(50, a) & taken(50, b)) / 50 for a in range(3) for b in range(5, 8)])
    assert overlap("digits", 50, [0, 5], Order.shuffled) == pytest.approx(50 / 116) == pytest.approx(measured, abs=0.06)


def test_the_smallest_class_of_the_digits_has_116_images() -> None:
    labels_B = read_images(DataConfig(dataset=DataSet.digits), "", test=False).labels_B
    assert np.bincount(labels_B).min() == SMALLEST[DataSet.digits] == 116


def test_what_is_disjoint_the_same_or_unknown_is_said_so() -> None:
    assert overlap("cifar10", 50, [0, 1, 7], Order.file) == overlap("cifar10", 50, [3], Order.shuffled) == 0
    assert overlap("cifar10", None, [0, 1], Order.shuffled) == 1
    assert overlap("folder:mine", 50, [0, 1], Order.shuffled) is None
