"""Tests on hosts of namespaces are no part of `make test`: `make test-hosts` and `make test-hosts-all` run them."""

import os
from collections.abc import Iterator

import pytest

from tests.hosts.cluster import HEAD, TABLE, Cluster, cluster
from tests.hosts.hosts import obstacle

collect_ignore_glob = [] if os.environ.get("TEST_HOSTS") else ["test_*.py"]


@pytest.fixture(scope="module")
def hosts() -> Iterator[Cluster]:
    """A head and two workers."""
    if why := obstacle():
        pytest.skip(why)
    with cluster() as made:
        yield made


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if TABLE:
        terminalreporter.write_line("\n".join(["", HEAD, "|---" * 8 + "|", *TABLE]))
