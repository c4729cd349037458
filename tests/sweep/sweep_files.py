"""Run directories as `sweep search` leaves them, written without searching, and a session on one."""

from dataclasses import replace
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Any

from rich.console import Console

from odenet.training.config import ExperimentConfig
from search_spaces import SPACES
from sweep.config.compose import load
from sweep.config.overrides import override
from sweep.config.schema import AppConfig, save
from sweep.execution.session import Session
from sweep.records.best import Best, provenance, write_best
from sweep.records.files import write_text
from sweep.records.outcome import Outcome
from sweep.records.rows import Phase, TrialRow
from sweep.records.run_directory import SweepFiles
from sweep.records.tables import write_rows
from sweep.tracking.lines import OUTBOX
from sweep.tracking.outbox import Tracker

# Networks of a few hundred parameters on 50 digits: an epoch takes milliseconds.
TINY = [
    "space=smoke", "data.per_class=5", "model.width=2", "training.epochs=2", "search.trials=4",
    "evaluate.manifestation_images=20",
]  # fmt: skip
PARAMETERS = {"model.network": "continuous", "optim.lr": 0.05, "model.scheme": "euler"}


def trial(number: int = 0, **changes: Any) -> TrialRow:
    row = TrialRow(
        sweep="x", family="smoke", phase=Phase.search, number=number, trial_id=f"t{number}", candidate=number,
        outcome=Outcome.done, reason="", parameters=PARAMETERS, objective=0.5, epochs=2, gflops=1.5, seconds=2.5,
        rate_evaluations=12, model_parameters=345, dataset="digits", per_class=5, draw=0, seed=7, config_hash="c0ffee",
        data_hash="da7a",
    )  # fmt: skip
    return replace(row, **changes)


def best_of(row: TrialRow, experiment: ExperimentConfig) -> Best:
    return Best(override(experiment, row.parameters), provenance(row, SPACES["smoke"]))


@cache
def _tiny() -> AppConfig:
    return load(TINY)


def write_sweep(runs: Path, rows: list[TrialRow], name: str = "x") -> AppConfig:
    """config.yaml, trials.csv and best.yaml of a sweep below `runs`."""
    config = _tiny()
    config = replace(config, runtime=replace(config.runtime, runs_dir=str(runs)))
    files = SweepFiles(runs / name)
    write_text(files.config, save(config))
    write_rows(files.trials, TrialRow, rows)
    write_best(files.best, best_of(rows[0], config.experiment))
    return config


def session_on(config: AppConfig, name: str = "x") -> Session:
    """A session whose tracker has an outbox and no delivery, and which speaks to nobody."""
    directory = Path(config.runtime.runs_dir) / name
    directory.mkdir(parents=True, exist_ok=True)
    return Session(config, name, Tracker(directory / OUTBOX), Console(file=StringIO(), markup=False))
