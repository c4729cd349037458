"""Every script in examples/ runs, says what it is said to say, and is short."""

import csv
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from sweep.config.compose import load
from tests.own_names import taken_away

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(name: str, place: Path, *arguments: str, **environment: str) -> list[str]:
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    where = {**os.environ, "PYTHONPATH": str(EXAMPLES.parent), **environment}
    done = subprocess.run(command, cwd=place, env=where, capture_output=True, text=True, timeout=800, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_every_example_is_run_here_and_has_fewer_than_60_lines() -> None:
    lengths = {path.name: len(path.read_text().splitlines()) for path in EXAMPLES.glob("*.py")}
    assert set(lengths) == {"integrate_a_callable.py", "own_images.py", "refine_a_network.py", "search_and_read.py"}
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


def test_images_are_written_into_class_folders_and_read_in_draws(tmp_path: Path) -> None:
    *draws, last = run("own_images.py", tmp_path)
    assert [line.split(", hash")[0] for line in draws] == [f"draw {n}: 4 classes, 24 train, 16 val" for n in (0, 1)]
    assert last == "48 test images, each 1x8x8"
    assert sorted(path.name for path in (tmp_path / "images").iterdir()) == ["one", "three", "two", "zero"]


@pytest.mark.parametrize(
    ("words", "space", "corners"),
    [
        (["space=space.yaml"], "how_deep", 27),
        (["modules=[mine.networks]", "space=heun_net"], "heun_net", 17),
        (["--config-dir=conf", "--config-name=quick"], "heun_net", 17),
    ],
)
def test_own_spaces_networks_and_configurations_are_possible(
    monkeypatch: pytest.MonkeyPatch, words: list[str], space: str, corners: int
) -> None:
    monkeypatch.chdir(EXAMPLES / "own")
    with taken_away():
        config = load(words)
        assert (config.space.name, len(config.space.build().corners())) == (space, corners)


OWN = """
import sys
from pathlib import Path
from sweep.__main__ import run
from sweep.cluster.connect import connected
from sweep.config.schema import ClusterConfig

own = ["--config-dir", "conf", "--config-name", "quick"]
images = ["data=folder", "data.path=images", "data.per_class=10", "search.trials=2", "training.epochs=2"]
with connected(ClusterConfig(cpus=1), Path.cwd()):
    codes = [run(["search", "x", *own, *images])]
    codes += [run(["final", "x", "modules=[mine.networks]", "final.top=1", "final.seeds=1"])]
    codes += [run(["evaluate", "x", *own, "evaluate.schemes=[rk4]"])]
sys.exit(sum(codes))
"""

LOADED = """
import mlflow
mlflow.set_tracking_uri("{uri}")
model = mlflow.pytorch.load_model("models:/x@champion")
print(model.network.config.network.value, model.classes)
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_an_own_network_on_own_images_is_searched_retrained_and_tested_by_an_own_configuration(tmp_path: Path) -> None:
    shutil.copytree(EXAMPLES / "own", tmp_path, dirs_exist_ok=True)
    run("own_images.py", tmp_path)
    with (tmp_path / "mine/networks.py").open("a") as module:
        module.write(f"\nopen({str(tmp_path / 'imported')!r}, 'a').write(__file__ + '\\n')\n")
    with tempfile.TemporaryDirectory(prefix="r") as home:
        short = {"HOME": home, "RAY_TMPDIR": home, "RAY_raylet_start_wait_time_s": "120"}
        done = subprocess.run(
            [sys.executable, "-P", "-c", OWN], cwd=tmp_path, timeout=800, capture_output=True, text=True, check=False,
            env={**os.environ, "PYTHONPATH": str(EXAMPLES.parent), **short},
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    files = tmp_path / "runs/x"
    rows = list(csv.DictReader((files / "trials.csv").read_text().splitlines()))
    assert {(row["family"], row["dataset"], row["classes"]) for row in rows} == {("heun_net", "folder:images", "4")}
    assert {row["outcome"] for row in rows} == {"done"}
    assert (files / "rows.csv").is_file()
    # This command has it from the working directory; workers and what registers the network from what is kept.
    imported = set((tmp_path / "imported").read_text().split())
    assert imported == {str(place / "mine/networks.py") for place in (tmp_path, files / "modules")}
    store = sqlite3.connect(files / "mlflow.db")
    assert store.execute("select name, version from model_versions").fetchall() == [("x", 1)]
    store.close()
    # Elsewhere the registered network finds odenet and the module in itself.
    (tmp_path / "elsewhere").mkdir()
    program = LOADED.format(uri=f"sqlite:///{files / 'mlflow.db'}")
    without = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    loaded = subprocess.run(
        [sys.executable, "-P", "-c", program], cwd=tmp_path / "elsewhere", env=without, timeout=200,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert loaded.stdout.split() == ["heun_net", "4"], loaded.stderr


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_search_runs_and_its_results_are_read(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="r") as home:  # Ray's sockets need a short path
        words = ("mine", "data.per_class=5", "cluster.cpus=1")
        short = {"HOME": home, "RAY_TMPDIR": home, "RAY_raylet_start_wait_time_s": "120"}
        lines = run("search_and_read.py", tmp_path, *words, **short)
    trials = [line for line in lines if line.startswith("trial ")]
    assert len(trials) == 4
    assert lines[-1].startswith("trained again, val accuracy")
    assert (tmp_path / "runs/mine/best.yaml").is_file()
