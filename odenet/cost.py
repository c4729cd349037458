"""What a network costs: floating-point operations as executed."""

import torch
from torch import Tensor, nn

from odenet.blocks import DepthStage
from odenet.models import DepthNet


def train_gflops(model: DepthNet, shape: tuple[int, int, int]) -> float:
    """GFLOP of one training step (forward and backward) for one image of `shape` (C, H, W).

    Convolutions and linear layers count, two operations for a multiply-add; the backward pass takes each product twice,
    but once for the first layer, whose input needs no gradient. A test holds it against torch's FlopCounterMode, which
    takes seconds to load in every process.
    """
    counts: list[int] = []

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        counts.append(_multiply_adds(module, inputs[0], output))

    counted = [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear | DepthStage)]
    handles = [module.register_forward_hook(count) for module in counted]
    modes = [(module, module.training) for module in model.modules()]
    try:
        with torch.no_grad():
            model.eval()(torch.zeros(1, *shape, device=next(model.parameters()).device))
    finally:
        for handle in handles:
            handle.remove()
        for module, training in modes:
            module.training = training
    return 2 * (3 * sum(counts) - counts[0]) / 1e9


def _multiply_adds(module: nn.Module, x: Tensor, y: Tensor) -> int:
    if isinstance(module, DepthStage):
        return module.depth.evaluations * module.rate.multiply_adds(pixels=x.shape[2] * x.shape[3])
    if isinstance(module, nn.Conv2d):
        return y.numel() * module.weight[0].numel()
    assert isinstance(module, nn.Linear)
    return y.numel() * module.in_features
