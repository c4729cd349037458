"""The session in which a stage works: its configuration, its files, and its ways to the user and to MLflow."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from rich.console import Console

from sweep.cluster.connect import connected
from sweep.cluster.left_out import LeftOut
from sweep.cluster.placement import Placement
from sweep.cluster.resources import slots, trial_resources
from sweep.config.modules import kept_texts
from sweep.config.places import is_bucket
from sweep.config.schema import AppConfig, ClusterConfig, ClusterKind
from sweep.console import say
from sweep.records.checkpoints import TrialFolders
from sweep.records.files import marked, write_text
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
from sweep.storage.mirror import RECORD, Mirror
from sweep.storage.mirroring import check_absent, forget, mirrored
from sweep.storage.rebuild import record_text
from sweep.storage.stop import StopObject, StopSign
from sweep.tracking.absence import absence_said
from sweep.tracking.outbox import Tracker, delivering
from sweep.tracking.sqlite_store import network_sentence
from sweep.tracking.state import aside_sentence


@dataclass(frozen=True, slots=True)
class Session:
    """One stage at work on one sweep."""

    config: AppConfig
    name: str
    tracker: Tracker
    console: Console
    mirror: Mirror | None = None  # of the run directory, where runtime.storage is set
    placement: Placement = field(default_factory=Placement)

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
    def per_trial(self) -> Mapping[str, float]:
        """The resources of a trial, as Ray names them."""
        return self.placement.per_trial

    @property
    def gpus_per_trial(self) -> float:
        return self.per_trial.get("GPU", 0.0)

    def folders(self, files: SweepFiles) -> TrialFolders:
        """Return the place of the checkpoints of the search, or of the final phases, whose files these are."""
        storage = self.config.runtime.storage
        if storage is None:
            return TrialFolders(str(files.checkpoints))
        place = files.checkpoints.relative_to(Path(self.config.runtime.runs_dir).resolve())
        return TrialFolders(f"{storage.rstrip('/')}/{place.as_posix()}", by_id=True)

    def stop_sign(self, file: Path) -> StopSign:
        """Return what tells workers to stop when this file appears."""
        if self.mirror is not None and is_bucket(self.config.runtime.storage):
            return StopObject(self.mirror.stop_address)
        return file

    def member(self, config: AppConfig, part: str) -> "Session":
        """Derive the session of a sweep within this study."""
        return replace(self, config=config, name=f"{self.name}/{part}")


def shipped_texts(config: AppConfig) -> dict[str, str]:
    """Return the source of the user's modules where workers need not see the run directory; else they find it there."""
    return kept_texts(config.modules) if is_bucket(config.runtime.storage) else {}


@contextmanager
def new_session(config: AppConfig, name: str, console: Console, begun: Mapping[str, str]) -> Iterator[Session]:
    """Create the run directory and open a session in it; remove the directory if nothing could be started.

    `begun`: texts of files by which `sweep resume` knows from the first moment what it is.
    """
    directory, storage = free_directory(config, name), config.runtime.storage
    check_absent(storage, name)
    claim_directory(directory)
    begun = {**begun, ORIGIN: identity_text(name, directory)}
    if storage is not None:
        begun |= {RECORD: record_text(storage)}
    try:
        for file, text in begun.items():
            write_text(directory / file, text)
        with open_session(config, name, console) as session:
            yield session
    except BaseException:
        if {path.name for path in directory.iterdir()} <= {LOCK, MODULES, *begun}:
            forget(storage, directory)
            shutil.rmtree(directory)
        raise


@contextmanager
def open_session(config: AppConfig, name: str, console: Console) -> Iterator[Session]:
    """Lock the run directory, mirror it to storage, connect the cluster, find what a trial gets of it, keep the source
    of the user's modules, and deliver to MLflow meanwhile."""
    storage, store = config.runtime.storage, store_directory(config, name)
    with alone(config, name), mirrored(storage, store, partial(say, console=console)) as mirror:
        console.print(_connecting(config.cluster), highlight=False)
        with (
            connected(config.cluster, run_directory(config, name), storage) as left_out,
            _marked(config, name) as marker,
        ):
            placement = _placement(config, console, left_out, marker)
            kept = kept_modules(config, name)
            if config.tracking.uri is None and (advice := network_sentence(store)):
                say(advice, console)
            for file, text in kept_texts(config.modules).items():
                write_text(kept / file, text)
            with (
                absence_said(store, partial(say, console=console)),
                delivering(store, config.tracking.uri, modules=config.modules) as tracker,
            ):
                yield Session(config, name, tracker, console, mirror, placement)
            if refused := aside_sentence(store):
                console.print(refused, highlight=False)


def _marked(config: AppConfig, name: str) -> AbstractContextManager[Path | None]:
    """Mark the run directory for workers on other machines that need it; here they see it."""
    if config.cluster.kind is ClusterKind.local or is_bucket(config.runtime.storage):
        return nullcontext()
    return marked(run_directory(config, name))


def _placement(config: AppConfig, console: Console, left_out: LeftOut, marker: Path | None) -> Placement:
    """Find what a trial gets of the cluster and where, and say so."""
    for sentence in left_out.sentences():
        say(sentence, console)
    autoscaling, measured = config.cluster.autoscaling, partial(_on_a_gpu, config, console, left_out)
    per_trial = trial_resources(config.runtime.resources, autoscaling, measured, left_out)
    each = ", ".join(f"{count:g} {kind}" for kind, count in per_trial.items())
    console.print(
        f"Ray runs: {_at_once(config, slots(per_trial, left_out))} at once, each with {each}", highlight=False
    )
    return Placement(per_trial, left_out, autoscaling, marker)


def _at_once(config: AppConfig, now: int) -> str:
    if config.search.concurrency is not None:
        return f"{config.search.concurrency}"
    if config.cluster.autoscaling:
        return f"{now} and, as nodes come, more"
    return f"{now}" if config.cluster.kind is ClusterKind.local else f"{now} now"


def _on_a_gpu(config: AppConfig, console: Console, left_out: LeftOut) -> int:
    from sweep.cluster.gpu_share import trials_on_a_gpu

    return trials_on_a_gpu(config, console, left_out)


def _connecting(cluster: ClusterConfig) -> str:
    if cluster.kind is ClusterKind.local:
        return "Starting Ray (about 8 s)"
    return f"Joining Ray at {cluster.address} (about 8 s)"
