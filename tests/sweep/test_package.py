"""The package as a notebook uses it: four functions, which load nothing before they are called."""

import doctest
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import sweep
from sweep.errors import InputError
from sweep.records.outcome import Outcome
from tests.sweep.sweep_files import trial, write_sweep


@pytest.mark.parametrize(
    "imports", ["from sweep import load_config, search, read_trials, read_best", "import sweep.cli.parse"]
)
def test_package_and_command_line_load_no_library_before_they_have_work(imports: str) -> None:
    heavy = ("torch", "ray", "optuna", "mlflow", "hydra", "numpy")
    code = f"import sys; {imports}; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "[]"


def test_its_functions_stay_functions_when_its_folders_have_been_imported() -> None:
    import sweep.cli.commands
    import sweep.stages.search

    assert [callable(getattr(sweep, name)) for name in sweep.__all__] == [True] * 4


def test_trials_and_the_best_are_read_from_a_run_directory(tmp_path: Path) -> None:
    write_sweep(tmp_path, [trial(0, objective=0.7), trial(1, outcome=Outcome.diverged)])
    assert [row.number for row in sweep.read_trials(tmp_path / "x")] == [0, 1]
    assert sweep.read_best(tmp_path / "x") == sweep.read_best(tmp_path / "x" / "best.yaml")
    assert sweep.read_best(str(tmp_path / "x")).provenance["trial"] == 0


@pytest.mark.parametrize("read", [sweep.read_trials, sweep.read_best])
def test_what_is_not_there_is_named_with_what_would_have_it(tmp_path: Path, read: Callable[[Path], object]) -> None:
    for place in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InputError, match=rf"There is no {place}/\w+\.\w+: the run directory of a search has it"):
            read(place)


def test_its_example_runs() -> None:
    assert doctest.testmod(sweep).failed == 0
