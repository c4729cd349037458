"""Which stage `sweep resume` goes on with: the one recorded; for directories of earlier versions as they tell it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from sweep.records.files import write_text
from sweep.records.run_directory import SweepFiles
from sweep.records.stage_record import BegunStage, read_stage, record_stage
from sweep.stages.resume import stage_cut_short

FINISHED, UNFINISHED = (f'{{"seconds": 1.0, "finished": {value}}}' for value in ("true", "false"))


@pytest.mark.parametrize("stage", BegunStage, ids=str)
def test_what_was_recorded_is_read(tmp_path: Path, stage: BegunStage) -> None:
    assert read_stage(tmp_path / "stage.json") is None
    record_stage(tmp_path / "stage.json", stage)
    assert read_stage(tmp_path / "stage.json") is stage
    assert (tmp_path / "stage.json").read_text() == stage.text


def of(files: SweepFiles, **texts: str) -> None:
    """Writes files by the names that SweepFiles has for them; `final_` leads those of final training."""
    for name, text in texts.items():
        part = files.final if name.startswith("final_") else files
        write_text(getattr(part, name.removeprefix("final_")), text)


@pytest.mark.parametrize("searched", [UNFINISHED, FINISHED])
@pytest.mark.parametrize("retrained", [UNFINISHED, FINISHED])
@pytest.mark.parametrize("stage", BegunStage, ids=str)
def test_the_stage_begun_last_goes_on_unless_it_is_finished(
    tmp_path: Path, stage: BegunStage, searched: str, retrained: str
) -> None:
    files = SweepFiles(tmp_path)
    of(files, progress=searched, final_progress=retrained, ledger="", final_ledger="", stage=stage.text)
    ended = {BegunStage.search: searched, BegunStage.final: retrained}.get(stage) == FINISHED
    assert stage_cut_short(files) is (None if ended else stage)


Made = Callable[[SweepFiles], None]


@pytest.mark.parametrize(
    ("made", "stage"),
    [
        (lambda files: of(files, study=""), BegunStage.study),
        (lambda files: of(files, config=""), BegunStage.search),
        (lambda files: of(files, ledger="", best="", progress=UNFINISHED), BegunStage.search),
        (lambda files: of(files, ledger="", best="", progress=FINISHED), None),
        (lambda files: of(files, ledger="", best="", progress=FINISHED, final_config=""), BegunStage.final),
        (lambda files: of(files, ledger="", best="", progress=UNFINISHED, final_config=""), BegunStage.search),
        (lambda files: of(files, ledger="", progress=UNFINISHED, final_config="", final_ledger=""), BegunStage.final),
        (lambda files: of(files, best=""), BegunStage.final),
        (lambda files: of(files, best="", final_progress=FINISHED), None),
    ],
)
def test_a_directory_of_a_version_that_recorded_none_tells_its_stage_by_its_files(
    tmp_path: Path, made: Made, stage: BegunStage | None
) -> None:
    made(SweepFiles(tmp_path))
    assert stage_cut_short(SweepFiles(tmp_path)) is stage
