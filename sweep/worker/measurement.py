"""Measure a final network on test images under a condition, on a worker.

Shapes: `B` images.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from odenet.data.batches import Batches, Statistics
from odenet.data.images import Images
from odenet.enums import Scheme
from odenet.inference.classifier import Classifier
from odenet.robustness.attack_results import AttackReport
from odenet.robustness.attacked import attack
from odenet.robustness.cells import Cells
from odenet.robustness.config import LEVELS, Attack, Norm
from odenet.robustness.corrupted import corrupted
from odenet.training.config import RuntimeConfig
from odenet.training.evaluation import Outcomes, Score, evaluate, manifestations, outcomes
from sweep.config.evaluate_config import ConditionKind, EvaluateConfig
from sweep.records.rows import ATTACK, CLEAN, DUPLICATE_FREE, MANIFESTATION


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
    source: str = ""  # of corrupted images


@dataclass(frozen=True, slots=True, eq=False)
class Measurement:
    """All values of a network under a condition; of the clean test set also the class that it gives every image."""

    values: list[Measured]
    classes_B: np.ndarray | None = None


@dataclass(frozen=True, slots=True, eq=False)
class TestSet:
    """The test images, which of them repeat no other image (None where no list says so), and those to attack."""

    __test__ = False

    images: Images
    duplicate_free_B: np.ndarray | None = None
    attacked: Images | None = None


@dataclass(frozen=True, slots=True)
class Condition:
    """What is measured of a network at once: a condition, and the severities of it that are not known yet."""

    kind: ConditionKind
    name: str  # as rows.csv has it; what it tells apart further follows there after a slash
    severities: tuple[float, ...] = (0.0,)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Bench:
    """A network on its device, and what it is measured with.

    Attributes:
        others: name to a network whose attacks are tried on this one, too.
        attacked: the directory of what attacks have found so far; nothing is kept where it is None.
    """

    model: Classifier
    test: TestSet
    config: EvaluateConfig
    runtime: RuntimeConfig
    others: Mapping[str, Classifier] = field(default_factory=dict)
    attacked: Path | None = None

    def batches(self, images: Images) -> Batches:
        """Put images on the network's device, as they are: it normalises them."""
        statistics, device = Statistics.identity(self.model.images.channels), self.runtime.torch_device()
        return Batches(images, statistics=statistics, device=device)

    def value(self, condition: str, metric: str, value: float, n: int, severity: float = 0.0) -> Measured:
        """Return a value under the manifestation that the network was trained with."""
        course = self.model.network.depths()[-1].course
        return Measured(condition, metric, value, n, course.scheme, course.steps, severity)

    def score(self, condition: str, score: Score, severity: float = 0.0) -> list[Measured]:
        """Return accuracy and loss under that manifestation."""
        return [self.value(condition, metric, value, score.n, severity) for metric, value in _both(score)]


def measure(condition: Condition, bench: Bench) -> Measurement:
    """Measure a network under a condition.

    Raises:
        ValueError: files are missing or damaged, or the network cannot be attacked so.
    """
    model = bench.model.to(bench.runtime.torch_device())
    return MEASURES[condition.kind](replace(bench, model=model), condition)


def _clean(bench: Bench, _: Condition) -> Measurement:
    """Measure the whole test set, and what of it repeats no other image where that is known."""
    test, found = bench.test, outcomes(bench.model, bench.batches(bench.test.images), bench.config.batch_size)
    values = bench.score(CLEAN, found.score())
    if test.duplicate_free_B is not None:
        values += bench.score(DUPLICATE_FREE, _of(found, test.duplicate_free_B).score())
    return Measurement(values, found.classes_B)


def _of(found: Outcomes, chosen_B: np.ndarray) -> Outcomes:
    return Outcomes(found.classes_B[chosen_B], found.labels_B[chosen_B], found.losses_B[chosen_B])


def _manifestation(bench: Bench, _: Condition) -> Measurement:
    """Measure a part of the test set under every manifestation that makes sense of the network's rate."""
    config, part = bench.config, bench.batches(class_balanced(bench.test.images, bench.config.manifestation_images))
    found = manifestations(bench.model, part, config.schemes, config.step_factors, config.batch_size)
    return Measurement([
        Measured(MANIFESTATION, metric, value, one.score.n, one.scheme, one.steps)
        for one in found
        for metric, value in _both(one.score)
    ])  # fmt: skip


def _corruption(bench: Bench, condition: Condition) -> Measurement:
    """Measure a part of the test set as a corruption leaves it, at each severity."""
    config, values = bench.config, list[Measured]()
    images, kind = class_balanced(bench.test.images, config.corruption_images), condition.name.rpartition("/")[2]
    for severity in condition.severities:
        changed = corrupted(images, kind, int(severity), data_dir=bench.runtime.data_dir, cache_dir=config.cache_dir)
        score = evaluate(bench.model, bench.batches(changed.images), batch_size=config.batch_size)
        values += [replace(one, source=changed.source) for one in bench.score(condition.name, score, severity)]
    return Measurement(values)


def _attack(bench: Bench, _: Condition) -> Measurement:
    """Attack the network on the same images as all others."""
    assert bench.test.attacked is not None, "the stage picks the images that all networks are attacked on"
    cells = Cells(bench.attacked)
    report = attack(bench.model, bench.test.attacked, bench.config.attack, others=bench.others, cells=cells)
    return Measurement(list(_attacked(bench, report)))


def _attacked(bench: Bench, report: AttackReport) -> Iterator[Measured]:
    n = len(report.clean_B)
    yield bench.value(f"{ATTACK}/{CLEAN}", "accuracy", report.clean_accuracy, n)
    for row in report.results:
        epsilon = round(row.epsilon * LEVELS, 9) if row.norm is Norm.linf else row.epsilon
        name = f"{ATTACK}/{row.norm.value}/{row.attack}"
        yield bench.value(name, "accuracy", row.accuracy, n, epsilon)
        yield bench.value(name, "first_broken", row.first, n, epsilon)
    for norm in report.minimal_norms:
        name = f"{ATTACK}/{norm.value}/{Attack.fab_t.value}"
        yield bench.value(name, "median_minimal_norm", report.median_minimal_norm(norm), n)
    for check in report.checks:
        for metric in ("passed", "value", "limit"):
            yield bench.value(f"{ATTACK}/check/{check.name}", metric, float(getattr(check, metric)), n)
    for error in report.gradient_errors:
        yield bench.value(f"{ATTACK}/gradient_error", "relative_error", error.relative_error, n, float(error.steps))


MEASURES: dict[ConditionKind, Callable[[Bench, Condition], Measurement]] = {
    ConditionKind.clean: _clean,
    ConditionKind.manifestation: _manifestation,
    ConditionKind.corruption: _corruption,
    ConditionKind.attack: _attack,
}


def _both(score: Score) -> tuple[tuple[str, float], tuple[str, float]]:
    return ("accuracy", score.accuracy), ("loss", score.loss)


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
