"""Blur against its kernels, written down directly."""

import numpy as np
import pytest
from scipy import ndimage  # type: ignore[import-untyped]

from odenet.data.images import Images
from odenet.enums import Corruption
from odenet.robustness.blur import disk, glass_blur, magnify, smear
from odenet.robustness.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from odenet.robustness.originals import Originals
from tests.odenet.robustness.pictures import constant, pictures

BLURS = ("gaussian_blur", "defocus_blur", "glass_blur", "motion_blur", "zoom_blur")
GAUSSIAN = (0.4, 0.6, 0.7, 0.8, 1)


def spot(height: int = 32, width: int = 32) -> np.ndarray:
    """A white pixel (1, 1, H, W) in the middle of black."""
    image = np.zeros((1, 1, height, width))
    image[0, 0, height // 2, width // 2] = 1.0
    return image


@pytest.mark.parametrize("name", BLURS)
@pytest.mark.parametrize("level", [0, 77, 255])
def test_blur_leaves_what_is_of_one_level(name: str, level: int) -> None:
    for severity in SEVERITIES:
        assert (corrupt(constant(level), name, severity).pixels_BCHW == level).all()


@pytest.mark.parametrize("severity", SEVERITIES)
def test_gaussian_blur_spreads_a_pixel_as_the_formula_says(severity: int) -> None:
    sigma, away = GAUSSIAN[severity - 1], np.arange(-16, 16)
    image = Images(np.uint8(255 * spot()), np.zeros(1), np.zeros(1, dtype=int))
    line = np.where(abs(away) <= int(4 * sigma + 0.5), np.exp(-(away**2) / (2 * sigma**2)), 0)
    expected = np.floor(255 * np.outer(line, line) / line.sum() ** 2 + 1e-6)
    assert np.array_equal(corrupt(image, "gaussian_blur", severity).pixels_BCHW[0, 0], expected)


@pytest.mark.parametrize(
    ("radius", "alias", "pixels"), [(0.3, 0.4, 1), (0.4, 0.5, 1), (0.5, 0.6, 1), (1, 0.2, 5), (1.5, 0.1, 9)]
)
def test_the_kernel_of_defocus_is_a_disk_smoothed_over_three_pixels(radius: float, alias: float, pixels: int) -> None:
    kernel = disk(radius, alias)
    side = np.exp(-1 / (2 * alias**2))
    taps = np.array([side, 1, side]) / (1 + 2 * side)
    reach = len(kernel) // 2
    distance = np.hypot(*np.mgrid[-reach : reach + 1, -reach : reach + 1])
    assert (distance <= radius).sum() == pixels
    smoothed = np.zeros_like(kernel)
    for down, weight in zip((-1, 0, 1), taps, strict=True):
        for right, other in zip((-1, 0, 1), taps, strict=True):
            smoothed += weight * other * np.roll(distance <= radius, (down, right), (0, 1)) / pixels
    assert kernel == pytest.approx(smoothed, abs=1e-12)
    assert kernel.sum() == pytest.approx(1)
    assert kernel == pytest.approx(kernel.T)


def test_the_kernel_of_defocus_grows_with_the_image() -> None:
    spread = [np.sqrt((disk(1.5, 0.1, scale) * offsets(disk(1.5, 0.1, scale))).sum()) for scale in (1, 2, 4)]
    assert spread[1] / spread[0] == pytest.approx(2, rel=0.1)
    assert spread[2] / spread[1] == pytest.approx(2, rel=0.1)


def offsets(kernel: np.ndarray) -> np.ndarray:
    """Squared distances from the middle."""
    reach = len(kernel) // 2
    return np.square(np.mgrid[-reach : reach + 1, -reach : reach + 1]).sum(0)


def test_defocus_mirrors_the_image_at_its_border() -> None:
    images, (radius, alias) = pictures(3), CORRUPTIONS[Corruption.defocus_blur].severities[4]
    padded = np.pad(images.pixels_BCHW / 255, [(0, 0), (0, 0), (2, 2), (2, 2)], mode="reflect")
    kernel, expected = disk(radius, alias), np.zeros(images.pixels_BCHW.shape)
    for down in range(5):
        for right in range(5):
            expected += kernel[down, right] * padded[:, :, down : down + 32, right : right + 32]
    found = corrupt(images, "defocus_blur", 5).pixels_BCHW
    assert np.array_equal(found, np.floor(expected * 255 + 1e-6))


@pytest.mark.parametrize("rounds", [1, 2])
def test_glass_moves_pixels_as_the_published_loop_does(rounds: int) -> None:
    images = pictures(3)
    originals = Originals(images.pixels_BCHW, images.indices_B, "glass_blur", 1)
    moves = originals.draw("moves", lambda stream: stream.randint(-1, 1, (rounds, 2, 30, 30)))
    expected = images.pixels_BCHW.transpose(0, 2, 3, 1).copy()
    for image, picture in enumerate(expected):
        for turn in range(rounds):
            for h in range(31, 1, -1):
                for w in range(31, 1, -1):
                    down, right = moves[image, turn, :, h - 2, w - 2]
                    here, there = picture[h, w], picture[h + down, w + right]
                    here[:], there[:] = there, here  # two views of an array: the second assignment changes nothing
    found = glass_blur(originals, 1e-9, 1, rounds)
    assert np.array_equal(np.rint(found * 255), expected.transpose(0, 3, 1, 2))


def test_glass_moves_three_quarters_of_the_pixels_and_none_at_the_border() -> None:
    h, w = np.mgrid[:32, :32]
    places = np.stack([h * 8, w * 8, h * 0]).astype(np.uint8)[None].repeat(20, 0)
    seen = corrupt(Images(places, np.zeros(20), np.arange(20)), "glass_blur", 1).pixels_BCHW
    moved = (seen != places).any(1)
    assert moved[:, 2:, 2:].mean() == pytest.approx(0.75, abs=0.02)
    assert not moved[:, :2].any()
    assert not moved[:, :, :2].any()
    assert set(np.unique(places.astype(int) - seen)) == {0, 8}  # up and to the left, by one


@pytest.mark.parametrize("sigma", [1, 2.5])
def test_motion_smears_a_pixel_by_half_a_gaussian(sigma: float) -> None:
    smeared = smear(spot(), 6, sigma, np.array([0.0]))[0, 0]
    weights = np.exp(-(np.arange(13) ** 2) / (2 * sigma**2))
    assert smeared[16, 4:17][::-1] == pytest.approx(weights / weights.sum())
    assert smeared.sum() == pytest.approx(1)


def test_motion_along_an_angle_moves_the_centre_of_mass_there() -> None:
    weights = np.exp(-(np.arange(19) ** 2) / (2 * 2.5**2))
    mean = (weights * np.arange(19)).sum() / weights.sum()
    for angle in (-90, -45, -20, 0, 30, 60):
        smeared = smear(spot(96, 96), 9, 2.5, np.array([float(angle)]))[0, 0]
        found = [(smeared * place).sum() - 48 for place in np.mgrid[:96, :96]]
        assert found == pytest.approx([-mean * np.sin(np.radians(angle)), -mean * np.cos(np.radians(angle))], abs=0.3)


def test_motion_blur_is_along_an_angle_of_its_own_for_each_image_within_45_degrees() -> None:
    images = Images(np.uint8(255 * spot()).repeat(300, 0), np.zeros(300), np.arange(300))
    blurred = corrupt(images, "motion_blur", 5).pixels_BCHW[:, 0] / 255.0
    down, right = (((blurred * (place - 16)).sum((1, 2)) / blurred.sum((1, 2))) for place in np.mgrid[:32, :32])
    angles = np.degrees(np.arctan2(down, right)) % 180
    angles = np.where(angles > 90, angles - 180, angles)
    assert np.abs(angles).max() <= 48
    assert np.histogram(angles, 3, (-45, 45))[0].min() > 70


@pytest.mark.parametrize("size", [8, 32, 28, 96])
@pytest.mark.parametrize("factor", [1.0, 1.06, 1.13, 1.25, 1.75, 2.25])
def test_magnifying_is_a_zoom_of_the_middle(size: int, factor: float) -> None:
    image = np.random.default_rng(size).random((size, size))
    part = int(np.ceil(size / factor))
    first = (size - part) // 2
    zoomed = ndimage.zoom(image[first : first + part, first : first + part], factor, order=1)
    trim = (len(zoomed) - size) // 2
    expected = zoomed[trim : trim + size, trim : trim + size]
    assert magnify(image[None, None], factor)[0, 0] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_zoom_blur_is_the_mean_over_the_published_factors(severity: int) -> None:
    images, x = pictures(2), pictures(2).pixels_BCHW / 255
    factors = np.arange(1, (1.06, 1.11, 1.16, 1.21, 1.26)[severity - 1], 0.01)
    assert CORRUPTIONS[Corruption.zoom_blur].severities[severity - 1] == (len(factors),)
    expected = (x + sum(magnify(x, factor) for factor in factors)) / (len(factors) + 1)
    found = corrupt(images, "zoom_blur", severity).pixels_BCHW
    assert np.abs(found - np.floor(expected * 255 + 1e-6)).max() <= 1
    assert (found == np.floor(expected * 255 + 1e-6)).mean() > 0.999
