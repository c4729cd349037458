"""The depth schedule of networks that grow while they are trained.

It is initial nodes per stage, refinements (each doubles the cells) and their times as fractions of the epochs.
Published schedules refine first after 0.11 to 0.27 of the epochs and then every 0.07 to 0.19 (Queiruga et al. 2020 and
2021, arXiv 2008.02389 and 2106.10820, with their code). The ranges contain these, and the latest second refinement,
after 0.6, leaves 0.4 of the epochs to the final depth.
"""

from collections.abc import Mapping

from search_spaces.common import SMOOTHNESS, family
from search_spaces.parameters import Float, Int, Parameter, When
from search_spaces.space import Space

REFINEMENT: dict[str, Parameter] = {
    "refinement.count": Int(0, 2),
    # Refining earlier trains the deeper network for longer.
    "refinement.first": Float(0.1, 0.4, dearer="low"),
    "refinement.interval": Float(0.05, 0.2, dearer="low"),
}

TIMING = {
    "refinement.first": When("refinement.count", (1, 2)),
    "refinement.interval": When("refinement.count", (2,)),
}


def refined(network: str, own: Mapping[str, Parameter]) -> Space:
    """Build the space of a network that may be refined."""
    return family(network, {**SMOOTHNESS, **own, **REFINEMENT}, TIMING)
