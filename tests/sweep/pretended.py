"""Sweeps without Ray and without training: a pretended worker runs the legs that a conductor hands out, one by one."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from odenet.data import Portion, Splits, load_data
from sweep.config.compose import load
from sweep.config.schema import AppConfig
from sweep.config.search_config import SchedulerKind
from sweep.execution.controller import Conductor
from sweep.execution.display import ProgressDisplay
from sweep.execution.interrupt import Control
from sweep.execution.population_source import PopulationSource
from sweep.execution.segment import Leg
from sweep.execution.session import Session
from sweep.execution.trial_log import METRICS, Book
from sweep.execution.trial_source import FINISHED, SearchSource, Source, Trials
from sweep.records.checkpoints import KEPT, checkpoint_file, checkpoint_files
from sweep.records.outcome import Outcome
from sweep.records.rows import CurveRow
from sweep.records.tables import read_rows
from sweep.tracking.outbox import OUTBOX
from sweep.tuning.ask_and_tell import STUDY_FILE, Proposals
from sweep.tuning.optuna_study import open_study
from sweep.tuning.problem import question
from sweep.tuning.schedulers import build_scheduler
from tests.sweep.sweep_files import TINY, session_on, trial

TABLES = [
    {"scheme": "euler", "steps": 1, "trained": True, "accuracy": 0.5, "loss": 1.0, "n": 20, "gflops": 0.1}
    | {"rate_evaluations": 1},
    {"scheme": "rk4", "steps": 2, "trained": False, "accuracy": 0.4, "loss": 1.1, "n": 20, "gflops": 0.8}
    | {"rate_evaluations": 8},
]


class Killed(BaseException):
    """The driver died here."""


# --- what a worker reports --------------------------------------------------------------------------------------------


def reported(epoch: int, objective: float | None, **more: Any) -> dict[str, Any]:
    """One epoch as `sweep.trial` reports it; a second and ten GFLOP each."""
    values = {"objective": objective, "val/accuracy": objective, "val/loss": 1.0, "train/loss": 1.0}
    costs = {name: 10.0 * epoch for name in METRICS if name.startswith("cost/")} | {"cost/seconds": float(epoch)}
    return {**values, **costs, "depth/steps": 3, "depth/nodes": 3, "epoch": epoch, "parameters": 123, **more}


def ended(epoch: int, objective: float | None) -> dict[str, Any]:
    """The last epoch, with what is measured then."""
    footprint = {"parameters": 123, "memory_mib": 4.0, "latency_ms": 2.0, "gflops": 0.1, "rate_evaluations": 1}
    more = {f"footprint/{name}": value for name, value in footprint.items()}
    return reported(epoch, objective, outcome="done", manifestations=TABLES, done=True, **more)


def rising(leg: Leg, epoch: int) -> float:
    """An objective that orders trials alike at every epoch, neither by number nor by time."""
    return 0.01 * (leg.number * 7 % 11) + 0.001 * epoch


@dataclass
class Worker:
    """Begins where the trial's newest checkpoint was written, and repeats the report of that epoch. A checkpoint holds
    the numbers of the trials that trained its epochs."""

    rule: Callable[[Leg, int], float] = rising

    def results(self, leg: Leg) -> Iterator[dict[str, Any]]:
        history = self._begun(leg)
        for epoch in range(max(1, len(history)), leg.until + 1):
            history = [*history, leg.number][:epoch]
            self._save(leg, epoch, history)
            report = ended if epoch == leg.epochs else reported
            yield {"done": epoch == leg.until, **report(epoch, self.rule(leg, epoch))}

    def _begun(self, leg: Leg) -> list[int]:
        start = history_in(Path(leg.start)) if leg.start else []
        own = [history_in(file) for file in checkpoint_files(Path(leg.folder))]
        return next((one for one in own if len(one) > len(start)), start)

    def _save(self, leg: Leg, epoch: int, history: list[int]) -> None:
        folder = Path(leg.folder)
        folder.mkdir(parents=True, exist_ok=True)
        checkpoint_file(folder, epoch).write_text(json.dumps(history))
        for old in checkpoint_files(folder)[KEPT:]:
            old.unlink()


def history_in(file: Path) -> list[int]:
    history: list[int] = json.loads(file.read_text())
    return history


# --- a sweep ----------------------------------------------------------------------------------------------------------


@cache
def data() -> dict[Portion, Splits]:
    config = configured()
    return {portion: load_data(replace(config.data, portion=portion), "data") for portion in Portion}


@cache
def _composed(*words: str) -> AppConfig:
    return load([*TINY, "search.sampler=random", *words])


def configured(*words: str, runs: Path = Path("runs")) -> AppConfig:
    """Of a tiny random search, with more said."""
    config = _composed(*words)
    return replace(config, runtime=replace(config.runtime, runs_dir=str(runs)))


def searching(session: Session) -> Source:
    """As `sweep.stages.search.Search` puts it together."""
    config, files = session.config, session.files
    space, experiment = question(config)
    study = open_study(session.directory / STUDY_FILE, session.name, config.search.objectives)
    proposals = Proposals(space, config.search, study, 0.1)
    trials = Trials(proposals, experiment, config.search, files.checkpoints)
    if config.search.scheduler is SchedulerKind.pbt:
        return PopulationSource(trials, space)
    return SearchSource(trials, build_scheduler(config.search, config.training.epochs))


@dataclass
class Sweep:
    """A conductor with what it conducts, taken up."""

    conductor: Conductor
    book: Book
    source: Source
    control: Control
    session: Session

    def drive(self, worker: Worker | None = None, legs: int = 1_000_000) -> list[Leg]:
        """Runs so many legs one after another, or all there are; returns those that were run."""
        run: list[Leg] = []
        while len(run) < legs and isinstance(leg := self.conductor.next_leg(), Leg):
            self.run(leg, worker or Worker())
            run.append(leg)
        assert len(run) == legs or leg is FINISHED
        return run

    def run(self, leg: Leg, worker: Worker) -> None:
        for result in worker.results(leg):
            goes_on = self.conductor.result(leg, result)
            if result["done"] or not goes_on:
                break
        self.conductor.leg_ended(leg, result, "TERMINATED")

    def lines(self) -> list[dict[str, Any]]:
        """What MLflow is told."""
        return [json.loads(line) for line in (self.session.directory / OUTBOX).read_text().splitlines()]

    def said(self) -> str:
        return self.session.console.file.getvalue()  # type: ignore[attr-defined]  # a StringIO


def opened(session: Session, source: Source | None = None, splits: dict[Portion, Splits] | None = None) -> Sweep:
    """A sweep begun in the session's directory, or taken up there; a search where no other source is given."""
    source = source or searching(session)
    files = session.files if isinstance(source, SearchSource | PopulationSource) else session.files.final
    files.directory.mkdir(parents=True, exist_ok=True)
    book = Book(session, files, splits or data())
    display = ProgressDisplay(session.console, "sweep", source.total)
    control = Control(session.directory / "stop", display.say)
    conductor = Conductor(source, book, session.config.search, control)
    conductor.take_up(display)
    return Sweep(conductor, book, source, control, session)


def begun(runs: Path, *words: str) -> Sweep:
    """As `opened`, a search with these words on its command line."""
    return opened(session_on(configured(*words, runs=runs)))


def source_of(runs: Path, *words: str) -> Source:
    """Of a search that has just begun."""
    source = searching(session_on(configured(*words, runs=runs)))
    source.restore([], [])
    return source


def next_leg(source: Source) -> Leg:
    leg = source.next(may_begin=True)
    assert isinstance(leg, Leg), leg
    return leg


def stands(source: Source, leg: Leg, outcome: Outcome, epochs: int = 0) -> None:
    source.leg_ended(trial(leg.number, outcome=outcome, objective=0.5, epochs=epochs))


def curves_of(sweep: Sweep) -> dict[int, list[int]]:
    """The recorded epochs of each trial."""
    curves = read_rows(sweep.book.files.curves, CurveRow)
    return {number: [one.epoch for one in curves if one.number == number] for number in sweep.book.rows}


def outcomes(sweep: Sweep) -> list[Outcome]:
    return [row.outcome for row in sweep.book.in_order()]
