"""A trained network made smaller without data: its weights projected onto fewer nodes, or fewer steps taken.

After Queiruga et al. 2021 (arXiv 2106.10820), who project continuous weights onto a smaller basis and shorten the
graph. `dropped` is the ResNet's counterpart (after Veit et al. 2016, arXiv 1605.06431). Which points are measured, that
all of them are also applied to ResNets, and that batch-norm statistics move with the nodes, is this project's own.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from odenet.depth.bases import BASES
from odenet.depth.discretisation import Depth
from odenet.depth.moments import Matrices
from odenet.depth.projection import Projection
from odenet.enums import Basis, Compression, Scheme
from odenet.integrators.schemes import ADAPTIVE
from odenet.networks.model import DepthNet
from odenet.networks.refinement import move_stage, project_stage
from odenet.networks.table import NETWORKS


@dataclass(frozen=True, slots=True, eq=False)
class Compressed:
    """A smaller copy of a network; `factor`: of how many cells, steps or blocks of its deepest stage one is left."""

    how: Compression
    factor: int
    network: DepthNet


def compressed(model: DepthNet) -> Iterator[Compressed]:
    """Yield the network as it is, then smaller by factors 2, 4, ... until a stage cannot be smaller, each way.

    A network whose steps belong to its blocks (LM-ResNet, PolyNet) or to its data (adaptive schemes) cannot be made
    smaller so, and is yielded as it is alone. The network stays as it was.

    >>> from odenet import ModelConfig, build_model
    >>> model = build_model(ModelConfig(nodes=2), channels=1, classes=10)
    >>> [(one.how.value, one.factor, one.network.rate_evaluations) for one in compressed(model)]
    [('trained', 1, 6), ('projected', 2, 6), ('shortened', 2, 3), ('both', 2, 3), ('dropped', 2, 3)]
    """
    yield Compressed(Compression.trained, 1, model)
    if not is_compressible(model):
        return
    most = max(max(BASES[depth.basis].cells(depth.nodes), depth.course.steps) for depth in model.depths())
    seen = {tuple(model.depths())}
    for factor in (2**power for power in range(1, most.bit_length())):
        for how in (Compression.projected, Compression.shortened, Compression.both, Compression.dropped):
            if how is Compression.dropped and not _has_blocks(model):
                continue
            depths = tuple(_smaller(depth, how, factor) for depth in model.depths())
            if depths not in seen:
                seen.add(depths)
                yield Compressed(how, factor, _with_depths(model, depths, how))


def is_compressible(model: DepthNet) -> bool:
    """Tell whether other nodes and steps make sense of the network's weights."""
    can, scheme = NETWORKS[model.config.network].capability, model.depths()[-1].course.scheme
    return scheme not in ADAPTIVE and (can.refines or Scheme.euler in can.manifestations)


def _has_blocks(model: DepthNet) -> bool:
    """Tell whether every cell has weights of its own, so that it can be left out."""
    return all(depth.basis is Basis.piecewise_constant for depth in model.depths())


def _smaller(depth: Depth, how: Compression, factor: int) -> Depth:
    """Return what becomes of a stage's depth; one that is too short for the factor has one cell, or step, left."""
    cells, course = BASES[depth.basis].cells(depth.nodes), depth.course
    fewer, steps = _nodes_of(depth, max(1, cells // factor)), max(1, course.steps // factor)
    if how is Compression.shortened:
        return replace(depth, course=replace(course, steps=steps))
    if how is Compression.projected:
        return replace(depth, nodes=fewer)
    if how is Compression.both:
        return replace(depth, nodes=fewer, course=replace(course, steps=steps))
    per_cell = course.steps // cells
    shorter = replace(course, steps=max(1, fewer * per_cell), depth_time=course.depth_time * fewer / cells)
    return replace(depth, nodes=fewer, course=shorter)


def _nodes_of(depth: Depth, cells: int) -> int:
    """Return the fewest nodes of so many cells; the present number where the basis has none such."""
    if BASES[depth.basis].cells(depth.nodes) <= cells:
        return depth.nodes
    return next((nodes for nodes in range(1, depth.nodes) if _cells(depth.basis, nodes) == cells), depth.nodes)


def _cells(basis: Basis, nodes: int) -> int:
    try:
        BASES[basis].check(nodes)
        return BASES[basis].cells(nodes)
    except ValueError:
        return 0


def _with_depths(model: DepthNet, depths: tuple[Depth, ...], how: Compression) -> DepthNet:
    smaller = copy.deepcopy(model)
    for stage, depth in zip(smaller.depth_stages(), depths, strict=True):
        if depth.nodes == stage.depth.nodes:
            stage.depth = depth
        elif how is Compression.dropped:
            kept = _every_other(stage.depth.nodes, depth.nodes)
            move_stage(stage, Matrices(kept, kept, kept), depth, None)
        else:
            project_stage(stage, depth, Projection.l2, None)
    return smaller


def _every_other(nodes: int, fewer: int) -> torch.Tensor:
    """Return the matrix (float64) that keeps `fewer` of the nodes, evenly, the first among them."""
    kept_MN = torch.zeros(fewer, nodes, dtype=torch.float64)
    for row in range(fewer):
        kept_MN[row, row * nodes // fewer] = 1.0
    return kept_MN
