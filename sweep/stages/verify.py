"""`sweep status --verify NAME`: check that trials.csv, Ray, the Optuna study and MLflow agree on every trial.

What each must say of an outcome is in `outcome.STATES`. Only reads. A trial that runs is changing, so only that it is
known everywhere is asked of it; MLflow is not asked about runs of which the outbox still holds lines for it.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console

from sweep.errors import InputError, WorkError
from sweep.execution.mlflow_runs import trial_key
from sweep.records.locks import is_alive
from sweep.records.outcome import STATES, Outcome
from sweep.records.rows import Phase, TrialRow
from sweep.records.run_directory import FORMER_SENSITIVITY, JOURNAL, SweepFiles
from sweep.records.tables import read_rows
from sweep.tracking.lines import ID, OUTBOX, PARENT, KnownRuns, experiment_of
from sweep.tracking.outbox import store_uri
from sweep.tracking.state import DELIVERED, aside_sentence, lag, runs_delivered

if TYPE_CHECKING:
    from sweep.tracking.client import RecordedRun, Records


@dataclass(frozen=True, slots=True)
class Store:
    """The MLflow store of a sweep: `directory` holds the outbox, which says the experiment."""

    directory: Path
    uri: str | None = None  # None: the sqlite file in the directory


def verify(directory: Path, store: Store, *, alive: bool) -> list[str]:
    """List what differs between the records of the sweep in `directory`, a sentence each; empty where all agree.

    `alive`: a driver is at work on it.

    Raises:
        InputError: there are no trials, or a file is damaged. WorkError: the MLflow store does not answer.
    """
    files = SweepFiles(directory)
    tables = [read_rows(part.trials, TrialRow) if part.trials.exists() else [] for part in files.parts]
    rows = [row for table in tables for row in table]
    if not rows:
        raise InputError(f"There is nothing to verify in {directory}: it has no trials.")
    return [
        *(text for table in tables for text in _in_rows(table, alive)),
        *_in_study(directory / JOURNAL, tables[0], alive),
        *_in_mlflow(store, rows, _put_away(files), alive),
    ]


def _put_away(files: SweepFiles) -> set[str]:
    """Return the ids of the trials that were put away."""
    tables = [former.trials for former in files.former_finals if former.trials.exists()]
    tables += sorted(files.directory.glob(f"{FORMER_SENSITIVITY}*/{files.trials.name}"))
    return {row.trial_id for table in tables for row in read_rows(table, TrialRow)}


def print_differences(directories: Sequence[Path], store: Store, console: Console) -> None:
    """Print what differs in these run directories. WorkError: something does."""
    found = {path: verify(path, store, alive=is_alive(path)) for path in directories}
    for path, differences in found.items():
        for text in differences:
            console.print(f"{path.name}: {text}", highlight=False)
    count = sum(map(len, found.values()))
    if count:
        raise WorkError(f"trials.csv, Ray, the Optuna study and MLflow differ in {count} places.")
    console.print("trials.csv, Ray, the Optuna study and MLflow agree on every trial.", highlight=False)


def _called(row: TrialRow) -> str:
    return f"{row.phase.value} trial {row.number} ({row.trial_id}), {row.outcome.value}"


# --- trials.csv and Ray -----------------------------------------------------------------------------------------------


def _in_rows(rows: list[TrialRow], alive: bool) -> Iterator[str]:
    for what, values in (("number", [row.number for row in rows]), ("trial id", [row.trial_id for row in rows])):
        yield from (f"trials.csv: {count} rows have the {what} {value}" for value, count in _repeated(values))
    for row in rows:
        if row.ray != STATES[row.outcome].ray:
            yield f"{_called(row)}: Ray {row.ray or 'nothing'}, not {STATES[row.outcome].ray}"
        if row.outcome is Outcome.running and not alive:
            yield f"{_called(row)}: no driver is at work"


def _repeated(values: Iterable[object]) -> list[tuple[object, int]]:
    return [(value, count) for value, count in Counter(values).items() if count > 1]


# --- Optuna -----------------------------------------------------------------------------------------------------------


def _in_study(journal: Path, rows: list[TrialRow], alive: bool) -> Iterator[str]:
    if not rows:
        return
    trials = {trial.number: trial for trial in _trials(journal)}
    for row in rows:
        trial = trials.pop(row.number, None)
        yield from [f"{_called(row)}: not in the study"] if trial is None else _in_trial(row, trial)
    for number, trial in trials.items():
        if trial.state is not TrialState.RUNNING or not alive:  # else it was asked for a moment ago
            yield f"the study's trial {number}, {trial.state.name}: not in trials.csv"


def _trials(journal: Path) -> list[FrozenTrial]:
    """Read the trials of all studies in the file, without those that a driver is writing now."""
    if not journal.exists():
        return []
    storage = JournalStorage(JournalFileBackend(str(journal)))
    return [trial for study in storage.get_all_studies() for trial in storage.get_all_trials(study._study_id)]


def _in_trial(row: TrialRow, trial: FrozenTrial) -> Iterator[str]:
    for what, theirs, ours in (
        ("trial id", trial.user_attrs.get("trial_id"), row.trial_id),
        ("parameters", trial.user_attrs.get("parameters"), row.parameters),
    ):
        if theirs != ours:
            yield f"{_called(row)}: the study has the {what} {theirs}, not {ours}"
    if row.outcome is Outcome.running:
        return
    if trial.state.name != STATES[row.outcome].optuna:
        yield f"{_called(row)}: Optuna {trial.state.name}, not {STATES[row.outcome].optuna}"
    elif trial.user_attrs.get("outcome") != row.outcome.value:
        yield f"{_called(row)}: the study has the outcome {trial.user_attrs.get('outcome')}"
    elif row.outcome is Outcome.done and sorted(trial.values or []) != _values(row):
        yield f"{_called(row)}: the study has the values {trial.values}, not {_values(row)}"


def _values(row: TrialRow) -> list[float]:
    """Sort the objectives: the table keeps several by name, the study by place."""
    return sorted(row.objectives.values()) if row.objectives else [row.objective or 0.0]


# --- MLflow -----------------------------------------------------------------------------------------------------------


def _in_mlflow(store: Store, rows: list[TrialRow], put_away: set[str], alive: bool) -> Iterator[str]:
    # Imports MLflow, which takes seconds and which no other command but `sweep.delivery` itself needs.
    from sweep.tracking.client import Records
    from sweep.tracking.sqlite_store import sqlite_file

    uri, behind = store_uri(store.directory, store.uri), lag(store.directory)
    outbox, name = store.directory / OUTBOX, store.directory.name
    if behind.lines and not alive:
        yield f"MLflow: lines of {outbox} that were not delivered: {behind.lines}; `sweep deliver {name}` delivers them"
    aside = aside_sentence(store.directory)
    yield from filter(None, [aside])
    file = sqlite_file(uri)
    if file is not None and not file.exists():
        yield f"MLflow: there is no store {file}"
        return
    records, told = Records(uri, experiment_of(store.directory)), KnownRuns.read(outbox)
    # Not those of another sweep of this name, from elsewhere, in the same store. What began a run may be lost: the
    # delivery knows it.
    delivered = runs_delivered(store.directory)
    own = [one for one in records.runs() if not told.ids or one.tags.get(ID, "") in told.ids or one.run_id in delivered]
    sweep, replaced = rows[0].sweep, told.replaced() | put_away
    parents = {run.run_id for run in own if run.tags.get("mlflow.runName") == sweep and PARENT not in run.tags}
    if len(parents) != 1:
        yield f"MLflow has {len(parents)} runs of the sweep {sweep}, not one"
    runs = _by_trial(run for run in own if run.tags.get(PARENT) in parents)
    for row in rows:
        found = runs.pop((row.trial_id, row.phase.value), [])
        if told.attempt(trial_key(row), row.trial_id) not in behind.keys:
            yield from _in_runs(row, found, records)
    for model, key in told.models.items():
        if not aside and key not in behind.keys and not records.has_champion(model):
            again = f"remove {store.directory / DELIVERED}, and `sweep deliver {name}` registers it again"
            yield f"MLflow has no model {model} with the alias champion, it was deleted: {again}"
    retrained = any(row.phase is not Phase.search for row in rows)  # else final/ was removed, so that a search goes on
    for trial_id, phase in runs:
        if not alive and trial_id not in replaced and (retrained or phase == Phase.search.value):
            yield f"MLflow's run of {phase} trial {trial_id}: not in trials.csv"


def _by_trial(runs: Iterable["RecordedRun"]) -> dict[tuple[str, str], list["RecordedRun"]]:
    """Group the runs by trial id and phase."""
    grouped = defaultdict(list)
    for run in runs:
        grouped[run.tags.get("trial_id", "without id"), run.tags.get("phase", "without phase")].append(run)
    return grouped


def _in_runs(row: TrialRow, runs: list["RecordedRun"], records: "Records") -> Iterator[str]:
    if len(runs) != 1:
        yield f"{_called(row)}: MLflow has {len(runs)} runs of it, not one"
    elif runs[0].deleted:
        restored = f"`mlflow runs restore --run-id {runs[0].run_id}` brings it back"
        yield f"{_called(row)}: its run was deleted in MLflow; {restored}"
    elif row.outcome is not Outcome.running:
        (run,) = runs
        if run.status != STATES[row.outcome].mlflow:
            yield f"{_called(row)}: MLflow {run.status}, not {STATES[row.outcome].mlflow}"
        if run.tags.get("outcome") != row.outcome.value:
            yield f"{_called(row)}: MLflow has the outcome {run.tags.get('outcome')}"
        yield from _in_history(row, records.history(run, "train/loss"), records.history(run, "objective"))


def _in_history(row: TrialRow, losses: list[tuple[int, float]], objectives: list[tuple[int, float]]) -> Iterator[str]:
    steps = [step for step, _ in losses]
    if steps != list(range(1, row.epochs + 1)):
        twice = ", ".join(str(step) for step, _ in _repeated(steps))
        missing = ", ".join(str(step) for step in sorted(set(range(1, row.epochs + 1)) - set(steps)))
        yield (
            f"{_called(row)}: MLflow has {len(steps)} epochs of {row.epochs}"
            f"{'; twice: ' + twice if twice else ''}{'; missing: ' + missing if missing else ''}"
        )
    last = objectives[-1][1] if objectives else None
    if last != row.objective:
        yield f"{_called(row)}: MLflow has the objective {last}, not {row.objective}"
