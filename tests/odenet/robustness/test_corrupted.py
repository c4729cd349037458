"""Published arrays, the cache, and what is said of where pixels come from."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from odenet.data.config import DataConfig, DataSet
from odenet.data.images import DamagedData, Images, MissingData
from odenet.data.sets import load_test
from odenet.enums import Corruption
from odenet.robustness import corrupted as module
from odenet.robustness.corrupted import HEADER_BYTES, MAGIC, corrupted
from odenet.robustness.corruptions import corrupt
from tests.odenet.robustness.pictures import pictures, write_overlays

FILES = Path(os.environ.get("ODENET_DATA", Path(__file__).parents[4] / "shared" / "data"))
needs_cifar10 = pytest.mark.skipif(
    not (FILES / "cifar-10-batches-py").is_dir(), reason="no CIFAR-10 files in ODENET_DATA or ../shared/data"
)
ROOT = Path(__file__).parents[3]


def files(cache: Path) -> list[Path]:
    return sorted(cache.iterdir()) if cache.is_dir() else []


def signed(payload: bytes) -> bytes:
    return MAGIC + hashlib.sha256(payload).hexdigest().encode() + b"\n" + payload


def test_what_was_made_is_kept_and_taken_from_there(tmp_path: Path) -> None:
    images, cache = pictures(5), tmp_path / "a" / "cache"
    made = corrupted(images, "shot_noise", 2, data_dir=tmp_path, cache_dir=cache)
    assert made.source == "regenerated"
    assert np.array_equal(made.images.pixels_BCHW, corrupt(images, "shot_noise", 2).pixels_BCHW)
    (file,) = files(cache)
    assert file.name.startswith("shot_noise-2-")
    black = np.zeros_like(images.pixels_BCHW)
    file.write_bytes(signed(black.tobytes()))
    kept = corrupted(images, "shot_noise", 2, data_dir=tmp_path, cache_dir=str(cache))
    assert np.array_equal(kept.images.pixels_BCHW, black)
    assert np.array_equal(kept.images.labels_B, images.labels_B)
    assert np.array_equal(kept.images.indices_B, images.indices_B)
    assert kept.images.pixels_BCHW.flags.writeable


@pytest.mark.parametrize("harm", ["shorter", "longer", "flipped", "unsigned", "empty", "other size"])
def test_a_damaged_file_is_made_again(harm: str, tmp_path: Path) -> None:
    images = pictures(3)
    expected = corrupted(images, "fog", 5, data_dir=tmp_path, cache_dir=tmp_path / "cache").images.pixels_BCHW
    (file,) = files(tmp_path / "cache")
    whole = file.read_bytes()
    flipped = bytearray(whole)
    flipped[HEADER_BYTES + 100] ^= 1
    file.write_bytes(
        {
            "shorter": whole[:-1],
            "longer": whole + b"0",
            "flipped": bytes(flipped),
            "unsigned": whole[HEADER_BYTES:],
            "empty": b"",
            "other size": signed(whole[HEADER_BYTES:-1]),
        }[harm]
    )
    assert np.array_equal(
        corrupted(images, "fog", 5, data_dir=tmp_path, cache_dir=tmp_path / "cache").images.pixels_BCHW, expected
    )
    assert files(tmp_path / "cache") == [file]
    assert file.read_bytes() == whole


def test_each_of_pixels_indices_corruption_severity_version_and_overlays_has_a_file_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, cache = pictures(2), tmp_path / "cache"
    frost = write_overlays(tmp_path / "frost")

    def make(these: Images, name: str, severity: int) -> None:
        corrupted(these, name, severity, data_dir=tmp_path, cache_dir=cache)

    make(images, "frost", 1)
    changed = images.pixels_BCHW.copy()
    changed[1, 2, 3, 4] ^= 1
    make(Images(changed, images.labels_B, images.indices_B), "frost", 1)
    make(Images(images.pixels_BCHW, images.labels_B, images.indices_B + 1), "frost", 1)
    make(images, "fog", 1)
    make(images, "frost", 2)
    assert len(files(cache)) == 5
    make(images, "frost", 1)
    assert len(files(cache)) == 5
    (frost / "frost1.png").write_bytes((frost / "frost2.png").read_bytes())
    make(images, "frost", 1)
    assert len(files(cache)) == 6
    monkeypatch.setattr(module, "VERSION", module.VERSION + 1)
    make(images, "frost", 1)
    assert len(files(cache)) == 7


# Other global seeds than ours, and another chunk of images at a time.
OTHER_PROCESS = """
import hashlib, random, sys, numpy
from odenet.enums import Corruption
from odenet.robustness import corruptions
from odenet.robustness.corrupted import corrupted
from tests.odenet.robustness.pictures import pictures
random.seed(5), numpy.random.seed(5)
corruptions.VALUES_AT_ONCE = 7 * 3072
for corruption in Corruption:
    found = corrupted(pictures(30), corruption, 4, data_dir=sys.argv[1], cache_dir=sys.argv[2])
    print(corruption.name, hashlib.sha256(found.images.pixels_BCHW.tobytes()).hexdigest())
assert "torch" not in sys.modules
"""


@pytest.mark.slow
def test_processes_that_make_the_same_at_once_make_the_same_pixels_and_leave_one_file_each(tmp_path: Path) -> None:
    frost, cache = write_overlays(tmp_path / "frost"), tmp_path / "cache"
    run = [sys.executable, "-c", OTHER_PROCESS, str(tmp_path), str(cache)]
    started = [subprocess.Popen(run, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    answers = [process.communicate(timeout=120)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0]
    ours = [corrupt(pictures(30), corruption, 4, frost=frost).pixels_BCHW.tobytes() for corruption in Corruption]
    expected = dict(zip([corruption.name for corruption in Corruption], map(hashlib.sha256, ours), strict=True))
    for answer in answers:
        assert dict(map(str.split, answer.splitlines())) == {name: sha.hexdigest() for name, sha in expected.items()}
    assert len(files(cache)) == len(Corruption)


def test_nothing_half_written_is_left_where_there_is_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        corrupted(pictures(1), "fog", 1, data_dir=tmp_path, cache_dir=tmp_path / "cache")
    assert files(tmp_path / "cache") == []


def test_frost_without_overlays_is_refused_and_nothing_kept(tmp_path: Path) -> None:
    with pytest.raises(MissingData, match=r"corruption=frost needs .* leave this corruption out"):
        corrupted(pictures(1), "frost", 1, data_dir=tmp_path, cache_dir=tmp_path / "cache")
    assert files(tmp_path / "cache") == []


@pytest.mark.parametrize(
    ("name", "severity", "said"), [("fogg", 1, "corruption='fogg'"), ("fog", 6, "severity=6"), ("fog", 1.5, "severity")]
)
def test_what_is_wrong_is_refused_before_anything_is_read(name: str, severity: int, said: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=said):
        corrupted(pictures(1), name, severity, data_dir="/nowhere", cache_dir=tmp_path / "cache")
    assert files(tmp_path / "cache") == []


# --- the published arrays ---------------------------------------------------------------------------------------------


@pytest.fixture
def published(tmp_path: Path) -> tuple[Images, Path, np.ndarray]:
    """Return CIFAR-10's test images, a data directory with CIFAR-10-C/fog.npy, and that array, in which only rows of
    severity 4 are filled: a file with holes takes no room."""
    images = load_test(DataConfig(dataset=DataSet.cifar10, per_class=None), FILES)
    (tmp_path / "cifar-10-batches-py").symlink_to(FILES / "cifar-10-batches-py")
    folder = tmp_path / "CIFAR-10-C"
    folder.mkdir()
    array = np.lib.format.open_memmap(folder / "fog.npy", "w+", np.uint8, (50_000, 32, 32, 3))
    array[30_000:30_050] = np.random.default_rng(0).integers(0, 256, (50, 32, 32, 3), dtype=np.uint8)
    np.save(folder / "labels.npy", np.tile(images.labels_B, 5).astype(np.uint8))
    module._test_set.cache_clear()
    return images, tmp_path, array


@pytest.mark.slow
@needs_cifar10
def test_published_arrays_are_taken_where_they_are(published: tuple[Images, Path, np.ndarray]) -> None:
    images, directory, array = published
    cache = directory / "cache"
    whole = corrupted(images, "fog", 4, data_dir=directory, cache_dir=cache)
    assert whole.source == "CIFAR-10-C"
    assert np.array_equal(whole.images.pixels_BCHW, array[30_000:40_000].transpose(0, 3, 1, 2))
    some = images.take(np.array([17, 3, 49]))
    part = corrupted(some, Corruption.fog, 4, data_dir=directory, cache_dir=cache)
    assert part.source == "CIFAR-10-C"
    assert np.array_equal(part.images.pixels_BCHW, array[[30_017, 30_003, 30_049]].transpose(0, 3, 1, 2))
    assert np.array_equal(part.images.labels_B, some.labels_B)
    assert np.array_equal(part.images.indices_B, [17, 3, 49])
    assert files(cache) == []
    made = corrupted(some, "contrast", 4, data_dir=directory, cache_dir=cache)
    assert made.source == "CIFAR-10-C-regen"
    others = Images(
        255 - some.pixels_BCHW, some.labels_B, some.indices_B
    )  # at the same places, but not the test images
    assert corrupted(others, "fog", 4, data_dir=directory, cache_dir=cache).source == "regenerated"
    trained = load_test(DataConfig(), FILES)
    assert corrupted(trained, "fog", 4, data_dir=directory, cache_dir=cache).source == "regenerated"

    folder = directory / "CIFAR-10-C"
    np.save(folder / "labels.npy", np.zeros(50_000, dtype=np.uint8))
    with pytest.raises(DamagedData, match=r"labels.npy gives other labels .* move CIFAR-10-C away"):
        corrupted(some, "fog", 4, data_dir=directory, cache_dir=cache)
    (folder / "labels.npy").unlink()
    with pytest.raises(MissingData, match=r"CIFAR-10-C lacks labels.npy, by which"):
        corrupted(some, "fog", 4, data_dir=directory, cache_dir=cache)
    for wrong, said in ((np.zeros((5, 32, 32, 3), np.uint8), "holds uint8 of shape"), (np.zeros(5), "holds float64")):
        np.save(folder / "fog.npy", wrong)
        with pytest.raises(DamagedData, match=said):
            corrupted(some, "fog", 4, data_dir=directory, cache_dir=cache)
    (folder / "fog.npy").write_bytes(b"fog")
    with pytest.raises(DamagedData, match=r"fog.npy cannot be read as an array of NumPy"):
        corrupted(some, "fog", 4, data_dir=directory, cache_dir=cache)
