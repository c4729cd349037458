"""Spaces of networks continuous in depth. They ask which integrator, depth schedule and refinement timing serve them.

One or two initial nodes and up to two refinements reach 1 to 8 nodes per stage, as the blocks of a ResNet. On hats, N
nodes have N - 1 cells and a refinement doubles the cells: 1 to 4 of them, so that the stateful network is never larger
than its rivals.
"""

from search_spaces.common import family
from search_spaces.parameters import Choice, Float, Parameter, fixed
from search_spaces.refined import refined

INITIAL_NODES: dict[str, Parameter] = {"model.nodes": Choice((1, 2))}

# Orders 1, 2, 2 and 4 at 1, 2, 2 and 4 rate evaluations a step; Ralston and RK4 3/8 would repeat an order.
INTEGRATORS: dict[str, Parameter] = {"model.scheme": Choice(("euler", "midpoint", "heun", "rk4"))}

INTEGRATED: dict[str, Parameter] = {
    **INTEGRATORS,
    **INITIAL_NODES,
    # Trained with too coarse a solver a network is not an ODE (Ott et al., ICLR 2021): two steps a node as well.
    "model.substeps": Choice((1, 2)),
}

STATEFUL: dict[str, Parameter] = {
    # Weights and batch-norm state that jump in depth, or are continuous (arXiv 2106.10820).
    "model.basis": Choice(("piecewise_constant", "hat")),
    **INTEGRATORS,
    **INITIAL_NODES,
    # One step of Euler a cell never reads the last hat, one of midpoint reads two hats by their mean alone.
    "model.substeps": fixed(2),
}

NEURAL_ODE: dict[str, Parameter] = {
    "model.nodes": fixed(1),  # the same weights at every depth: nothing to be smooth over, nothing to refine
    "model.scheme": fixed("dopri5"),
    # A decade on either side of the 1e-3 in torchdiffeq's MNIST example; tighter takes more steps.
    "model.tolerance": Float(1e-4, 1e-2, log=True, dearer="low"),
}

CONTINUOUS = refined("continuous", INTEGRATED)

CONTINUOUS_IN_DEPTH = (
    refined("continuous_preact", INTEGRATED),
    refined("stateful", STATEFUL),
    family("neural_ode", NEURAL_ODE),
)
