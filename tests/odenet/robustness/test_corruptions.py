"""What all corruptions have in common: which pixels depend on what, their constants, and what is refused."""

import doctest
import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from odenet.data.images import Images
from odenet.enums import BENCHMARK, DEVELOPMENT, Corruption
from odenet.inference.image_format import ImageFormat
from odenet.robustness import corruptions
from odenet.robustness.corruptions import CORRUPTIONS, SEVERITIES, corrupt, corruptions_for, left_out
from tests.odenet.robustness.pictures import constant, pictures, write_overlays

ROOT = Path(__file__).parents[3]

# SHA-256 of the pixels of pictures(4) at severity 3 and 5, twelve digits. A change means that every cached and reported
# result is of other pixels: find out why first. If a new Pillow or scipy is the reason, or the change is wanted, raise
# corruptions.VERSION, say so in CHANGELOG.md, and write down what `python -m tests.odenet.robustness.test_corruptions`
# prints.
GOLDEN = {
    "gaussian_noise": "d6a2f8080253",
    "shot_noise": "9236cf7409ae",
    "impulse_noise": "65cbe3da48c7",
    "defocus_blur": "2818258c8b1b",
    "glass_blur": "92cae1e37369",
    "motion_blur": "9ff1e03e7973",
    "zoom_blur": "8b5da7f3ca22",
    "snow": "d5dd590c0e0a",
    "frost": "621cc5c1bd5b",
    "fog": "fe058cc1619a",
    "brightness": "b8bf5bc71e94",
    "contrast": "0913d9159fb4",
    "elastic_transform": "0c66aa21813e",
    "pixelate": "3850c3858be0",
    "jpeg_compression": "d52c0d3f01a2",
    "speckle_noise": "6d314d95e4e0",
    "gaussian_blur": "4658c57a3173",
    "spatter": "1248327604be",
    "saturate": "c0b23c5deba2",
}


@pytest.fixture(scope="module")
def frost(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_overlays(tmp_path_factory.mktemp("overlays") / "frost")


def digest(corruption: Corruption, frost: Path) -> str:
    whole = hashlib.sha256()
    for severity in (3, 5):
        whole.update(corrupt(pictures(4), corruption, severity, frost=frost).pixels_BCHW.tobytes())
    return whole.hexdigest()[:12]


def digests(frost: Path) -> dict[str, str]:
    return {corruption.name: digest(corruption, frost) for corruption in Corruption}


def test_there_are_fifteen_for_the_benchmark_and_four_for_development_each_with_a_row() -> None:
    assert (len(BENCHMARK), len(DEVELOPMENT)) == (15, 4)
    assert [corruption.name for corruption in DEVELOPMENT] == ["speckle_noise", "gaussian_blur", "spatter", "saturate"]
    assert list(CORRUPTIONS) == list(Corruption) == [*BENCHMARK, *DEVELOPMENT]


def test_the_pixels_are_those_of_before(frost: Path) -> None:
    assert digests(frost) == GOLDEN


def test_the_page_gives_the_constants_and_its_example_runs() -> None:
    page, words = (ROOT / "docs/robustness.md").read_text(), {False: "water", True: "mud"}

    def numbers(constants: object) -> str:
        if isinstance(constants, tuple):
            return " ".join(map(numbers, constants))
        return words[constants] if isinstance(constants, bool) else f"{constants:g}"

    for corruption, row in CORRUPTIONS.items():
        needs = f"{row.smallest} px{', colour' if row.colour else ''}"
        end = f" | {' / '.join(map(numbers, row.severities))} | {needs} |"
        (line,) = [line for line in page.splitlines() if line.startswith(f"| `{corruption.name}` | ")]
        assert line.endswith(end), end
    assert doctest.testfile(str(ROOT / "docs/robustness.md"), module_relative=False).failed == 0


@pytest.mark.parametrize("corruption", Corruption)
def test_pixels_depend_on_the_image_and_its_index_alone(
    corruption: Corruption, frost: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = pictures(12)
    whole = corrupt(images, corruption, 4, frost=frost)
    assert np.array_equal(whole.labels_B, images.labels_B)
    assert np.array_equal(whole.indices_B, images.indices_B)
    order = np.array([7, 2, 11, 0, 2])
    some = corrupt(images.take(order), corruption, 4, frost=frost)
    assert np.array_equal(some.pixels_BCHW, whole.pixels_BCHW[order])
    monkeypatch.setattr(corruptions, "VALUES_AT_ONCE", 1)  # an image at a time
    assert np.array_equal(corrupt(images, corruption, 4, frost=frost).pixels_BCHW, whole.pixels_BCHW)


WITHOUT_CHANCE = {
    *(Corruption.defocus_blur, Corruption.gaussian_blur, Corruption.zoom_blur, Corruption.brightness),
    *(Corruption.contrast, Corruption.saturate, Corruption.pixelate, Corruption.jpeg_compression),
}


@pytest.mark.parametrize("corruption", Corruption)
def test_images_alike_in_pixels_differ_where_there_is_chance_and_only_there(
    corruption: Corruption, frost: Path
) -> None:
    one = pictures(1)
    alike = Images(one.pixels_BCHW.repeat(2, 0), np.zeros(2, dtype=int), np.array([3, 4]))
    first, second = corrupt(alike, corruption, 5, frost=frost).pixels_BCHW
    assert np.array_equal(first, second) == (corruption in WITHOUT_CHANCE)
    assert not np.array_equal(first, one.pixels_BCHW[0])


def test_the_global_generator_is_neither_used_nor_moved(frost: Path) -> None:
    np.random.seed(3)
    before = np.random.get_state()[1].tolist()  # type: ignore[index]
    for corruption in Corruption:
        corrupt(pictures(1), corruption, 2, frost=frost)
    assert np.random.get_state()[1].tolist() == before  # type: ignore[index]


# The others: elastic (its affine part shrinks), frost (the weight of the image, too, shrinks), saturate (less, then
# more), spatter (water, then mud), glass and motion (constants that go down or stay between two severities).
MONOTONE = set(Corruption) - {
    *(Corruption.elastic_transform, Corruption.frost, Corruption.saturate, Corruption.spatter),
    *(Corruption.glass_blur, Corruption.motion_blur),
}


@pytest.mark.parametrize("corruption", sorted(MONOTONE, key=lambda corruption: corruption.name))
def test_the_error_grows_with_the_severity(corruption: Corruption) -> None:
    images = pictures(20)
    errors = [
        np.square(corrupt(images, corruption, severity).pixels_BCHW.astype(float) - images.pixels_BCHW).mean()
        for severity in SEVERITIES
    ]
    assert errors == sorted(errors)
    assert errors[0] < 0.8 * errors[4]


def image_format(channels: int, side: int) -> ImageFormat:
    return ImageFormat(
        dataset="x", channels=channels, height=side, width=side, highest=255, labels=["a", "b"],
        mean=channels * [0.5], std=channels * [0.5],
    )  # fmt: skip


def test_sets_have_the_corruptions_that_make_sense_for_them() -> None:
    assert corruptions_for(image_format(3, 32)) == corruptions_for(image_format(3, 96)) == tuple(Corruption)
    assert set(Corruption) - set(corruptions_for(image_format(1, 28))) == {Corruption.saturate}
    assert set(corruptions_for(constant(9, 1, (1, 8, 8)))) == {
        *(Corruption.gaussian_noise, Corruption.shot_noise, Corruption.impulse_noise, Corruption.speckle_noise),
        *(Corruption.zoom_blur, Corruption.fog, Corruption.brightness, Corruption.contrast),
        *(Corruption.elastic_transform, Corruption.jpeg_compression),
    }
    reasons = left_out(image_format(1, 8))
    assert "corruption=saturate needs colour" in reasons[Corruption.saturate]
    assert "corruption=glass_blur needs images of at least 24x24 pixels: at 8x8 " in reasons[Corruption.glass_blur]


@pytest.mark.parametrize("shape", [(1, 4, 4), (1, 8, 8), (1, 28, 28), (3, 96, 96), (3, 25, 40), (3, 40, 25)])
def test_images_of_other_sizes_are_corrupted_more_or_less_but_always(shape: tuple[int, int, int], frost: Path) -> None:
    images = pictures(8, shape)
    for corruption in corruptions_for(images):
        for severity in (1, 5):
            found = corrupt(images, corruption, severity, frost=frost)
            assert found.pixels_BCHW.shape == (8, *shape)
            assert found.pixels_BCHW.dtype == np.uint8
        assert not np.array_equal(found.pixels_BCHW, images.pixels_BCHW), corruption.name


SCALED = ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "gaussian_blur", "elastic_transform", "pixelate")


@pytest.mark.parametrize("name", SCALED)
def test_lengths_are_scaled_with_the_image(name: str) -> None:
    def error(side: int) -> float:
        h, w = np.mgrid[:side, :side] * (32 / side)
        waves = [120 + 50 * np.sin(h / 2 + b) + 50 * np.sin(w / 3 + h / 5 * b) for b in range(30)]
        images = Images(np.stack(waves).astype(np.uint8)[:, None].repeat(3, 1), np.zeros(30), np.arange(30))
        found = corrupt(images, name, 5).pixels_BCHW
        return float(np.sqrt(np.square(found.astype(float) - images.pixels_BCHW).mean()))

    assert error(96) == pytest.approx(error(32), rel=0.35)


def test_no_images_are_no_images(frost: Path) -> None:
    nothing = pictures(2).take(np.arange(0))
    for corruption in Corruption:
        assert len(corrupt(nothing, corruption, 1, frost=frost)) == 0


@pytest.mark.parametrize("severity", [0, 6, -1, 1.5, 3.0, "3", True, None])
def test_another_severity_is_refused(severity: object) -> None:
    with pytest.raises(ValueError, match=r"^severity=.* is not possible: 1, 2, 3, 4, 5 can be\.$"):
        corrupt(pictures(1), Corruption.fog, severity)  # type: ignore[arg-type]


def test_a_severity_may_be_a_whole_number_of_numpy() -> None:
    assert np.array_equal(
        corrupt(pictures(1), "fog", np.int64(2)).pixels_BCHW, corrupt(pictures(1), "fog", 2).pixels_BCHW
    )


@pytest.mark.parametrize("name", ["fogg", "", None, "Corruption.fog", 3])
def test_another_corruption_is_refused_and_all_are_listed(name: object) -> None:
    with pytest.raises(ValueError, match=r"is not possible: gaussian_noise, .*, saturate can be"):
        corrupt(pictures(1), name, 1)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("pixels", "said"),
    [
        (np.zeros((2, 3, 32, 32), dtype=np.float32), "of type float32 cannot be corrupted"),
        (
            np.zeros((2, 32, 32, 3), dtype=np.uint8),
            r"shape \(2, 32, 32, 3\) cannot be corrupted: it must be \(B, C, H, W\)",
        ),
        (np.zeros((2, 32, 32), dtype=np.uint8), "cannot be corrupted: it must be"),
        (np.zeros((2, 3, 2, 32), dtype=np.uint8), "at least 4"),
        (np.zeros((3, 3, 32, 32), dtype=np.uint8), "3 images have 2 labels and 2 indices"),
    ],
)
def test_other_images_are_refused(pixels: np.ndarray, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        corrupt(Images(pixels, np.zeros(2), np.arange(2)), "fog", 1)


def test_a_corruption_that_makes_no_sense_is_refused_with_the_reason() -> None:
    with pytest.raises(ValueError, match="corruption=saturate needs colour, and these images are grey"):
        corrupt(pictures(1, (1, 32, 32)), "saturate", 1)
    with pytest.raises(ValueError, match="corruption=snow needs images of at least 24x24 pixels"):
        corrupt(pictures(1, (3, 8, 8)), "snow", 1)


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as directory:
        sys.stdout.write(json.dumps(digests(write_overlays(Path(directory) / "frost")), indent=4) + "\n")
