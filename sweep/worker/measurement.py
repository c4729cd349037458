"""Measure a final network on test images under a condition, on a worker.

Shapes: `B` images.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from odenet.data.batches import Batches, Statistics
from odenet.data.images import Images
from odenet.enums import Scheme
from odenet.inference.classifier import Classifier
from odenet.training.config import RuntimeConfig
from odenet.training.evaluation import Outcomes, Score, manifestations, outcomes
from sweep.config.evaluate_config import ConditionKind, EvaluateConfig
from sweep.records.rows import CLEAN, DUPLICATE_FREE, MANIFESTATION


@dataclass(frozen=True, slots=True)
class Measured:
    """One value of a network under a condition."""

    condition: str
    metric: str
    value: float
    n: int  # images
    scheme: Scheme
    steps: int
    severity: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Measurement:
    """All values of a network under a condition; of the clean test set also the class that it gives every image."""

    values: list[Measured]
    classes_B: np.ndarray | None = None


@dataclass(frozen=True, slots=True, eq=False)
class TestSet:
    """The test images, and which of them repeat no other image; None where no list says so."""

    __test__ = False

    images: Images
    duplicate_free_B: np.ndarray | None


class Bench:
    """A network on its device, ready to be measured."""

    def __init__(self, network: Classifier, test: TestSet, config: EvaluateConfig, runtime: RuntimeConfig) -> None:
        self.device = runtime.torch_device()
        self.model, self.test, self.config = network.to(self.device), test, config
        self.course = network.network.depths()[-1].course

    def batches(self, images: Images) -> Batches:
        """Put images on the device, as they are: the classifier normalises them."""
        statistics = Statistics.identity(self.model.images.channels)
        return Batches(images, statistics=statistics, device=self.device)

    def as_trained(self, condition: str, score: Score, severity: float = 0.0) -> list[Measured]:
        """Return the values of a score under the manifestation that the network was trained with."""
        return list(_values(condition, score, self.course.scheme, self.course.steps, severity))


@dataclass(frozen=True, slots=True)
class Part:
    """What is measured of a network at once: a condition, and the severities of it that are not known yet."""

    kind: ConditionKind
    condition: str  # as rows.csv names it; what it names further follows after a slash
    severities: tuple[float, ...] = (0.0,)


def measure(part: Part, bench: Bench) -> Measurement:
    """Measure a network under a condition."""
    return MEASURES[part.kind](bench, part)


def _clean(bench: Bench, _: Part) -> Measurement:
    """Measure the whole test set, and what of it repeats no other image where that is known."""
    test, found = bench.test, outcomes(bench.model, bench.batches(bench.test.images), bench.config.batch_size)
    values = bench.as_trained(CLEAN, found.score())
    if test.duplicate_free_B is not None:
        values += bench.as_trained(DUPLICATE_FREE, _of(found, test.duplicate_free_B).score())
    return Measurement(values, found.classes_B)


def _of(found: Outcomes, chosen_B: np.ndarray) -> Outcomes:
    return Outcomes(found.classes_B[chosen_B], found.labels_B[chosen_B], found.losses_B[chosen_B])


def _manifestation(bench: Bench, _: Part) -> Measurement:
    """Measure a part of the test set under every manifestation that makes sense of the network's rate."""
    config, part = bench.config, bench.batches(class_balanced(bench.test.images, bench.config.manifestation_images))
    found = manifestations(bench.model, part, config.schemes, config.step_factors, config.batch_size)
    return Measurement(
        [value for one in found for value in _values(MANIFESTATION, one.score, one.scheme, one.steps, 0.0)]
    )


MEASURES: dict[ConditionKind, Callable[[Bench, Part], Measurement]] = {
    ConditionKind.clean: _clean,
    ConditionKind.manifestation: _manifestation,
}


def _values(condition: str, score: Score, scheme: Scheme, steps: int, severity: float) -> Iterator[Measured]:
    for metric, value in (("accuracy", score.accuracy), ("loss", score.loss)):
        yield Measured(condition, metric, value, score.n, scheme, steps, severity)


def class_balanced(images: Images, count: int | None) -> Images:
    """Take the first images of every class in file order, `count` in all (None: all); the same for every network."""
    if count is None or count >= len(images):
        return images
    labels = images.labels_B
    rank = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        rank[members] = np.arange(len(members))
    chosen = np.sort(np.lexsort((labels, rank))[:count])
    return Images(images.pixels_BCHW[chosen], labels[chosen], images.indices_B[chosen])
