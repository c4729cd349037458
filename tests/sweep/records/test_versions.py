"""What other versions wrote: older tables are read with stated defaults, newer ones are refused by one message, and
nothing that an older version wrote is rewritten without a copy."""

import csv
import io
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from sweep.config import compose
from sweep.config.compose import load
from sweep.config.schema import StudyConfig
from sweep.errors import InputError
from sweep.records.rows import CurveRow, EvaluationRow, ManifestationRow, TrialRow
from sweep.records.run_directory import SweepFiles
from sweep.records.tables import append_row, read_rows, take_up_rows, write_rows
from sweep.stages.evaluate import prepare_evaluate
from sweep.stages.final import prepare_final
from tests.sweep.pretended import begun, outcomes
from tests.sweep.records.test_kept_run import ARCHIVE
from tests.sweep.sweep_files import trial

Table = list[list[str]]
SINCE_0_1_0 = ("proposed_by", "ray", "legs", "objectives", "constraints", "feasible", "schedule", "gpu_seconds")


def changed(path: Path, change: Callable[[list[dict[str, str]]], list[dict[str, str]]]) -> None:
    rows = change(list(csv.DictReader(io.StringIO(path.read_text(), newline=""))))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def without(*names: str) -> Callable[[list[dict[str, str]]], list[dict[str, str]]]:
    return lambda rows: [{name: cell for name, cell in row.items() if name not in names} for row in rows]


def backwards(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    return [
        {"schema": row["schema"], **{name: row[name] for name in reversed(row) if name != "schema"}} for row in rows
    ]


def with_more(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    return [{**row, "carbon": "1.5"} for row in rows]


ROWS = [trial(0), trial(1, legs=2, gpu_seconds=1.5, schedule=[{"epoch": 0}], proposed_by="tpe", ray="TERMINATED")]


@pytest.mark.parametrize("name", SINCE_0_1_0)
def test_a_column_that_an_older_version_did_not_write_has_its_default(tmp_path, name):
    path = tmp_path / "trials.csv"
    write_rows(path, TrialRow, ROWS)
    changed(path, without(name))
    default = getattr(trial(), name)
    assert read_rows(path, TrialRow) == [replace(row, **{name: default}) for row in ROWS]


def test_columns_are_found_by_their_names(tmp_path):
    path = tmp_path / "trials.csv"
    write_rows(path, TrialRow, ROWS)
    changed(path, backwards)
    assert path.read_text().startswith("schema,gpu,host,classes,gpu_seconds,schedule,")
    assert read_rows(path, TrialRow) == ROWS


@pytest.mark.parametrize("growing", [False, True])
def test_a_column_of_a_newer_version_is_refused_by_one_message(tmp_path, growing):
    path = tmp_path / "trials.csv"
    write_rows(path, TrialRow, ROWS)
    changed(path, with_more)
    with pytest.raises(InputError, match=r"trials\.csv: column 'carbon' is unknown to this version: a newer one has"):
        read_rows(path, TrialRow, growing=growing)


def test_a_newer_schema_is_refused_by_one_message(tmp_path):
    path = tmp_path / "trials.csv"
    write_rows(path, TrialRow, ROWS)
    changed(path, lambda rows: [{**row, "schema": "3"} for row in rows])
    with pytest.raises(InputError, match=r"line 2: schema '3'; this version reads schema 2\. A newer version"):
        read_rows(path, TrialRow)


def test_a_table_of_an_older_version_that_is_to_grow_is_written_anew_and_kept_in_a_copy(tmp_path):
    path = tmp_path / "ledger.csv"
    write_rows(path, TrialRow, ROWS)
    changed(path, without("gpu_seconds", "schedule"))
    before = path.read_bytes()
    rows = take_up_rows(path, TrialRow)
    assert (tmp_path / "ledger.csv.older").read_bytes() == before
    append_row(path, trial(2))
    assert read_rows(path, TrialRow) == [*rows, trial(2)]
    (tmp_path / "ledger.csv.older").unlink()
    take_up_rows(path, TrialRow)
    assert [file.name for file in tmp_path.iterdir()] == ["ledger.csv"], "today's is left as it is"


def test_a_sweep_whose_ledger_an_older_version_wrote_goes_on(tmp_path):
    begun(tmp_path).drive(legs=2)
    ledger = tmp_path / "x" / "ledger.csv"
    changed(ledger, without("gpu_seconds"))
    sweep = begun(tmp_path)
    sweep.drive()
    assert [outcome.value for outcome in outcomes(sweep)] == ["done"] * 4
    assert len(read_rows(ledger, TrialRow)) > 6


# --- the run directories of version 0.1.0 -----------------------------------------------------------------------------


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SweepFiles:
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    return SweepFiles(Path("runs/kept"))


def test_every_table_of_0_1_0_is_read(kept):
    for path, row_type in (
        (kept.trials, TrialRow), (kept.ledger, TrialRow), (kept.curves, CurveRow), (kept.rows, EvaluationRow),
        (kept.manifestations, ManifestationRow), (kept.final.trials, TrialRow), (kept.final.curves, CurveRow),
    ):  # fmt: skip
        assert len(read_rows(path, row_type)) > 0


def test_its_networks_can_be_retrained_and_tested_again(kept):
    config = load([], kept.config)
    kept.rows.unlink()
    assert len(prepare_evaluate(config, "kept").networks) == 1
    shutil.rmtree(kept.final.directory)
    assert len(prepare_final(config, "kept").candidates) == 2


def test_a_section_that_came_later_has_its_defaults_and_one_of_a_newer_version_is_refused(kept, monkeypatch):
    text = kept.config.read_text()
    kept.config.write_text(text + "carbon:\n  price: 3\n")
    with pytest.raises(InputError, match=r"config\.yaml: carbon is unknown to this version, a newer one wrote it"):
        load([], kept.config)
    start = text.index("study:")
    kept.config.write_text(text[:start] + text[text.index("replay:") :])
    with pytest.raises(InputError, match=r"config\.yaml is damaged: it needs the keys"):
        load([], kept.config)
    monkeypatch.setattr(compose, "FIRST_SECTIONS", tuple(key for key in compose.FIRST_SECTIONS if key != "study"))
    assert load([], kept.config).study == StudyConfig()
