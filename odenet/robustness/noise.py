"""Noise of every value of every pixel on its own.

Legend: `B` images, `C` channels, `H W` space; `x` is a pixel in [0, 1].
"""

import numpy as np

from odenet.robustness.originals import Originals


def _normal(images: Originals) -> np.ndarray:
    return images.draw("values", lambda stream: stream.standard_normal(images.shape))


def gaussian_noise(images: Originals, sigma: float) -> np.ndarray:
    """Return x + sigma n, n standard normal."""
    return images.x_BCHW + sigma * _normal(images)


def speckle_noise(images: Originals, sigma: float) -> np.ndarray:
    """Return x (1 + sigma n), n standard normal."""
    return images.x_BCHW * (1 + sigma * _normal(images))


def shot_noise(images: Originals, photons: float) -> np.ndarray:
    """Return Poisson(photons x) / photons: variance x / photons."""
    expected = iter(images.x_BCHW * photons)
    return images.draw("values", lambda stream: stream.poisson(next(expected))) / photons


def impulse_noise(images: Originals, share: float) -> np.ndarray:
    """Return x with this share of its values replaced, by 0 or by 1 with equal chances."""
    u_B2CHW = images.draw("values", lambda stream: stream.random_sample((2, *images.shape)))
    impulse_BCHW = np.where(u_B2CHW[:, 1] < 0.5, 1.0, 0.0)
    return np.where(u_B2CHW[:, 0] < share, impulse_BCHW, images.x_BCHW)
