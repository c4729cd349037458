"""What every test shares: one thread, so that sums are taken in one order on every machine; the order of modules."""

import os
from collections import Counter
from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def usual_permissions() -> Iterator[None]:
    """Let no test leave to the next what a command sets for its process: files that only their user can read."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the modules with the most slow tests first, so that no worker begins with one while the others are done."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])
