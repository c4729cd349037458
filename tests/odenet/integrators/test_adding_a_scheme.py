"""The recipe of CONTRIBUTING.md for a Runge-Kutta scheme, followed to its end in a copy of the package."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
USED = """
from odenet import ExperimentConfig, ModelConfig, Network, Scheme, build_model, integrate, manifest
import torch

images = torch.linspace(0, 1, 2 * 3 * 64).view(2, 3, 8, 8)
for network in (Network.continuous, Network.hamiltonian, Network.heunnet, Network.neural_ode):
    nodes = 1 if network is Network.neural_ode else 2
    config = ModelConfig(network=network, scheme=Scheme.ssprk3, width=4, nodes=nodes)
    ExperimentConfig(model=config)
    model = build_model(config, channels=3, classes=2)
    model(images).sum().backward()
    manifest(model, scheme="ssprk3", steps=3)(images)
manifest(build_model(ModelConfig(network=Network.resnet, width=4), channels=3, classes=2), scheme="ssprk3", steps=2)
assert abs(float(integrate(lambda t, h: -h, torch.ones(1), scheme="ssprk3", steps=50)) - 0.3678794) < 1e-5
"""


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout in which somebody has added Shu and Osher's third-order scheme, and nothing else."""
    place = tmp_path_factory.mktemp("checkout")
    for name in ("odenet", "tests/odenet/integrators", "tests/conftest.py", "tests/grids.py", "pyproject.toml"):
        copied = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        copied(ROOT / name, place / name)
    add(place / "odenet/enums.py", '    rk4_38 = "rk4_38"\n', '    ssprk3 = "ssprk3"\n')
    tableau = '_tableau("SSPRK3", 3, [[], ["1"], ["1/4", "1/4"]], "1/6 1/6 2/3")'
    add(
        place / "odenet/integrators/schemes.py",
        "= {\n    Scheme.euler:",
        f"\n    Scheme.ssprk3: {tableau},",
        after="= {",
    )
    return place


def add(file: Path, found: str, line: str, after: str | None = None) -> None:
    text = file.read_text()
    assert text.count(found) == 1
    place = text.index(found) + len(after or found)
    file.write_text(text[:place] + line + text[place:])


def run(place: Path, *arguments: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(place)}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def test_networks_are_built_differentiated_and_manifested_under_it(copy: Path) -> None:
    run(copy, "-c", USED)


def test_the_contract_tests_take_it_in_and_measure_its_order(copy: Path) -> None:
    tests = [f"tests/odenet/integrators/test_{name}.py" for name in ("order", "schemes", "integrate")]
    run(copy, "-m", "pytest", "-p", "no:cacheprovider", *tests, "-k", "ssprk3 or every_scheme or papers")
