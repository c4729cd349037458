"""A distributed search for hyperparameters, as a notebook uses it; `sweep --help` is the command.

>>> from sweep import load_config
>>> config = load_config("space=smoke", "search.trials=4")
>>> config.search.trials
4

Each function imports what it needs when it is called, so that `import sweep` is cheap.
"""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sweep.config.schema import AppConfig
    from sweep.records.best import Best
    from sweep.records.rows import TrialRow

__all__ = ["load_config", "read_best", "read_trials", "search"]


def load_config(*overrides: str) -> "AppConfig":
    """Compose the typed configuration of these overrides, written as on the command line: "search.trials=4".

    Raises:
        InputError: a key, a value or a combination is not possible; the message names it and what is.
    """
    from sweep.config.compose import load

    return load(list(overrides))


def search(config: "AppConfig", name: str) -> Path:
    """Run a new sweep called `name` and return its run directory, as `sweep search NAME` does.

    Raises:
        InputError: the configuration cannot be searched, or the name is taken; nothing was started.
        WorkError: no trial ended done.
    """
    from sweep.stages.search import search_anew

    return search_anew(config, name)


def read_trials(directory: Path | str) -> "list[TrialRow]":
    """Read the trials of a search from its run directory, in the order of their numbers.

    Raises:
        InputError: there are none, or the table is damaged.
    """
    from sweep.records.rows import TrialRow
    from sweep.records.run_directory import SweepFiles
    from sweep.records.tables import read_rows

    return read_rows(_there(SweepFiles(Path(directory)).trials), TrialRow)


def read_best(directory: Path | str) -> "Best":
    """Read the best configuration from a run directory, or from the path of a best.yaml.

    Raises:
        InputError: it is not there, or no complete experiment.
    """
    from sweep.records.best import read_best
    from sweep.records.run_directory import BEST

    path = Path(directory)
    return read_best(_there(path if path.suffix in (".yaml", ".yml") else path / BEST))


def _there(file: Path) -> Path:
    """Return the file. InputError: it is not there; says what would have it."""
    from sweep.errors import InputError

    if not file.exists():
        raise InputError(
            f"There is no {file}: the run directory of a search has it, runs/NAME; within a study runs/STUDY/SWEEP."
        )
    return file
