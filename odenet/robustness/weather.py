"""Fog, frost and snow between the scene and the camera, water and mud on its lens.

Legend: `B` images, `C` channels, `H W` space, `M` the side of a square map; `x` is a pixel in [0, 1].
"""

from collections.abc import Sequence
from math import isqrt
from pathlib import Path

import numpy as np

from odenet.data.images import DamagedData, MissingData
from odenet.robustness.blur import gaussian, magnify, round_levels, smear
from odenet.robustness.originals import LEVELS, SIDE, TOLERANCE, Originals, luminance, quantise

OVERLAYS = ("frost1.png", "frost2.png", "frost3.png", "frost4.jpg", "frost5.jpg")  # of the sixth nothing is ever drawn
OVERLAY_SCALE = 0.2  # of an overlay, for images of side 32
PALE_TURQUOISE, MUD_BROWN = (175, 238, 238), (63, 42, 20)
FARTHEST = 20  # pixels of an image of side 32, from which a drop is lit alike
LIGHT = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]])  # from the upper left


def plasma(uniform_BN: np.ndarray, decay: float) -> np.ndarray:
    """Return random heights (B, M, M) from 0 to 1 by the diamond-square algorithm on a torus.

    A new point is the mean of the four around it and a random number, which is `decay` squared times as small whenever
    the distance between points has been halved.

    Args:
        uniform_BN: numbers from -1 to 1, as many as there are new points: N = M * M - 1, M a power of two.
    """
    side = isqrt(uniform_BN.shape[1] + 1)
    map_BMM, used, amplitude, step = np.zeros((len(uniform_BN), side, side)), 0, 1.0, side
    while step > 1:
        half, size = step // 2, (3, side // step, side // step)
        new_B3KK = amplitude * uniform_BN[:, used : used + 3 * size[1] ** 2].reshape(-1, *size)
        corners = map_BMM[:, ::step, ::step]
        pairs = corners + np.roll(corners, -1, axis=1)
        centres = map_BMM[:, half::step, half::step] = (pairs + np.roll(pairs, -1, axis=2)) / 4 + new_B3KK[:, 0]
        around = centres + np.roll(centres, 1, axis=1) + corners + np.roll(corners, -1, axis=2)
        map_BMM[:, ::step, half::step] = around / 4 + new_B3KK[:, 1]
        around = centres + np.roll(centres, 1, axis=2) + corners + np.roll(corners, -1, axis=1)
        map_BMM[:, half::step, ::step] = around / 4 + new_B3KK[:, 2]
        used, step, amplitude = used + 3 * size[1] ** 2, half, amplitude / decay**2
    map_BMM -= map_BMM.min(axis=(1, 2), keepdims=True)
    return map_BMM / map_BMM.max(axis=(1, 2), keepdims=True)


def fog(images: Originals, amount: float, decay: float) -> np.ndarray:
    """Return images with a plasma of this height added, scaled so that the highest possible value stays."""
    (_, height, width), x_BCHW = images.shape, images.x_BCHW
    side = 1 << (max(height, width) - 1).bit_length()
    uniform_BN = images.draw("map", lambda stream: stream.uniform(-1, 1, side * side - 1))
    fog_B1HW = plasma(uniform_BN, decay)[:, None, :height, :width]
    brightest_B111 = x_BCHW.max(axis=(1, 2, 3), keepdims=True)
    return (x_BCHW + amount * fog_B1HW) * brightest_B111 / (brightest_B111 + amount)


def read_overlays(directory: Path | str | None, shape: tuple[int, int, int]) -> list[np.ndarray]:
    """Return the overlays of frost, reduced for images of this shape (C, H, W): each (C, H', W') from 0 to 255.

    Raises:
        MissingData: not all of them are there.
        DamagedData: one is no image, or too small to cut an image out of it.
    """
    folder = None if directory is None else Path(directory).expanduser()
    missing = list(OVERLAYS) if folder is None else [name for name in OVERLAYS if not (folder / name).is_file()]
    if missing or folder is None:
        raise MissingData(
            f"corruption=frost needs the five photographs of ice of the benchmark; {folder or 'no directory'} lacks "
            f"{', '.join(missing)}. They are in ImageNet-C/create_c of github.com/hendrycks/robustness: put them into "
            "frost/ of runtime.data_dir, or leave this corruption out."
        )
    overlays = [_reduced(folder / name, shape) for name in OVERLAYS]
    for name, overlay in zip(OVERLAYS, overlays, strict=True):
        if overlay.shape[1] <= shape[1] or overlay.shape[2] <= shape[2]:
            raise DamagedData(
                f"{folder / name} has {overlay.shape[1]}x{overlay.shape[2]} pixels when it is reduced for images of "
                f"{shape[1]}x{shape[2]}, which are cut out of it: replace it by the published one."
            )
    return overlays


def _reduced(file: Path, shape: tuple[int, int, int]) -> np.ndarray:
    """Return an overlay (C, H', W'), sampled at the centres of its new pixels, as OpenCV reduces images."""
    from PIL import Image
    from scipy import ndimage  # type: ignore[import-untyped]

    try:
        with Image.open(file) as image:
            pixels_HW = np.asarray(image.convert("L" if shape[0] == 1 else "RGB"), dtype=np.float64)
    except (OSError, SyntaxError, ValueError) as error:
        raise DamagedData(f"{file} cannot be read as an image: {error}. Replace it by the published one.") from error
    scale = OVERLAY_SCALE * max(shape[1:]) / SIDE  # the longer side: it must be large enough to be cut out
    places = [(np.arange(round(size * scale)) + 0.5) / scale - 0.5 for size in pixels_HW.shape[:2]]
    channels = [pixels_HW] if pixels_HW.ndim == 2 else list(pixels_HW.transpose(2, 0, 1))
    grid = np.meshgrid(*places, indexing="ij")
    return np.stack([ndimage.map_coordinates(c, grid, order=1, mode="nearest") for c in channels])


def frost(images: Originals, kept: float, ice: float) -> np.ndarray:
    """Return the weighted sum of an image and a random part of a random photograph of ice."""
    overlays: Sequence[np.ndarray] = images.overlays
    _, height, width = images.shape

    def cut(stream: np.random.RandomState) -> np.ndarray:
        overlay = overlays[stream.randint(len(overlays))]
        top, left = stream.randint(overlay.shape[1] - height), stream.randint(overlay.shape[2] - width)
        return overlay[:, top : top + height, left : left + width]

    return kept * images.x_BCHW + ice * images.draw("ice", cut) / LEVELS


def snow(
    images: Originals, flakes: tuple[float, float, float, float], fall: tuple[float, float], kept: float
) -> np.ndarray:
    """Return images whitened, with flakes that are smeared while they fall, the layer of them laid on twice.

    Args:
        flakes: mean and deviation of the noise, how much it is magnified, and the height below which there is no flake.
        fall: radius and sigma of the smear.
        kept: the weight of the image; the rest is the brighter of it and its whitened luminance.
    """
    (mean, deviation, zoom, lowest), (radius, sigma) = flakes, fall
    noise_B1HW = images.draw("flakes", lambda stream: stream.standard_normal((1, *images.shape[1:])))
    layer_B1HW = magnify(mean + deviation * noise_B1HW, max(1.0, zoom * images.scale))
    layer_B1HW = quantise(np.where(layer_B1HW < lowest, 0.0, layer_B1HW)) / LEVELS
    angle_B = images.draw("angle", lambda stream: stream.uniform(-135, -45))
    layer_B1HW = round_levels(smear(layer_B1HW, radius * images.scale, sigma * images.scale, angle_B))
    x_BCHW = images.x_BCHW
    whitened_BCHW = np.maximum(x_BCHW, luminance(x_BCHW) * 1.5 + 0.5)
    return kept * x_BCHW + (1 - kept) * whitened_BCHW + layer_B1HW + layer_B1HW[:, :, ::-1, ::-1]


def spatter(
    images: Originals, noise: tuple[float, float, float], lowest: float, strength: float, mud: bool
) -> np.ndarray:
    """Return images behind drops of water, which are added, or specks of mud, which cover.

    Args:
        noise: its mean, deviation, and the sigma by which it is blurred; where it is high, there is liquid.
        lowest: the height of the noise below which there is none.
        strength: of water in the brightest spot; of mud the sigma by which its specks are blurred.
    """
    (mean, deviation, sigma), scale = noise, images.scale
    noise_BHW = images.draw("liquid", lambda stream: stream.standard_normal(images.shape[1:]))
    # A wider blur leaves less of the noise: as much more of it keeps the share of liquid at any size of image.
    liquid_BHW = gaussian(mean + deviation * scale * noise_BHW, sigma * scale)
    liquid_BHW = np.where(liquid_BHW < lowest, 0.0, liquid_BHW)
    x_BCHW = images.x_BCHW
    if mud:
        cover_BHW = gaussian((liquid_BHW > lowest).astype(np.float64), strength * scale)
        cover_B1HW = np.where(cover_BHW < 0.8, 0.0, cover_BHW)[:, None]
        return x_BCHW * (1 - cover_B1HW) + _colour(MUD_BROWN, images) * cover_B1HW
    lit_BHW = lit_water(quantise(liquid_BHW), FARTHEST * scale)
    brightest_B11 = np.maximum(lit_BHW.max(axis=(1, 2), keepdims=True), TOLERANCE)  # of an image without a drop
    return x_BCHW + strength * (lit_BHW / brightest_B11)[:, None] * _colour(PALE_TURQUOISE, images)


def _colour(rgb: tuple[int, int, int], images: Originals) -> np.ndarray:
    """Return a colour (1, C, 1, 1) in [0, 1], as bright a grey for grey images."""
    colour_1311 = np.array(rgb, dtype=np.float64).reshape(1, 3, 1, 1) / LEVELS
    return luminance(colour_1311) if images.shape[0] == 1 else colour_1311


def lit_water(liquid_BHW: np.ndarray, farthest: float) -> np.ndarray:
    """Return how bright drops (uint8, 0 where there are none) shine in light from a side, on any scale.

    The distance from the edges of the drops is equalised, embossed, and smoothed, and weighs what liquid there is.
    """
    from scipy import ndimage

    edges_BHW = canny(liquid_BHW, low=50, high=150)
    # One more image, all edges and a thousand pixels off, for those that have no edge.
    away_BHW = np.concatenate([~edges_BHW, np.zeros_like(edges_BHW[:1])])
    distance_BHW = ndimage.distance_transform_edt(away_BHW, sampling=(1000, 1, 1))[:-1]
    near_BHW = np.floor(_mean_of_nine(np.minimum(distance_BHW, farthest)) + TOLERANCE).astype(np.uint8)
    light_BHW = ndimage.correlate(equalise(near_BHW), LIGHT[None].astype(np.float64), mode="mirror")
    return liquid_BHW * np.rint(_mean_of_nine(np.clip(light_BHW, 0, LEVELS)))


def _mean_of_nine(map_BHW: np.ndarray) -> np.ndarray:
    """Return the mean of each point and its eight neighbours, mirrored at the border."""
    from scipy import ndimage

    return ndimage.correlate(map_BHW, np.full((1, 3, 3), 1 / 9), mode="mirror")


def equalise(levels_BHW: np.ndarray) -> np.ndarray:
    """Return float levels of which all are equally frequent in an image, as far as uint8 levels allow; constant images
    stay as they are."""
    result_BHW = levels_BHW.astype(np.float64)
    for levels_HW, result_HW in zip(levels_BHW, result_BHW, strict=True):
        below = np.bincount(levels_HW.ravel(), minlength=LEVELS + 1).cumsum()
        lowest, total = below[levels_HW.min()], levels_HW.size
        if lowest < total:
            result_HW[...] = np.rint((below - lowest) * (LEVELS / (total - lowest)))[levels_HW]
    return result_BHW


def canny(levels_BHW: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return the edges (bool) of uint8 images: ridges of |dx| + |dy| above `low` that somewhere exceed `high`.

    dx and dy are Sobel's; a ridge is higher than its neighbours across the edge, whose direction is one of four (Canny
    1986, as OpenCV has it).
    """
    from scipy import ndimage

    float_BHW, slope_taps, smooth_taps = levels_BHW.astype(np.float64), [-1, 0, 1], [1, 2, 1]
    dy, dx = (
        ndimage.correlate1d(
            ndimage.correlate1d(float_BHW, slope_taps, along, mode="nearest"), smooth_taps, across, mode="nearest"
        )
        for along, across in ((1, 2), (2, 1))
    )
    height = np.abs(dx) + np.abs(dy)
    padded = np.pad(height, [(0, 0), (1, 1), (1, 1)])

    def beside(down: int, right: int) -> np.ndarray:
        return padded[:, 1 + down : padded.shape[1] - 1 + down, 1 + right : padded.shape[2] - 1 + right]

    slope = np.sqrt(2) - 1  # tan 22.5 degrees
    level, steep = np.abs(dy) < slope * np.abs(dx), np.abs(dy) > (slope + 2) * np.abs(dx)
    sideways = (height > beside(0, -1)) & (height >= beside(0, 1))
    upright = (height > beside(-1, 0)) & (height >= beside(1, 0))
    falling = (height > beside(-1, -1)) & (height > beside(1, 1))
    rising = (height > beside(-1, 1)) & (height > beside(1, -1))
    ridge = np.select([level, steep, dx * dy >= 0], [sideways, upright, falling], rising) & (height > low)
    neighbours = np.zeros((3, 3, 3), dtype=bool)
    neighbours[1] = True  # within an image
    parts, count = ndimage.label(ridge, neighbours)
    strong = np.zeros(count + 1, dtype=bool)
    strong[parts[height > high]] = True
    strong[0] = False
    return strong[parts]
