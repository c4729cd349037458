"""Fog, frost, snow and spatter against what their formulae say of black, of constant and of single pixels."""

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm  # type: ignore[import-untyped]

from odenet.data.images import DamagedData, Images, MissingData
from odenet.enums import Corruption
from odenet.robustness.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from odenet.robustness.weather import OVERLAYS, canny, equalise, plasma, read_overlays
from tests.odenet.robustness.pictures import constant, pictures, write_overlays

FOG = ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75))
FROST = ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45))


def diamond_square(numbers: list[float], side: int, decay: float) -> np.ndarray:
    """The algorithm, a point at a time."""
    heights, drawn, step, size = np.zeros((side, side)), iter(numbers), side, 1.0
    while step > 1:
        half = step // 2
        squares = [(y, x) for y in range(half, side, step) for x in range(half, side, step)]
        above = [(y, x) for y in range(0, side, step) for x in range(half, side, step)]
        beside = [(y, x) for y in range(half, side, step) for x in range(0, side, step)]
        for points, around in ((squares, ((-1, -1), (-1, 1), (1, -1), (1, 1))), (above + beside, 4 * ((0, 0),))):
            for y, x in points:
                near = around if points is squares else ((-1, 0), (1, 0), (0, -1), (0, 1))
                mean = sum(heights[(y + half * a) % side, (x + half * b) % side] for a, b in near) / 4
                heights[y, x] = mean + size * next(drawn)
        step, size = half, size / decay**2
    return (heights - heights.min()) / (heights.max() - heights.min())


@pytest.mark.parametrize("side", [4, 32])
def test_fog_is_a_plasma_of_the_diamond_square_algorithm(side: int) -> None:
    numbers = np.random.default_rng(side).uniform(-1, 1, (2, side * side - 1))
    for found, drawn in zip(plasma(numbers, 2.5), numbers.tolist(), strict=True):
        assert found == pytest.approx(diamond_square(drawn, side, 2.5), abs=1e-12)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_fog_keeps_the_brightest_and_lifts_a_constant_as_the_formula_says(severity: int) -> None:
    amount, x = FOG[severity - 1][0], 120 / 255
    foggy = corrupt(constant(120), "fog", severity).pixels_BCHW
    assert (foggy == foggy[:, :1]).all()  # grey
    assert (foggy.max(axis=(1, 2, 3)) == 120).all()  # where the fog is 1
    assert (foggy.min(axis=(1, 2, 3)) == int(255 * x * x / (x + amount) + 1e-6)).all()  # where it is 0
    assert not corrupt(constant(0), "fog", severity).pixels_BCHW.any()


def test_fog_is_rougher_the_slower_it_decays() -> None:
    numbers = np.random.default_rng(0).uniform(-1, 1, (50, 1023))
    rough = [np.abs(np.diff(plasma(numbers, decay), axis=2)).mean() for decay in (3, 2.5, 2, 1.75)]
    assert rough == sorted(rough)
    assert rough[-1] > 1.4 * rough[0]


@pytest.mark.parametrize("severity", SEVERITIES)
def test_frost_is_the_published_sum_of_an_image_and_a_part_of_an_overlay(severity: int, tmp_path: Path) -> None:
    kept, ice = FROST[severity - 1]
    folder = write_overlays(tmp_path / "frost")
    images = constant(50, 40)
    frosty = corrupt(images, "frost", severity, frost=folder).pixels_BCHW
    overlays, used = read_overlays(folder, (3, 32, 32)), []
    for picture in frosty:
        found = [
            (number, y, x)
            for number, overlay in enumerate(overlays)
            for y in range(overlay.shape[1] - 32)
            for x in range(overlay.shape[2] - 32)
            if abs(kept * 50 + ice * overlay[0, y, x] - picture[0, 0, 0] - 0.5) < 0.6
            and np.array_equal(
                np.floor(np.minimum(kept * 50 + ice * overlay[:, y : y + 32, x : x + 32], 255) + 1e-6), picture
            )
        ]
        assert found
        used.append(found[0])
    assert {number for number, _, _ in used} == set(range(5))
    assert len({(y, x) for _, y, x in used}) > 20


def test_overlays_are_reduced_to_every_fifth_pixel_for_32_and_less_for_larger_images(tmp_path: Path) -> None:
    from PIL import Image

    folder = write_overlays(tmp_path / "frost")
    whole = np.asarray(Image.open(folder / OVERLAYS[0])).transpose(2, 0, 1)
    assert np.array_equal(read_overlays(folder, (3, 32, 32))[0], whole[:, 2::5, 2::5])
    assert read_overlays(folder, (3, 96, 96))[0].shape == (3, 144, 180)
    grey = np.asarray(Image.open(folder / OVERLAYS[0]).convert("L"))
    assert np.array_equal(read_overlays(folder, (1, 32, 32))[0][0], grey[2::5, 2::5])


def test_without_its_overlays_frost_is_named_with_what_brings_them(tmp_path: Path) -> None:
    for directory in (None, tmp_path):
        with pytest.raises(
            MissingData, match=r"corruption=frost needs .* lacks frost1.png.* leave this corruption out"
        ):
            corrupt(pictures(1), "frost", 1, frost=directory)
    folder = write_overlays(tmp_path / "frost")
    (folder / OVERLAYS[3]).unlink()
    with pytest.raises(MissingData, match=r"lacks frost4.jpg\. They are in ImageNet-C/create_c"):
        corrupt(pictures(1), "frost", 1, frost=folder)
    (folder / OVERLAYS[3]).write_bytes(b"ice")
    with pytest.raises(DamagedData, match=r"frost4.jpg cannot be read as an image"):
        corrupt(pictures(1), "frost", 1, frost=folder)
    (folder / OVERLAYS[3]).unlink()
    write_overlays(tmp_path / "other")
    from PIL import Image

    Image.new("RGB", (160, 160)).save(folder / OVERLAYS[3], format="PNG")
    with pytest.raises(DamagedData, match=r"frost4.jpg has 32x32 pixels when it is reduced for images of 32x32"):
        corrupt(pictures(1), "frost", 1, frost=folder)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_snow_whitens_by_the_formula_and_lays_its_flakes_on_twice(severity: int) -> None:
    images, (_, _, kept) = pictures(6), CORRUPTIONS[Corruption.snow].severities[severity - 1]
    snowy, x = corrupt(images, "snow", severity).pixels_BCHW, images.pixels_BCHW / 255
    grey = np.tensordot([0.299, 0.587, 0.114], x, (0, 1))[:, None]
    whitened = kept * x + (1 - kept) * np.maximum(x, 1.5 * grey + 0.5)
    layer = snowy / 255 - whitened
    assert layer[snowy < 255].min() > -1.001 / 255
    seen = (snowy < 255) & (snowy < 255)[..., ::-1, ::-1]
    assert np.abs(layer - layer[..., ::-1, ::-1])[seen].max() < 1.01 / 255
    assert np.abs(layer[:, 0] - layer[:, 1])[(snowy < 255)[:, :2].all(1)].max() < 1.01 / 255  # white


def test_as_much_snow_falls_as_the_noise_exceeds_its_threshold() -> None:
    images = constant(0, 150)
    snowy = corrupt(images, "snow", 1).pixels_BCHW[:, 0].astype(float)
    ground = 255 * 0.05 * 0.5  # of black, whitened
    u = np.linspace(0.6, 2, 100_000)
    flakes = (np.minimum(u, 1) * norm.pdf(u, 0.1, 0.2)).sum() * (u[1] - u[0])
    assert snowy.mean() - ground + 0.5 == pytest.approx(2 * 255 * flakes, rel=0.1)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_spatter_covers_as_much_as_the_blurred_noise_exceeds_its_threshold(severity: int) -> None:
    (mean, deviation, sigma), lowest, strength, mud = CORRUPTIONS[Corruption.spatter].severities[severity - 1]
    away = np.arange(-int(4 * sigma + 0.5), int(4 * sigma + 0.5) + 1)
    taps = np.exp(-(away**2) / (2 * sigma**2)) / np.exp(-(away**2) / (2 * sigma**2)).sum()
    share = norm.sf(lowest, mean, deviation * (taps**2).sum())
    spattered = corrupt(constant(100, 60), "spatter", severity).pixels_BCHW
    touched = (spattered != 100).any(1)[:, 4:-4, 4:-4]
    if mud:  # specks lose their rims, because only what is well covered stays
        assert 0.1 * share < touched.mean() < share
        assert spattered.max() == 100
        assert spattered[:, 2].min() <= 255 * 20 / 255 + 0.2 * 80
    else:  # in the unlit part of a drop nothing is seen
        assert 0.5 * share < touched.mean() < 1.1 * share
        assert spattered.min() == 100
        brightest = spattered.max(axis=(2, 3))[touched.any((1, 2))]
        assert np.median(brightest[:, 0]) == int(100 + strength * 175 + 1e-6)
        assert np.median(brightest[:, 1]) == int(100 + strength * 238 + 1e-6)


def test_an_image_without_a_drop_stays_as_it_is() -> None:
    images = pictures(300, (1, 32, 32))
    spattered = corrupt(images, "spatter", 1).pixels_BCHW
    light = (spattered != images.pixels_BCHW).mean(axis=(1, 2, 3))
    assert light.min() == 0 or light.min() < 0.01
    assert (spattered >= images.pixels_BCHW).all()


def test_canny_draws_thin_lines_where_levels_jump_and_only_connected_to_strong_ones() -> None:
    image = np.zeros((3, 20, 20), dtype=np.uint8)
    image[0, 5:15, 5:15] = 200
    image[1, :, 10:] = 200
    image[2, :, 10:] = 20  # |dx| = 80: above low, and nowhere above high
    edges = canny(image, low=50, high=150)
    assert edges[1].sum(axis=1).tolist() == 20 * [1]
    assert set(np.flatnonzero(edges[1].any(0))) <= {9, 10}
    assert not edges[2].any()
    outside = edges[0].copy()
    outside[4:16, 4:16] = False
    assert not outside.any()
    assert not edges[0, 6:14, 6:14].any()
    assert 30 <= edges[0].sum() <= 44  # the outline of a square of side 10
    image[2, 10:, 10:] = 60  # strong now in its lower half, which the upper half is connected with
    assert canny(image, low=50, high=150)[2].any(axis=1).all()


def test_equalised_levels_are_cumulative_shares() -> None:
    levels = np.array([[[3, 3, 5, 9]], [[7, 7, 7, 7]]], dtype=np.uint8)
    assert equalise(levels).tolist() == [[[0, 0, 128, 255]], [[7, 7, 7, 7]]]
    wide = np.random.default_rng(1).permutation(1024).reshape(1, 32, 32) // 4
    assert np.abs(equalise(wide.astype(np.uint8)) - wide).max() <= 1


@pytest.mark.parametrize("name", ["fog", "snow", "frost", "spatter"])
def test_weather_on_grey_images_is_grey_weather(name: str, tmp_path: Path) -> None:
    grey = pictures(3, (1, 32, 32))
    colour = Images(grey.pixels_BCHW.repeat(3, 1), grey.labels_B, grey.indices_B)
    folder = write_overlays(tmp_path / "frost")
    for severity in (1, 5):
        one = corrupt(grey, name, severity, frost=folder).pixels_BCHW.astype(float)
        three = corrupt(colour, name, severity, frost=folder).pixels_BCHW
        mean = np.tensordot([0.299, 0.587, 0.114], three, (0, 1))[:, None]
        unclipped = (three < 255).all(1)[:, None]
        assert np.abs(one - mean)[unclipped].max() <= 2
