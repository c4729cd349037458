"""Flipped bits and cut ends in every file of a run directory, before every reader: never a traceback.

A reader either answers, because what is left makes sense to it, or refuses with one message that names the file. What a
flipped digit of a value says instead nobody can tell. The files of the delivery are in tests/sweep/tracking.
"""

import random
import shutil
import tarfile
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from odenet.training.checkpoint import DamagedCheckpoint, load_checkpoint
from sweep.config.compose import GOES_ON, REPLAYED, load
from sweep.config.schema import AppConfig
from sweep.errors import InputError
from sweep.records.best import write_candidates
from sweep.records.provenance import check_origin, origin
from sweep.records.run_directory import SweepFiles
from sweep.records.stage_record import BegunStage
from sweep.report.load import load_sweeps
from sweep.report.page import write_report
from sweep.stages.evaluate import prepare_evaluate
from sweep.stages.final import prepare_final
from sweep.stages.replay import prepare_replay
from sweep.stages.resume import check_records, prepare_resume, stage_cut_short
from sweep.stages.search import prepare_search
from sweep.stages.status import status
from tests.sweep.records.test_kept_run import ARCHIVE

FLIPS = 20  # of each file
QUOTED = ("config.yaml", "origin.json")  # a message may say what stands in it and not where
UNFINISHED = '{"seconds": 1.0, "finished": false}'


def loaded(name: str, possible: tuple[str, ...] = GOES_ON) -> AppConfig:
    return load([], SweepFiles(Path("runs") / name).config, possible)


def shows(name: str) -> None:
    status(Path("runs"), name, Console(file=StringIO()))


def goes_on(name: str) -> None:
    files = SweepFiles(Path("runs") / name)
    config = loaded(name)
    if stage_cut_short(files) is BegunStage.search:
        prepare_resume(config, name)


def confirms(name: str) -> None:
    prepare_final(loaded(name), name)
    check_records(SweepFiles(Path("runs") / name).final)


def evaluates(name: str) -> None:
    prepare_evaluate(loaded(name), name)


def replays(name: str) -> None:
    prepare_replay(loaded(name, REPLAYED), SweepFiles(Path("runs") / name))


def reads_for_a_report(name: str) -> None:
    load_sweeps([Path("runs") / name])


def began_with_this_code(name: str) -> None:
    config, file = loaded(name), SweepFiles(Path("runs") / name).origin
    prepared = prepare_search(config)
    check_origin(file, origin(prepared.problem.space, prepared.splits), accept=True)


Reader = Callable[[str], None]
TABLES = ("trials.csv", "curves.csv", "manifestations.csv")
# Run directories, what is done to them, and for each file who reads it.
READ: dict[str, dict[str, tuple[Reader, ...]]] = {
    "cut": {
        "config.yaml": (goes_on,), "origin.json": (goes_on,), "ledger.csv": (goes_on,), "study.journal": (goes_on,),
        "progress.json": (shows, goes_on), "trials.csv": (shows,), "curves.csv": (goes_on,),
        "manifestations.csv": (goes_on,), "stage.json": (goes_on,),
    },
    "kept": {
        **dict.fromkeys(TABLES[:2], (reads_for_a_report, replays)), TABLES[2]: (reads_for_a_report,),
        "config.yaml": (reads_for_a_report, replays),
        **dict.fromkeys([f"final/{name}" for name in TABLES[:2]], (reads_for_a_report,)),
        "best.yaml": (reads_for_a_report,), "final/crowned.yaml": (reads_for_a_report,),
        "rows.csv": (reads_for_a_report,), "progress.json": (shows, replays), "final/progress.json": (shows,),
    },
    "retrained": {
        "candidates.yaml": (confirms,), "progress.json": (confirms,),
        "final/progress.json": (confirms,), "final/ledger.csv": (confirms,), "final/curves.csv": (confirms,),
    },
    "untested": {"final/trials.csv": (evaluates,), "final/model-2.ckpt": (evaluates,), "config.yaml": (evaluates,)},
}  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    place = tmp_path_factory.mktemp("flips")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(place, filter="data")
    for name in ("retrained", "untested"):
        shutil.copytree(place / "runs/kept", place / "runs" / name, ignore=shutil.ignore_patterns("ml*"))
    (place / "runs/untested/rows.csv").unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        began_with_this_code("cut")
        shutil.rmtree(place / "runs/retrained/final")
        candidates = [one.best for one in prepare_final(loaded("retrained"), "retrained").candidates]
    write_candidates(place / "runs/retrained/candidates.yaml", candidates)
    shutil.copytree(place / "runs/kept/final", place / "runs/retrained/final")
    (place / "runs/cut/stage.json").write_text(BegunStage.search.text)
    (place / "runs/retrained/final/progress.json").write_text(UNFINISHED)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        yield place / "runs"


def damaged(content: bytes, rng: random.Random) -> bytes:
    """One bit flipped, or the end cut off, or followed or replaced by zeros."""
    place = rng.randrange(len(content))
    way = rng.random()
    if way < 0.6:
        return content[:place] + bytes([content[place] ^ 1 << rng.randrange(8)]) + content[place + 1 :]
    if way < 0.8:
        return content[:place]
    return content[:place] + bytes(len(content) - place) if way < 0.95 else content + bytes(100)


CASES = [(name, file) for name, read in READ.items() for file in read]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "file"), CASES, ids=[f"{name}-{file}" for name, file in CASES])
def test_every_reader_of_a_damaged_file_answers_or_refuses_by_one_message(runs, name, file):
    path, rng, refused = runs / name / file, random.Random(f"{name}/{file}"), 0
    whole = path.read_bytes()
    try:
        for reader in READ[name][file]:
            reader(name)
        for _ in range(FLIPS):
            path.write_bytes(damaged(whole, rng))
            for reader in READ[name][file]:
                try:
                    reader(name)
                except InputError as error:
                    refused += 1
                    assert "Traceback" not in str(error)
                    assert Path(file).name in str(error) or file in QUOTED, str(error)
    finally:
        path.write_bytes(whole)
    assert refused > 0


@pytest.mark.slow
def test_a_report_of_damaged_tables_that_were_read_is_written(runs, tmp_path):
    """Numbers that no sweep would write are shown or refused."""
    for file in ("trials.csv", "curves.csv", "rows.csv"):
        path, rng = runs / "kept" / file, random.Random(file)
        whole = path.read_bytes()
        for _ in range(3):
            path.write_bytes(damaged(whole, rng))
            try:
                write_report([runs / "kept"], tmp_path / "report.html", "kept")
            except InputError as error:
                assert file in str(error)
        path.write_bytes(whole)


def test_a_flipped_or_cut_checkpoint_is_never_taken_for_a_whole_one(runs, tmp_path):
    (whole,) = (runs / "cut/checkpoints/000000").glob("*.ckpt")
    content, rng = whole.read_bytes(), random.Random(0)
    for _ in range(FLIPS):
        (tmp_path / "one.ckpt").write_bytes(damaged(content, rng))
        with pytest.raises(DamagedCheckpoint, match=r"one\.ckpt"):
            load_checkpoint(tmp_path / "one.ckpt")
