"""Tests on hosts of namespaces are no part of `make test`: `make test-hosts` and `make test-hosts-all` run them."""

import os
from collections.abc import Iterator

import pytest

from tests.hosts.cluster import Cluster, Figures, cluster
from tests.hosts.hosts import obstacle

collect_ignore_glob = [] if os.environ.get("TEST_HOSTS") else ["test_*.py"]
HEAD = "| event | trials | lost | duplicated | epochs repeated | seconds to progress | steps missing | steps doubled |"
_table: list[str] = []


@pytest.fixture(scope="module")
def hosts() -> Iterator[Cluster]:
    """A head and two workers."""
    if why := obstacle():
        pytest.skip(why)
    with cluster() as made:
        yield made


def noted(figures: Figures) -> None:
    """Put an event into the table; none may lose or double anything."""
    _table.append(figures.line())
    assert (figures.lost, figures.duplicated, figures.missing, figures.doubled) == (0, 0, 0, 0), figures


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _table:
        terminalreporter.write_line("\n".join(["", HEAD, "|---" * 8 + "|", *_table]))
