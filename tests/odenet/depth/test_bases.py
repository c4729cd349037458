"""Weights as functions of depth: which nodes a stage reads, and what a manifestation reads."""

from enum import Enum
from fractions import Fraction
from itertools import product
from math import floor

import pytest
import torch
from torch import Tensor

from odenet.data.config import DataSet
from odenet.data.sets import SETS
from odenet.depth.bases import BASES, cell_of, mix_nodes
from odenet.depth.discretisation import unread_nodes
from odenet.depth.node_weights import readout
from odenet.enums import Basis, Device, Network, Precision, Scheme
from odenet.integrators.scheme import Stage
from odenet.integrators.schemes import SCHEMES
from odenet.networks.table import NETWORKS
from tests.grids import for_each

CPU = torch.device("cpu")
LISTED = [scheme for scheme in Scheme if SCHEMES[scheme].stages(1)]  # the others choose their stages as they go
ABSCISSAE = sorted({stage.abscissa for scheme in LISTED for stage in SCHEMES[scheme].stages(1)})
STAGES = [Stage(k, n, c) for n in range(1, 13) for k in range(n) for c in ABSCISSAE]
COUNTS = {basis: [2, 4, 6, 8] if basis is Basis.discontinuous_linear else [1, 2, 3, 5, 8] for basis in Basis}
BASIS_AND_NODES = [(basis, nodes) for basis in Basis for nodes in COUNTS[basis]]
NODES_AND_STEPS = [(1, 1), (3, 3), (3, 6), (4, 2), (5, 7)]
MANIFESTATIONS = [
    (basis, nodes + nodes % 2 if basis is Basis.discontinuous_linear else nodes, scheme, steps)
    for basis, scheme, (nodes, steps) in product(Basis, LISTED, NODES_AND_STEPS)
]
BEFORE, AFTER = -Fraction(1, 10**9), Fraction(1, 10**9)


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(shape[0]))


def value(basis: Basis, theta_N: Tensor, stage: Stage, *, positive: bool = False) -> Tensor:
    """theta at a stage."""
    read = BASES[basis].positive_row if positive else BASES[basis].row
    row = read(len(theta_N), stage)
    return sum((float(weight) * theta_N[node] for node, weight in row.items()), torch.zeros_like(theta_N[0]))


def mirrored(stage: Stage) -> Stage:
    return stage._replace(abscissa=1 - stage.abscissa)


def own_nodes(basis: Basis, nodes: int, cell: int) -> set[int]:
    """The nodes of a cell; a polynomial is of one piece."""
    if basis is Basis.piecewise_constant:
        return {cell}
    if basis is Basis.discontinuous_linear:
        return {2 * cell, 2 * cell + 1}
    return {cell, min(cell + 1, nodes - 1)} if basis is Basis.hat else set(range(nodes))


@pytest.mark.parametrize(
    ("enumeration", "table"), [(Scheme, SCHEMES), (Basis, BASES), (Network, NETWORKS), (DataSet, SETS)]
)
def test_every_member_of_an_enumeration_has_its_row(enumeration: type[Enum], table: dict[Enum, object]) -> None:
    assert list(table) == list(enumeration)


@pytest.mark.parametrize("enumeration", [Scheme, Basis, Network, DataSet, Precision, Device])
def test_members_are_called_what_is_written_in_a_configuration(enumeration: type[Enum]) -> None:
    assert all(member.name == member.value == member.name.lower() for member in enumeration)


# Nodes


def test_an_element_without_both_its_ends_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^model.nodes=3 with model.basis=discontinuous_linear: .* such as 4\.$"):
        BASES[Basis.discontinuous_linear].check(3)


@for_each(("basis", "nodes"), BASIS_AND_NODES)
def test_every_node_holds_the_value_of_theta_at_its_position(basis: Basis, nodes: int) -> None:
    BASES[basis].check(nodes)
    for node, stage in enumerate(BASES[basis].positions(nodes)):
        assert BASES[basis].row(nodes, stage) == BASES[basis].positive_row(nodes, stage) == {node: 1}


@for_each(("basis", "nodes"), BASIS_AND_NODES)
def test_positions_ascend_and_mirror_each_other(basis: Basis, nodes: int) -> None:
    t = [(stage.step + stage.abscissa) / stage.steps for stage in BASES[basis].positions(nodes)]
    assert t == sorted(t)
    assert [float(1 - place) for place in reversed(t)] == pytest.approx([float(place) for place in t], abs=2**-51)


# Stages


def test_a_stage_reads_the_cell_it_reaches_from_inside_its_step() -> None:
    for cells, stage in product(range(1, 13), STAGES):
        inside = (stage.step + stage.abscissa) / stage.steps + (BEFORE if stage.abscissa == 1 else AFTER)
        assert cell_of(cells, stage) == floor(cells * inside)


@for_each(("basis", "nodes"), BASIS_AND_NODES)
@for_each("scheme", LISTED)
def test_a_step_aligned_with_a_cell_reads_that_cell_only(basis: Basis, nodes: int, scheme: Scheme) -> None:
    for substeps in range(1, 4):
        for stage in SCHEMES[scheme].stages(BASES[basis].cells(nodes) * substeps):
            allowed = own_nodes(basis, nodes, stage.step // substeps)
            assert set(BASES[basis].row(nodes, stage)) <= allowed
            assert set(BASES[basis].row(nodes, mirrored(stage))) <= allowed


def test_a_step_longer_than_a_cell_reads_the_cells_it_stands_in() -> None:
    read = [next(iter(BASES[Basis.piecewise_constant].row(8, stage))) for stage in SCHEMES[Scheme.rk4_38].stages(2)]
    assert read == [0, 1, 2, 3, 4, 5, 6, 7]


@for_each(("basis", "nodes"), BASIS_AND_NODES)
def test_variances_are_read_with_exact_positive_weights_that_sum_to_one(basis: Basis, nodes: int) -> None:
    for stage in STAGES:
        row = BASES[basis].positive_row(nodes, stage)
        assert sum(row.values()) == 1
        assert all(0 < weight <= 1 and 0 <= node < nodes for node, weight in row.items())


@for_each(("basis", "nodes"), BASIS_AND_NODES)
def test_equal_nodes_are_a_constant(basis: Basis, nodes: int) -> None:
    rounding = 1e-15 if basis is Basis.polynomial else 0
    for stage in STAGES:
        assert float(sum(BASES[basis].row(nodes, stage).values()) - 1) == pytest.approx(0, abs=rounding)


@pytest.mark.parametrize("basis", [basis for basis in Basis if basis is not Basis.polynomial])
def test_what_is_positive_between_its_nodes_reads_variances_as_it_reads_weights(basis: Basis) -> None:
    for nodes, stage in product(COUNTS[basis], STAGES):
        assert BASES[basis].row(nodes, stage) == BASES[basis].positive_row(nodes, stage)


@pytest.mark.parametrize("basis", [Basis.hat, Basis.polynomial])
def test_continuous_bases_read_the_same_from_both_sides(basis: Basis) -> None:
    for nodes, steps in product(COUNTS[basis], range(2, 13)):
        for k in range(steps - 1):
            end, begin = Stage(k, steps, Fraction(1)), Stage(k + 1, steps, Fraction(0))
            assert BASES[basis].row(nodes, end) == BASES[basis].row(nodes, begin)


@pytest.mark.parametrize("basis", [Basis.hat, Basis.discontinuous_linear])
def test_piecewise_linear_bases_reproduce_depth_itself_exactly(basis: Basis) -> None:
    for nodes, stage in product([2, 4, 6, 8], STAGES):
        places = [(at.step + at.abscissa) / at.steps for at in BASES[basis].positions(nodes)]
        mean = sum(places[node] * weight for node, weight in BASES[basis].row(nodes, stage).items())
        assert mean == (stage.step + stage.abscissa) / stage.steps


@pytest.mark.parametrize("nodes", [1, 2, 3, 6, 9, 17])
def test_polynomials_of_degree_nodes_minus_one_are_reproduced(nodes: int) -> None:
    basis = BASES[Basis.polynomial]
    t_N = torch.tensor([stage.t for stage in basis.positions(nodes)], dtype=torch.float64)[:, None]
    t_S = torch.tensor([stage.t for stage in STAGES], dtype=torch.float64)[:, None]
    degrees = torch.arange(nodes)
    read = basis.values_SN(nodes, STAGES) @ (2 * t_N - 1) ** degrees
    torch.testing.assert_close(read, (2 * t_S - 1) ** degrees, rtol=0, atol=2e-14)


@pytest.mark.parametrize(
    ("basis", "scheme", "nodes", "steps", "unread"),
    [
        (Basis.hat, Scheme.euler, 5, 4, [4]),
        (Basis.hat, Scheme.euler, 5, 8, []),
        (Basis.hat, Scheme.heun, 5, 4, []),
        (Basis.hat, Scheme.midpoint, 5, 1, [1, 3, 4]),
        (Basis.piecewise_constant, Scheme.euler, 4, 4, []),
        (Basis.piecewise_constant, Scheme.euler, 4, 2, [1, 3]),
        (Basis.discontinuous_linear, Scheme.euler, 4, 2, [1, 3]),
        (Basis.discontinuous_linear, Scheme.heun, 4, 2, []),
        (Basis.polynomial, Scheme.euler, 3, 2, [2]),
        (Basis.polynomial, Scheme.euler, 4, 3, []),
        (Basis.hat, Scheme.dopri5, 1, 1, []),
        (Basis.hat, Scheme.dopri5, 3, 1, [0, 1, 2]),
    ],
)
def test_nodes_that_no_stage_reads_are_named(
    basis: Basis, scheme: Scheme, nodes: int, steps: int, unread: list[int]
) -> None:
    assert unread_nodes(basis, nodes, scheme, steps) == unread


# What a manifestation reads


@for_each(("basis", "nodes", "scheme", "steps"), MANIFESTATIONS)
def test_every_stage_and_its_mirror_have_the_slot_that_holds_theta_there(
    basis: Basis, nodes: int, scheme: Scheme, steps: int
) -> None:
    read, theta_N = readout(basis, nodes, scheme, steps, CPU), normal(nodes, 2, 4)
    for positive in (False, True):
        slots = read.take(theta_N, positive=positive)
        for stage in SCHEMES[scheme].stages(steps):
            for at in (stage, mirrored(stage)):
                expected = value(basis, theta_N, at, positive=positive)
                torch.testing.assert_close(slots[read.slot(at)], expected, rtol=0, atol=1e-14)


@for_each(("basis", "nodes", "scheme", "steps"), MANIFESTATIONS)
def test_rows_are_those_of_the_evaluations_in_their_order(basis: Basis, nodes: int, scheme: Scheme, steps: int) -> None:
    read, theta_N = readout(basis, nodes, scheme, steps, CPU), normal(nodes, 3)
    stages = SCHEMES[scheme].stages(steps)
    for rows_EN, positive in ((read.rows_EN, False), (read.positive_rows_EN, True)):
        expected = torch.stack([value(basis, theta_N, stage, positive=positive) for stage in stages])
        torch.testing.assert_close(rows_EN @ theta_N, expected, rtol=0, atol=1e-14)


@for_each(("basis", "nodes", "scheme", "steps"), MANIFESTATIONS)
def test_slots_are_the_nodes_or_rows_of_which_no_two_are_equal(
    basis: Basis, nodes: int, scheme: Scheme, steps: int
) -> None:
    read = readout(basis, nodes, scheme, steps, CPU)
    stages = SCHEMES[scheme].stages(steps)
    every = [BASES[basis].row(nodes, at) for stage in stages for at in (stage, mirrored(stage))]
    assert (read.matrix_SN is None) == (read.positive_SN is None) == all(len(row) == 1 for row in every)
    if read.matrix_SN is not None:
        assert len(read.matrix_SN) == len(read.matrix_SN.unique(dim=0)) == len(set(read.slots.values()))


@for_each(("basis", "nodes", "scheme", "steps"), MANIFESTATIONS)
def test_variances_share_the_tensors_of_weights_where_they_are_read_alike(
    basis: Basis, nodes: int, scheme: Scheme, steps: int
) -> None:
    read = readout(basis, nodes, scheme, steps, CPU)
    if basis is not Basis.polynomial:
        assert read.positive_rows_EN is read.rows_EN and read.positive_fit_NE is read.fit_NE
        assert read.positive_SN is read.matrix_SN
    elif read.matrix_SN is not None and read.positive_SN is not None and nodes > 2:
        assert not torch.equal(read.matrix_SN, read.positive_SN)


@for_each(("basis", "nodes", "scheme", "steps"), MANIFESTATIONS)
def test_the_fit_is_the_pseudo_inverse_and_gives_unread_nodes_nothing(
    basis: Basis, nodes: int, scheme: Scheme, steps: int
) -> None:
    read = readout(basis, nodes, scheme, steps, CPU)
    torch.testing.assert_close(read.fit_NE, torch.linalg.pinv(read.rows_EN), rtol=0, atol=1e-13)
    torch.testing.assert_close(read.positive_fit_NE, torch.linalg.pinv(read.positive_rows_EN), rtol=0, atol=1e-13)
    unread = unread_nodes(basis, nodes, scheme, steps)
    assert torch.equal(read.fit_NE[unread], torch.zeros_like(read.fit_NE[unread]))


@for_each("basis", [basis for basis in Basis if 1 in COUNTS[basis]])
@for_each("scheme", Scheme)
def test_a_single_node_is_read_at_any_stage_whatever_the_scheme(basis: Basis, scheme: Scheme) -> None:
    read, theta_N = readout(basis, 1, scheme, 3, CPU), normal(1, 2)
    assert {read.slot(stage) for stage in STAGES} == {0}
    (only,) = read.take(theta_N)
    assert torch.equal(only, theta_N[0])
    assert read.rows_EN.shape == (len(SCHEMES[scheme].stages(3)), 1)


def test_kernels_are_mixed_in_their_own_layout_and_arithmetic() -> None:
    kernel_N = torch.randn(3, 4, 3, 3, 5).permute(0, 1, 4, 2, 3)
    matrix_MN = BASES[Basis.hat].refinement_MN(3)
    with torch.autocast("cpu", torch.bfloat16):
        mixed_M = mix_nodes(matrix_MN, kernel_N)
    torch.testing.assert_close(mixed_M, torch.einsum("mn,noihw->moihw", matrix_MN.float(), kernel_N))
    assert mixed_M.dtype is torch.float32
    for kernel in mixed_M.unbind(0):
        assert kernel.is_contiguous(memory_format=torch.channels_last)
