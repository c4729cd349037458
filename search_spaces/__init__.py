"""The questions: what each family of networks is searched over, as values. Standard library only."""

from search_spaces.continuous import CONTINUOUS
from search_spaces.parameters import Choice, Float, Int, Parameter, When, fixed
from search_spaces.resnet import RESNET
from search_spaces.smoke import SMOKE
from search_spaces.space import Space

SPACES: dict[str, Space] = {"resnet": RESNET, "continuous": CONTINUOUS, "smoke": SMOKE}

__all__ = ["SPACES", "Choice", "Float", "Int", "Parameter", "Space", "When", "fixed"]
