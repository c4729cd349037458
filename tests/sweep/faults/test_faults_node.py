"""A node of a Ray cluster dies in the middle of a sweep: its trial goes on elsewhere, from its checkpoint."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sweep.records.outcome import Outcome
from tests.sweep.cluster.test_join import free_port
from tests.sweep.faults.fault_drivers import SEARCH, differences, endings, lines, rows_of
from tests.sweep.ray_place import TOKEN, Place, short_place

# Of MLflow's own making: its use of SQLAlchemy.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated"),
    pytest.mark.timeout(600),
]
LONG = [
    *(word for word in SEARCH if not word.startswith("cluster.")),
    "search.trials=2",
    "training.epochs=150",
    "search.checkpoint_every=2",
]


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with short_place() as made:
        yield made


@pytest.fixture(scope="module")
def address(place: Place) -> str:
    """A head without trials and two nodes with one CPU each."""
    port = free_port()
    client = f"--ray-client-server-port={free_port()}"
    place.start_node("--head", f"--port={port}", client, "--include-dashboard=false", "--num-cpus=0", "--num-gpus=0")
    for _ in range(2):
        place.start_node(f"--address=127.0.0.1:{port}", "--num-cpus=1", "--num-gpus=0")
    return f"127.0.0.1:{port}"


def until(command: subprocess.Popen[bytes], said: Path, reached: Path, epochs: int) -> None:
    for _ in range(2000):
        if lines(reached) >= epochs:
            return
        assert command.poll() is None, said.read_text()
        time.sleep(0.1)
    raise AssertionError(said.read_text())


def test_a_trial_whose_node_dies_goes_on_elsewhere_and_ends_once(place: Place, address: str) -> None:
    directory, said = place.path / "runs" / "x", place.path / "said"
    words = [*LONG, "cluster=address", f"cluster.address={address}", f"runtime.runs_dir={directory.parent}"]
    with said.open("wb") as out:
        command = subprocess.Popen(
            [sys.executable, "-P", "-m", "sweep", "search", "x", *words],
            env=place.environment(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=TOKEN, OMP_NUM_THREADS="1"),
            cwd=place.path,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    try:
        until(command, said, directory / "curves.csv", 30)
        os.killpg(place.processes[-1].pid, signal.SIGKILL)
        command.wait(timeout=300)
    finally:
        if command.poll() is None:
            os.killpg(command.pid, signal.SIGKILL)
            command.wait()
    assert command.returncode == 0, said.read_text()
    # Ray may see the worker's end first and the node's some seconds later.
    lost = rf"its (node|worker process) was lost \({socket.gethostname()}\); attempt 2 follows"
    assert re.search(lost, " ".join(said.read_text().split()))
    rows = rows_of(directory)
    assert [(row.outcome, row.epochs) for row in rows] == [(Outcome.done, 150)] * 2
    assert sorted(row.legs for row in rows) == [1, 2]
    assert endings(directory) == {0: 1, 1: 1}
    assert differences(directory) == []
