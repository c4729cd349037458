"""Read what earlier sessions of a sweep have left before anything is started: a damaged file costs no cluster."""

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from search_spaces import Space
from sweep.config.schema import AppConfig
from sweep.errors import InputError
from sweep.records.progress import SweepProgress
from sweep.records.provenance import compare_origin, origin
from sweep.records.rows import CurveRow, ManifestationRow, TrialRow
from sweep.records.run_directory import SweepFiles, run_directory, store_directory
from sweep.records.stage_record import BegunStage, read_stage
from sweep.records.tables import read_rows
from sweep.stages.search import PreparedSearch, prepare_search
from sweep.tracking.state import lag
from sweep.tuning.ask_and_tell import Proposals
from sweep.tuning.optuna_study import damaged, open_study


def stage_cut_short(files: SweepFiles) -> BegunStage | None:
    """Find the stage to go on with; None where nothing was cut short.

    stage.json says which was begun last. A directory of a version that did not record it is a study where study.yaml
    is; a search that has not ended where no final trial was begun; else final training.
    """
    stage = read_stage(files.stage) or _guessed(files)
    if stage is BegunStage.study:
        return stage
    part = files if stage is BegunStage.search else files.final
    return None if SweepProgress.read(part.progress).finished else stage


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
    files, prepared = SweepFiles(run_directory(config, name)), prepare_search(config)
    space = prepared.problem.space
    rows = check_records(files)
    check_records(files.final)
    lag(store_directory(config, name))
    compare_origin(files.origin, origin(space, prepared.splits), config.search.accept_changes)
    _check_study(files.journal, config, name, space, rows)
    return prepared


def check_records(files: SweepFiles) -> list[TrialRow]:
    """Read the ledger. InputError: what a search, or its final phases, wrote down cannot be read."""
    SweepProgress.read(files.progress)
    rows = read_rows(files.ledger, TrialRow, growing=True) if files.ledger.exists() else []
    curves = read_rows(files.curves, CurveRow, growing=True) if files.curves.exists() else []
    if files.manifestations.exists():
        read_rows(files.manifestations, ManifestationRow, growing=True)
    lost = {curve.number for curve in curves} - {row.number for row in rows}
    if lost:
        raise InputError(
            f"{files.ledger} is damaged: it lacks trial {min(lost)}, of which {files.curves} has epochs. Bring back a "
            "copy, or give the sweep another name."
        )
    return rows


def _check_study(journal: Path, config: AppConfig, name: str, space: Space, rows: list[TrialRow]) -> None:
    """Check a copy of the journal: opening cuts off what a killed driver was writing, and no driver may be at work."""
    with TemporaryDirectory() as place:
        copy = Path(place) / journal.name
        try:
            if journal.exists():
                shutil.copyfile(journal, copy)
            study = open_study(copy, name, config.search.objectives)
            asked = {(one.number, one.trial_id) for one in Proposals(space, config.search, study, 0.0).asked}
        except InputError as error:
            raise InputError(str(error).replace(str(copy), str(journal))) from error
        except (OSError, KeyError) as error:
            raise damaged(journal, error) from error
    for row in rows:
        if (row.number, row.trial_id) not in asked:
            raise InputError(
                f"{journal} is damaged: it lacks trial {row.number} ({row.trial_id}) of the ledger. Bring back a copy, "
                "or give the sweep another name."
            )
