"""Classifiers of a few hundred weights, and images for them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from odenet import Classifier, DataConfig, ModelConfig, Network, build_model
from odenet.data.batches import Statistics
from odenet.data.images import Images
from odenet.networks.orders import RateOrder
from odenet.networks.table import NETWORKS, Wiring, add_networks
from tests.own_names import taken_away

CLASSES = 5
SMOOTH = RateOrder(("conv", "tanh", "conv"), bias=True)


def images(n: int = 120, side: int = 8, seed: int = 0) -> Images:
    draws = np.random.default_rng(seed)
    pixels = draws.integers(0, 256, (n, 1, side, side), dtype=np.uint8)
    return Images(pixels, draws.integers(0, CLASSES, n), np.arange(n))


def classifier(config: ModelConfig, side: int = 8, seed: int = 0) -> Classifier:
    about = Statistics.of(images()).image_format(DataConfig(), [*"abcde"], (1, side, side))
    return Classifier(build_model(config, channels=1, classes=CLASSES, seed=seed), about)


def tiny(network: str, side: int = 8, **changes: Any) -> Classifier:
    return classifier(ModelConfig(network=Network[network], **{"width": 4, "nodes": 3} | changes), side)


def right(model: Classifier, shown: Images) -> Images:
    """The same images, labelled as the classifier has them: it has all of them right."""
    return replace(shown, labels_B=np.asarray(model.predict(shown.pixels_BCHW)))


@contextmanager
def row(of: str, **changes: Any) -> Iterator[str]:
    """Add a network for a while: a row of the table with changes."""
    wiring: Wiring = replace(NETWORKS[Network[of]], source="a test", **changes)
    with taken_away():
        add_networks({"probed": wiring})
        yield "probed"
