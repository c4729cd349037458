"""benchmarks/gpu.py at toy size without a GPU: so that a GPU's minutes are not spent on its faults."""

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from odenet import Gradient, Network

ROOT = Path(__file__).parents[1]
Rows = list[dict[str, Any]]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    place = tmp_path_factory.mktemp("gpu")
    command = [sys.executable, "-W", "error", ROOT / "benchmarks/gpu.py", "--device", "cpu", "--patience", "4"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OUT": str(place)}
    done = subprocess.run(command, env=environment, cwd=place, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in (place / "gpu.jsonl").read_text().splitlines()]
    assert len(done.stdout.splitlines()) == len(found)
    return found


def of(rows: Rows, what: str) -> Iterator[dict[str, Any]]:
    return (row for row in rows if row.get("what") == what)


def test_every_part_comes_to_its_end_without_an_error(rows: Rows) -> None:
    assert rows[0]["part"] == "machine"
    assert [(row["part"], row["left_out"]) for row in of(rows, "end")] == [("a", 0), ("b", 0)]
    assert [row for row in rows if "error" in row] == []


def test_every_network_gradient_and_arithmetic_has_a_finite_error_or_a_refusal(rows: Rows) -> None:
    seen = {(row["network"], row["gradient"], row["arithmetic"]) for row in of(rows, "error")}
    assert seen == {(n.value, g.value, a) for n in Network for g in Gradient for a in ("fp32", "bf16")}
    for row in of(rows, "error"):
        if "refused" in row:
            assert (row["network"][:2], row["gradient"]) in {("lm", "reconstructed"), ("ne", "checkpointed")}
            assert row["refused"].startswith("model.scheme=")
        else:
            assert all(0 <= row[key] < 10 for key in ("logits", "gradients", "gradients_in_all"))


def test_fp32_is_accurate_and_bf16_is_not_fp32(rows: Rows) -> None:
    """Medians: a single ReLU on the other side of 0 moves one network's gradients to some per cent."""
    measured = [row for row in of(rows, "error") if "logits" in row]
    fp32 = [row for row in measured if row["arithmetic"] == "fp32"]
    assert max(row["logits"] for row in fp32) < 1e-4
    assert statistics.median(row["gradients"] for row in fp32) < 1e-4
    assert min(row["logits"] for row in measured if row["arithmetic"] == "bf16") > 1e-4


def test_resumed_training_of_every_network_is_compared_bit_for_bit(rows: Rows) -> None:
    assert {row["network"] for row in of(rows, "resume")} == {network.value for network in Network}
    assert all(row["differ"] == [] and row["tensors"] > 0 for row in of(rows, "resume"))


def test_graphs_of_every_network_are_compared_bit_for_bit(rows: Rows) -> None:
    assert {row["network"] for row in of(rows, "graph")} == {network.value for network in Network}
    assert all(row["differ"] == [] and row["obstacle"] == "it runs on no CUDA device" for row in of(rows, "graph"))


def test_steps_are_timed_beside_the_ceilings_and_torchdiffeq(rows: Rows) -> None:
    assert [row["arithmetic"] for row in of(rows, "ceiling")] == ["fp32", "bf16", "copy"]
    steps = list(of(rows, "step"))
    assert len({row["network"] for row in steps}) == 5
    for row in steps:
        assert row["ms"]["n"] >= 1 and row["graph_ms"]["n"] >= 1
        assert all(row[key] > 0 for key in ("gflop", "of_matmul", "moved_gib", "of_copy"))
        assert ("speed_up" in row) == row["network"].startswith("continuous")
