"""What every test shares: one thread, so that sums are taken in one order on every machine; no terminal of whoever
starts the tests; the order of modules.
"""

import gc
import os
from collections import Counter
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent
# Modules that take more than five seconds of processor time: slow, too, besides what is marked so.
TAKE_SECONDS = (
    "odenet/integrators/test_adding_a_scheme", "odenet/integrators/test_continuous_theory",
    "odenet/networks/test_models", "odenet/networks/test_projection", "odenet/networks/test_refinement",
    "odenet/networks/test_torch_module", "odenet/training/test_cost", "odenet/training/test_regularization",
    "odenet/training/test_resuming", "odenet/training/test_step", "odenet/training/test_training",
    "odenet/training/test_transfer", "odenet/robustness/test_attacked", "odenet/robustness/test_attacked_networks",
    "search_spaces/test_search_spaces", "sweep/cli/test_bad_files",
    "sweep/cli/test_bad_input", "sweep/cli/test_command_line", "sweep/cli/test_startup", "sweep/config/test_schema",
    "sweep/records/test_kept_run", "sweep/report/test_report", "sweep/report/test_report_search",
    "sweep/stages/test_plan", "sweep/stages/test_replay", "sweep/stages/test_verify", "sweep/worker/test_trainable",
)  # fmt: skip
# What a terminal tells its programs, and a runner without one may tell, too: each test says these itself.
OF_A_TERMINAL = ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "TTY_COMPATIBLE")
for _name in OF_A_TERMINAL:
    os.environ.pop(_name, None)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def usual_permissions() -> Iterator[None]:
    """Let no test leave to the next what a command sets for its process: files that only their user can read."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Look for no garbage among thousands of tests and all libraries, which stay to the end: a quarter of the time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the modules with the most slow tests first, so that no worker begins with one while the others are done."""
    for item in items:
        if str(item.path.relative_to(ROOT).with_suffix("")) in TAKE_SECONDS:
            item.add_marker("slow")
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])
