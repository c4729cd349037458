"""Spaces of reversible networks. They ask whether built-in stability pays: Chang et al. 2018, arXiv 1709.03698.

Without batch norm the spectrum of their first-order rates is imaginary, so an integrator has to be stable there: the
published ones are for small steps, and so is RK4 (to 2.83); Euler, midpoint and Heun are for no step at all. Leapfrog's
equation is of second order and has its own scheme only. Two-step midpoint is stable on imaginary spectra only: on a
rate that damps, which batch norm allows, its solution comes to oscillate from step to step; RK4 beside it shows that.

Depth starts from the configuration's nodes (two, unless model.nodes is set) and doubles with each refinement: the last
Hamiltonian stage has one node fewer, and the first step of a two-step scheme is not yet its own.
"""

from search_spaces.parameters import Choice, Float, Parameter, fixed
from search_spaces.refined import refined

HORIZON: dict[str, Parameter] = {
    # T = h x nodes: from the smallest published h, 0.06, over 2 nodes to the largest, 1, over 8.
    "model.depth_time": Float(0.12, 8.0, log=True),
}

REVERSIBLE = (
    refined("hamiltonian", {"model.scheme": Choice(("verlet", "rk4")), **HORIZON}),
    refined("midpoint", {"model.scheme": Choice(("two_step_midpoint", "rk4")), **HORIZON}),
    refined("leapfrog", {"model.scheme": fixed("leapfrog"), **HORIZON}),
)
