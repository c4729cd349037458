"""Every script in examples/ runs, says what it is said to say, and is short."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(name: str, place: Path, *arguments: str, **environment: str) -> list[str]:
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    where = {**os.environ, "PYTHONPATH": str(EXAMPLES.parent), **environment}
    done = subprocess.run(command, cwd=place, env=where, capture_output=True, text=True, timeout=800, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_every_example_is_run_here_and_has_fewer_than_60_lines() -> None:
    lengths = {path.name: len(path.read_text().splitlines()) for path in EXAMPLES.glob("*.py")}
    assert set(lengths) == {"integrate_a_callable.py", "refine_a_network.py", "search_and_read.py"}
    assert max(lengths.values()) < 60


def test_a_callable_is_integrated_and_its_parameter_found(tmp_path: Path) -> None:
    lines = run("integrate_a_callable.py", tmp_path)
    assert lines[0].startswith("euler  error with 8 steps -2.4e-02, with 16 steps -1.2e-02")
    assert lines[-1] == "a quarter turn is an angle of 1.5708, pi / 2 is 1.5708"


@pytest.mark.slow
def test_a_network_is_refined_while_it_trains_and_by_hand(tmp_path: Path) -> None:
    *epochs, last = run("refine_a_network.py", tmp_path)
    assert [line.split(":")[1].split()[0] for line in epochs[:12]] == ["1"] * 6 + ["2"] * 6
    found, before = (part.split()[-1] for part in last.split(","))
    assert last.startswith("4 nodes per stage")
    assert float(found) == pytest.approx(float(before), abs=0.002)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_search_runs_and_its_results_are_read(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="r") as home:  # Ray's sockets need a short path
        words = ("mine", "data.per_class=5", "cluster.cpus=2")
        short = {"HOME": home, "RAY_TMPDIR": home, "RAY_raylet_start_wait_time_s": "120"}
        lines = run("search_and_read.py", tmp_path, *words, **short)
    trials = [line for line in lines if line.startswith("trial ")]
    assert len(trials) == 4
    assert lines[-1].startswith("trained again, val accuracy")
    assert (tmp_path / "runs/mine/best.yaml").is_file()
