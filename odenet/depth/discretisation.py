"""How the depth of one stage is cut: nodes of a basis for its weights, steps of a scheme for its integration."""

from dataclasses import dataclass, replace

from odenet.depth.bases import BASES
from odenet.enums import Basis, Scheme
from odenet.integrators.scheme import Course
from odenet.integrators.schemes import SCHEMES


@dataclass(frozen=True, slots=True)
class Depth:
    """The depth of one stage: dx/dt = depth_time * R(theta(t), x), t in [0, 1], along a course.

    (scheme, steps) of the course is the manifestation, no part of the weights; its depth_time never changes once a
    network is built. `initial_nodes` are those before any refinement.
    """

    basis: Basis
    nodes: int
    course: Course
    initial_nodes: int

    @property
    def evaluations(self) -> int:
        """Rate evaluations of one forward pass."""
        return self.course.steps * SCHEMES[self.course.scheme].evaluations

    def with_nodes(self, nodes: int, basis: Basis | None = None) -> "Depth":
        """On another grid, with as many steps to a cell as before (at least one)."""
        basis = basis or self.basis
        cells, new_cells = BASES[self.basis].cells(self.nodes), BASES[basis].cells(nodes)
        steps = max(1, self.course.steps * new_cells // cells)
        return replace(self, basis=basis, nodes=nodes, course=replace(self.course, steps=steps))

    def refined(self) -> "Depth":
        """Every cell halved, and so every step."""
        return self.with_nodes(BASES[self.basis].refined(self.nodes))


def unread_nodes(basis: Basis, nodes: int, scheme: Scheme, steps: int) -> list[int]:
    """Nodes that no stage of a manifestation reads: trained under it, their weights would stay as they are."""
    if nodes == 1:
        return []
    read = {node for stage in SCHEMES[scheme].stages(steps) for node in BASES[basis].row(nodes, stage)}
    return sorted(set(range(nodes)) - read)
