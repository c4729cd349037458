"""Contrast, colour, compression, resolution and distortion against colorsys, Pillow and formulae."""

import colorsys
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from odenet.data.images import Images
from odenet.robustness.corruptions import SEVERITIES, corrupt
from odenet.robustness.digital import _affine, elastic_transform
from odenet.robustness.originals import Originals
from tests.odenet.robustness.pictures import constant, pictures

CONTRAST = (0.75, 0.5, 0.4, 0.3, 0.15)
BRIGHTNESS = (0.05, 0.1, 0.15, 0.2, 0.3)
SATURATE = ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2))
QUALITY = (80, 65, 58, 50, 40)
PIXELS = (30, 28, 27, 24, 20)  # of 32, rounded down from .95 .9 .85 .75 .65
ELASTIC = ((0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03))


def by_hand(images: Images, change: object) -> np.ndarray:
    """Images with each pixel (h, s, v) changed through colorsys."""
    pixels = images.pixels_BCHW.transpose(0, 2, 3, 1).reshape(-1, 3) / 255
    changed = [colorsys.hsv_to_rgb(*change(*colorsys.rgb_to_hsv(*rgb))) for rgb in pixels.tolist()]  # type: ignore[operator]
    whole = np.array(changed).reshape(len(images), 32, 32, 3).transpose(0, 3, 1, 2)
    return np.floor(np.clip(whole, 0, 1) * 255 + 1e-6)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_contrast_shrinks_differences_and_keeps_the_mean_of_each_channel(severity: int) -> None:
    images, factor = pictures(5), CONTRAST[severity - 1]
    x, found = images.pixels_BCHW.astype(float), corrupt(images, "contrast", severity).pixels_BCHW.astype(float)
    assert found.mean(axis=(2, 3)) == pytest.approx(x.mean(axis=(2, 3)) - 0.5, abs=0.6)
    assert found.std(axis=(2, 3)) == pytest.approx(factor * x.std(axis=(2, 3)), abs=0.4)
    assert np.abs(np.diff(found) - factor * np.diff(x)).max() <= 1


@pytest.mark.parametrize("severity", SEVERITIES)
def test_brightness_adds_to_the_value_alone(severity: int) -> None:
    images, added = pictures(2), BRIGHTNESS[severity - 1]
    found = corrupt(images, "brightness", severity).pixels_BCHW
    assert np.array_equal(found, by_hand(images, lambda h, s, v: (h, s, min(v + added, 1))))
    value = images.pixels_BCHW.max(axis=1) / 255
    assert found.max(axis=1) == pytest.approx(np.floor(255 * np.minimum(value + added, 1) + 1e-6))
    assert (corrupt(constant(0), "brightness", severity).pixels_BCHW == int(255 * added + 1e-6)).all()
    assert (corrupt(constant(255), "brightness", severity).pixels_BCHW == 255).all()


@pytest.mark.parametrize("severity", SEVERITIES)
def test_saturate_changes_the_saturation_alone(severity: int) -> None:
    images, (factor, added) = pictures(2), SATURATE[severity - 1]
    found = corrupt(images, "saturate", severity).pixels_BCHW
    assert np.array_equal(found, by_hand(images, lambda h, s, v: (h, min(s * factor + added, 1), v)))
    assert np.array_equal(found.max(axis=1), images.pixels_BCHW.max(axis=1))
    grey = corrupt(constant(200), "saturate", severity).pixels_BCHW[0, :, 0, 0].tolist()
    assert grey == [200, *2 * [int(200 * (1 - added) + 1e-6)]]  # reddish where something is added


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_is_that_of_pillow_at_the_published_quality(severity: int, channels: int) -> None:
    images = pictures(3, (channels, 32, 32))
    found = corrupt(images, "jpeg_compression", severity).pixels_BCHW
    for picture, pixels in zip(found, images.pixels_BCHW, strict=True):
        file = BytesIO()
        plain = pixels[0] if channels == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0))
        Image.fromarray(plain).save(file, format="JPEG", quality=QUALITY[severity - 1])
        read = np.asarray(Image.open(file))
        assert np.array_equal(picture, read[None] if channels == 1 else read.transpose(2, 0, 1))


@pytest.mark.parametrize("severity", SEVERITIES)
def test_pixelate_leaves_as_many_rows_and_columns_as_the_factor_says(severity: int) -> None:
    images, size = pictures(4), PIXELS[severity - 1]
    found = corrupt(images, "pixelate", severity).pixels_BCHW.astype(int)
    assert 1 + np.abs(np.diff(found, axis=2)).any(axis=(0, 1, 3)).sum() == size
    assert 1 + np.abs(np.diff(found, axis=3)).any(axis=(0, 1, 2)).sum() == size
    assert found.mean(axis=(2, 3)) == pytest.approx(images.pixels_BCHW.mean(axis=(2, 3)), abs=2.5)
    # Pixels of the reduced image are means over those whose middle is in them, and are repeated over 32/size pixels.
    inside = ((np.arange(32) + 0.5) * size / 32).astype(int) == np.arange(size)[:, None]
    weights = inside / inside.sum(axis=1, keepdims=True)
    reduced = weights @ images.pixels_BCHW @ weights.T
    repeated = inside.T.astype(int) @ reduced @ inside
    assert np.abs(found - repeated).max() <= 1


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize("size", [(32, 32), (96, 80)])
def test_elastic_moves_three_corners_of_a_square_by_at_most_the_published_length(
    severity: int, size: tuple[int, int]
) -> None:
    most = ELASTIC[severity - 1][2] * min(size)
    images = constant(0, 100, (1, *size))
    originals = Originals(images.pixels_BCHW, images.indices_B, "elastic_transform", severity)
    rows, columns = _affine(originals, most)
    moves = originals.draw("corners", lambda stream: stream.uniform(-most, most, (3, 2)))
    assert np.abs(moves).max() <= most
    assert moves.std() == pytest.approx(most / np.sqrt(3), rel=0.1)
    square, (y, x) = min(size) // 3, (size[0] // 2, size[1] // 2)
    corners = np.array([[x + square, y + square], [x + square, y - square], [x - square, y - square]])
    for image in range(
        0, 100, 9
    ):  # columns and rows are affine: read off anywhere, they say where the corners came from
        origin, right, down = ((columns[image, a, b], rows[image, a, b]) for a, b in ((0, 0), (0, 1), (1, 0)))
        moved = corners + moves[image]
        steps = np.array([np.subtract(right, origin), np.subtract(down, origin)])
        assert moved @ steps + origin == pytest.approx(corners, abs=1e-8)


@pytest.mark.parametrize("severity", [2, 3, 4, 5])
def test_elastic_displaces_by_blurred_uniform_noise(severity: int) -> None:
    amount, sigma, _ = ELASTIC[severity - 1]
    ramp = np.full((3, 32, 32), 4.0 * np.arange(32)).astype(np.uint8)[None].repeat(60, 0)
    originals = Originals(ramp, np.arange(60), "elastic_transform", severity)
    moved = (elastic_transform(originals, amount, sigma, 0.0)[:, 0] * 255 / 4 - np.arange(32))[:, 8:24, 8:24]
    away = np.arange(-int(3 * 32 * sigma + 0.5), int(3 * 32 * sigma + 0.5) + 1)
    taps = np.exp(-(away**2) / (2 * (32 * sigma) ** 2))
    taps /= taps.sum()
    deviation = amount * 32 * (taps**2).sum() / np.sqrt(3)
    if severity > 2:  # wider than the image: the border folds the noise back
        assert moved.std() == pytest.approx(deviation, rel=0.15)
    assert np.abs(moved).max() < amount * 32
    smooth = np.corrcoef(moved[:, :, 1:].ravel(), moved[:, :, :-1].ravel())[0, 1]
    assert smooth == pytest.approx((taps[1:] * taps[:-1]).sum() / (taps**2).sum(), abs=0.1)


@pytest.mark.parametrize("name", ["contrast", "elastic_transform", "pixelate", "jpeg_compression"])
@pytest.mark.parametrize("level", [0, 100, 255])
def test_what_is_of_one_level_stays(name: str, level: int) -> None:
    for severity in SEVERITIES:
        found = corrupt(constant(level), name, severity).pixels_BCHW.astype(int)
        assert np.abs(found - level).max() <= (1 if name == "jpeg_compression" else 0)
