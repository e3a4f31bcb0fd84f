"""How it is seen: two microscopes, which differ in contrast, sharpness, thickness of the section, noise and texture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from samda.synthetic.fields import Array, blurred, grain, smooth
from samda.synthetic.tissue import Organelle, Tissue


@dataclass(frozen=True)
class Microscope:
    """Grey values are 0 (black) to 1; lengths are pixels."""

    cytoplasm: float  # grey of a typical cell
    variety: float  # its deviation from cell to cell
    membrane: float  # half the width of a membrane that stands upright in the section
    membrane_grey: float
    tilt: float  # how much wider, and paler, a membrane is where it lies aslant in a thick section
    matrix: float  # grey inside a mitochondrion
    cristae: float  # contrast
    cristae_period: float
    vesicle_core: float  # grey in the middle of a vesicle, whose rim is as dark as membranes
    granules: float  # contrast of ribosomes and filaments
    granule_length: float
    blur: float
    noise: float
    noise_length: float  # over which noise is alike; 0: from pixel to pixel
    shading: float  # brightness that comes and goes over the image
    curtains: float  # vertical stripes that the ion beam leaves


def render(rng: np.random.Generator, tissue: Tissue, microscope: Microscope) -> Array:
    """The image (H, W) of a tissue, 0 to 1."""
    shape = tissue.cell.shape
    m = microscope
    greys = m.cytoplasm + m.variety * rng.standard_normal(tissue.cell.max() + 1)
    dark = rng.random(len(greys)) < 0.08  # glia
    greys[dark] -= 0.45 * (m.cytoplasm - m.membrane_grey)
    image = blurred(greys[tissue.cell], 1.0)
    image = image + m.granules * np.minimum(grain(rng, shape, m.granule_length), 0.5)
    image = _stamp_vesicles(image, tissue, m)
    image = image + _reticulum(rng, tissue) * (m.membrane_grey + 0.1 - image)
    for body in tissue.vacuoles:
        _fill(image, body, m.cytoplasm + 0.12, m.membrane_grey + 0.1)
    for body in tissue.dark_bodies:
        _fill(image, body, m.membrane_grey + 0.1, m.membrane_grey + 0.1)
    _mitochondria(rng, image, tissue, m)
    tilt = 1 + m.tilt * np.clip(smooth(rng, shape, 40), 0, None)
    membrane = np.exp(-((tissue.depth / (m.membrane * tilt)) ** 4)) / np.sqrt(tilt)
    image = image + membrane * (m.membrane_grey - image)
    return _exposed(rng, image, m)


def _fill(image: Array, body: Organelle, grey: float, rim_grey: float) -> None:
    """Fill an organelle and draw its outline, into the image."""
    edge, window = body.inside * body.width, body.window
    filled = np.where(edge > 0, grey, image[window])
    outline = np.exp(-(((edge - 1) / 1.2) ** 2))
    image[window] = filled + outline * (rim_grey - filled)


def _mitochondria(rng: np.random.Generator, image: Array, tissue: Tissue, m: Microscope) -> None:
    """Outlines, and cristae: folds across or along, which bend and break off."""
    bend = 0.35 * m.cristae_period * smooth(rng, image.shape, 4 * m.cristae_period)
    whole = 1 / (1 + np.exp(-4 * (smooth(rng, image.shape, 2.5 * m.cristae_period) + 0.6)))
    for body in tissue.mitochondria:
        edge, window = body.inside * body.width, body.window
        _fill(image, body, m.matrix + 0.03 * rng.standard_normal(), m.membrane_grey)
        place = (body.across if rng.random() < 0.4 else body.along) + bend[window]
        folds = np.clip(np.cos(2 * np.pi * place / m.cristae_period + rng.uniform(0, 6)), -0.2, 1)
        image[window] -= m.cristae * folds * whole[window] * np.clip((edge - 1.5) / 1.5, 0, 1)


def _reticulum(rng: np.random.Generator, tissue: Tissue) -> Array:
    """How much of a thin, wandering tubule is where: along a level of a smooth field, here and there."""
    shape = tissue.cell.shape
    level, where = smooth(rng, shape, 14), smooth(rng, shape, 25)
    slope = np.hypot(*np.gradient(level)) + 1e-3
    tubule: Array = np.exp(-((level / slope) ** 2)) * ((where > 1.1) & (tissue.depth > 5))
    return tubule


def _stamp_vesicles(image: Array, tissue: Tissue, m: Microscope) -> Array:
    image = image.copy()
    y, x = np.mgrid[-3:4, -3:4]
    for row, column in tissue.vesicles:
        top, left = round(row), round(column)
        if not (3 <= top < len(image) - 3 and 3 <= left < len(image) - 3):
            continue
        radius = np.hypot(y - (row - top), x - (column - left))
        window = (slice(top - 3, top + 4), slice(left - 3, left + 4))
        core, rim = np.exp(-((radius / 1.5) ** 4)), np.exp(-(((radius - 2.0) / 0.7) ** 2))
        patch = image[window]
        patch = patch + core * (m.vesicle_core - patch)
        image[window] = patch + 0.75 * rim * (m.membrane_grey + 0.1 - patch)
    return image


def _exposed(rng: np.random.Generator, image: Array, m: Microscope) -> Array:
    """What optics and detector make of it."""
    shape = image.shape
    seen = blurred(image, m.blur)
    noise = grain(rng, shape, m.noise_length) if m.noise_length else rng.standard_normal(shape)
    seen = seen + m.noise * noise + m.shading * smooth(rng, shape, 0.6 * shape[0])
    stripes = smooth(rng, (1, shape[1]), 3.0) if m.curtains else np.zeros((1, shape[1]))
    return np.clip(seen + m.curtains * stripes, 0, 1)
