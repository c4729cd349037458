"""Two parameters of a continuous network, for tests and first tries: it shows whether the machinery works.

The learning rate is that of every family, Euler and midpoint are the cheapest integrators of two different orders.
"""

from search_spaces.common import COMMON
from search_spaces.parameters import Choice, fixed
from search_spaces.space import Space

SMOKE = Space(
    {
        "model.network": fixed("continuous"),
        "optim.lr": COMMON["optim.lr"],
        "model.scheme": Choice(("euler", "midpoint")),
    }
)
