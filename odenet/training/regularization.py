"""What keeps weights small, smooth in depth, or networks from leaning on single blocks; open to every family."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from odenet.depth.bases import BASES, mix_nodes
from odenet.networks.blocks import Perturbation
from odenet.networks.model import DepthNet
from odenet.seeding import derive


@dataclass(kw_only=True, slots=True)
class RegularizationConfig:
    """Beside weight decay, which is the optimizer's. 0 switches a term off."""

    smoothness: float = 0.0  # strength of the weights' smoothness in depth
    stochastic_depth: float = 0.0  # probability to leave out the last block; that of others grows linearly with depth
    noise: float = 0.0  # diffusion of the state: noise * sqrt(step) * N(0, 1) a step

    def __post_init__(self) -> None:
        for name in ("smoothness", "noise"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"regularization.{name}={getattr(self, name)}: must be at least 0 and finite.")
        if not 0 <= self.stochastic_depth < 1:
            raise ValueError(
                f"regularization.stochastic_depth={self.stochastic_depth}: the probability to leave out the last "
                "block, at least 0 and less than 1."
            )

    def perturbation(self, seed: int, epoch: int, iteration: int) -> Perturbation | None:
        """The random part of one iteration; None where there is none."""
        if not self.stochastic_depth and not self.noise:
            return None
        return Perturbation(self.stochastic_depth, self.noise, derive(seed, "perturb", epoch, iteration))


def roughness(model: DepthNet) -> Tensor:
    """sum over stages of the integral of ||dK/dt||^2 + ||db/dt||^2 over kernels K and biases b of the rate.

    "Weight decay in time" of Chang et al. 2018 (arXiv 1709.03698), with the node spacing, so that a refinement leaves
    the value as it is; weights that jump count their squared jumps over the initial spacing. Never across stages.
    """
    total = torch.zeros((), device=next(model.parameters()).device)
    for stage in model.depth_stages():
        depth = stage.depth
        matrix_MN = BASES[depth.basis].roughness_MN(depth.nodes, depth.initial_nodes)
        for module in stage.rate.modules():
            own = dict(module.named_parameters(recurse=False))
            if "kernel" in own:  # a convolution: batch norms have biases, too
                total = total + sum(mix_nodes(matrix_MN, parameter).square().sum() for parameter in own.values())
    return total
