"""From a command line to a running stage: loads its configuration, claims its run directory, connects the cluster."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from omegaconf import OmegaConf
from rich.console import Console

from search_spaces import SPACES
from sweep.best import read_best
from sweep.cluster import connected, trial_resources
from sweep.commandline import Command
from sweep.compose import check_how_it_runs, compose_config, load
from sweep.config import AppConfig, SpaceConfig, save
from sweep.errors import InputError
from sweep.evaluate import check_evaluate, evaluate
from sweep.export import write_text
from sweep.final import check_final, final, load_splits
from sweep.plan import plan
from sweep.search import check, claim_directory, search
from sweep.session import Session, SweepFiles, check_name, run_directory, store_directory
from sweep.status import status, sweeps_below
from sweep.study import check_study, study
from sweep.tracking import delivering
from sweep.ui import ui


def print_config(command: Command, console: Console) -> None:
    """`--cfg job`."""
    console.print(OmegaConf.to_yaml(compose_config(command.overrides)), highlight=False)


def _plan(command: Command, console: Console) -> None:
    plan(load(command.overrides), console)


def _search(command: Command, console: Console) -> None:
    config, name = load(command.overrides), command.names[0]
    check(config)
    with _new_session(config, name, console) as session:
        search(session)
    console.print(f"Next: sweep final {name}; sweep report {name}; sweep ui {name}", highlight=False)


def _study(command: Command, console: Console) -> None:
    config, name = load(command.overrides), command.names[0]
    check_study(config, name)
    with _new_session(config, name, console) as session:
        report = study(session)
    console.print(f"Open the report: {_shown(report)}", highlight=False)
    console.print(f"Then: sweep status {name}; sweep ui {name}", highlight=False)


def _final(command: Command, console: Console) -> None:
    if command.names[0].endswith((".yaml", ".yml")):
        config, name = _from_best(Path(command.names[0]), command.overrides)
        load_splits(config)
        with _new_session(config, name, console) as session:
            write_text(session.files.config, save(config))
            shutil.copyfile(command.names[0], session.files.best)
            final(session)
    else:
        config, name = _existing(command)
        check_final(config, name)
        with _working(config, name, console) as session:
            final(session)
    console.print(f"Next: sweep evaluate {name}", highlight=False)


def _from_best(path: Path, overrides: list[str]) -> tuple[AppConfig, str]:
    """The configuration of a best.yaml, and a new run directory's name for it."""
    check_how_it_runs(overrides, path)
    best = read_best(path)
    config = load(overrides).with_experiment(best.experiment)
    family = best.provenance.get("family", config.space.name)
    if family not in SPACES:
        raise InputError(f"{path}: provenance.family={family!r} is no search space; possible are {', '.join(SPACES)}.")
    name = best.provenance.get("sweep", path.stem).replace("/", "-")
    return replace(config, space=SpaceConfig(name=family)), f"{name[:54]}-retrained"


def _evaluate(command: Command, console: Console) -> None:
    config, name = _existing(command)
    check_evaluate(config, name)
    with _working(config, name, console) as session:
        evaluate(session)
    console.print(f"Next: sweep report {name}", highlight=False)


def _report(command: Command, console: Console) -> None:
    from sweep.report import write_report

    config = load(command.overrides)
    runs = Path(config.runtime.runs_dir).resolve()
    directories = [path for name in command.names for path in _sweeps_of(runs, run_directory(config, name))]
    first = runs / command.names[0]
    output = (
        first / "report.html"
        if len(command.names) == 1
        else runs / f"report-{'-'.join(command.names).replace('/', '.')}.html"
    )
    report = write_report(directories, output, " and ".join(command.names))
    console.print(f"Open the report: {_shown(report)}", highlight=False)


def _sweeps_of(runs: Path, directory: Path) -> list[Path]:
    found = sweeps_below(directory) if directory.is_dir() else []
    if not found:
        known = ", ".join(str(path.relative_to(runs)) for path in sweeps_below(runs)) or "none"
        raise InputError(f"There is no sweep {directory.relative_to(runs)} in {runs}; there are: {known}.")
    return found


def _status(command: Command, console: Console) -> None:
    config = load(command.overrides)
    name = check_name(command.names[0]) if command.names else None
    status(Path(config.runtime.runs_dir).resolve(), name, console)


def _ui(command: Command, console: Console) -> None:
    config = load(command.overrides)
    name = command.names[0]
    ui(store_directory(config, name), run_directory(config, name), config.tracking.port, console)


RUN: dict[str, Callable[[Command, Console], None]] = {
    "plan": _plan,
    "search": _search,
    "status": _status,
    "final": _final,
    "evaluate": _evaluate,
    "report": _report,
    "study": _study,
    "ui": _ui,
}


def _existing(command: Command) -> tuple[AppConfig, str]:
    """The configuration that a sweep was searched with, and what of how it runs is set now."""
    how = load([text for text in command.overrides if text.lstrip("+").startswith("runtime.runs_dir=")])
    name = command.names[0]
    files = SweepFiles(run_directory(how, name))
    if not files.config.exists():
        runs = Path(how.runtime.runs_dir).resolve()
        known = ", ".join(str(path.relative_to(runs)) for path in sweeps_below(runs)) or "none"
        raise InputError(f"There is no sweep {name} in {runs}; there are: {known}.")
    return load(command.overrides, saved=files.config), name


@contextmanager
def _new_session(config: AppConfig, name: str, console: Console) -> Iterator[Session]:
    """A session in a run directory of its own, which goes again if nothing could be started."""
    directory = run_directory(config, name)
    claim_directory(directory)
    try:
        with _working(config, name, console) as session:
            yield session
    except InputError:
        if not any(directory.iterdir()):
            directory.rmdir()
        raise


@contextmanager
def _working(config: AppConfig, name: str, console: Console) -> Iterator[Session]:
    """Cluster joined, resources found, delivery to MLflow under way."""
    with connected(config.cluster, run_directory(config, name)):
        trial_resources(config.runtime.resources, config.cluster.autoscaling)
        with delivering(store_directory(config, name), config.tracking.uri) as tracker:
            yield Session(config, name, tracker, console)


def _shown(path: Path) -> str:
    """Relative where it is below the present directory."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
