"""What benchmarks/gpu_sweep.sh carries to a machine without network arrives as it was packed, or is refused."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from odenet import DataConfig, DataSet, load_data
from odenet.data.sets import Images
from sweep.config.compose import load
from tests.sweep.pretended import configured, opened
from tests.sweep.sweep_files import session_on

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def benchmarks() -> Iterator[Any]:
    before = list(sys.path)
    sys.path.insert(0, str(ROOT / "benchmarks"))
    yield import_module
    sys.path[:] = before


@pytest.fixture
def parcel(benchmarks: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module, with pieces of ten bytes and batches of 25, and files in tmp_path / "source"."""
    module = benchmarks("gpu_parcel")
    monkeypatch.setattr(module, "PIECE_BYTES", 10)
    monkeypatch.setattr(module, "BATCH_BYTES", 25)
    for name, content in {
        "wheels/large.whl": bytes(range(34)),
        "wheels/small.whl": b"ab",
        "packed/x.xz": b"y" * 9,
    }.items():
        (tmp_path / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "source" / name).write_bytes(content)
    return module


def test_files_are_cut_and_joined_wherever_their_batches_lie(parcel: Any, tmp_path: Path) -> None:
    batches = parcel.pack(tmp_path / "source", tmp_path / "there")
    assert [batch.bytes for batch in batches] == [10 + 10 + 4, 10 + 9 + 2]
    for batch in batches:
        sizes = [file.stat().st_size for file in batch.folder.iterdir() if file.name != parcel.LIST]
        assert max(sizes) <= 10 and sum(sizes) == batch.bytes <= 25
    batches[1].folder.rename(tmp_path / "there" / "elsewhere")
    names = parcel.unpack(tmp_path / "there", tmp_path / "joined")
    assert sorted(names) == ["packed/x.xz", "wheels/large.whl", "wheels/small.whl"]
    for name in names:
        assert (tmp_path / "joined" / name).read_bytes() == (tmp_path / "source" / name).read_bytes()


def test_a_batch_that_is_missing_or_damaged_is_named(parcel: Any, tmp_path: Path) -> None:
    with pytest.raises(parcel.DamagedParcel, match=r"no parcel.json lies below .*: carry a batch there, or pack anew"):
        parcel.unpack(tmp_path / "there", tmp_path / "joined")
    first, second = parcel.pack(tmp_path / "source", tmp_path / "there")
    piece = next(file for file in first.folder.iterdir() if file.name == "large.whl.0")
    piece.write_bytes(b"?" * 10)
    with pytest.raises(parcel.DamagedParcel, match=r"large.whl.0 has another sha256 than parcel.json says: carry"):
        parcel.unpack(tmp_path / "there", tmp_path / "joined")
    shutil.rmtree(second.folder)
    with pytest.raises(parcel.DamagedParcel, match=r"lacks \d pieces, .* first: carry all batches there"):
        parcel.unpack(tmp_path / "there", tmp_path / "joined")


def test_two_files_of_one_name_are_refused(parcel: Any, tmp_path: Path) -> None:
    (tmp_path / "source" / "packed" / "small.whl").write_bytes(b"other")
    with pytest.raises(ValueError, match=r"two files are called small.whl: their pieces"):
        parcel.pack(tmp_path / "source", tmp_path / "there")


def test_a_step_that_takes_too_long_or_fails_is_a_row_and_ends_the_run(
    benchmarks: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = benchmarks("gpu_steps")
    monkeypatch.setenv("OUT", str(tmp_path))
    handler = signal.getsignal(signal.SIGALRM)
    assert steps.step("good", 5, lambda: {"found": 1}) == {"found": 1}
    with pytest.raises(steps.StepFailed, match=r"^slow: TimeoutError: not done after 0 s$"):
        steps.step("slow", 0.05, lambda: time.sleep(5))
    with pytest.raises(steps.StepFailed, match=r"^bad: ValueError: invalid literal"):
        steps.step("bad", 5, lambda: {"found": int("x")})
    rows = [json.loads(line) for line in (tmp_path / "gpu_sweep.jsonl").read_text().splitlines()]
    assert [(row["step"], "error" in row) for row in rows] == [("good", False), ("slow", True), ("bad", True)]
    assert signal.getsignal(signal.SIGALRM) is handler


def test_the_images_that_are_carried_are_a_data_set_of_the_sweep(benchmarks: Any, tmp_path: Path) -> None:
    draws, count = np.random.default_rng(0), 40
    pixels = draws.integers(0, 256, (count, 3, 8, 8), dtype=np.uint8)
    images = Images(pixels, np.arange(count) % 10, np.arange(count))
    benchmarks("gpu_pack").write({"train-1": images}, tmp_path)
    module = benchmarks("gpu_sweep")
    assert module.write_images(tmp_path, tmp_path / "images", 3)["images"] == count
    data = load_data(DataConfig(dataset=DataSet.folder, path=str(tmp_path / "images"), per_class=3))
    assert data.classes == 10
    assert data.train.pixels_BCHW.shape[1:] == (3, 8, 8)
    shown = {image.tobytes() for image in (*data.train.pixels_BCHW, *data.val.pixels_BCHW)}
    assert shown == {image.tobytes() for image in pixels[:30]}  # the fourth of each class is kept for the test
    config = load([*module.SEARCH, f"data.path={tmp_path / 'images'}"])
    assert (config.search.trials, config.runtime.resources.gpus) == (16, 0.125)


def test_data_that_are_not_there_are_named_before_anything_is_downloaded(benchmarks: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"lacks cifar-10-batches-py"):
        benchmarks("gpu_carry").pack(tmp_path / "new", tmp_path, "3.12", ())
    assert not (tmp_path / "new").exists()


def test_outcomes_are_counted_over_both_commands_from_what_they_left(benchmarks: Any, tmp_path: Path) -> None:
    module = benchmarks("gpu_sweep")
    sweep = opened(session_on(configured("search.trials=4", runs=tmp_path / "runs"), module.NAME))
    found = module.Disturbed(module.drivers.Place(tmp_path, {}), ["search.trials=3", "search.trials=4"])
    assert (found._asked_for(), found._trials_begun()) == (4, 0)
    found._took(2.0)
    sweep.drive(legs=3)
    assert (found._trials_begun(), found._ended()) == (3, 3)
    found._took(8.0)
    sweep.drive()
    sweep.log.write()
    counted = found.outcomes()
    assert counted["outcomes"] == {"done": 4}
    assert (counted["taken_up_again"], counted["ended_twice"]) == (0, 0)
    assert (counted["search_seconds"], counted["trials_per_hour"]) == (10.0, 3600 * 4 / 10)
    assert counted["best"] == max(row.objective for row in sweep.log.in_order())


def test_the_script_says_how_it_is_used_and_what_is_not_there(tmp_path: Path) -> None:
    def run(*words: object) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHON": sys.executable, "PLACE": str(tmp_path / "p"), "OUT": str(tmp_path)}
        command = [ROOT / "benchmarks/gpu_sweep.sh", *map(str, words)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    for words in ((), ("run",), ("pack", tmp_path)):
        asked = run(*words)
        assert asked.returncode == 2 and "benchmarks/gpu_sweep.sh pack FOLDER DATA_DIR" in asked.stderr
    full = run("pack", ROOT, tmp_path)
    assert (full.returncode, full.stderr) == (2, f"error: {ROOT} is not empty: name another folder, or empty it.\n")
    absent = run("run", tmp_path)
    assert absent.returncode == 1
    assert absent.stderr.splitlines()[-1].startswith(
        f"error: join: DamagedParcel: no parcel.json lies below {tmp_path}"
    )
