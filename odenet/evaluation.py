"""Measuring a network on images, leaving it as it was."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from odenet.data import Batches


@dataclass(frozen=True, slots=True)
class Score:
    """Accuracy in [0, 1] and mean cross-entropy over `n` images."""

    accuracy: float
    loss: float
    n: int


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradients inside the block; every module's mode is restored after it."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training


def evaluate(model: nn.Module, batches: Batches, *, batch_size: int = 512) -> Score:
    """Scores all images in order, without augmentation, whatever mode the model is in."""
    hits, loss, n = 0, 0.0, 0
    with evaluating(model):
        for x_BCHW, labels_B in batches.ordered(batch_size):
            logits_BK = model(x_BCHW).float()
            hits += int((logits_BK.argmax(1) == labels_B).sum())
            loss += float(F.cross_entropy(logits_BK, labels_B, reduction="sum"))
            n += len(labels_B)
    return Score(hits / n, loss / n, n)
