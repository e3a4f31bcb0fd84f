"""Smooth random fields and blurring, by Fourier transform, so that they are periodic. Lengths are in pixels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def blurred(image: Array, sigma: float) -> Array:
    """An image (H, W) behind a Gaussian of standard deviation ``sigma``; its mean stays."""
    return _filtered(image, _gaussian(image.shape, sigma))


def smooth(rng: np.random.Generator, shape: tuple[int, int], length: float) -> Array:
    """A random field (H, W) of mean 0 and deviation 1 that changes over about ``length``."""
    return _standard(blurred(rng.standard_normal(shape), length / 2))


def grain(rng: np.random.Generator, shape: tuple[int, int], length: float) -> Array:
    """As ``smooth``, but without what changes over more than three times the length: grains, no clouds."""
    response = _gaussian(shape, length / 2) - _gaussian(shape, 1.5 * length)
    return _standard(_filtered(rng.standard_normal(shape), response))


def _filtered(image: Array, response: Array) -> Array:
    return np.fft.irfft2(np.fft.rfft2(image) * response, image.shape)


def _gaussian(shape: tuple[int, ...], sigma: float) -> Array:
    rows, columns = np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None]
    response: Array = np.exp(-2 * (np.pi * sigma) ** 2 * (rows**2 + columns**2))
    return response


def _standard(field: Array) -> Array:
    return (field - field.mean()) / field.std()
