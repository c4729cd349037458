"""What a network costs: floating-point operations as executed, counted by torch itself."""

import copy

import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from odenet.models import DepthNet


def train_gflops(model: DepthNet, shape: tuple[int, int, int]) -> float:
    """GFLOP of one training step (forward and backward) for one image of `shape` (C, H, W).

    Counted on tensors without storage, so that it costs no arithmetic and leaves the model as it was. Convolutions and
    matrix products count, two operations for a multiply-add.
    """
    shadow = copy.deepcopy(model).to("meta").train()
    images = 2  # batch norm wants more than one value per channel; the count is linear in the images
    with FlopCounterMode(display=False) as counter:
        logits = shadow(torch.empty(images, *shape, device="meta"))
        F.cross_entropy(logits, torch.zeros(images, dtype=torch.long, device="meta")).backward()
    return counter.get_total_flops() / images / 1e9
