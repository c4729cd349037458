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
    "odenet": {
        *(
            "numpy",
            "scipy",
            "torch",
            "torchdiffeq",
            "torchvision",
            "sklearn",
            "PIL",
            "safetensors",
            "onnxruntime",
            "pyautoattack",
        ),
    },
    "search_spaces": set[str](),
    "sweep": {
        *("odenet", "search_spaces", "torch", "numpy", "rich", "yaml"),
        *(
            "boto3",
            "botocore",
            "grpc",
            "hydra",
            "jinja2",
            "matplotlib",
            "mlflow",
            "omegaconf",
            "opda",
            "optuna",
            "packaging",
            "plotly",
            "ray",
            "scipy",
            "sqlalchemy",
            "statsmodels",
        ),
    },
}
# Behind which modules a dependency sits. MLflow's server and Optuna's dashboard are started by `ui` as processes.
ONLY_IN = {
    "sklearn": {"odenet.data"},
    "torchdiffeq": {"odenet.integrators.schemes"},
    "torchvision": {"odenet.data"},
    "PIL": {"odenet.data.folder", "odenet.robustness"},
    "safetensors": {"odenet.training.export", "odenet.pretrained.weight_file"},
    "onnxruntime": {"odenet.training.export"},
    "pyautoattack": {"odenet.robustness.attacks"},
    "boto3": {"sweep.storage.bucket"},
    "botocore": {"sweep.storage.bucket"},
    "grpc": {"sweep.cluster.join"},
    "hydra": {"sweep.config", "sweep.cli.completion"},
    "omegaconf": {"sweep.config"},
    "jinja2": {"sweep.report.page"},
    "mlflow": {"sweep.tracking"},
    "matplotlib": {"sweep.report.paper"},
    "opda": {"sweep.report.inference.bands"},
    "statsmodels": {"sweep.report.inference.mixed_model"},
    "optuna": {"sweep.tuning", "sweep.stages.verify"},
    "packaging": {"sweep.stages.doctor"},
    "plotly": {"sweep.report"},
    "ray": {"sweep.cluster", "sweep.worker", "sweep.execution", "sweep.stages.evaluate", "sweep.stages.doctor"},
    "scipy": {"odenet.robustness", "odenet.diagnostics", "sweep.report.statistics", "sweep.report.inference"},
    "sqlalchemy": {"sweep.tracking.store"},
}
ONLY_IN_FUNCTIONS = {
    "sklearn",
    "torchdiffeq",
    "torchvision",
    "PIL",
    "safetensors",
    "onnxruntime",
    "grpc",
    "boto3",
    "botocore",
    "pyautoattack",
}
COMES_WITH = {
    "grpc": ["ray"],
    "sqlalchemy": ["mlflow"],
    "botocore": ["boto3"],
}  # whose own channel and database are looked into


@dataclass(frozen=True)
class Import:
    module: str  # importing, dotted: sweep.report.figures
    target: str  # imported, dotted: a module, or a thing in one
    inside: bool  # a function

    def sits_in(self, place: str) -> bool:
        return f"{self.module}.".startswith(f"{place}.")


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
        # `from sweep.tuning import samplers` names a module, `from sweep.tuning.samplers import given` a thing in one.
        is_folder = ROOT.joinpath(*node.module.split(".")).is_dir()
        return [f"{node.module}.{alias.name}" if is_folder else node.module for alias in node.names]
    return []


def imports(package: str) -> Iterator[Import]:
    for path in sources(package):
        nested = {id(node) for function in functions(parsed(path)) for node in ast.walk(function)}
        for node in ast.walk(parsed(path)):
            yield from (Import(dotted(path), target, id(node) in nested) for target in targets(node))


def orders(package: str) -> dict[str, list[set[str]]]:
    """The groups of CONTRIBUTING.md from left to right: of a package (key "") and of its folders by name."""
    paragraphs = (ROOT / "CONTRIBUTING.md").read_text().split("\n\n")
    heads = [place for place, text in enumerate(paragraphs) if text.startswith(f"`{package}` (")]
    assert len(heads) == 1, f"CONTRIBUTING.md gives no order, or more than one, for {package}"
    found = {"": paragraphs[heads[0] + 1]}
    if ":" in paragraphs[heads[0] + 2].partition("<")[0]:
        for line in re.sub(r"\n +<", " <", paragraphs[heads[0] + 2]).splitlines():
            folder, _, order = line.partition(":")
            found[folder.strip()] = order
    return {folder: [set(re.findall(r"\w+", group)) for group in text.split("<")] for folder, text in found.items()}


def parts(name: str, package: str) -> tuple[str, str]:
    """Folder and module of a dotted name: ("config", "schema"); ("", "errors") for a module outside of all folders."""
    first, *rest = name.removeprefix(f"{package}.").split(".")
    return (first, rest[0] if rest else "") if (ROOT / package / first).is_dir() else ("", first)


# Imports


@pytest.mark.parametrize("package", ["odenet", "sweep"])
def test_a_module_imports_only_what_stands_left_of_it(package: str) -> None:
    ranks = {
        (folder, name): place
        for folder, groups in orders(package).items()
        for place, group in enumerate(groups)
        for name in group
    }
    for found in imports(package):
        if found.module == package or not f"{found.target}.".startswith(f"{package}."):
            continue  # the package's own face, or another package
        assert found.target != package, f"{found.module} imports the face of its package, and so what it likes"
        (here, module), (there, target) = parts(found.module, package), parts(found.target, package)
        if here == there and (here, module) in ranks:
            places = (here, target), (here, module)
            if module == target:
                continue
        else:
            places = ("", there or target), ("", here or module)
            if places[0] == places[1]:
                continue  # within a folder that has no order of its own
        assert set(places) <= ranks.keys(), f"CONTRIBUTING.md has no place for {found.module} or {found.target}"
        assert ranks[places[0]] < ranks[places[1]], f"{found.module} imports {found.target}"


def test_no_module_is_imported_by_a_text() -> None:
    """Which the tests above would not see: but where names are loaded when asked for, and where users' modules are."""
    by_text = {
        dotted(path)
        for path in sources(*PACKAGES)
        for node in ast.walk(parsed(path))
        if {getattr(node, name, "") for name in ("id", "attr")} & {"import_module", "__import__", "run_module"}
    }
    users = {"odenet.networks.table", "sweep.config.modules"}
    assert by_text == {"odenet", "odenet.renamed", "sweep.stages.doctor", *users}


@pytest.mark.parametrize("package", ["odenet", "sweep"])
def test_the_order_names_every_module_and_no_other(package: str) -> None:
    for folder, groups in orders(package).items():
        named = [name for group in groups for name in sorted(group)]
        assert len(named) == len(set(named))
        place = ROOT / package / folder
        present = {path.relative_to(place).parts[0].removesuffix(".py") for path in place.rglob("*.py")}
        assert set(named) == present - {"__init__", "conf"}, folder or package


@pytest.mark.parametrize("package", ["odenet", "sweep"])
def test_every_folder_has_an_order_of_its_own(package: str) -> None:
    folders = {path.parent.name for path in (ROOT / package).glob("*/__init__.py")}
    assert folders == set(orders(package)) - {""}


@pytest.mark.parametrize("package", ["odenet", "sweep"])
def test_a_folder_has_at_most_about_a_dozen_modules(package: str) -> None:
    sizes = {folder: len(list((ROOT / package / folder).glob("*.py"))) - 1 for folder in orders(package)}
    most = {"stages": 16}  # a module for each stage of the command
    assert {folder: size for folder, size in sizes.items() if size > most.get(folder, 15)} == {}


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_only_what_it_is_allowed(package: str) -> None:
    for found in imports(package):
        name = found.target.split(".")[0]
        allowed = name in sys.stdlib_module_names or name == package or name in MAY_IMPORT[package]
        assert allowed, f"{found.module} imports {found.target}"
        assert name not in ONLY_IN or any(map(found.sits_in, ONLY_IN[name])), f"{found.module} imports {found.target}"
        assert name not in ONLY_IN_FUNCTIONS or found.inside, f"{found.module} imports {found.target} where it stands"


def test_every_imported_library_is_required_in_pyproject() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *project["optional-dependencies"]["onnx"]]
    required = {re.match(r"[\w-]+", line)[0].lower() for line in lines}  # type: ignore[index]
    distributions = {**packages_distributions(), **COMES_WITH}
    outside = {found.target.split(".")[0] for package in PACKAGES for found in imports(package)}
    outside -= sys.stdlib_module_names | set(PACKAGES)
    assert {name for name in outside if not {d.lower() for d in distributions[name]} & required} == set()


def test_importing_odenet_loads_no_library_of_the_sweep_no_reader_of_data_and_no_reference_solver() -> None:
    unwanted = MAY_IMPORT["sweep"] - {"odenet", "numpy", "torch"} | {"sweep", *ONLY_IN_FUNCTIONS}
    code = f"import sys, odenet; print(sorted(set({sorted(unwanted)}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "[]"


# Names


def test_a_type_has_a_name_of_its_own() -> None:
    """Also a type variable, an alias, and one for its module only."""
    places: dict[str, list[str]] = {}
    for path in sources(*PACKAGES):
        for node in parsed(path).body:
            named = node.targets[0] if isinstance(node, ast.Assign) else node
            name = getattr(named, "name", "") or getattr(named, "id", "")
            is_type = isinstance(node, ast.ClassDef) or re.fullmatch(r"_?[A-Z][a-z]\w*", name)
            if is_type and not isinstance(node, ast.FunctionDef):
                places.setdefault(name.lstrip("_"), []).append(dotted(path))
    assert {name: modules for name, modules in places.items() if len(modules) > 1} == {}


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
