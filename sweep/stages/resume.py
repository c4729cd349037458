"""What earlier sessions of a sweep have left, read before anything is started: a damaged file costs no cluster."""

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from search_spaces import Space
from sweep.config.schema import AppConfig
from sweep.errors import InputError
from sweep.records.progress import Progress
from sweep.records.provenance import compare_origin, origin
from sweep.records.rows import CurveRow, ManifestationRow, TrialRow
from sweep.records.run_directory import SweepFiles, run_directory, store_directory
from sweep.records.tables import read_rows
from sweep.stages.search import check
from sweep.tracking.outbox import lag
from sweep.tuning.ask_and_tell import STUDY_FILE, Proposals
from sweep.tuning.optuna_study import damaged, open_study
from sweep.tuning.problem import question


def check_begun(config: AppConfig, name: str) -> None:
    """As `search.check`, for a sweep that goes on; writes nothing.

    Raises:
        InputError: as `check`; a file of the run directory is damaged; or what the sweep began with has changed.
    """
    files, splits = SweepFiles(run_directory(config, name)), check(config)
    space, _ = question(config)
    rows = check_records(files)
    check_records(files.final)
    lag(store_directory(config, name))
    compare_origin(files.origin, origin(space, splits), config.search.accept_changes)
    _check_study(files.directory / STUDY_FILE, config, name, space, rows)


def check_records(files: SweepFiles) -> list[TrialRow]:
    """The ledger. Raises InputError where what a search, or its final phases, wrote down cannot be read."""
    Progress.read(files.progress)
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
    """Opens a copy, because opening cuts off what a killed driver was writing, and no other driver may be at work."""
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
