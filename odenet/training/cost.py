"""What a network costs: floating-point operations as executed."""

import torch
from torch import Tensor, nn

from odenet.enums import Gradient
from odenet.integrators.scheme import Course
from odenet.integrators.schemes import ADAPTIVE, SCHEMES
from odenet.networks.blocks import DepthStage
from odenet.networks.model import DepthNet
from odenet.seeding import generator


def forward_gflops(model: DepthNet, shape: tuple[int, int, int]) -> float:
    """Return the GFLOP of one forward pass for one image of `shape` (C, H, W), as the network now is."""
    counts, _ = _counted(model, shape)
    return 2 * sum(counts) / 1e9


def train_gflops(model: DepthNet, shape: tuple[int, int, int]) -> float:
    """Return the GFLOP of one training step (forward and backward) for one image of `shape` (C, H, W).

    Convolutions and linear layers count, two operations for a multiply-add; the backward pass takes each product twice,
    but once for the first layer, whose input needs no gradient. A gradient that recomputes adds a forward pass of the
    integrations, or two if its steps are walked back by steps of their own. Where the scheme is adaptive, the steps are
    those that an image of white noise takes; its adjoint is taken to need as many. A test holds it against torch's
    FlopCounterMode, which takes seconds to load.
    """
    counts, recomputed = _counted(model, shape)
    return 2 * (3 * sum(counts) - counts[0] + sum(recomputed)) / 1e9


def noise_image(model: DepthNet, shape: tuple[int, int, int]) -> Tensor:
    """Return the image (1, C, H, W) that costs are measured on."""
    return torch.randn(shape, generator=generator(0, "cost"))[None].to(next(model.parameters()))


def _counted(model: DepthNet, shape: tuple[int, int, int]) -> tuple[list[int], list[int]]:
    """Return the multiply-adds of a forward pass, layer by layer, and those that a backward pass repeats, by stage."""
    counts: list[int] = []
    recomputed: list[int] = []

    def count(module: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        counts.append(_multiply_adds(module, output))
        if isinstance(module, DepthStage):
            recomputed.append(recomputations(module.depth.course) * counts[-1])

    counted = [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear | DepthStage)]
    handles = [module.register_forward_hook(count) for module in counted]
    modes = [(module, module.training) for module in model.modules()]
    try:
        with torch.no_grad():
            model.eval()(noise_image(model, shape))
    finally:
        for handle in handles:
            handle.remove()
        for module, training in modes:
            module.training = training
    return counts, recomputed


def _multiply_adds(module: nn.Module, y: Tensor) -> int:
    if isinstance(module, DepthStage):
        return module.evaluations * module.rate.multiply_adds(pixels=y.shape[2] * y.shape[3])
    if isinstance(module, nn.Conv2d):
        return y.numel() * module.weight[0].numel()
    assert isinstance(module, nn.Linear)
    return y.numel() * module.in_features


def recomputations(course: Course) -> int:
    """Return how often the backward pass evaluates an integration anew."""
    if course.gradient is Gradient.direct:
        return 0
    method = SCHEMES[course.scheme]
    # The adjoint equation of an adaptive scheme evaluates the rate once wherever it takes a product.
    once = course.gradient is Gradient.checkpointed or method.reversible or course.scheme in ADAPTIVE
    return 1 if once else 2
