"""Find the run directories that a command line names, with their configurations."""

from dataclasses import replace
from pathlib import Path

from search_spaces import SPACES
from sweep.cli.command_line import Command
from sweep.config.compose import FOLLOWS, check_possible, load
from sweep.config.schema import AppConfig, SpaceConfig
from sweep.errors import InputError
from sweep.records.best import Best, read_best
from sweep.records.run_directory import SweepFiles, run_directory
from sweep.stages.status import missing, sweeps_below


def existing(command: Command, possible: tuple[str, ...] = FOLLOWS) -> tuple[AppConfig, str]:
    """Load the configuration that a sweep was searched with, or a study begun, with what is set of it now; and its
    name."""
    how = load([text for text in command.overrides if text.lstrip("+").startswith("runtime.runs_dir=")])
    name = command.names[0]
    files = SweepFiles(run_directory(how, name))
    saved = files.study if files.study.exists() else files.config
    if not saved.exists():
        raise missing(Path(how.runtime.runs_dir).resolve(), name)
    return here(load(command.overrides, saved, possible), how), name


def here(config: AppConfig, how: AppConfig) -> AppConfig:
    """Return a saved configuration whose directory of results is the one where it was found: it may have been moved."""
    return replace(config, runtime=replace(config.runtime, runs_dir=how.runtime.runs_dir))


def from_best(path: Path, overrides: list[str]) -> tuple[AppConfig, str, Best]:
    """Load the configuration of a best.yaml, derive a new run directory's name, and return both with the file's
    content."""
    check_possible(overrides, path)
    best = read_best(path)
    config = load(overrides).with_experiment(best.experiment)
    family = best.provenance.get("family", config.space.name)
    if family not in SPACES:
        raise InputError(f"{path}: provenance.family={family!r} is no search space; possible are {', '.join(SPACES)}.")
    name = best.provenance.get("sweep", path.stem).replace("/", "-")
    return replace(config, space=SpaceConfig(name=family)), f"{name[:54]}-retrained", best


def sweeps_of(runs: Path, directory: Path) -> list[Path]:
    found = sweeps_below(directory) if directory.is_dir() else []
    if not found:
        raise missing(runs, str(directory.relative_to(runs)))
    return found


def shown(path: Path) -> str:
    """Write a path relative to the present directory where it is below it."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
