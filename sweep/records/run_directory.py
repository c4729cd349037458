"""The layout of a run directory: the name and place of every file in it."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from sweep.config.schema import AppConfig
from sweep.errors import InputError
from sweep.records.files import sync_entry

CONFIG, STUDY, BEST, REPORT = "config.yaml", "study.yaml", "best.yaml", "report.html"
PROTOCOL, DEVIATIONS = "protocol.yaml", "deviations.jsonl"
STAGE, JOURNAL, ORIGIN, MODULES = "stage.json", "study.journal", "origin.json", "modules"
FINAL, SENSITIVITY, FAILURES = "final", "sensitivity", "failures"  # the first two have trials of their own
FORMER = "final~"  # and a number; no sweep can be called so
FORMER_SENSITIVITY = "sensitivity~"  # the same, renamed by the user
# What a new sweep cannot be called: what run directories have of their own, and MLflow's own experiment.
TAKEN = {
    FINAL, SENSITIVITY, FAILURES, "attacked", "checkpoints", "export", "modules", "mlartifacts", "ray", "ray-search",
    "ray-final", "stop", "default",
}  # fmt: skip
TAKEN_ENDS = (
    ".yaml", ".yml", ".csv", ".npz", ".json", ".jsonl", ".journal", ".db", ".lock", ".log", ".html", ".ckpt",
)  # fmt: skip
_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def check_name(name: str) -> str:
    """Return the name of a sweep, or STUDY/MEMBER for a sweep within a study, if it can be a directory.

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
    """Return the name of a study. InputError: as `check_name`, or it is a sweep's within a study."""
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
        """The table to which a line is appended whenever a trial begins, waits or ends; its last line counts."""
        return self.directory / "ledger.csv"

    @property
    def progress(self) -> Path:
        return self.directory / "progress.json"

    @property
    def manifestations(self) -> Path:
        return self.directory / "manifestations.csv"

    @property
    def checkpoints(self) -> Path:
        """The directory that holds a folder of checkpoints for each trial."""
        return self.directory / "checkpoints"

    @property
    def failures(self) -> Path:
        """The directory of what is known of trials that failed."""
        return self.directory / FAILURES

    def failure(self, number: int) -> Path:
        """Name the file with the traceback of a trial that failed, and the last lines of its worker."""
        return self.failures / f"trial-{number}.txt"

    @property
    def origin(self) -> Path:
        """The record of the space, code and data that the sweep began with, and its id."""
        return self.directory / ORIGIN

    @property
    def stage(self) -> Path:
        """The record of the stage that was begun last."""
        return self.directory / STAGE

    @property
    def candidates(self) -> Path:
        """The best trials of a search as complete experiments, for `sweep final`."""
        return self.directory / "candidates.yaml"

    @property
    def space(self) -> Path:
        """A description of the searched space for people and MLflow; nothing reads it."""
        return self.directory / "space.json"

    @property
    def journal(self) -> Path:
        """The Optuna study as a journal."""
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
        """The files of the phases confirm and final."""
        return SweepFiles(self.directory / FINAL)

    @property
    def sensitivity(self) -> "SweepFiles":
        """The files of the trainings around the selected configuration, which is their best.yaml."""
        return SweepFiles(self.directory / SENSITIVITY)

    @property
    def parts(self) -> list["SweepFiles"]:
        """The search, and what follows it with trials of its own."""
        return [self, self.final, self.sensitivity]

    @property
    def former_finals(self) -> list["SweepFiles"]:
        """The files of final training that `sweep final NAME --again` has put away, the oldest first."""
        found = [path for path in self.directory.glob(f"{FORMER}*") if path.is_dir()]
        return [SweepFiles(path) for path in sorted(found, key=lambda path: (len(path.name), path.name))]

    @property
    def crowned(self) -> Path:
        return self.directory / "final" / "crowned.yaml"

    @property
    def model_card(self) -> Path:
        """The description of the registered network."""
        return self.directory / "final" / "model_card.md"

    @property
    def exported(self) -> Path:
        """The directory of the files that `sweep export` writes."""
        return self.directory / "export"

    def checkpoint(self, number: int) -> Path:
        """Name the file with the network that trial `number` of the final phase ended with."""
        return self.directory / "final" / f"model-{number}.ckpt"

    @property
    def study(self) -> Path:
        """The configuration that a study was begun with; only the directory of a study has it."""
        return self.directory / STUDY

    @property
    def rows(self) -> Path:
        return self.directory / "rows.csv"

    @property
    def attacked(self) -> Path:
        """The directory of what attacks have found so far, which a killed evaluation goes on from."""
        return self.directory / "attacked"

    @property
    def test_use(self) -> Path:
        """The record of when which network was measured on test images; it stays when final training is put away."""
        return self.directory / "test_use.jsonl"

    @property
    def predictions(self) -> Path:
        """The class that every final network gives every test image."""
        return self.directory / "predictions.npz"

    @property
    def report(self) -> Path:
        return self.directory / REPORT


def run_directory(config: AppConfig, name: str) -> Path:
    """Return the run directory of a sweep, as an absolute path because workers run elsewhere. It ends in the name, also
    where that is a link to a directory of another name.

    Raises:
        InputError: the name is not possible, or leads in a circle of links.
    """
    directory = Path(config.runtime.runs_dir) / check_name(name)
    try:
        directory.resolve()
        return Path(config.runtime.runs_dir).resolve() / name
    except (OSError, RuntimeError) as error:  # before Python 3.13 a circle of links is a RuntimeError
        raise InputError(f"{directory} cannot be followed: {error}.") from error


def store_directory(config: AppConfig, name: str) -> Path:
    """Return the directory of the outbox and of MLflow's sqlite file: that of the study, or of a sweep in no study."""
    return run_directory(config, check_name(name).split("/")[0])


def kept_modules(config: AppConfig, name: str) -> Path:
    """Return the directory with the source of the user's own modules."""
    return store_directory(config, name) / MODULES


def is_former(directory: Path) -> bool:
    """Tell whether these are trials that were put away."""
    return directory.name.startswith((FORMER, FORMER_SENSITIVITY))


def free_directory(config: AppConfig, name: str) -> Path:
    """Return the run directory of a new sweep.

    Raises:
        InputError: as `run_directory`; the name has another meaning; or it exists already.
    """
    for part in map(str.lower, name.split("/")):
        if part in TAKEN or part.endswith(TAKEN_ENDS):
            raise InputError(
                f"The name {name!r} is not possible: {part} means a file or directory that sweeps have of their own, "
                f"as {', '.join(sorted(TAKEN))} and all names that end in {', '.join(TAKEN_ENDS)} do."
            )
    directory = run_directory(config, name)
    check_free(directory)
    return directory


def check_free(directory: Path) -> None:
    """Refuse a run directory that exists: InputError."""
    if os.path.lexists(directory):
        raise InputError(
            f"{directory.name} exists already in {directory.parent}: choose another name, go on with it by `sweep "
            f"resume {directory.name}`, or remove {directory}."
        )


def claim_directory(directory: Path) -> None:
    """Create the run directory of a new sweep, which its user alone may look into.

    Raises:
        InputError: it exists already, or cannot be made.
    """
    try:
        directory.mkdir(mode=0o700, parents=True)
        sync_entry(directory)
    except FileExistsError:
        check_free(directory)
        raise  # another command has removed it meanwhile
    except OSError as error:
        raise InputError(
            f"The run directory {directory} cannot be made: {error.strerror}; choose another by runtime.runs_dir=DIR."
        ) from error
