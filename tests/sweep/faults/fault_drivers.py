"""`sweep` commands as processes of a test's own, to be killed, and what they leave behind.

They are forked from a process that has imported what they need: a command of its own would take seconds for that.
"""

import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from odenet.data.subsets import load_data
from odenet.training.loop import Training
from sweep.config.compose import load
from sweep.config.search_config import Objective
from sweep.execution.trial_source import Trials
from sweep.records.checkpoints import TrialFolders
from sweep.records.rows import TrialRow
from sweep.records.run_directory import JOURNAL
from sweep.records.tables import read_rows
from sweep.stages.verify import Store, verify
from sweep.tuning.ask_and_tell import Proposals
from sweep.tuning.optuna_study import OptunaStudy
from sweep.tuning.problem import build_problem

STAGES = ["sweep.stages.study", "sweep.stages.resume", "sweep.execution.ray_adapter", "sweep.worker.trainable"]
PATIENCE = 240.0
WORKERS = ("ray::ResourceTrainable", "ray::SegmentTrainable")  # within a call, and between two
# Networks of a few hundred parameters on 50 digits: an epoch takes a hundredth of a second.
TINY = ["space=smoke", "data.per_class=5", "model.width=2", "cluster.cpus=1", "search.sampler=random"]
EPOCHS = 12
SEARCH = [*TINY, f"training.epochs={EPOCHS}", "search.checkpoint_every=2"]


class Driver:
    """A command under way, and the processes of its own Ray."""

    def __init__(self, process: BaseProcess, log: Path) -> None:
        self._process, self._log = process, log
        assert process.pid is not None
        self.pid = process.pid

    @property
    def said(self) -> str:
        return self._log.read_text()

    @property
    def alive(self) -> bool:
        return self._process.is_alive()

    def workers(self) -> list[int]:
        """Find the processes that train: Ray names them after the call they answer, else after their class."""
        return [pid for pid in descendants(self.pid) if command_of(pid).startswith(WORKERS)]

    def until(self, met: Callable[[], bool]) -> None:
        """Waits for something to happen while the command runs."""
        for _ in range(int(PATIENCE / 0.02)):
            if met():
                return
            assert self.alive, self.said
            time.sleep(0.02)
        raise AssertionError(f"it did not happen within {PATIENCE:.0f} s: {self.said}")

    def wait(self) -> int:
        """Its exit code."""
        self._process.join(PATIENCE)
        assert self._process.exitcode is not None, self.said
        return self._process.exitcode

    def finish(self) -> str:
        """What it said when it has ended well."""
        assert self.wait() == 0, self.said
        return self.said

    def kill(self) -> None:
        """Its workers may train on for the second or two that their Ray takes to see it."""
        os.kill(self.pid, signal.SIGKILL)
        self._process.join(PATIENCE)

    def interrupt(self) -> None:
        """Ctrl-C."""
        os.kill(self.pid, signal.SIGINT)

    def end(self) -> None:
        """Whatever is left of it."""
        for pid in [*descendants(self.pid), self.pid]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.join(PATIENCE)


@dataclass
class Place:
    """A directory with `runs/` in it, from which commands are started."""

    path: Path
    environment: dict[str, str]
    drivers: list[Driver] = field(default_factory=list)

    def start(self, *argv: str, before: Callable[[], None] | None = None, **environment: str) -> Driver:
        """`before` is called in the command's process, first of all."""
        log = self.path / f"driver{len(self.drivers)}.log"
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["sweep.cli.commands", *STAGES])
        arguments = (list(argv), self.path, self.environment | environment, log, before)
        process = context.Process(target=_drive, args=arguments)
        process.start()
        self.drivers.append(Driver(process, log))
        return self.drivers[-1]

    def run(self, name: str) -> Path:
        return self.path / "runs" / name


@contextmanager
def place() -> Iterator[Place]:
    """Below /tmp, because a socket's path has at most 107 characters; what was started there ends with it."""
    path = Path(tempfile.mkdtemp(prefix="f", dir="/tmp"))
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "TUNE_"))}
    # A busy machine takes longer to start Ray's processes than the half minute that Ray gives them.
    own = {"HOME": str(path), "RAY_TMPDIR": str(path), "RAY_raylet_start_wait_time_s": "120", "OMP_NUM_THREADS": "1"}
    made = Place(path, kept | own)
    try:
        yield made
    finally:
        for driver in made.drivers:
            driver.end()
        shutil.rmtree(path, ignore_errors=True)


def _drive(
    argv: list[str], path: Path, environment: dict[str, str], log: Path, before: Callable[[], None] | None
) -> None:
    with log.open("wb") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    os.chdir(path)
    os.environ.clear()
    os.environ.update(environment)
    if before is not None:
        before()
    from sweep.__main__ import run

    sys.exit(run(argv))


# --- processes ----------------------------------------------------------------------------------------------------


def descendants(pid: int) -> list[int]:
    """Of a process, the nearest first."""
    parents = {int(entry.name): _parent(int(entry.name)) for entry in Path("/proc").iterdir() if entry.name.isdigit()}
    found = [pid]
    for one in found:  # grows meanwhile
        found += [child for child, parent in parents.items() if parent == one]
    return found[1:]


def _parent(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
        return 0
    return int(text.rpartition(")")[2].split()[1])


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except (FileNotFoundError, ProcessLookupError):
        return ""


# --- what is on disk ----------------------------------------------------------------------------------------------


def lines(file: Path) -> int:
    """Whole ones after the header; 0 where there is no file."""
    return max(0, file.read_bytes().count(b"\n") - 1) if file.exists() else 0


def rows_of(directory: Path) -> list[TrialRow]:
    return read_rows(directory / "trials.csv", TrialRow)


def asked(directory: Path) -> dict[int, tuple[str, Any]]:
    """Trial id and parameters of all trials that Optuna has proposed, by number."""
    if not (directory / JOURNAL).exists():
        return {}
    storage = JournalStorage(JournalFileBackend(str(directory / JOURNAL)))
    trials = [trial for study in storage.get_all_studies() for trial in storage.get_all_trials(study._study_id)]
    return {trial.number: (trial.user_attrs["trial_id"], trial.user_attrs["parameters"]) for trial in trials}


def endings(directory: Path) -> dict[int, int]:
    """How often each trial has ended."""
    found: dict[int, int] = {}
    for row in read_rows(directory / "ledger.csv", TrialRow):
        found[row.number] = found.get(row.number, 0) + row.outcome.ended
    return found


def differences(directory: Path, uri: str | None = None) -> list[str]:
    """Between the files, the study and MLflow, once nothing works on the sweep."""
    return verify(directory, Store(directory, uri), alive=False)


def undisturbed(overrides: list[str]) -> list[tuple[int, Any, float]]:
    """Number, parameters and objective of each trial of a random search, trained here, one after the other, whole."""
    config = load(overrides)
    problem = build_problem(config)
    space, experiment = problem.space, problem.experiment
    data = load_data(experiment.data, config.runtime.data_dir)
    proposals = Proposals(space, config.search, OptunaStudy.in_memory([Objective.accuracy]), 1 / data.classes)
    trials, found = Trials(proposals, experiment, config.search, TrialFolders("")), []
    for _ in range(config.search.trials):
        proposal = proposals.ask()
        segment = trials.segment(proposal, proposal.parameters, config.training.epochs)
        *_, last = Training(segment.experiment, config.runtime.for_training(), data=data)
        found.append((proposal.number, proposal.parameters, last.metrics["objective"]))
    return found
