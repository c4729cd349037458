"""The corruptions of CIFAR-10-C at their five severities: which there are, and images corrupted by one.

Every pixel depends on the image, its index in the published set, the corruption and the severity, on nothing else.
Constants are those of the CIFAR variant of the benchmark (hendrycks/robustness, make_cifar_c.py), which differ from the
ones for ImageNet. Legend: `B` images, `C` channels, `H W` space.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from odenet.data.images import Images
from odenet.enums import Corruption, member
from odenet.robustness import blur, digital, noise, weather
from odenet.robustness.originals import Originals, quantise

if TYPE_CHECKING:  # it loads torch, which nothing here needs
    from odenet.inference.image_format import ImageFormat

VERSION = 1  # of what the pixels are: raised whenever one changes, so that no cache of before is taken
SEVERITIES = (1, 2, 3, 4, 5)
SMALLEST = 4  # pixels of the shorter side that anything needs
RESOLVED = 24  # pixels of the shorter side, below which lengths meant for 32 are too short to do anything
VALUES_AT_ONCE = 2**19  # of pixels, in float64: half a million fit into a processor's cache

Strength = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class CorruptionRow:
    """A corruption: its function of (images, *constants), the constants of severities 1 ... 5, what images it needs."""

    apply: Callable[..., np.ndarray]
    severities: tuple[Strength, Strength, Strength, Strength, Strength]
    smallest: int = SMALLEST
    colour: bool = False


CORRUPTIONS: dict[Corruption, CorruptionRow] = {
    Corruption.gaussian_noise: CorruptionRow(noise.gaussian_noise, ((0.04,), (0.06,), (0.08,), (0.09,), (0.10,))),
    Corruption.shot_noise: CorruptionRow(noise.shot_noise, ((500,), (250,), (100,), (75,), (50,))),
    Corruption.impulse_noise: CorruptionRow(noise.impulse_noise, ((0.01,), (0.02,), (0.03,), (0.05,), (0.07,))),
    Corruption.defocus_blur: CorruptionRow(
        blur.defocus_blur, ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)), RESOLVED
    ),
    Corruption.glass_blur: CorruptionRow(
        blur.glass_blur, ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)), RESOLVED
    ),
    Corruption.motion_blur: CorruptionRow(blur.motion_blur, ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)), RESOLVED),
    # To 1.06, 1.11, 1.15, 1.20 and 1.25: the ends 1.16, 1.21 and 1.26 of the published ranges are not in them.
    Corruption.zoom_blur: CorruptionRow(blur.zoom_blur, ((7,), (12,), (16,), (21,), (26,))),
    Corruption.snow: CorruptionRow(
        weather.snow,
        (
            ((0.1, 0.2, 1, 0.6), (8, 3), 0.95),
            ((0.1, 0.2, 1, 0.5), (10, 4), 0.9),
            ((0.15, 0.3, 1.75, 0.55), (10, 4), 0.9),
            ((0.25, 0.3, 2.25, 0.6), (12, 6), 0.85),
            ((0.3, 0.3, 1.25, 0.65), (14, 12), 0.8),
        ),
        RESOLVED,
    ),
    Corruption.frost: CorruptionRow(
        weather.frost, ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)), RESOLVED
    ),
    Corruption.fog: CorruptionRow(weather.fog, ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75))),
    Corruption.brightness: CorruptionRow(digital.brightness, ((0.05,), (0.1,), (0.15,), (0.2,), (0.3,))),
    Corruption.contrast: CorruptionRow(digital.contrast, ((0.75,), (0.5,), (0.4,), (0.3,), (0.15,))),
    Corruption.elastic_transform: CorruptionRow(
        digital.elastic_transform,
        ((0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)),
    ),
    Corruption.pixelate: CorruptionRow(digital.pixelate, ((0.95,), (0.9,), (0.85,), (0.75,), (0.65,)), RESOLVED),
    Corruption.jpeg_compression: CorruptionRow(digital.jpeg_compression, ((80,), (65,), (58,), (50,), (40,))),
    Corruption.speckle_noise: CorruptionRow(noise.speckle_noise, ((0.06,), (0.1,), (0.12,), (0.16,), (0.2,))),
    Corruption.gaussian_blur: CorruptionRow(blur.gaussian_blur, ((0.4,), (0.6,), (0.7,), (0.8,), (1,)), RESOLVED),
    Corruption.spatter: CorruptionRow(
        weather.spatter,
        (
            ((0.62, 0.1, 0.7), 0.7, 0.5, False),
            ((0.65, 0.1, 0.8), 0.7, 0.5, False),
            ((0.65, 0.3, 1), 0.69, 0.5, False),
            ((0.65, 0.1, 0.7), 0.69, 0.6, True),
            ((0.65, 0.1, 0.5), 0.68, 0.6, True),
        ),
        RESOLVED,
    ),
    Corruption.saturate: CorruptionRow(
        digital.saturate, ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)), colour=True
    ),
}


def left_out(images: Images | ImageFormat) -> dict[Corruption, str]:
    """Return the corruptions that make no sense for such images, each with the reason: one whole sentence."""
    channels, height, width = images.pixels_BCHW.shape[1:] if isinstance(images, Images) else images.shape
    reasons = {}
    for corruption, row in CORRUPTIONS.items():
        if min(height, width) < row.smallest:
            reasons[corruption] = (
                f"corruption={corruption.name} needs images of at least {row.smallest}x{row.smallest} pixels: at "
                f"{height}x{width} its lengths, which are scaled with the side, are too short to do anything."
            )
        elif row.colour and channels == 1:
            reasons[corruption] = f"corruption={corruption.name} needs colour, and these images are grey."
    return reasons


def corruptions_for(images: Images | ImageFormat) -> tuple[Corruption, ...]:
    """Return the corruptions that make sense for such images, benchmark first; `left_out` says why the others do not.

    Frost is among them whether or not its overlays are there.

    >>> from odenet import DataConfig, load_test
    >>> [corruption.name for corruption in corruptions_for(load_test(DataConfig()))]
    ... # doctest: +NORMALIZE_WHITESPACE
    ['gaussian_noise', 'shot_noise', 'impulse_noise', 'zoom_blur', 'fog', 'brightness', 'contrast', 'elastic_transform',
     'jpeg_compression', 'speckle_noise']
    """
    without = left_out(images)
    return tuple(corruption for corruption in Corruption if corruption not in without)


def corrupt(images: Images, corruption: Corruption | str, severity: int, *, frost: Path | str | None = None) -> Images:
    """Return the images with a corruption of a severity; labels and indices are kept.

    Args:
        images: colour or grey, uint8, any size; lengths are scaled with the shorter side, from the published 32.
        severity: 1 to 5.
        frost: the directory of the overlays of frost, needed for that corruption only.

    Raises:
        MissingData, DamagedData: of the overlays.
        ValueError: there is no such corruption or severity, or it makes no sense for these images.

    >>> from odenet import DataConfig, load_test
    >>> images = load_test(DataConfig())
    >>> noise = corrupt(images, "gaussian_noise", 3).pixels_BCHW / 255 - images.pixels_BCHW / 255
    >>> float(noise[(images.pixels_BCHW > 80) & (images.pixels_BCHW < 170)].std().round(2))  # far from black and white
    0.08
    """
    kind, level = member(Corruption, corruption, "corruption"), check_severity(severity)
    check_images(images)
    if kind in (without := left_out(images)):
        raise ValueError(without[kind])
    pixels_BCHW, row = images.pixels_BCHW, CORRUPTIONS[kind]
    shape = pixels_BCHW.shape[1:]
    overlays = weather.read_overlays(frost, shape) if kind is Corruption.frost else ()
    result_BCHW, step = np.empty_like(pixels_BCHW), max(1, VALUES_AT_ONCE // int(np.prod(shape)))
    for first in range(0, len(pixels_BCHW), step):
        part = slice(first, first + step)
        originals = Originals(pixels_BCHW[part], images.indices_B[part], kind.name, level, overlays)
        result_BCHW[part] = quantise(row.apply(originals, *row.severities[level - 1]))
    return Images(result_BCHW, images.labels_B.copy(), images.indices_B.copy())


def check_severity(severity: int) -> int:
    """Return a severity. ValueError: there is none such."""
    if isinstance(severity, bool) or not isinstance(severity, int | np.integer) or severity not in SEVERITIES:
        raise ValueError(f"severity={severity!r} is not possible: {', '.join(map(str, SEVERITIES))} can be.")
    return int(severity)


def check_images(images: Images) -> None:
    """Raise ValueError about images that nothing here can corrupt."""
    pixels = images.pixels_BCHW
    if pixels.dtype != np.uint8:
        raise ValueError(
            f"Images of type {pixels.dtype} cannot be corrupted: the corruptions are of uint8 pixels, as `load_test` "
            "reads them."
        )
    if pixels.ndim != 4 or pixels.shape[1] not in (1, 3) or min(pixels.shape[2:]) < SMALLEST:
        raise ValueError(
            f"Images of shape {pixels.shape} cannot be corrupted: it must be (B, C, H, W), C 1 or 3, H and W at least "
            f"{SMALLEST}."
        )
    if not len(pixels) == len(images.labels_B) == len(images.indices_B):
        raise ValueError(
            f"{len(pixels)} images have {len(images.labels_B)} labels and {len(images.indices_B)} indices: there must "
            "be one of each for every image."
        )
