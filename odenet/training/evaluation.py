"""Measuring a network on images, leaving it as it was."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from odenet.data.batches import Batches
from odenet.enums import Scheme
from odenet.inference.classifier import Classifier, evaluating
from odenet.integrators.schemes import ADAPTIVE
from odenet.networks.model import DepthNet, manifest
from odenet.networks.table import NETWORKS
from odenet.training.cost import forward_gflops


@dataclass(frozen=True, slots=True)
class Score:
    """Accuracy in [0, 1] and mean cross-entropy over `n` images."""

    accuracy: float
    loss: float
    n: int


@dataclass(frozen=True, slots=True, eq=False)
class Outcomes:
    """What a network makes of each of B images, in their order."""

    classes_B: np.ndarray  # the class given; -1 where an adaptive scheme cannot follow the network
    labels_B: np.ndarray  # the true class
    losses_B: np.ndarray  # cross-entropy

    def score(self) -> Score:
        """Return the score over all images."""
        n = len(self.labels_B)
        return Score(float((self.classes_B == self.labels_B).sum()) / n, float(self.losses_B.sum()) / n, n)


@dataclass(frozen=True, slots=True)
class Manifested:
    """One network's score under a manifestation."""

    scheme: Scheme
    steps: int
    trained: bool  # the one it was trained with
    score: Score
    gflops: float  # of one image's forward pass
    rate_evaluations: int  # of that pass


def evaluate(model: nn.Module, batches: Batches, *, batch_size: int = 512) -> Score:
    """Score all images in order, without augmentation, whatever mode the model is in.

    Where an adaptive scheme cannot follow the network, no image is right and the loss is infinite.

    >>> from odenet import DataConfig, ModelConfig, build_model, load_data
    >>> from odenet.data.batches import Statistics
    >>> data = load_data(DataConfig())  # 20 images of each digit, 8 of them to validate
    >>> batches = Batches(data.val, statistics=Statistics.of(data.train))
    >>> score = evaluate(build_model(ModelConfig(), channels=1, classes=10), batches)
    >>> score.n, 0 <= score.accuracy <= 1
    (80, True)
    """
    hits, losses, n = list[Tensor](), list[Tensor](), 0
    with evaluating(model):
        for logits_BK, labels_B in _logits(model, batches, batch_size):
            if logits_BK is None:
                return Score(0.0, math.inf, len(batches))
            hits.append((logits_BK.argmax(1) == labels_B).sum())
            losses.append(F.cross_entropy(logits_BK, labels_B, reduction="sum"))
            n += len(labels_B)
    return Score(sum(torch.stack(hits).tolist()) / n, sum(torch.stack(losses).tolist()) / n, n)  # read once


def outcomes(model: nn.Module, batches: Batches, batch_size: int = 512) -> Outcomes:
    """Classify all images as `evaluate` does, and keep what the model makes of each."""
    classes, losses = list[Tensor](), list[Tensor]()
    with evaluating(model):
        for logits_BK, labels_B in _logits(model, batches, batch_size):
            if logits_BK is None:
                classes.append(torch.full_like(labels_B, -1))
                losses.append(torch.full_like(labels_B, math.inf, dtype=torch.float32))
            else:
                classes.append(logits_BK.argmax(1))
                losses.append(F.cross_entropy(logits_BK, labels_B, reduction="none"))
    found = (torch.cat(classes), batches.labels_N, torch.cat(losses).double())
    return Outcomes(*(tensor_B.cpu().numpy() for tensor_B in found))


def _logits(model: nn.Module, batches: Batches, batch_size: int) -> Iterator[tuple[Tensor | None, Tensor]]:
    """Yield logits with labels; None for a batch in which an adaptive scheme cannot follow the network."""
    for x_BCHW, labels_B in batches.ordered(batch_size):
        try:
            logits_BK = model(x_BCHW).float()
        except FloatingPointError:
            logits_BK = None
        yield logits_BK, labels_B


def manifestations(
    model: DepthNet | Classifier,
    batches: Batches,
    schemes: Sequence[Scheme],
    step_factors: Sequence[float],
    batch_size: int = 512,
) -> list[Manifested]:
    """Score the same weights under every scheme that makes sense of them and every number of steps.

    Args:
        model: a network, or a classifier, whose batches are not normalised: `Statistics.identity`.
        schemes: those under which the network's rate has no meaning are left out; the trained one always is in.
        step_factors: of the last stage's steps in training, which always are in; an adaptive scheme chooses its own.
    """
    network = model.network if isinstance(model, Classifier) else model
    trained, possible = network.depths()[-1].course, NETWORKS[network.config.network].capability.manifestations
    fixed_steps = sorted({max(1, round(factor * trained.steps)) for factor in (1.0, *step_factors)})
    pairs = [
        (scheme, steps)
        for scheme in dict.fromkeys([trained.scheme, *(scheme for scheme in schemes if scheme in possible)])
        for steps in (fixed_steps if scheme not in ADAPTIVE else [trained.steps])
    ]
    results = []
    for scheme, steps in pairs:
        is_trained = (scheme, steps) == (trained.scheme, trained.steps)
        # Stages of other nodes than the last have other steps, too; under a manifestation all have the same.
        other = network if is_trained else manifest(network, scheme=scheme, steps=steps)
        measured = Classifier(other, model.images) if isinstance(model, Classifier) else other
        score, gflops = evaluate(measured, batches, batch_size=batch_size), forward_gflops(other, batches.shape)
        results.append(Manifested(scheme, steps, is_trained, score, gflops, other.rate_evaluations))
    return results
