"""Weights as functions of depth: which nodes a stage reads, and refinement as a matrix, the same for every basis."""

from enum import Enum
from fractions import Fraction
from itertools import product
from math import floor

import pytest
import torch
from torch import Tensor

from odenet import Basis, DataSet, Network, Scheme
from odenet.bases import BASES, cell_of, mix_nodes, readout, unread_nodes
from odenet.data import SETS
from odenet.models import NETWORKS
from odenet.schemes import SCHEMES
from odenet.terms import Device, Precision, Stage

CPU = torch.device("cpu")
ABSCISSAE = sorted({c for method in SCHEMES.values() for c in method.c})
STAGES = [Stage(k, n, c) for n in range(1, 13) for k in range(n) for c in ABSCISSAE]
NODES_AND_STEPS = [(1, 1), (3, 3), (3, 6), (4, 2), (5, 7)]
BEFORE, AFTER = -Fraction(1, 10**9), Fraction(1, 10**9)


def value(basis: Basis, theta_N: Tensor, stage: Stage) -> Tensor:
    """theta at a stage."""
    row = BASES[basis].row(len(theta_N), stage)
    return sum((float(weight) * theta_N[node] for node, weight in row.items()), torch.zeros_like(theta_N[0]))


@pytest.mark.parametrize(
    ("enumeration", "table"), [(Scheme, SCHEMES), (Basis, BASES), (Network, NETWORKS), (DataSet, SETS)]
)
def test_every_member_of_an_enumeration_has_its_row(enumeration: type[Enum], table: dict[Enum, object]) -> None:
    assert list(table) == list(enumeration)


@pytest.mark.parametrize("enumeration", [Scheme, Basis, Network, DataSet, Precision, Device])
def test_members_are_called_what_is_written_in_a_configuration(enumeration: type[Enum]) -> None:
    assert all(member.name == member.value == member.name.lower() for member in enumeration)


# Stages


def test_a_stage_reads_the_cell_it_reaches_from_inside_its_step() -> None:
    for cells, stage in product(range(1, 13), STAGES):
        inside = (stage.step + stage.abscissa) / stage.steps + (BEFORE if stage.abscissa == 1 else AFTER)
        assert cell_of(cells, stage) == floor(cells * inside)


@pytest.mark.parametrize("basis", Basis)
@pytest.mark.parametrize("scheme", Scheme)
def test_a_step_aligned_with_a_cell_reads_that_cell_only(basis: Basis, scheme: Scheme) -> None:
    for nodes, substeps in product(range(1, 9), range(1, 4)):
        cells = BASES[basis].cells(nodes)
        for stage in SCHEMES[scheme].stages(cells * substeps):
            cell = stage.step // substeps
            allowed = {cell} if basis is Basis.piecewise_constant else {cell, min(cell + 1, nodes - 1)}
            assert set(BASES[basis].row(nodes, stage)) <= allowed


def test_a_step_longer_than_a_cell_reads_the_cells_it_stands_in() -> None:
    read = [next(iter(BASES[Basis.piecewise_constant].row(8, stage))) for stage in SCHEMES[Scheme.rk4_38].stages(2)]
    assert read == [0, 1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize("basis", Basis)
def test_the_weights_of_a_stage_are_positive_and_sum_to_one(basis: Basis) -> None:
    for nodes, stage in product(range(1, 10), STAGES):
        row = BASES[basis].row(nodes, stage)
        assert sum(row.values()) == 1
        assert all(0 < weight <= 1 and 0 <= node < nodes for node, weight in row.items())


@pytest.mark.parametrize(
    ("basis", "scheme", "nodes", "steps", "unread"),
    [
        (Basis.hat, Scheme.euler, 5, 4, [4]),
        (Basis.hat, Scheme.euler, 5, 8, []),
        (Basis.hat, Scheme.heun, 5, 4, []),
        (Basis.hat, Scheme.midpoint, 5, 1, [1, 3, 4]),
        (Basis.piecewise_constant, Scheme.euler, 4, 4, []),
        (Basis.piecewise_constant, Scheme.euler, 4, 2, [1, 3]),
    ],
)
def test_nodes_that_no_stage_reads_are_named(
    basis: Basis, scheme: Scheme, nodes: int, steps: int, unread: list[int]
) -> None:
    assert unread_nodes(basis, nodes, scheme, steps) == unread


def test_hats_are_continuous_and_linear_between_the_nodes() -> None:
    for nodes, steps in product(range(2, 7), range(1, 13)):
        hat = BASES[Basis.hat]
        for k in range(steps - 1):
            assert hat.row(nodes, Stage(k, steps, Fraction(1))) == hat.row(nodes, Stage(k + 1, steps, Fraction(0)))
        for stage in SCHEMES[Scheme.rk4_38].stages(steps):
            position = (nodes - 1) * (stage.step + stage.abscissa) / stage.steps
            mean = sum(node * weight for node, weight in hat.row(nodes, stage).items())
            assert mean == position


# Refinement


@pytest.mark.parametrize("basis", Basis)
@pytest.mark.parametrize("nodes", [1, 2, 3, 5, 8])
def test_refinement_halves_the_cells_and_leaves_theta_where_it_was(basis: Basis, nodes: int) -> None:
    matrix_MN = BASES[basis].refinement_MN(nodes)
    assert bool((matrix_MN >= 0).all())
    assert torch.equal(matrix_MN.sum(1), torch.ones(len(matrix_MN), dtype=torch.float64))
    if nodes > 1:
        assert BASES[basis].cells(len(matrix_MN)) == 2 * BASES[basis].cells(nodes)
    theta_N = torch.randn(nodes, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(nodes))
    refined_M = mix_nodes(matrix_MN, theta_N)
    for stage in STAGES:
        torch.testing.assert_close(
            value(basis, refined_M, stage), value(basis, theta_N, stage), rtol=0, atol=1e-14, msg=str(stage)
        )


# What a manifestation reads


@pytest.mark.parametrize("basis", Basis)
@pytest.mark.parametrize("scheme", Scheme)
@pytest.mark.parametrize("manifestation", NODES_AND_STEPS)
def test_slots_hold_what_the_dense_matrix_says(basis: Basis, scheme: Scheme, manifestation: tuple[int, int]) -> None:
    nodes, steps = manifestation
    read = readout(basis, nodes, scheme, steps, CPU)
    theta_N = torch.randn(nodes, 2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    dense_E = torch.einsum("en,nab->eab", read.rows_EN, theta_N)
    slots = read.take(theta_N)
    for stage, expected in zip(SCHEMES[scheme].stages(steps), dense_E, strict=True):
        torch.testing.assert_close(slots[read.slots[stage.key]], expected, rtol=0, atol=1e-14)
        torch.testing.assert_close(value(basis, theta_N, stage), expected, rtol=0, atol=1e-14)
    assert (read.matrix_SN is None) == (read.rows_EN.max(1).values == 1).all()


@pytest.mark.parametrize("basis", Basis)
@pytest.mark.parametrize("scheme", Scheme)
@pytest.mark.parametrize("manifestation", NODES_AND_STEPS)
def test_the_fit_is_the_pseudo_inverse_and_gives_unread_nodes_nothing(
    basis: Basis, scheme: Scheme, manifestation: tuple[int, int]
) -> None:
    read = readout(basis, manifestation[0], scheme, manifestation[1], CPU)
    torch.testing.assert_close(read.fit_NE, torch.linalg.pinv(read.rows_EN), rtol=0, atol=1e-13)
    unread = unread_nodes(basis, manifestation[0], scheme, manifestation[1])
    assert torch.equal(read.fit_NE[unread], torch.zeros_like(read.fit_NE[unread]))


def test_kernels_are_mixed_in_their_own_layout_and_arithmetic() -> None:
    kernel_N = torch.randn(3, 4, 3, 3, 5).permute(0, 1, 4, 2, 3)
    matrix_MN = BASES[Basis.hat].refinement_MN(3)
    with torch.autocast("cpu", torch.bfloat16):
        mixed_M = mix_nodes(matrix_MN, kernel_N)
    torch.testing.assert_close(mixed_M, torch.einsum("mn,noihw->moihw", matrix_MN.float(), kernel_N))
    assert mixed_M.dtype is torch.float32
    for kernel in mixed_M.unbind(0):
        assert kernel.is_contiguous(memory_format=torch.channels_last)
