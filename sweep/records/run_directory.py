"""What every stage is handed: the configuration, where its files are, and how to speak to the user and to MLflow."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from sweep.config.schema import AppConfig
from sweep.errors import InputError

CONFIG, STUDY, BEST = "config.yaml", "study.yaml", "best.yaml"
STAGE, JOURNAL = "stage.json", "study.journal"
_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def check_name(name: str) -> str:
    """A sweep's name, or STUDY/MEMBER for a sweep within a study.

    Raises:
        InputError: it could not be a directory of one or two levels.
    """
    parts = name.split("/")
    if len(parts) > 2 or not all(_PART.fullmatch(part) for part in parts):
        raise InputError(
            f"The name {name!r} is not possible: letters, digits, '.', '_' and '-', beginning with a letter or digit, "
            "at most 64 of them; within a study STUDY/SWEEP."
        )
    return name


def check_study_name(name: str) -> str:
    """A study's name. InputError: as `check_name`, or it is a sweep's within a study."""
    if "/" in check_name(name):
        raise InputError(f"The name {name!r} is a sweep's within a study; a study's own name has no '/'.")
    return name


@dataclass(frozen=True, slots=True)
class SweepFiles:
    """The run directory of one sweep."""

    directory: Path

    @property
    def trials(self) -> Path:
        return self.directory / "trials.csv"

    @property
    def ledger(self) -> Path:
        """How every trial stood, in order of time; the last line of a number counts."""
        return self.directory / "ledger.csv"

    @property
    def progress(self) -> Path:
        return self.directory / "progress.json"

    @property
    def manifestations(self) -> Path:
        return self.directory / "manifestations.csv"

    @property
    def checkpoints(self) -> Path:
        """A folder for each trial."""
        return self.directory / "checkpoints"

    @property
    def origin(self) -> Path:
        """What the sweep began with: space, code, data."""
        return self.directory / "origin.json"

    @property
    def stage(self) -> Path:
        """Which stage was begun last."""
        return self.directory / STAGE

    @property
    def candidates(self) -> Path:
        """The best trials of a search as complete experiments, for `sweep final`."""
        return self.directory / "candidates.yaml"

    @property
    def space(self) -> Path:
        """What was searched, for people and MLflow; nothing reads it."""
        return self.directory / "space.json"

    @property
    def journal(self) -> Path:
        """The Optuna study."""
        return self.directory / JOURNAL

    @property
    def curves(self) -> Path:
        return self.directory / "curves.csv"

    @property
    def best(self) -> Path:
        return self.directory / BEST

    @property
    def config(self) -> Path:
        return self.directory / CONFIG

    @property
    def final(self) -> "SweepFiles":
        """Trials and curves of the phases confirm and final."""
        return SweepFiles(self.directory / "final")

    @property
    def crowned(self) -> Path:
        return self.directory / "final" / "crowned.yaml"

    def checkpoint(self, number: int) -> Path:
        """The network that trial `number` of the final phase ended with."""
        return self.directory / "final" / f"model-{number}.ckpt"

    @property
    def study(self) -> Path:
        """What a study was begun with; only a study's directory has it."""
        return self.directory / STUDY

    @property
    def rows(self) -> Path:
        return self.directory / "rows.csv"


def run_directory(config: AppConfig, name: str) -> Path:
    """Absolute, because workers run elsewhere."""
    return (Path(config.runtime.runs_dir) / check_name(name)).resolve()


def store_directory(config: AppConfig, name: str) -> Path:
    """Where outbox and MLflow's sqlite file are: the directory of the study, or of the sweep that is in none."""
    return run_directory(config, check_name(name).split("/")[0])


def check_free(directory: Path) -> None:
    """Refuse a run directory that exists: InputError."""
    if os.path.lexists(directory):
        raise InputError(
            f"{directory.name} exists already in {directory.parent}: choose another name, go on with it by `sweep "
            f"resume {directory.name}`, or remove {directory}."
        )


def claim_directory(directory: Path) -> None:
    """Makes the run directory.

    Raises:
        InputError: it exists already, or cannot be made.
    """
    try:
        directory.mkdir(parents=True)
    except FileExistsError:
        check_free(directory)
        raise  # another command has removed it meanwhile
    except OSError as error:
        raise InputError(
            f"The run directory {directory} cannot be made: {error.strerror}; choose another by runtime.runs_dir=DIR."
        ) from error
