"""Who may import whom, which module a heavy dependency sits behind, and how long things may be."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("odenet", "search_spaces", "sweep")

# What a package may import besides the standard library and itself.
MAY_IMPORT = {
    "odenet": {"numpy", "torch", "torchdiffeq", "torchvision", "sklearn"},
    "search_spaces": set[str](),
    "sweep": {
        *("odenet", "search_spaces", "torch", "numpy", "rich", "yaml"),
        *("grpc", "hydra", "jinja2", "mlflow", "omegaconf", "optuna", "packaging", "plotly", "ray", "scipy"),
    },
}
# Behind which modules a dependency sits. MLflow's server and Optuna's dashboard are started by `ui` as processes.
ONLY_IN = {
    "sklearn": {"odenet.data"},
    "torchdiffeq": {"odenet.schemes"},
    "torchvision": {"odenet.data"},
    "grpc": {"sweep.cluster.join"},
    "hydra": {"sweep.config.schema", "sweep.config.compose", "sweep.cli.parse"},
    "omegaconf": {"sweep.config.schema", "sweep.config.compose", "sweep.cli.commands"},
    "jinja2": {"sweep.report"},
    "mlflow": {"sweep.tracking.delivery"},
    "optuna": {
        "sweep.search.samplers",
        "sweep.search.optuna_study",
        "sweep.search.ask_and_tell",
        "sweep.stages.verify",
    },
    "packaging": {"sweep.stages.doctor"},
    "plotly": {"sweep.report"},
    "ray": {
        *(
            "sweep.cluster.join",
            "sweep.cluster.connect",
            "sweep.execution.trainable",
            "sweep.execution.run",
            "sweep.execution.ray_adapter",
        ),
        *("sweep.stages.evaluate", "sweep.stages.doctor"),
    },
    "scipy": {"sweep.report.statistics"},
}
ONLY_IN_FUNCTIONS = {"sklearn", "torchdiffeq", "torchvision", "grpc"}
COMES_WITH = {"grpc": ["ray"]}  # Ray's own channel is what is looked into
STAGES_TOGETHER = {("plan", "search")}  # `search.check` is what plan shows


@dataclass(frozen=True)
class Import:
    module: str  # importing, dotted: sweep.report.figures
    target: str  # imported, dotted
    inside: bool  # a function

    @property
    def unit(self) -> str:
        """The importing module as the order knows it: sweep.report."""
        return ".".join(self.module.split(".")[:2])


def sources(*packages: str) -> list[Path]:
    return [path for package in packages for path in sorted((ROOT / package).rglob("*.py"))]


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def functions(tree: ast.AST) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def targets(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, "imports are absolute"
        assert node.module is not None
        # `from sweep import search` names a module, `from sweep.search import run` a thing in one.
        return [f"{node.module}.{alias.name}" if node.module in PACKAGES else node.module for alias in node.names]
    return []


def imports(package: str) -> Iterator[Import]:
    for path in sources(package):
        nested = {id(node) for function in functions(parsed(path)) for node in ast.walk(function)}
        for node in ast.walk(parsed(path)):
            yield from (Import(dotted(path), target, id(node) in nested) for target in targets(node))


def order(package: str) -> list[set[str]]:
    """The groups of CONTRIBUTING.md from left to right; modules of one group do not import each other."""
    paragraphs = (ROOT / "CONTRIBUTING.md").read_text().split("\n\n")
    heads = [place for place, text in enumerate(paragraphs) if text.startswith(f"`{package}` (")]
    assert len(heads) == 1, f"CONTRIBUTING.md gives no order, or more than one, for {package}"
    return [set(re.findall(r"\w+", group)) for group in paragraphs[heads[0] + 1].split("<")]


# Imports


@pytest.mark.parametrize("package", ["odenet", "sweep"])
def test_a_module_imports_only_what_stands_left_of_it(package: str) -> None:
    rank = {f"{package}.{name}": place for place, group in enumerate(order(package)) for name in group}
    for found in imports(package):
        target = ".".join(found.target.split(".")[:2])
        if found.unit == package or target.split(".")[0] != package or target == found.unit:
            continue  # the package's own face, another package, or within one module
        assert {target, found.unit} <= rank.keys(), f"CONTRIBUTING.md has no place for {target} or {found.unit}"
        pair = (found.unit.split(".")[1], target.split(".")[1])
        assert rank[target] < rank[found.unit] or pair in STAGES_TOGETHER, f"{found.module} imports {found.target}"


@pytest.mark.parametrize("package", ["odenet", "sweep"])
def test_the_order_names_every_module_and_no_other(package: str) -> None:
    named = [name for group in order(package) for name in sorted(group)]
    assert len(named) == len(set(named))
    present = {path.relative_to(ROOT / package).parts[0].removesuffix(".py") for path in sources(package)}
    assert set(named) == present - {"__init__", "conf"}


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_only_what_it_is_allowed(package: str) -> None:
    for found in imports(package):
        name = found.target.split(".")[0]
        allowed = name in sys.stdlib_module_names or name == package or name in MAY_IMPORT[package]
        assert allowed, f"{found.module} imports {found.target}"
        assert name not in ONLY_IN or found.unit in ONLY_IN[name], f"{found.module} imports {found.target}"
        assert name not in ONLY_IN_FUNCTIONS or found.inside, f"{found.module} imports {found.target} where it stands"


def test_every_imported_library_is_required_in_pyproject() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    required = {re.match(r"[\w-]+", line)[0].lower() for line in project["dependencies"]}  # type: ignore[index]
    distributions = {**packages_distributions(), **COMES_WITH}
    outside = {found.target.split(".")[0] for package in PACKAGES for found in imports(package)}
    outside -= sys.stdlib_module_names | set(PACKAGES)
    assert {name for name in outside if not {d.lower() for d in distributions[name]} & required} == set()


def test_importing_odenet_loads_no_library_of_the_sweep_no_reader_of_data_and_no_reference_solver() -> None:
    unwanted = MAY_IMPORT["sweep"] - {"odenet", "numpy", "torch"} | {"sweep", "torchdiffeq", "torchvision", "sklearn"}
    code = f"import sys, odenet; print(sorted(set({sorted(unwanted)}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "[]"


# Lengths


def test_no_file_is_longer_than_300_lines() -> None:
    lengths = {dotted(path): len(path.read_text().splitlines()) for path in sources(*PACKAGES)}
    assert {module: length for module, length in lengths.items() if length > 300} == {}


def test_functions_are_short() -> None:
    lengths = {}
    for path in sources(*PACKAGES):
        for function in functions(parsed(path)):
            end = function.end_lineno or function.lineno
            lengths[f"{dotted(path)}.{function.name}:{function.lineno}"] = end - function.lineno + 1
    ranked = sorted(lengths.values())
    assert {name: length for name, length in lengths.items() if length > 60} == {}
    assert ranked[len(ranked) // 2] <= 10
    assert ranked[len(ranked) * 9 // 10] <= 30


def test_no_function_takes_more_than_five_parameters() -> None:
    long = []
    for path in sources(*PACKAGES):
        for function in functions(parsed(path)):
            given = function.args
            names = [
                a.arg for a in (*given.posonlyargs, *given.args, *given.kwonlyargs) if a.arg not in ("self", "cls")
            ]
            if len(names) + bool(given.vararg) + bool(given.kwarg) > 5:
                long.append(f"{dotted(path)}.{function.name}")
    assert long == []
