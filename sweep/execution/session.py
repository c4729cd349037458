"""The session in which a stage works: its configuration, its files, and its ways to the user and to MLflow."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from rich.console import Console

from sweep.cluster.connect import connected
from sweep.cluster.resources import slots, trial_resources
from sweep.config.modules import kept_texts
from sweep.config.schema import AppConfig, ClusterConfig, ClusterKind
from sweep.console import say
from sweep.records.files import write_text
from sweep.records.locks import LOCK, alone
from sweep.records.provenance import identity_text, name_begun_with
from sweep.records.run_directory import (
    MODULES,
    ORIGIN,
    SweepFiles,
    claim_directory,
    free_directory,
    kept_modules,
    run_directory,
    store_directory,
)
from sweep.tracking.absence import absence_said
from sweep.tracking.outbox import Tracker, delivering
from sweep.tracking.state import aside_sentence


@dataclass(frozen=True, slots=True)
class Session:
    """One stage at work on one sweep."""

    config: AppConfig
    name: str
    tracker: Tracker
    console: Console
    per_trial: Mapping[str, float] = field(default_factory=lambda: {"CPU": 1.0})  # resources, as Ray names them

    @property
    def directory(self) -> Path:
        return run_directory(self.config, self.name)

    @property
    def files(self) -> SweepFiles:
        return SweepFiles(self.directory)

    @property
    def run_key(self) -> str:
        """The key of the sweep's own MLflow run, the parent of its trials': the name that the sweep was begun with,
        whatever its directory is called now."""
        return name_begun_with(self.files.origin) or self.name

    @property
    def gpus_per_trial(self) -> float:
        return self.per_trial.get("GPU", 0.0)

    def member(self, config: AppConfig, part: str) -> "Session":
        """Derive the session of a sweep within this study."""
        return replace(self, config=config, name=f"{self.name}/{part}")


@contextmanager
def new_session(config: AppConfig, name: str, console: Console, begun: Mapping[str, str]) -> Iterator[Session]:
    """Create the run directory and open a session in it; remove the directory if nothing could be started.

    `begun`: texts of files by which `sweep resume` knows from the first moment what it is.
    """
    directory = free_directory(config, name)
    claim_directory(directory)
    begun = {**begun, ORIGIN: identity_text(name, directory)}
    try:
        for file, text in begun.items():
            write_text(directory / file, text)
        with open_session(config, name, console) as session:
            yield session
    except BaseException:
        if {path.name for path in directory.iterdir()} <= {LOCK, MODULES, *begun}:
            shutil.rmtree(directory)
        raise


@contextmanager
def open_session(config: AppConfig, name: str, console: Console) -> Iterator[Session]:
    """Lock the run directory, connect the cluster, find what a trial gets of it, keep the source of the user's modules,
    and deliver to MLflow meanwhile."""
    with alone(config, name):
        console.print(_connecting(config.cluster), highlight=False)
        with connected(config.cluster, run_directory(config, name)):
            measured = partial(_on_a_gpu, config, console)
            per_trial = trial_resources(config.runtime.resources, config.cluster.autoscaling, measured)
            each = ", ".join(f"{count:g} {kind}" for kind, count in per_trial.items())
            at_once = config.search.concurrency or slots(per_trial)
            console.print(f"Ray runs: {at_once} at once, each with {each}", highlight=False)
            store, kept = store_directory(config, name), kept_modules(config, name)
            for file, text in kept_texts(config.modules).items():
                write_text(kept / file, text)
            with (
                absence_said(store, partial(say, console=console)),
                delivering(store, config.tracking.uri, modules=config.modules) as tracker,
            ):
                yield Session(config, name, tracker, console, per_trial)
            if refused := aside_sentence(store):
                console.print(refused, highlight=False)


def _on_a_gpu(config: AppConfig, console: Console) -> int:
    from sweep.cluster.gpu_share import trials_on_a_gpu

    return trials_on_a_gpu(config, console)


def _connecting(cluster: ClusterConfig) -> str:
    if cluster.kind is ClusterKind.local:
        return "Starting Ray (about 8 s)"
    return f"Joining Ray at {cluster.address} (about 8 s)"
