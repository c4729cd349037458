"""How good is a ResNet, tuned as carefully as its rival? The baseline of every comparison.

Depth is searched over the same final nodes per stage, 1 to 8, that `continuous` reaches by initial nodes and
refinements: otherwise a difference could be one of depth. Everything else is common to all families.
"""

from search_spaces.common import COMMON
from search_spaces.parameters import Choice, fixed
from search_spaces.space import Space

RESNET = Space(
    {
        "model.network": fixed("resnet"),
        **COMMON,
        "model.nodes": Choice((1, 2, 4, 8)),
    }
)
