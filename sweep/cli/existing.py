"""Find the run directories that a command line names, with their configurations."""

from dataclasses import replace
from functools import partial
from pathlib import Path

from search_spaces import OURS, SHARED, SPACES, Space, as_written
from sweep.cli.command_line import Command
from sweep.config.compose import FOLLOWS, check_possible, load, value_of
from sweep.config.modules import changed_since, hashes, not_named
from sweep.config.own import OF_THE_USER
from sweep.config.schema import AppConfig, SpaceConfig
from sweep.console import PlainConsole, say
from sweep.errors import InputError
from sweep.records.best import Best, read_best
from sweep.records.run_directory import SweepFiles, kept_modules, run_directory, store_directory
from sweep.stages.status import missing, sweeps_below

DATA_PATH, STORAGE = "data.path=", "runtime.storage="


def existing(command: Command, possible: tuple[str, ...] = FOLLOWS) -> tuple[AppConfig, str]:
    """Load the configuration that a sweep was searched with, or a study begun, with what is set of it now; and its
    name."""
    where = [text for text in command.overrides if text.startswith((*OF_THE_USER, "runtime.runs_dir=", STORAGE))]
    how = load(where)
    name = command.names[0]
    files = SweepFiles(run_directory(how, name))
    _rebuild(how, name)
    saved = files.study if files.study.exists() else files.config
    if not saved.is_file():
        raise missing(Path(how.runtime.runs_dir).resolve(), name)
    config = here(load(command.overrides, saved, possible, study=saved == files.study), how)
    kept = kept_modules(config, name)
    _check_unchanged(changed_since(config.modules, kept), config, f"{saved} was made with, kept in {kept}")
    return config, name


def _rebuild(how: AppConfig, name: str) -> None:
    """Build the run directory again from storage where it is not on this machine. InputError: it is not there either,
    or storage cannot be asked."""
    from sweep.storage.mirroring import answering
    from sweep.storage.rebuild import rebuild

    directory, address = store_directory(how, name), how.runtime.storage
    if address is not None and not directory.exists():
        with answering(address) as store:
            rebuild(store, directory.name, directory, partial(say, console=PlainConsole()))


def here(config: AppConfig, how: AppConfig) -> AppConfig:
    """Return a saved configuration whose directory of results is the one where it was found: it may have been moved."""
    return replace(config, runtime=replace(config.runtime, runs_dir=how.runtime.runs_dir))


def _check_unchanged(changed: list[str], config: AppConfig, origin: str) -> None:
    """Raise InputError where modules of the user are others by now."""
    if changed and not config.search.accept_changes:
        raise InputError(
            f"The modules {', '.join(changed)} are not those that {origin}. Go back to them, or go on with "
            "search.accept_changes=true, and say so where you report it."
        )


def from_best(path: Path, overrides: list[str]) -> tuple[AppConfig, str, Best]:
    """Load the configuration of a best.yaml, derive a new run directory's name, and return both with the file's
    content."""
    check_possible(overrides, path)
    places = [text for text in overrides if text.startswith(DATA_PATH)]
    config = load([text for text in overrides if text not in places])
    best = read_best(path)
    recorded = best.provenance.get("modules", {})
    if missing := [name for name in recorded if name not in config.modules]:
        raise not_named(missing, path)
    changed = [name for name, was in hashes(recorded).items() if was != recorded[name]]
    _check_unchanged(changed, config, f"{path} was made with")
    experiment = best.experiment
    try:
        for text in places:
            experiment = replace(experiment, data=replace(experiment.data, path=value_of(text)))
    except ValueError as error:
        raise InputError(str(error)) from error
    name = best.provenance.get("sweep", path.stem).replace("/", "-")
    config = replace(config.with_experiment(experiment), space=_space_of(best, path, config))
    return config, f"{name[:54]}-retrained", replace(best, experiment=experiment)


def _space_of(best: Best, path: Path, config: AppConfig) -> SpaceConfig:
    """Return the space that it was found in, one of the user's own as the file has it. InputError: there is none."""
    family = str(best.provenance.get("family", config.space.name))
    name, is_shared = family.removesuffix(SHARED), family.endswith(SHARED)
    if name in OURS:
        return SpaceConfig(name=name, shared=is_shared)
    try:
        parameters = as_written(Space.from_dict(best.provenance.get("space", {})))
        own = SpaceConfig(name=name, parameters=parameters, shared=is_shared)
        own.build()
        return own
    except ValueError as error:
        raise InputError(
            f"{path}: provenance.family={family!r} is no search space; possible are {', '.join(SPACES)}, or one that "
            f"provenance.space describes: {error}"
        ) from error


def sweeps_of(runs: Path, directory: Path) -> list[Path]:
    found = sweeps_below(directory) if directory.is_dir() else []
    if not found:
        raise missing(runs, str(directory.relative_to(runs)))
    return found


def shown(path: Path) -> str:
    """Write a path relative to the present directory where it is below it."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
