"""The search spaces: what each family of networks is searched over, as values. Standard library only.

A family is a network, and its space has the network's name; `smoke` is no family.
"""

from search_spaces.continuous import CONTINUOUS, CONTINUOUS_IN_DEPTH
from search_spaces.parameters import Choice, Float, Int, Parameter, When, fixed
from search_spaces.residual import RESIDUAL, RESNET
from search_spaces.reversible import REVERSIBLE
from search_spaces.scaled import SCALED
from search_spaces.smoke import SMOKE
from search_spaces.space import Space

_FAMILIES = (RESNET, CONTINUOUS, *CONTINUOUS_IN_DEPTH, *REVERSIBLE, *SCALED, *RESIDUAL)

SPACES: dict[str, Space] = {**{str(space.fixed["model.network"]): space for space in _FAMILIES}, "smoke": SMOKE}

__all__ = ["SPACES", "Choice", "Float", "Int", "Parameter", "Space", "When", "fixed"]
