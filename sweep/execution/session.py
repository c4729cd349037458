"""What every stage is handed: the configuration, where its files are, and how to speak to the user and to MLflow."""

from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from sweep.config.schema import AppConfig
from sweep.records.run_directory import SweepFiles, run_directory
from sweep.tracking.outbox import Tracker


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
