"""From a command line to a running stage: loads its configuration, claims its run directory, connects the cluster."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from omegaconf import OmegaConf
from rich.console import Console

from search_spaces import SPACES
from sweep.cli.parse import VERIFY, Command
from sweep.cluster.connect import connected
from sweep.cluster.resources import trial_resources
from sweep.config.compose import FOLLOWS, GOES_ON, check_possible, compose_config, load
from sweep.config.schema import AppConfig, SpaceConfig, save
from sweep.errors import InputError, WorkError
from sweep.execution.session import Session
from sweep.records.best import read_best
from sweep.records.files import write_text
from sweep.records.locks import LOCK, alone, is_alive
from sweep.records.progress import Progress
from sweep.records.run_directory import (
    BEST,
    CONFIG,
    STUDY,
    SweepFiles,
    check_name,
    run_directory,
    store_directory,
)
from sweep.stages.doctor import doctor
from sweep.stages.evaluate import check_evaluate, evaluate
from sweep.stages.final import check_final, final, load_splits
from sweep.stages.plan import plan
from sweep.stages.replay import POSSIBLE, read_recording, replay
from sweep.stages.resume import check_begun, check_records
from sweep.stages.search import check, claim_directory, extended, search
from sweep.stages.status import status, sweeps_below
from sweep.stages.study import check_study, members, study
from sweep.stages.ui import ui
from sweep.stages.verify import Store, verify
from sweep.tracking.outbox import delivering


def print_config(command: Command, console: Console) -> None:
    """`--cfg job`."""
    console.print(OmegaConf.to_yaml(compose_config(command.overrides)), highlight=False)


def _plan(command: Command, console: Console) -> None:
    plan(load(command.overrides), console)


def _doctor(command: Command, console: Console) -> None:
    doctor(load(command.overrides), console)


def _search(command: Command, console: Console) -> None:
    config, name = load(command.overrides), command.names[0]
    check(config)
    with _new_session(config, name, console, {CONFIG: save(config)}) as session:
        search(session)
    _say_next(name, console)


def _say_next(name: str, console: Console) -> None:
    console.print(f"Next: sweep final {name}; sweep report {name}; sweep ui {name}", highlight=False)


def _resume(command: Command, console: Console) -> None:
    config, name = _existing(command, GOES_ON)
    files = SweepFiles(run_directory(config, name))
    if files.study.exists():
        for part, member in members(config).items():
            check_begun(member, f"{name}/{part}")
        with _working(config, name, console) as session:
            _say_report(study(session), name, console)
    elif _searches(files) and not Progress.read(files.progress).finished and not files.final.ledger.exists():
        check_begun(config, name)
        with _working(config, name, console) as session:
            search(session)
        _say_next(name, console)
    elif _retrains(files) and not Progress.read(files.final.progress).finished:
        if files.final.config.exists():
            config = load(command.overrides, files.final.config, GOES_ON)
        check_final(config, name)
        check_records(files.final)
        with _working(config, name, console) as session:
            final(session)
        console.print(f"Next: sweep evaluate {name}", highlight=False)
    else:
        raise InputError(
            f"Nothing of {name} was cut short. `sweep extend {name} search.more=10` adds trials to its search, "
            f"`sweep final {name}`, `sweep evaluate {name}` and `sweep report {name}` follow it."
        )


def _searches(files: SweepFiles) -> bool:
    """Whether a search was begun; a retrained best.yaml has none."""
    left = (files.ledger, files.curves, files.trials)
    return any(file.exists() for file in left) or not files.best.exists()


def _retrains(files: SweepFiles) -> bool:
    """Whether final training was begun."""
    return files.final.config.exists() or not _searches(files)


def _extend(command: Command, console: Console) -> None:
    config, name = _existing(command, GOES_ON)
    files = SweepFiles(run_directory(config, name))
    if files.study.exists():
        raise InputError(f"{name} is a study: extend one of its sweeps, {name}/FAMILY-dDRAW.")
    config = extended(config, files)
    check_begun(config, name)
    with _working(config, name, console) as session:
        search(session)
    _say_next(name, console)


def _study(command: Command, console: Console) -> None:
    config, name = load(command.overrides), command.names[0]
    check_study(config, name)
    with _new_session(config, name, console, {STUDY: save(config)}) as session:
        report = study(session)
    _say_report(report, name, console)


def _say_report(report: Path, name: str, console: Console) -> None:
    console.print(f"Open the report: {_shown(report)}", highlight=False)
    console.print(f"Then: sweep status {name}; sweep ui {name}", highlight=False)


def _final(command: Command, console: Console) -> None:
    if command.names[0].endswith((".yaml", ".yml")):
        config, name = _from_best(Path(command.names[0]), command.overrides)
        load_splits(config)
        text = Path(command.names[0]).read_text(encoding="utf-8")
        with _new_session(config, name, console, {CONFIG: save(config), BEST: text}) as session:
            final(session)
    else:
        config, name = _existing(command)
        check_final(config, name)
        check_records(SweepFiles(run_directory(config, name)).final)
        with _working(config, name, console) as session:
            final(session)
    console.print(f"Next: sweep evaluate {name}", highlight=False)


def _from_best(path: Path, overrides: list[str]) -> tuple[AppConfig, str]:
    """The configuration of a best.yaml, and a new run directory's name for it."""
    check_possible(overrides, path)
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
    from sweep.report.page import write_report

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
    runs = Path(config.runtime.runs_dir).resolve()
    status(runs, name, console)
    if name is not None and VERIFY in command.flags:
        _verify(_existing(command)[0] if SweepFiles(runs / name).config.exists() else config, name, console)


def _verify(config: AppConfig, name: str, console: Console) -> None:
    directory, store = run_directory(config, name), Store(store_directory(config, name), config.tracking.uri)
    found = {path: verify(path, store, alive=is_alive(path)) for path in _sweeps_of(directory.parent, directory)}
    for path, differences in found.items():
        for text in differences:
            console.print(f"{path.name}: {text}", highlight=False)
    count = sum(map(len, found.values()))
    if count:
        raise WorkError(f"trials.csv, Ray, the Optuna study and MLflow differ in {count} places.")
    console.print("trials.csv, Ray, the Optuna study and MLflow agree on every trial.", highlight=False)


def _replay(command: Command, console: Console) -> None:
    config, name = _existing(command, POSSIBLE)
    replay(config, read_recording(SweepFiles(run_directory(config, name))), name, console)


def _ui(command: Command, console: Console) -> None:
    config = load(command.overrides)
    name = command.names[0]
    ui(store_directory(config, name), run_directory(config, name), config.tracking.port, console)


RUN: dict[str, Callable[[Command, Console], None]] = {
    "plan": _plan,
    "search": _search,
    "doctor": _doctor,
    "resume": _resume,
    "extend": _extend,
    "status": _status,
    "final": _final,
    "evaluate": _evaluate,
    "report": _report,
    "study": _study,
    "replay": _replay,
    "ui": _ui,
}


def _existing(command: Command, possible: tuple[str, ...] = FOLLOWS) -> tuple[AppConfig, str]:
    """The configuration that a sweep was searched with, or a study begun, and what of it is set now."""
    how = load([text for text in command.overrides if text.lstrip("+").startswith("runtime.runs_dir=")])
    name = command.names[0]
    files = SweepFiles(run_directory(how, name))
    saved = files.study if files.study.exists() else files.config
    if not saved.exists():
        runs = Path(how.runtime.runs_dir).resolve()
        known = ", ".join(str(path.relative_to(runs)) for path in sweeps_below(runs)) or "none"
        raise InputError(f"There is no sweep {name} in {runs}; there are: {known}.")
    return load(command.overrides, saved, possible), name


@contextmanager
def _new_session(config: AppConfig, name: str, console: Console, begun: dict[str, str]) -> Iterator[Session]:
    """A session in a run directory of its own, which goes again if nothing could be started. `begun`: texts of files
    by which `sweep resume` knows from the first moment what it is."""
    directory = run_directory(config, name)
    claim_directory(directory)
    for file, text in begun.items():
        write_text(directory / file, text)
    try:
        with _working(config, name, console) as session:
            yield session
    except InputError:
        if {path.name for path in directory.iterdir()} <= {LOCK, *begun}:
            shutil.rmtree(directory)
        raise


@contextmanager
def _working(config: AppConfig, name: str, console: Console) -> Iterator[Session]:
    """Cluster joined, resources found, delivery to MLflow under way."""
    with alone(config, name), connected(config.cluster, run_directory(config, name)):
        trial_resources(config.runtime.resources, config.cluster.autoscaling)
        with delivering(store_directory(config, name), config.tracking.uri) as tracker:
            yield Session(config, name, tracker, console)


def _shown(path: Path) -> str:
    """Relative where it is below the present directory."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
