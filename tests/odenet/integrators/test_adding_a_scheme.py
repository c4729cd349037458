"""The recipes of CONTRIBUTING.md for schemes, followed to their end in a copy of the package."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
USED = """
from odenet import ExperimentConfig, Gradient, ModelConfig, Network, Scheme, Start, build_model, integrate, manifest
import torch

images = torch.linspace(0, 1, 2 * 3 * 64).view(2, 3, 8, 8)

def used(network, scheme, **more):
    nodes = 1 if network is Network.neural_ode else 2
    config = ModelConfig(network=network, scheme=scheme, width=4, nodes=nodes, **more)
    ExperimentConfig(model=config)
    model = build_model(config, channels=3, classes=2)
    model(images).sum().backward()
    manifest(model, scheme=scheme, steps=3)(images)
    return model

for network in (Network.continuous, Network.hamiltonian, Network.heunnet, Network.neural_ode):
    used(network, Scheme.ssprk3)
manifest(build_model(ModelConfig(network=Network.resnet, width=4), channels=3, classes=2), scheme="ssprk3", steps=2)
used(Network.neural_ode, Scheme.bosh3, tolerance=1e-4)
used(Network.neural_ode, Scheme.bosh3, gradient=Gradient.reconstructed)
model = used(Network.hamiltonian, Scheme.verlet_back, gradient=Gradient.reconstructed)
manifest(used(Network.hamiltonian, Scheme.verlet), scheme="verlet_back", steps=2)

def error(scheme):
    return abs(float(integrate(lambda t, h: -h, torch.ones(1).double(), scheme=scheme, steps=50)) - 0.36787944)

assert error("ssprk3") < 1e-5
assert error("dopri5") < error("bosh3") < 0.05
for said, config in {
    "fixed steps": {"scheme": Scheme.bosh3, "gradient": Gradient.checkpointed},
    "a start is for two_step_midpoint, leapfrog; ": {"scheme": Scheme.bosh3, "start": Start.repeat},
    "a tolerance is for bosh3, dopri5; ": {"scheme": Scheme.rk4, "tolerance": 1e-4},
}.items():
    try:
        ExperimentConfig(model=ModelConfig(network=Network.neural_ode, nodes=1, **config))
        raise AssertionError(said)
    except ValueError as error:
        assert said in str(error), error
"""
PAIR = """@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionedBack(Partitioned):
    def shears(self, rate: OpenRate, step: int, course: Course) -> list[Shear]:
        return Partitioned.shears(self, rate, step, course)[::-1]


"""


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout in which somebody has added Shu and Osher's third-order scheme, Bogacki and Shampine's adaptive pair
    and symplectic Euler in the other order, and nothing else."""
    place = tmp_path_factory.mktemp("checkout")
    for name in ("odenet", "tests/odenet/integrators", "tests/conftest.py", "tests/grids.py", "pyproject.toml"):
        copied = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        copied(ROOT / name, place / name)
    for name in ("ssprk3", "bosh3", "verlet_back"):
        add(place / "odenet/enums.py", '    dopri5 = "dopri5"\n', f'    {name} = "{name}"\n')
    schemes = place / "odenet/integrators/schemes.py"
    for line in (
        'Scheme.ssprk3: _tableau("SSPRK3", 3, [[], ["1"], ["1/4", "1/4"]], "1/6 1/6 2/3"),',
        'Scheme.bosh3: Adaptive(name="bosh3", order=3, evaluations=3),',
        'Scheme.verlet_back: PartitionedBack(name="Verlet backwards", order=1),',
    ):
        add(schemes, "    Scheme.dopri5: ", f"    {line}\n", after="")
    add(schemes, "@dataclass(frozen=True, slots=True, kw_only=True)\nclass Adaptive", PAIR, after="")
    return place


def add(file: Path, found: str, line: str, after: str | None = None) -> None:
    text = file.read_text()
    assert text.count(found) == 1
    place = text.index(found) + len(found if after is None else after)
    file.write_text(text[:place] + line + text[place:])


def run(place: Path, *arguments: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(place)}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def test_networks_are_built_differentiated_and_manifested_under_them(copy: Path) -> None:
    run(copy, "-c", USED)


def test_the_contract_tests_take_them_in_and_measure_their_order(copy: Path) -> None:
    tests = [f"tests/odenet/integrators/test_{name}.py" for name in ("order", "schemes", "integrate", "gradients")]
    chosen = "ssprk3 or bosh3 or every_scheme or papers or (verlet_back and not announced)"
    run(copy, "-m", "pytest", "-p", "no:cacheprovider", *tests, "-k", chosen)
