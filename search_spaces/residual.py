"""Spaces of networks of discrete blocks, the baselines. They ask how good one is if tuned as carefully as its rivals.

Integrator, basis and step are part of each of these networks, so depth is searched (and how wide a wide ResNet is). It
is over the same final nodes per stage, 1 to 8, that the continuous networks reach by initial nodes and refinements:
otherwise a difference could be one of depth. Smoothness is without effect where there is a single node.
"""

from search_spaces.common import SMOOTHNESS, family
from search_spaces.parameters import Choice, Parameter, fixed
from search_spaces.space import Space

BLOCKS: dict[str, Parameter] = {"model.nodes": Choice((1, 2, 4, 8))}

# To the 4 of WRN-40-4 (arXiv 1605.07146) and of arXiv 2008.02389; 1 is the plain network. Cost grows by the square.
WIDENED: dict[str, Parameter] = {"model.widen": Choice((1, 2, 4))}

# Outer channels are four times those of the 3x3 convolution, as in ResNet-164 (arXiv 1603.05027).
BOTTLENECK: dict[str, Parameter] = {"model.widen": fixed(4)}

# The proportions of ResNeXt-29, 8x64d (arXiv 1611.05431): eight groups, together twice as wide as the outer channels.
GROUPED: dict[str, Parameter] = {**BOTTLENECK, "model.cardinality": fixed(8)}


def residual(network: str, own: dict[str, Parameter] | None = None) -> Space:
    """Build the space of a network of blocks."""
    return family(network, {**SMOOTHNESS, **BLOCKS, **(own or {})})


RESNET = residual("resnet")

# torchvision's ResNets: how deep and wide they are is their name.
IMAGENET = (
    family("resnet18", {**SMOOTHNESS, "model.width": fixed(64)}),
    family("resnet50", {**SMOOTHNESS, "model.width": fixed(64), **BOTTLENECK}),
    family("resnet101", {**SMOOTHNESS, "model.width": fixed(64), **BOTTLENECK}),
)

RESIDUAL = (
    residual("preact_resnet"),
    residual("wide_resnet", WIDENED),
    residual("bottleneck_resnet", BOTTLENECK),
    residual("resnext", GROUPED),
    residual("revnet"),
    residual("polynet"),
    residual("fractalnet"),
    residual("lm_resnet"),
    residual("lm_bottleneck", BOTTLENECK),
    residual("lm_resnext", GROUPED),
    *IMAGENET,
)
