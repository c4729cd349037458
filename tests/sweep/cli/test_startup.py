"""What each stage may have loaded when its first line appears: a library takes seconds to load."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sweep.cli.commands import STAGES
from sweep.interpreter import DISTRIBUTION
from tests.sweep.sweep_files import trial, write_sweep

HEAVY = (
    "matplotlib", "mlflow", "opda", "optuna", "pandas", "plotly", "ray", "scipy", "sklearn", "statsmodels", "torch",
    "torchvision",
)  # fmt: skip

# Ends the process at the first text that it prints, on either stream, and prints instead what is loaded then.
AT_THE_FIRST_LINE = f"""
import json, os, sys
from sweep.__main__ import run

class First:
    def __init__(self, stream):
        self.stream = stream

    def __getattr__(self, name):
        return getattr(self.stream, name)

    def write(self, text):
        if text.strip():
            line = text.strip().splitlines()[0]
            os.write(1, json.dumps([sorted(set({HEAVY}) & set(sys.modules)), line]).encode())
            os._exit(0)
        return self.stream.write(text)

sys.stdout, sys.stderr = First(sys.stdout), First(sys.stderr)
run(sys.argv[1:])
"""

NOT_THERE = "sweep: There is no sweep nope in"
# command line: what may be loaded, how the first line begins
FIRST_LINES: dict[str, tuple[set[str], str]] = {
    "": (set(), "usage: sweep STAGE"),
    "--help": (set(), "usage: sweep STAGE"),
    "--version": (set(), "sweep "),
    "help search": (set(), "usage: sweep search"),
    "sarch x": (set(), "sweep: There is no stage 'sarch'"),
    "search --cfg job": (set(), "model:"),
    "-sc query=bash": (set(), "model.scheme="),
    "search y optim.lrr=3": (set(), "sweep: optim.lrr=3: optim.lrr is no key"),
    "search y space.fix.model.scheme=rk5": (set(), "sweep: model.scheme: the text 'rk5'"),
    "search x": (set(), "sweep: x exists already"),
    "search y": (set(), "search y: space continuous, 12 trials of 16 epochs on digits"),
    "study y": (set(), "study y: spaces resnet, continuous on draws 0, 1, 2 of the data, each, 12 trials of 16 epochs"),
    "status": (set(), "Sweeps in"),
    "status x": (set(), "x: 1 done"),
    "status nope": (set(), NOT_THERE),
    "resume nope": (set(), NOT_THERE),
    "extend nope search.more=1": (set(), NOT_THERE),
    "final nope": (set(), NOT_THERE),
    "sensitivity nope": (set(), NOT_THERE),
    "deliver nope": (set(), NOT_THERE),
    "evaluate nope": (set(), NOT_THERE),
    "export nope": (set(), NOT_THERE),
    "report nope": (set(), NOT_THERE),
    "replay nope": (set(), NOT_THERE),
    "ui nope": (set(), "sweep: There is no MLflow store"),
    "submit search y": (set(), "sweep: `sweep submit search` needs the address of the cluster's job server"),
    "logs y": (set(), "sweep: `sweep logs NAME` needs the address"),
    "stop y": (set(), "sweep: `sweep stop NAME` needs the address"),
    "submit resume y cluster.job_server=http://127.0.0.1:1 runtime.runs_dir=/r": (set(), "submit resume y: to http"),
    "status y cluster.job_server=http://127.0.0.1:1": (set(), "sweep: No job server answers at"),
    "evaluate x": (set(), "evaluate x: loading PyTorch"),
    "plan": (set(), "plan: space continuous, 12 trials of 16 epochs on digits"),
    "doctor": (set(), "ok "),
}


@pytest.mark.parametrize(("line", "expected"), FIRST_LINES.items(), ids=[line[:40] for line in FIRST_LINES])
def test_the_first_line_comes_before_the_libraries(tmp_path: Path, line: str, expected: tuple[set[str], str]) -> None:
    allowed, begin = expected
    write_sweep(tmp_path / "runs", [trial(0, objective=0.7)])
    environment = {**os.environ, "COMP_LINE": "sweep search x model.sch", "COLUMNS": "200"}
    done = subprocess.run(
        [sys.executable, "-c", AT_THE_FIRST_LINE, *line.split()],
        env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    loaded, first = json.loads(done.stdout)
    assert first.startswith(begin), first
    assert set(loaded) <= allowed


def test_every_stage_has_a_row() -> None:
    assert set(STAGES) <= {line.split()[0] for line in FIRST_LINES if line}


def test_the_version_is_that_of_the_installed_distribution(tmp_path: Path) -> None:
    from importlib.metadata import version

    done = subprocess.run(
        [sys.executable, "-m", "sweep", "--version"],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert done.stdout == f"sweep {version(DISTRIBUTION)}\n"


# All that a driver does between its first trial and its last; workers are pretended.
SEARCH = (
    "import tempfile; from pathlib import Path; from tests.sweep.pretended import begun, outcomes; "
    "sweep = begun(Path(tempfile.mkdtemp()), 'search.sampler=tpe', 'search.scheduler=asha'); sweep.drive(); "
    "assert all(one.ended for one in outcomes(sweep))"
)
LOADED = "; import json, sys; print(json.dumps([name for name in {} if name in sys.modules]))"


@pytest.mark.parametrize(
    ("statements", "without"),
    [
        ("import sweep.execution.run, sweep.execution.ray_adapter, sweep.worker.trainable", ["torch", "mlflow"]),
        (SEARCH, ["torch", "mlflow"]),
        (
            "from odenet import *; next(Training(ExperimentConfig(training=TrainingConfig(epochs=1))))",
            ["torch._dynamo"],
        ),
    ],
    ids=["the driver no torch, no MLflow", "nor while it searches", "eager training no compiler"],
)
def test_what_takes_seconds_to_load_is_left_out_where_it_is_not_needed(statements: str, without: list[str]) -> None:
    program = statements + LOADED.format(without)
    command = [sys.executable, "-c", program]
    done = subprocess.run(
        command, cwd=Path(__file__).parents[3], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []
