"""What is to be known of a data set before a network is made for it, and how intensities are normalised.

After nnU-Net (Isensee et al., Nature Methods 18, 2021; its ``fingerprint_extractor`` and
``default_normalization_schemes``): the median shape; of the intensities in the foreground mean, deviation and the
percentiles 0.5 and 99.5. nnU-Net draws 10,000 pixels of an image; here all count. Scheme "foreground" is the one it has
for CT: values clipped to the percentiles, less the mean, by the deviation. Scheme "image" is the one it has for all
else: each image by its own mean and deviation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from samda.images import Case, Pixels

SCHEMES = ("foreground", "image")
PERCENTILES = (0.5, 99.5)
LEAST = 1e-8  # a deviation to divide by, as nnU-Net has it


@dataclass(frozen=True)
class Fingerprint:
    """``shape``: median height and width. The others are of the pixels in the foreground, in [0, 1]."""

    images: int
    shape: tuple[int, int]
    mean: float
    deviation: float
    low: float
    high: float


@dataclass(frozen=True)
class Normalisation:
    """How pixels become what a network sees."""

    scheme: str
    mean: float
    deviation: float
    low: float
    high: float

    def apply(self, pixels: Pixels) -> Pixels:
        """(H, W) in [0, 1] to (H, W), about 0 and of deviation about 1."""
        if self.scheme == "image":
            return ((pixels - pixels.mean()) / max(float(pixels.std()), LEAST)).astype(np.float32)
        return ((np.clip(pixels, self.low, self.high) - self.mean) / max(self.deviation, LEAST)).astype(np.float32)


def fingerprint(cases: Sequence[Case]) -> Fingerprint:
    """Of images that have masks, and foreground in one of them at least."""
    height, width = (int(np.median([case.pixels.shape[axis] for case in cases])) for axis in (0, 1))
    inside = np.concatenate([case.pixels[case.truth] for case in cases])
    low, high = (float(value) for value in np.percentile(inside, PERCENTILES))
    return Fingerprint(
        len(cases),
        (height, width),
        float(inside.mean(dtype=np.float64)),
        float(inside.std(dtype=np.float64)),
        low,
        high,
    )


def normalisation(found: Fingerprint, scheme: str) -> Normalisation:
    """By a scheme of ``SCHEMES``."""
    return Normalisation(scheme, found.mean, found.deviation, found.low, found.high)
