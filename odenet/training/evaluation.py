"""Measuring a network on images, leaving it as it was."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from odenet.arithmetic import products
from odenet.data.batches import Batches
from odenet.enums import Precision, Scheme
from odenet.inference.classifier import Classifier, evaluating
from odenet.integrators.schemes import ADAPTIVE
from odenet.networks.model import DepthNet, manifest
from odenet.networks.table import NETWORKS
from odenet.training.cost import forward_gflops

Net = DepthNet | Classifier


@dataclass(frozen=True, slots=True)
class Score:
    """Accuracy in [0, 1] and mean cross-entropy over `n` images."""

    accuracy: float
    loss: float
    n: int


@dataclass(frozen=True, slots=True)
class Manifested:
    """One network's score under a manifestation."""

    scheme: Scheme
    steps: int
    trained: bool  # the one it was trained with
    score: Score
    gflops: float | None  # of one image's forward pass; None: not counted
    rate_evaluations: int  # of that pass
    hits_N: np.ndarray = field(compare=False, repr=False)  # which images are right, in the order of the batches


def evaluate(model: nn.Module, batches: Batches, *, batch_size: int = 512) -> Score:
    """Score all images in order, without augmentation, whatever mode the model is in. What autocast
    leaves in fp32 is computed so, also on a GPU.

    Where an adaptive scheme cannot follow the network, no image is right and the loss is infinite.

    >>> from odenet import DataConfig, ModelConfig, build_model, load_data
    >>> from odenet.data.batches import Statistics
    >>> data = load_data(DataConfig())  # 20 images of each digit, 8 of them to validate
    >>> batches = Batches(data.val, statistics=Statistics.of(data.train))
    >>> score = evaluate(build_model(ModelConfig(), channels=1, classes=10), batches)
    >>> score.n, 0 <= score.accuracy <= 1
    (80, True)
    """
    return predict(model, batches, batch_size=batch_size)[0]


def predict(model: nn.Module, batches: Batches, *, batch_size: int = 512) -> tuple[Score, np.ndarray]:
    """Score all images as `evaluate` does, and return the class (N,) that each is given, int64.

    Where an adaptive scheme cannot follow the network every class is -1, which is none.
    """
    found, losses = list[Tensor](), list[Tensor]()
    with evaluating(model), products(Precision.fp32):
        for x_BCHW, labels_B in batches.ordered(batch_size):
            try:
                logits_BK = model(x_BCHW).float()
            except FloatingPointError:
                return Score(0.0, math.inf, len(batches)), np.full(len(batches), -1)
            found.append(logits_BK.argmax(1))
            losses.append(F.cross_entropy(logits_BK, labels_B, reduction="sum"))
    classes_N, n = torch.cat(found), len(batches)  # read from the device once
    accuracy = int((classes_N == batches.labels_N).sum()) / n
    return Score(accuracy, sum(torch.stack(losses).tolist()) / n, n), classes_N.cpu().numpy()


def manifestations(
    model: Net,
    batches: Batches,
    schemes: Sequence[Scheme],
    step_factors: Sequence[float],
    batch_size: int = 512,
) -> list[Manifested]:
    """Score the same weights under every scheme that makes sense of them and every number of steps.

    Args:
        model: a network, or a classifier, whose batches are not normalised: `Statistics.identity`.
        schemes: those under which the network's rate has no meaning are left out; the trained one always is in.
        step_factors: of each stage's steps in training, which always are in; an adaptive scheme chooses its own.
    """
    return [
        measured(other, batches, trained=trained, batch_size=batch_size)
        for other, trained in manifested(model, schemes, step_factors)
    ]


def measured(model: Net, batches: Batches, *, trained: bool, batch_size: int = 512, counted: bool = True) -> Manifested:
    """Score a network as it is manifested. `counted`: count its operations, too, which takes a slow forward pass."""
    network = model.network if isinstance(model, Classifier) else model
    course, gflops = network.depths()[-1].course, forward_gflops(network, batches.shape) if counted else None
    score, classes_N = predict(model, batches, batch_size=batch_size)
    hits_N = classes_N == batches.labels_N.cpu().numpy()
    return Manifested(course.scheme, course.steps, trained, score, gflops, network.rate_evaluations, hits_N)


def manifested(model: Net, schemes: Sequence[Scheme], step_factors: Sequence[float]) -> Iterator[tuple[Net, bool]]:
    """Yield the manifestations that `manifestations` measures, each with whether it is the trained one."""
    network = model.network if isinstance(model, Classifier) else model
    possible = NETWORKS[network.config.network].capability.manifestations
    courses = [depth.course for depth in network.depths()]
    last = courses[-1]
    # Stages of other nodes than the last have other steps, too: each takes a factor of its own.
    factor_of = {max(1, round(factor * last.steps)): factor for factor in (*step_factors, 1.0)}
    for scheme in dict.fromkeys([last.scheme, *(one for one in schemes if one in possible)]):
        for steps in sorted(factor_of) if scheme not in ADAPTIVE else [last.steps]:
            trained = (scheme, steps) == (last.scheme, last.steps)
            each = [max(1, round(factor_of[steps] * course.steps)) for course in courses]
            yield model if trained else _under(model, scheme, each), trained


def _under(model: Net, scheme: Scheme, steps: Sequence[int]) -> Net:
    if isinstance(model, Classifier):
        return model.manifest(scheme=scheme, steps=steps)
    return manifest(model, scheme=scheme, steps=steps)
