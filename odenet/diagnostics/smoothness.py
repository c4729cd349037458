"""How smooth a network's weights are in depth: what its convergence and its memory-free gradients rest on.

Shapes: `K` equidistant depths, `P` weights.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from odenet.depth.bases import BASES, mix_nodes
from odenet.depth.discretisation import Depth
from odenet.enums import Basis
from odenet.integrators.scheme import Stage
from odenet.networks.blocks import DepthStage
from odenet.networks.model import DepthNet


@dataclass(frozen=True, slots=True)
class Smoothness:
    """S1 = sum_k |theta_{k+1} - theta_k| / sum_k |theta_k|, S2 with second differences; both summed over stages.

    theta_k are the kernels and biases of a stage's convolutions at as many equidistant depths as there are nodes, and
    |.| is the Frobenius norm. Stages of one node (two for S2) have no differences and are left out; None: no stage has.
    `spectra` are, by stage, the shares of |theta|^2 in the modes of a discrete cosine transform along depth, the
    constant one first.
    """

    first: float | None
    second: float | None
    spectra: tuple[np.ndarray, ...]


def smoothness(network: DepthNet) -> Smoothness:
    """Measure the smoothness of a network's weights; its images have no part in it.

    >>> from odenet import Initialisation, ModelConfig, build_model
    >>> model = build_model(ModelConfig(nodes=4, initialisation=Initialisation.smooth), channels=3, classes=10)
    >>> smoothness(model).first  # the same weights at every node
    0.0
    """
    thetas = [_theta_KP(stage) for stage in network.depth_stages()]
    return Smoothness(_ratio(thetas, 1), _ratio(thetas, 2), tuple(map(_spectrum, thetas)))


@torch.no_grad()
def _theta_KP(stage: DepthStage) -> np.ndarray:
    parts: list[Tensor] = []
    matrix_KN = BASES[stage.depth.basis].values_SN(stage.depth.nodes, _places(stage.depth))
    for module in stage.rate.modules():
        own = dict(module.named_parameters(recurse=False))
        if "kernel" in own:  # a convolution: batch norms have biases, too
            parts += [mix_nodes(matrix_KN, parameter.double().cpu()).flatten(1) for parameter in own.values()]
    return torch.cat(parts, dim=1).numpy()


def _places(depth: Depth) -> list[Stage]:
    """Return equidistant depths: the nodes of hats, else the midpoints of equal parts."""
    if depth.basis is Basis.hat:
        return BASES[depth.basis].positions(depth.nodes)
    return [Stage(part, depth.nodes, Fraction(1, 2)) for part in range(depth.nodes)]


def _ratio(thetas: Sequence[np.ndarray], difference: int) -> float | None:
    deep = [theta_KP for theta_KP in thetas if len(theta_KP) > difference]
    size = sum(_norms(theta_KP) for theta_KP in deep)
    return sum(_norms(np.diff(theta_KP, difference, axis=0)) for theta_KP in deep) / size if size else None


def _norms(theta_KP: np.ndarray) -> float:
    return float(np.linalg.norm(theta_KP, axis=1).sum())


def _spectrum(theta_KP: np.ndarray) -> np.ndarray:
    from scipy.fft import dct  # type: ignore[import-untyped]

    power_K = np.square(dct(theta_KP, axis=0, norm="ortho")).sum(1)
    return power_K / (power_K.sum() or 1.0)
