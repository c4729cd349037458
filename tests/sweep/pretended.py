"""Sweeps without Ray and without training: a pretended worker runs the legs that a controller hands out, one by one."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from odenet.data.config import Portion
from odenet.data.subsets import Splits, load_data
from sweep.config.compose import load
from sweep.config.schema import AppConfig
from sweep.config.search_config import SchedulerKind
from sweep.execution.controller import Controller
from sweep.execution.display import ProgressDisplay, ShownTrials
from sweep.execution.interrupt import Interrupt
from sweep.execution.mlflow_runs import TrialRuns
from sweep.execution.observers import CheckpointCleaner
from sweep.execution.population_source import PopulationSource
from sweep.execution.session import Session
from sweep.execution.trial_log import TrialLog
from sweep.execution.trial_source import FINISHED, SearchSource, Trials, TrialSource
from sweep.records.checkpoints import KEPT, checkpoint_file, checkpoint_files
from sweep.records.outcome import Outcome
from sweep.records.rows import METRICS, CurveRow, TrialRow
from sweep.records.run_directory import JOURNAL, SweepFiles
from sweep.records.tables import read_rows
from sweep.tracking.lines import OUTBOX
from sweep.tuning.ask_and_tell import Proposals
from sweep.tuning.optuna_study import open_study
from sweep.tuning.problem import build_problem
from sweep.tuning.reconcile import reconciled
from sweep.tuning.schedulers import build_scheduler
from sweep.worker.segment import EpochResult, Segment, TrialEnded, WorkerResult
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


def reported(epoch: int, objective: float | None, last: TrialEnded | None = None, **more: Any) -> WorkerResult:
    """One epoch as a worker reports it; a second and ten GFLOP each. `more`: other metrics, or a notice."""
    values = {"objective": objective, "val/accuracy": objective, "val/loss": 1.0, "train/loss": 1.0}
    costs = {name: 10.0 * epoch for name in METRICS if name.startswith("cost/")} | {"cost/seconds": float(epoch)}
    metrics = {**values, **costs, "depth/steps": 3, "depth/nodes": 3, **more}
    notice = metrics.pop("notice", "")
    one = EpochResult(epoch=epoch, weights=123, metrics=metrics, notice=notice)
    return WorkerResult(epoch=one, ended=last, done=last is not None)


def ended(epoch: int, objective: float | None) -> WorkerResult:
    """The last epoch, with what is measured then."""
    footprint = {"parameters": 123, "memory_mib": 4.0, "latency_ms": 2.0, "gflops": 0.1, "rate_evaluations": 1}
    return reported(epoch, objective, TrialEnded(outcome=Outcome.done, footprint=footprint, manifestations=TABLES))


def over(outcome: Outcome, reason: str = "", **more: Any) -> WorkerResult:
    """The end of training without an epoch."""
    return WorkerResult(ended=TrialEnded(outcome=outcome, reason=reason, **more))


def rising(segment: Segment, epoch: int) -> float:
    """An objective that orders trials alike at every epoch, neither by number nor by time."""
    return 0.01 * (segment.number * 7 % 11) + 0.001 * epoch


@dataclass
class Worker:
    """Begins where the trial's newest checkpoint was written, and repeats the reports that are not on record, at least
    that of this epoch. A checkpoint holds the numbers of the trials that trained its epochs."""

    rule: Callable[[Segment, int], float] = rising

    def results(self, segment: Segment) -> Iterator[WorkerResult]:
        start = history_in(Path(segment.start)) if segment.start else []
        own = [history_in(file) for file in checkpoint_files(Path(segment.folder))]
        history = next((one for one in own if len(one) > len(start)), start)
        unheard = max(len(start), segment.heard) + 1
        for epoch in range(max(1, min(len(history), unheard)), segment.until + 1):
            if epoch >= len(history):
                history = [*history, segment.number][:epoch]
                self._save(segment, epoch, history)
            report = ended if epoch == segment.epochs else reported
            yield replace(report(epoch, self.rule(segment, epoch)), done=epoch == segment.until)

    def _save(self, segment: Segment, epoch: int, history: list[int]) -> None:
        folder = Path(segment.folder)
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


def searching(session: Session, rows: Sequence[TrialRow] = ()) -> TrialSource:
    """As `sweep.stages.search.Search` puts it together."""
    config, files = session.config, session.files
    problem = build_problem(config)
    study = open_study(session.directory / JOURNAL, session.name, config.search.objectives)
    study = reconciled(study, rows, problem.space)
    proposals = Proposals(problem.space, config.search, study, 0.1)
    trials = Trials(proposals, problem.experiment, config.search, session.folders(files))
    if config.search.scheduler is SchedulerKind.pbt:
        return PopulationSource(trials, problem.space)
    return SearchSource(trials, build_scheduler(config.search, config.training.epochs))


@dataclass
class Sweep:
    """A controller with what it conducts, taken up."""

    controller: Controller
    log: TrialLog
    source: TrialSource
    interrupt: Interrupt
    session: Session
    display: ProgressDisplay

    def drive(self, worker: Worker | None = None, legs: int = 1_000_000) -> list[Segment]:
        """Runs so many legs one after another, or all there are; returns those that were run."""
        run: list[Segment] = []
        while len(run) < legs and isinstance(segment := self.controller.next_segment(), Segment):
            self.run(segment, worker or Worker())
            run.append(segment)
        assert len(run) == legs or segment is FINISHED
        return run

    def run(self, segment: Segment, worker: Worker) -> None:
        for result in worker.results(segment):
            goes_on = self.controller.result(segment, result)
            if result.done or not goes_on:
                break
        self.controller.segment_ended(segment, result, "TERMINATED")

    def lines(self) -> list[dict[str, Any]]:
        """What MLflow is told."""
        return [json.loads(line) for line in (self.session.directory / OUTBOX).read_text().splitlines()]

    def said(self) -> str:
        return self.session.console.file.getvalue()  # type: ignore[attr-defined]  # a StringIO


def opened(
    session: Session,
    source: TrialSource | None = None,
    splits: dict[Portion, Splits] | None = None,
    files: SweepFiles | None = None,
) -> Sweep:
    """A sweep begun in the session's directory, or taken up there; a search where no other source is given."""
    searches = source is None or isinstance(source, SearchSource | PopulationSource)
    files = files or (session.files if searches else session.files.final)
    files.directory.mkdir(parents=True, exist_ok=True)
    log = TrialLog(session, files, splits or data())
    source = source or searching(session, log.in_order())
    display = ProgressDisplay(session.console, "sweep", source.total)
    interrupt = Interrupt(session.directory / "stop", display.say)
    controller = Controller(source, log, interrupt, display.say)
    shown = ShownTrials(display, session.config.training.epochs)
    controller.take_up([TrialRuns(session, splits or data()), shown, CheckpointCleaner(session.mirror)])
    return Sweep(controller, log, source, interrupt, session, display)


def begun(runs: Path, *words: str) -> Sweep:
    """As `opened`, a search with these words on its command line."""
    return opened(session_on(configured(*words, runs=runs)))


def source_of(runs: Path, *words: str) -> TrialSource:
    """Of a search that has just begun."""
    source = searching(session_on(configured(*words, runs=runs)))
    source.restore([], [])
    return source


def next_segment(source: TrialSource) -> Segment:
    segment = source.next(may_begin=True)
    assert isinstance(segment, Segment), segment
    return segment


def stands(source: TrialSource, segment: Segment, outcome: Outcome, epochs: int = 0) -> None:
    source.segment_ended(trial(segment.number, outcome=outcome, objective=0.5, epochs=epochs))


def curves_of(sweep: Sweep) -> dict[int, list[int]]:
    """The recorded epochs of each trial."""
    curves = read_rows(sweep.log.files.curves, CurveRow)
    return {number: [one.epoch for one in curves if one.number == number] for number in sweep.log.rows}


def outcomes(sweep: Sweep) -> list[Outcome]:
    return [row.outcome for row in sweep.log.in_order()]
