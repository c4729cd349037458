"""What keeps weights small, smooth in depth, or networks from leaning on single blocks; open to every family."""

import torch
from torch import Tensor

from odenet.depth.bases import BASES, mix_nodes
from odenet.networks.model import DepthNet


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
