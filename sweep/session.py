"""What every stage is handed: the configuration, where its files are, and how to speak to the user and to MLflow."""

import re
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from sweep.config import AppConfig
from sweep.errors import InputError
from sweep.tracking import Tracker

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


@dataclass(frozen=True, slots=True)
class SweepFiles:
    """The run directory of one sweep."""

    directory: Path

    @property
    def trials(self) -> Path:
        return self.directory / "trials.csv"

    @property
    def curves(self) -> Path:
        return self.directory / "curves.csv"

    @property
    def best(self) -> Path:
        return self.directory / "best.yaml"

    @property
    def config(self) -> Path:
        return self.directory / "config.yaml"

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
    def rows(self) -> Path:
        return self.directory / "rows.csv"


@dataclass(frozen=True, slots=True)
class Session:
    """One stage at work on one sweep."""

    config: AppConfig
    name: str
    tracker: Tracker
    console: Console

    @property
    def directory(self) -> Path:
        return run_directory(self.config, self.name)

    @property
    def files(self) -> SweepFiles:
        return SweepFiles(self.directory)

    @property
    def run_key(self) -> str:
        """The key of the sweep's own MLflow run, parent of its trials'."""
        return self.name

    def member(self, config: AppConfig, part: str) -> "Session":
        """The session of a sweep within this study."""
        return replace(self, config=config, name=f"{self.name}/{part}")


def run_directory(config: AppConfig, name: str) -> Path:
    """Absolute, because workers run elsewhere."""
    return (Path(config.runtime.runs_dir) / check_name(name)).resolve()


def store_directory(config: AppConfig, name: str) -> Path:
    """Where outbox and MLflow's sqlite file are: the directory of the study, or of the sweep that is in none."""
    return run_directory(config, check_name(name).split("/")[0])
