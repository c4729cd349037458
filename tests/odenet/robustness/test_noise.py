"""Noise has the moments that its constants say, at every severity."""

import numpy as np
import pytest
from scipy.stats import poisson  # type: ignore[import-untyped]

from odenet.data.images import Images
from odenet.robustness.corruptions import SEVERITIES, corrupt
from tests.odenet.robustness.pictures import constant

GAUSSIAN = (0.04, 0.06, 0.08, 0.09, 0.10)
SHOT = (500, 250, 100, 75, 50)
IMPULSE = (0.01, 0.02, 0.03, 0.05, 0.07)
SPECKLE = (0.06, 0.1, 0.12, 0.16, 0.2)
FLOOR = -0.5  # levels that rounding down takes away on average


def change(name: str, images: Images, severity: int) -> np.ndarray:
    """By how much pixels change, in levels."""
    return corrupt(images, name, severity).pixels_BCHW.astype(float) - images.pixels_BCHW


@pytest.mark.parametrize("severity", SEVERITIES)
def test_gaussian_noise_has_its_deviation_no_mean_and_normal_tails(severity: int) -> None:
    noise, sigma = change("gaussian_noise", constant(128, 30), severity), 255 * GAUSSIAN[severity - 1]
    assert noise.std() == pytest.approx(np.sqrt(sigma**2 + 1 / 12), rel=0.01)
    assert noise.mean() == pytest.approx(FLOOR, abs=4 * sigma / np.sqrt(noise.size))
    psnr = -10 * np.log10(np.square(noise / 255).mean())
    assert psnr == pytest.approx(-20 * np.log10(GAUSSIAN[severity - 1]), abs=0.12)
    assert (np.abs(noise - FLOOR) > 1.96 * sigma).mean() == pytest.approx(0.05, abs=0.005)


def test_gaussian_noise_is_independent_between_channels_pixels_images_and_severities() -> None:
    noise = change("gaussian_noise", constant(128, 30), 3)
    pairs = {
        "channels": (noise[:, 0], noise[:, 1]),
        "pixels": (noise[..., 1:], noise[..., :-1]),
        "images": (noise[1:], noise[:-1]),
        "severities": (noise, change("gaussian_noise", constant(128, 30), 4)),
        "corruptions": (noise, change("speckle_noise", constant(128, 30), 3)),
    }
    for what, (one, other) in pairs.items():
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.025, what


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize("level", [40, 128, 180])
def test_shot_noise_has_the_variance_of_as_many_photons_and_its_values_are_counts(severity: int, level: int) -> None:
    images, photons = constant(level, 30), SHOT[severity - 1]
    noise = change("shot_noise", images, severity)
    chance = poisson.pmf(np.arange(2 * photons), level * photons / 255)
    counts = np.minimum(np.floor(np.arange(2 * photons) * 255 / photons + 1e-6), 255)
    mean = (chance * counts).sum()
    variance = (chance * (counts - mean) ** 2).sum()
    assert noise.var() == pytest.approx(variance, rel=0.02)
    assert variance == pytest.approx(255 * level / photons, rel=0.05)
    assert noise.mean() == pytest.approx(mean - level, abs=4 * np.sqrt(variance / noise.size))
    assert set(np.unique(noise + level)) <= set(counts)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_impulse_noise_replaces_its_share_of_values_by_black_or_white(severity: int) -> None:
    images, share = constant(90, 50), IMPULSE[severity - 1]
    noisy = corrupt(images, "impulse_noise", severity).pixels_BCHW
    assert set(np.unique(noisy)) == {0, 90, 255}
    hit = noisy != 90
    assert hit.mean() == pytest.approx(share, abs=4 * np.sqrt(share / hit.size))
    assert (noisy == 255).sum() / hit.sum() == pytest.approx(0.5, abs=2 / np.sqrt(hit.sum()))
    assert hit.any(axis=1).mean() == pytest.approx(1 - (1 - share) ** 3, rel=0.1)  # channels on their own


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize("level", [60, 120])
def test_speckle_noise_grows_with_the_pixel(severity: int, level: int) -> None:
    noise, sigma = change("speckle_noise", constant(level, 20), severity), level * SPECKLE[severity - 1]
    assert noise.std() == pytest.approx(np.sqrt(sigma**2 + 1 / 12), rel=0.02)
    assert noise.mean() == pytest.approx(FLOOR, abs=0.3)


@pytest.mark.parametrize("name", ["shot_noise", "speckle_noise"])
def test_noise_of_the_light_leaves_black_black(name: str) -> None:
    for severity in SEVERITIES:
        assert not change(name, constant(0), severity).any()
