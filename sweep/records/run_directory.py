"""What every stage is handed: the configuration, where its files are, and how to speak to the user and to MLflow."""

import fcntl
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from sweep.config.schema import AppConfig
from sweep.errors import InputError
from sweep.tracking.outbox import Tracker

CONFIG, STUDY, BEST = "config.yaml", "study.yaml", "best.yaml"
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


LOCK = "driver.lock"


@contextmanager
def alone(config: AppConfig, name: str) -> Iterator[None]:
    """While inside no other command works on this sweep, nor, for a study, on one of its sweeps. Freed by any death.

    Raises:
        InputError: another one does.
    """
    directory, store = run_directory(config, name), store_directory(config, name)
    with ExitStack() as held:
        for place in dict.fromkeys((store, directory)):
            place.mkdir(parents=True, exist_ok=True)
            lock = held.enter_context((place / LOCK).open("a"))
            shared = place == store and store != directory  # sweeps of one study may be worked on side by side
            if not _locked(lock.fileno(), fcntl.LOCK_SH if shared else fcntl.LOCK_EX):
                raise InputError(f"Another command is at work on {place.name}; wait for it, or stop it first.")
        yield


def is_alive(directory: Path) -> bool:
    """Whether a command is at work on the sweep or study in this run directory."""
    for place in (directory, directory.parent):
        if (place / LOCK).exists():
            with (place / LOCK).open("a") as lock:
                if not _locked(lock.fileno(), fcntl.LOCK_SH):
                    return True
    return False


def _locked(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
