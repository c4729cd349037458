"""What `import odenet` offers, and that a configuration is made and refused before torch is loaded."""

import ast
import subprocess
import sys
from enum import Enum
from importlib import import_module
from pathlib import Path

import pytest

import odenet

ROOT = Path(__file__).parents[2]
TREE = ast.parse((ROOT / "odenet/__init__.py").read_text())


def heavy_after(code: str) -> str:
    """Return which heavy libraries a fresh process has loaded after running `code`."""
    heavy = ["numpy", "sklearn", "torch", "torchdiffeq", "torchvision"]
    code += f"; import sys; print([name for name in {heavy} if name in sys.modules])"
    run = [sys.executable, "-c", code]
    return subprocess.run(run, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True).stdout.strip()


@pytest.mark.parametrize(
    "code",
    [
        "import odenet",
        "from odenet import ExperimentConfig; ExperimentConfig()",
        "from odenet.training.config import *; identity(from_plain(ExperimentConfig, to_plain(ExperimentConfig())))",
        "from odenet import RuntimeConfig, ModelConfig; RuntimeConfig(compile=True).check(ModelConfig())",
    ],
)
def test_a_configuration_is_made_without_torch(code: str) -> None:
    assert heavy_after(code) == "[]"


@pytest.mark.parametrize(
    ("plain", "said"),
    [
        ({"model": {"widht": 2}}, "model.widht is no key"),
        ({"model": {"scheme": "eulre"}}, "must be one of euler"),
        ({"model": {"network": "revnet", "width": 3}}, "halves its channels"),
        ({"model": {"basis": "hat", "scheme": "euler", "nodes": 3}}, "never reads node 2"),
        ({"model": {"network": "lm_resnet", "gradient": "reconstructed"}}, "divides by k_n"),
        ({"model": {"basis": "discontinuous_linear", "nodes": 3}}, "must be even"),
        ({"model": {"basis": "polynomial", "scheme": "rk4"}, "refinement": {"count": 2}}, ""),
        ({"optim": {"lr": 0.0}}, "must be positive"),
        ({"data": {"draw": -1}}, "is negative"),
    ],
)
def test_a_configuration_is_refused_without_torch(plain: object, said: str) -> None:
    code = f"""
from odenet.training.config import *
try:
    from_plain(ExperimentConfig, {plain!r})
    assert not {said!r}
except ValueError as error:
    assert {said!r} in str(error), error
pass"""
    assert heavy_after(code) == "[]"


def test_every_enumeration_is_had_without_torch() -> None:
    names = [name for name in odenet.__all__ if isinstance(getattr(odenet, name), type)]
    closed = [name for name in names if issubclass(getattr(odenet, name), Enum)]
    assert {"Scheme", "Projection", "DataSet", "Schedule"} <= set(closed)
    assert heavy_after(f"from odenet import {', '.join(closed)}") == "[]"


def test_type_checkers_see_the_names_that_are_loaded() -> None:
    (block,) = [node for node in TREE.body if isinstance(node, ast.If)]
    seen = {
        alias.name: node.module.removeprefix("odenet.")
        for node in block.body
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }
    assert seen == odenet._MODULE_OF
    assert sorted(seen, key=str) == sorted(odenet.__all__) == [name for name in dir(odenet) if name in seen]


@pytest.mark.parametrize("name", odenet.__all__)
def test_a_public_name_is_defined_where_it_is_said_to_be(name: str) -> None:
    value = getattr(odenet, name)
    assert value is getattr(import_module(f"odenet.{odenet._MODULE_OF[name]}"), name)
    assert value.__module__ == f"odenet.{odenet._MODULE_OF[name]}"


def test_another_name_is_refused() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'integarte'"):
        odenet.integarte  # noqa: B018
