"""Measure a final network on test images under a condition, on a worker.

Shapes: `B` images.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean, stdev

import numpy as np

from odenet.arithmetic import products
from odenet.data.batches import Batches, Statistics
from odenet.data.images import Images
from odenet.diagnostics.diagnose import diagnose
from odenet.diagnostics.reestimate import reestimate
from odenet.enums import Precision, Scheme
from odenet.inference.classifier import Classifier
from odenet.networks.compression import Compressed, compressed
from odenet.robustness.attack_results import AttackReport
from odenet.robustness.attacked import attack
from odenet.robustness.cells import Cells
from odenet.robustness.config import LEVELS, Attack, Norm
from odenet.robustness.corrupted import corrupted
from odenet.training.config import RuntimeConfig
from odenet.training.cost import forward_gflops
from odenet.training.evaluation import Manifested, Score, evaluate, manifested, measured, predict
from odenet.training.footprint import LATENCY_IMAGES, latencies_ms
from sweep.config.evaluate_config import ConditionKind, EvaluateConfig
from sweep.records.rows import ATTACK, CLEAN, COMPRESSION, DIAGNOSTICS, DUPLICATE_FREE, MANIFESTATION, REESTIMATED

LATENCY_PASSES = 10


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
    """The test images, which of them repeat no other image (None where no list says so), those to attack, and the
    training images, on which batch-norm statistics are estimated anew."""

    __test__ = False

    images: Images
    duplicate_free_B: np.ndarray | None = None
    attacked: Images | None = None
    training: Images | None = None


@dataclass(frozen=True, slots=True)
class Condition:
    """A unit of measurement: a condition, and the severities of it that are not known yet."""

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

    def part(self) -> Batches:
        """Return the class-balanced part of the test set that manifestations are measured on."""
        return self.batches(class_balanced(self.test.images, self.config.manifestation_images))

    def training_images(self) -> Images:
        assert self.test.training is not None, "the stage loads them where a condition needs them"
        return self.test.training

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
    with products(Precision.fp32):
        return MEASURES[condition.kind](replace(bench, model=model), condition)


def _clean(bench: Bench, _: Condition) -> Measurement:
    """Measure the whole test set, and what of it repeats no other image where that is known."""
    images, chosen_B = bench.test.images, bench.test.duplicate_free_B
    score, classes_B = predict(bench.model, bench.batches(images), batch_size=bench.config.batch_size)
    values = bench.score(CLEAN, score)
    if chosen_B is not None:
        right_B = (classes_B == images.labels_B)[chosen_B]
        values.append(bench.value(DUPLICATE_FREE, "accuracy", float(right_B.mean()), len(right_B)))
    return Measurement(values, classes_B)


def _manifestation(bench: Bench, _: Condition) -> Measurement:
    """Measure a part of the test set under every manifestation that makes sense of the network's rate."""
    return Measurement(list(_manifested(MANIFESTATION, _found(bench, lambda other: other))))


def _reestimated(bench: Bench, _: Condition) -> Measurement:
    """Measure the same with batch-norm statistics that are estimated anew under each manifestation."""
    training = bench.training_images()
    found = _found(bench, lambda other: reestimate(other, training))
    return Measurement(list(_manifested(REESTIMATED, found)))


def _found(bench: Bench, prepared: Callable[[Classifier], Classifier]) -> list[Manifested]:
    """Measure every manifestation, each prepared so; operations are not in rows.csv, and not counted."""
    config, part, found = bench.config, bench.part(), list[Manifested]()
    for other, trained in manifested(bench.model, config.schemes, config.step_factors):
        assert isinstance(other, Classifier)
        ready = prepared(other)
        found.append(measured(ready, part, trained=trained, batch_size=config.batch_size, counted=False))
    return found


def _manifested(condition: str, found: Sequence[Manifested]) -> Iterator[Measured]:
    as_trained_B = next(one.hits_N for one in found if one.trained)
    for one in found:
        lost = float((as_trained_B & ~one.hits_N).mean())
        for metric, value in (*_both(one.score), ("lost", lost)):
            yield Measured(condition, metric, value, one.score.n, one.scheme, one.steps)


def _diagnostics(bench: Bench, _: Condition) -> Measurement:
    """Ask what the network is, on the part of the test set that manifestations are measured on."""
    images = class_balanced(bench.test.images, bench.config.manifestation_images)
    found = diagnose(bench.model, images, training_images=bench.training_images())
    return Measurement([bench.value(DIAGNOSTICS, name, value, len(images)) for name, value in found.values().items()])


def _compression(bench: Bench, _: Condition) -> Measurement:
    """Measure the network as it is, and smaller in every way and size, on the same part of the test set."""
    part, values = bench.part(), list[Measured]()
    for one in compressed(bench.model.network):
        smaller = Classifier(one.network, bench.model.images)
        score, course = evaluate(smaller, part, batch_size=bench.config.batch_size), one.network.depths()[-1].course
        for metric, value, n in (*((name, value, score.n) for name, value in _both(score)), *_sizes(one, part.shape)):
            name = f"{COMPRESSION}/{one.how.value}"
            values.append(Measured(name, metric, value, n, course.scheme, course.steps, float(one.factor)))
    return Measurement(values)


def _sizes(one: Compressed, shape: tuple[int, int, int]) -> Iterator[tuple[str, float, int]]:
    """Yield what a compressed network takes, each with what it is a mean of."""
    network, passes_ms = one.network, latencies_ms(one.network, shape, LATENCY_PASSES)
    tensors = (*network.parameters(), *network.buffers())
    yield "parameters", float(network.parameter_count), 1
    yield "nodes", float(network.depths()[-1].nodes), 1
    yield "rate_evaluations", float(network.rate_evaluations), 1
    yield "gflops", forward_gflops(network, shape), 1
    yield "kilobytes", sum(tensor.nbytes for tensor in tensors) / 1000, 1
    yield "latency_batch", float(LATENCY_IMAGES), 1
    yield "latency_ms", fmean(passes_ms) / LATENCY_IMAGES, LATENCY_PASSES
    yield "latency_sd", stdev(passes_ms) / LATENCY_IMAGES, LATENCY_PASSES


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
    ConditionKind.manifestation_reestimated: _reestimated,
    ConditionKind.corruption: _corruption,
    ConditionKind.attack: _attack,
    ConditionKind.diagnostics: _diagnostics,
    ConditionKind.compression: _compression,
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
