"""docs/networks.md says what the code does: its tables, examples and commands cannot go stale."""

import doctest
import re
import shlex
from enum import Enum
from pathlib import Path

import pytest

from odenet.depth.bases import BASES
from odenet.enums import Basis, Gradient, Network, Scheme
from odenet.integrators.scheme import Course
from odenet.integrators.schemes import SCHEMES, refusal
from odenet.networks.table import NETWORKS, Wiring
from odenet.training.cost import recomputations
from sweep.config.compose import load
from sweep.config.overrides import override

PAGE = Path(__file__).parents[1] / "docs/networks.md"
TEXT = PAGE.read_text()
COMMANDS = re.findall(r"^    sweep search mine (.+)$", TEXT, re.MULTILINE)


def table(first: str) -> list[list[str]]:
    """The cells of each row of the table whose first column has this head."""
    block = TEXT.partition(f"\n| {first} |")[2].partition("\n\n")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()[2:]]


def names(first: str) -> list[str]:
    return [row[0].strip("`") for row in table(first)]


@pytest.mark.parametrize(
    ("first", "members"), [("network", Network), ("scheme", Scheme), ("basis", Basis), ("gradient", Gradient)]
)
def test_every_member_has_exactly_one_row(first: str, members: type[Enum]) -> None:
    assert sorted(names(first)) == sorted(member.value for member in members)


def reconstruction(wiring: Wiring) -> str:
    scheme = wiring.scheme
    if refusal(scheme, Gradient.reconstructed) or Gradient.reconstructed not in wiring.capability.gradients:
        return "refused"
    if SCHEMES[scheme].needs == "constant":
        return "adjoint equation"
    return "exact" if SCHEMES[scheme].reversible else "approximate"


@pytest.mark.parametrize("row", table("network"), ids=names("network"))
def test_a_network_is_the_row_it_is_said_to_be(row: list[str]) -> None:
    wiring = NETWORKS[Network(row[0].strip("`"))]
    assert row[2:5] == [f"`{wiring.scheme.value}`", f"`{wiring.basis.value}`", reconstruction(wiring)]
    assert row[-1] in wiring.source and re.fullmatch(r"\d{4}\.\d{5}", row[-1])


@pytest.mark.parametrize("row", table("scheme"), ids=names("scheme"))
def test_a_scheme_has_the_order_cost_and_inverse_it_is_said_to_have(row: list[str]) -> None:
    scheme = SCHEMES[Scheme(row[0].strip("`"))]
    assert row[2] == str(scheme.order).lower()
    assert int(row[3].split()[0]) == scheme.evaluations
    assert row[4] == ("yes" if scheme.reversible else "no")
    assert (re.findall("`(.+?)`", row[5]) or [""]) == [scheme.needs]


@pytest.mark.parametrize("row", table("basis"), ids=names("basis"))
def test_a_basis_has_the_cells_and_nodes_it_is_said_to_have(row: list[str]) -> None:
    basis, nodes = BASES[Basis(row[0].strip("`"))], 6
    cells = {"N": nodes, "N - 1": nodes - 1, "N / 2": nodes // 2}
    refined = {"2N": 2 * nodes, "2N - 1": 2 * nodes - 1}
    assert (basis.cells(nodes), basis.refined(nodes)) == (cells[row[2]], refined[row[3].split(":")[0]])


def ratio(gradient: Gradient, scheme: Scheme) -> str:
    extra = recomputations(Course(scheme, 1, gradient=gradient))
    return f"{3 + extra}/3" if extra else "1"


@pytest.mark.parametrize("row", table("gradient"), ids=names("gradient"))
def test_a_gradient_costs_and_refuses_what_it_is_said_to(row: list[str]) -> None:
    gradient = Gradient(row[0].strip("`"))
    assert re.findall(r"[\d/]+", row[2]) == list(dict.fromkeys(ratio(gradient, s) for s in (Scheme.verlet, Scheme.rk4)))
    assert re.findall("`(.+?)`", row[4]) == [scheme.value for scheme in Scheme if refusal(scheme, gradient)]


def test_the_examples_run_and_show_what_they_are_said_to_show() -> None:
    failed, tried = doctest.testfile(str(PAGE), module_relative=False)
    assert failed == 0 < tried


def test_every_count_of_the_table_is_that_of_an_example() -> None:
    shown = set(re.findall(r"'(\d[\d,]+)'", TEXT))
    assert {count for row in table("network") for count in re.findall(r"\d+(?:,\d{3})+", row[6])} <= shown


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_a_possible_sweep(command: str) -> None:
    config = load(shlex.split(command))
    for corner in config.space.build().corners():
        assert override(config.experiment, corner).model.network.value == config.space.name
