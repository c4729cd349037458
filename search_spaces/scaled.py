"""Spaces of scaled residual networks. They ask if smooth initial weights make a ResNet an ODE (arXiv 2205.14612).

What the theory asks for is in the initialisation: training keeps weights smooth in depth that start so, zero included,
and does not make those smooth that start independent. Gradients are exact here: the memory-free adjoint of that paper
errs by O(1/N) (ResNet) or O(1/N^2) (HeunNet) and belongs to networks much deeper than 1 to 8 blocks.
"""

from search_spaces.common import SMOOTHNESS, family
from search_spaces.parameters import Choice, Parameter, fixed
from search_spaces.residual import BLOCKS

START: dict[str, Parameter] = {
    "model.initialisation": Choice(("independent", "smooth", "zero")),
    "model.gradient": fixed("direct"),
}

HEUN: dict[str, Parameter] = {
    "model.basis": fixed("hat"),
    "model.scheme": fixed("heun"),
    "model.nodes": Choice((2, 3, 5, 9)),  # 1, 2, 4 and 8 steps, as the blocks of a ResNet
}

SCALED = (
    family("scaled_resnet", {**SMOOTHNESS, "model.scheme": fixed("euler"), **BLOCKS, **START}),
    family("heunnet", {**SMOOTHNESS, **HEUN, **START}),
)
