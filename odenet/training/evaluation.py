"""Measuring a network on images, leaving it as it was."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from odenet.data.batches import Batches
from odenet.enums import Scheme
from odenet.networks.model import DepthNet, manifest
from odenet.networks.table import NETWORKS
from odenet.training.cost import forward_gflops


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
    gflops: float  # of one image's forward pass
    rate_evaluations: int  # of that pass


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluate inside the block, without gradients; every module's mode is restored after it."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training


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
        for x_BCHW, labels_B in batches.ordered(batch_size):
            try:
                logits_BK = model(x_BCHW).float()
            except FloatingPointError:
                return Score(0.0, math.inf, len(batches))
            hits.append((logits_BK.argmax(1) == labels_B).sum())
            losses.append(F.cross_entropy(logits_BK, labels_B, reduction="sum"))
            n += len(labels_B)
    return Score(sum(torch.stack(hits).tolist()) / n, sum(torch.stack(losses).tolist()) / n, n)  # read once


def manifestations(
    model: DepthNet, batches: Batches, schemes: Sequence[Scheme], step_factors: Sequence[float], batch_size: int = 512
) -> list[Manifested]:
    """Score the same weights under every scheme that makes sense of them and every number of steps.

    Args:
        schemes: those under which the network's rate has no meaning are left out; the trained one always is in.
        step_factors: of the last stage's steps in training, which always are in; an adaptive scheme chooses its own.
    """
    trained, possible = model.depths()[-1].course, NETWORKS[model.config.network].capability.manifestations
    fixed_steps = sorted({max(1, round(factor * trained.steps)) for factor in (1.0, *step_factors)})
    pairs = [
        (scheme, steps)
        for scheme in dict.fromkeys([trained.scheme, *(scheme for scheme in schemes if scheme in possible)])
        for steps in (fixed_steps if scheme is not Scheme.dopri5 else [trained.steps])
    ]
    results = []
    for scheme, steps in pairs:
        is_trained = (scheme, steps) == (trained.scheme, trained.steps)
        # Stages of other nodes than the last have other steps, too; under a manifestation all have the same.
        other = model if is_trained else manifest(model, scheme=scheme, steps=steps)
        score, gflops = evaluate(other, batches, batch_size=batch_size), forward_gflops(other, batches.shape)
        results.append(Manifested(scheme, steps, is_trained, score, gflops, other.rate_evaluations))
    return results
