"""Which integrator, depth schedule and refinement timing serve a network that is continuous in depth?

The schedule is initial nodes per stage, number of refinements (each doubles the nodes, so that 1 to 8 are reached, as
in `resnet`), and their times as fractions of the epochs. Published schedules refine first after 0.11 to 0.27 of the
epochs and then every 0.07 to 0.19 (Queiruga et al. 2020 and 2021, arXiv 2008.02389 and 2106.10820, with their code).
The ranges contain these, and the latest second refinement, after 0.6, leaves 0.4 of the epochs to the final depth.
"""

from search_spaces.common import COMMON
from search_spaces.parameters import Choice, Float, Int, When, fixed
from search_spaces.space import Space

CONTINUOUS = Space(
    {
        "model.network": fixed("continuous"),
        **COMMON,
        # Orders 1, 2, 2 and 4 at 1, 2, 2 and 4 rate evaluations a step; Ralston and RK4 3/8 would repeat an order.
        "model.scheme": Choice(("euler", "midpoint", "heun", "rk4")),
        "model.nodes": Choice((1, 2)),
        # Trained with too coarse a solver a network is not an ODE (Ott et al., ICLR 2021): two steps a node as well.
        "model.substeps": Choice((1, 2)),
        "refinement.count": Int(0, 2),
        # Refining earlier trains the deeper network for longer.
        "refinement.first": Float(0.1, 0.4, dearer="low"),
        "refinement.interval": Float(0.05, 0.2, dearer="low"),
    },
    conditions={
        "refinement.first": When("refinement.count", (1, 2)),
        "refinement.interval": When("refinement.count", (2,)),
    },
)
