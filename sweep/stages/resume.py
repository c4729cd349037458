"""Read what earlier sessions of a sweep have left before anything is started: a damaged file costs no cluster."""

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from search_spaces import Space
from sweep.config.schema import AppConfig
from sweep.errors import InputError
from sweep.records.progress import SweepProgress
from sweep.records.provenance import compare_origin, name_begun_with, origin
from sweep.records.rows import CurveRow, ManifestationRow, TrialRow
from sweep.records.run_directory import SweepFiles, run_directory, store_directory
from sweep.records.stage_record import BegunStage, read_stage
from sweep.records.tables import read_rows, write_rows
from sweep.stages.search import PreparedSearch, prepare_search
from sweep.study.frozen import check_frozen
from sweep.tracking.state import lag
from sweep.tuning.ask_and_tell import Proposals
from sweep.tuning.optuna_study import UNREADABLE, damaged, open_study
from sweep.tuning.reconcile import check_known, reconciled


def stage_cut_short(files: SweepFiles) -> BegunStage | None:
    """Find the stage to go on with; None where nothing was cut short.

    stage.json says which was begun last. A directory of a version that did not record it is a study where study.yaml
    is; a search that has not ended where no final trial was begun; else final training.
    """
    stage = read_stage(files.stage) or _guessed(files)
    if stage is BegunStage.study:
        return stage
    return None if SweepProgress.read(part_of(files, stage).progress).finished else stage


def part_of(files: SweepFiles, stage: BegunStage) -> SweepFiles:
    """Return the files of a stage of a sweep."""
    parts = {BegunStage.final: files.final, BegunStage.sensitivity: files.sensitivity}
    return parts.get(stage, files)


def _guessed(files: SweepFiles) -> BegunStage:
    if files.study.exists():
        return BegunStage.study
    left = (files.ledger, files.curves, files.trials)
    searched = any(file.exists() for file in left) or not files.best.exists()  # a retrained best.yaml has no search
    retrained = files.final.ledger.exists() or (
        files.final.config.exists() and SweepProgress.read(files.progress).finished
    )
    return BegunStage.search if searched and not retrained else BegunStage.final


def prepare_resume(config: AppConfig, name: str) -> PreparedSearch:
    """Prepare a search that goes on like a new one, and check what was recorded; write nothing.

    Raises:
        InputError: as `prepare_search`; a file of the run directory is damaged; or what the sweep began with has
            changed.
    """
    files, store = SweepFiles(run_directory(config, name)), store_directory(config, name)
    prepared = prepare_search(config, store)
    space = prepared.problem.space
    check_frozen(config, name, prepared.splits.hash)
    rows = check_records(files)
    for part in files.parts[1:]:
        check_records(part)
    lag(store)
    compare_origin(files.origin, origin(space, prepared.splits, config.modules), config.search.accept_changes)
    _check_study(files, config, name_begun_with(files.origin) or name, space, rows)
    return prepared


def unreadable_tables(files: SweepFiles) -> list[SweepFiles]:
    """Find the parts of a sweep whose trials.csv is damaged or gone beside a ledger."""
    found = []
    for part in files.parts:
        try:
            read_rows(part.trials, TrialRow)
        except InputError:
            found += [part] if part.ledger.exists() else []
    return found


def write_table_again(files: SweepFiles) -> None:
    """Write trials.csv from the ledger. InputError: that is damaged, too. StorageError: it cannot be written."""
    rows = {row.number: row for row in read_rows(files.ledger, TrialRow, growing=True)}
    write_rows(files.trials, TrialRow, [rows[number] for number in sorted(rows)])


def check_records(files: SweepFiles) -> list[TrialRow]:
    """Read the ledger. InputError: what a search, or its final phases, wrote down cannot be read."""
    SweepProgress.read(files.progress)
    _curves(files)
    if files.manifestations.exists():
        read_rows(files.manifestations, ManifestationRow, growing=True)
    return read_rows(files.ledger, TrialRow, growing=True) if files.ledger.exists() else []


def _curves(files: SweepFiles) -> list[CurveRow]:
    return read_rows(files.curves, CurveRow, growing=True) if files.curves.exists() else []


def _check_study(files: SweepFiles, config: AppConfig, name: str, space: Space, rows: list[TrialRow]) -> None:
    """Check a copy of the journal: opening mends what a kill or a loss of power left, and no driver may be at work."""
    journal = files.journal
    with TemporaryDirectory() as place:
        copy = Path(place) / journal.name
        try:
            if journal.exists():
                shutil.copyfile(journal, copy)
            study = open_study(copy, name, config.search.objectives)
            study = reconciled(study, rows, space)
            check_known(study, _curves(files))
            Proposals(space, config.search, study, 0.0)
        except InputError as error:
            raise InputError(str(error).replace(str(copy), str(journal))) from error
        except (OSError, *UNREADABLE) as error:
            raise damaged(journal, error) from error
