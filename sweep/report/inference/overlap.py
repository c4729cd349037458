"""How many images two draws of the data have in common: draws that share images are not independent."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from odenet.data.config import DataSet, Order
from odenet.data.subsets import DRAWS_PER_ROUND

# Images to learn from in the smallest class.
SMALLEST = {
    DataSet.digits: 116,
    DataSet.cifar10: 5000,
    DataSet.cifar100: 500,
    DataSet.stl10: 500,
    DataSet.mnist: 5421,
    DataSet.fashion_mnist: 6000,
}


def overlap(dataset: str, per_class: int | None, draws: Sequence[int], order: Order) -> float | None:
    """Return the share of its images, in the smallest class, that a draw has in common with another, on average over
    pairs; 1 where each draw has all images, None for images of a user's own, whose number is not known here.

    >>> overlap("digits", 23, range(5), Order.shuffled), overlap("digits", 50, range(5), Order.shuffled) > 0.2
    (0.0, True)
    """
    if len(draws) < 2 or order is Order.file:
        return 0.0
    if per_class is None:
        return 1.0
    size = SMALLEST.get(DataSet(dataset)) if dataset in DataSet.__members__ else None
    if size is None:
        return None
    return float(np.mean([_shared(pair, per_class, size) for pair in combinations(draws, 2)]))


def _shared(pair: tuple[int, int], n: int, size: int) -> float:
    """Compute it for two draws: those of one round take turns in one permutation, those of two meet by chance."""
    (round_a, a), (round_b, b) = (divmod(draw, DRAWS_PER_ROUND) for draw in pair)
    if round_a != round_b:
        return n / size
    return len(np.intersect1d(_taken(a, n, size), _taken(b, n, size))) / n


def _taken(own: int, n: int, size: int) -> np.ndarray:
    """Return the places in its round's permutation that a draw takes, as `odenet.data.subsets` orders them."""
    places = np.arange(size)
    parts = [places[(own + k) % DRAWS_PER_ROUND :: DRAWS_PER_ROUND] for k in range(DRAWS_PER_ROUND)]
    return np.concatenate(parts)[:n]
