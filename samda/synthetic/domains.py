"""Domains: two that are set, and as many more as are wanted, drawn around them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from samda.synthetic.rendering import Microscope
from samda.synthetic.tissue import Anatomy

Part = TypeVar("Part", Anatomy, Microscope)
BEYOND = 0.2  # of the way from one set domain to the other, that a drawn one may lie outside of it
LEAST_LENGTH = 0.8  # pixels: noise that is alike over less is not alike from pixel to pixel


@dataclass(frozen=True)
class Domain:
    """A tissue under a microscope."""

    anatomy: Anatomy
    microscope: Microscope


DOMAINS = {
    "fibsem": Domain(
        Anatomy(cell_radius=21, cell_spread=0.5, mitochondrion_width=(8, 15), elongation=(1.0, 2.6)),
        Microscope(
            cytoplasm=0.68,
            variety=0.04,
            membrane=1.8,
            membrane_grey=0.22,
            tilt=0.3,
            matrix=0.4,
            cristae=0.09,
            cristae_period=5.5,
            vesicle_core=0.4,
            granules=0.03,
            granule_length=3.0,
            blur=1.0,
            noise=0.035,
            noise_length=0,
            shading=0.02,
            curtains=0.012,
        ),
    ),
    "sstem": Domain(
        Anatomy(cell_radius=17, cell_spread=0.75, mitochondrion_width=(9, 20), elongation=(1.0, 2.0)),
        Microscope(
            cytoplasm=0.64,
            variety=0.06,
            membrane=1.5,
            membrane_grey=0.1,
            tilt=1.2,
            matrix=0.42,
            cristae=0.2,
            cristae_period=6.5,
            vesicle_core=0.6,
            granules=0.11,
            granule_length=2.6,
            blur=0.6,
            noise=0.05,
            noise_length=1.6,
            shading=0.05,
            curtains=0,
        ),
    ),
}


def domain_names(count: int) -> list[str]:
    """The first ``count``: those that are set, then ``domain02`` and so on."""
    return [*DOMAINS, *(f"domain{number:02}" for number in range(len(DOMAINS), count))][:count]


def domain_of(index: int, seed: int) -> Domain:
    """Domain number ``index`` of a set; after the first two each number of it is drawn by itself, between theirs."""
    first, second = DOMAINS.values()
    if index < len(DOMAINS):
        return (first, second)[index]
    rng = np.random.default_rng([seed, index, 0, 1])  # images have [seed, index, number]
    anatomy = _between(rng, first.anatomy, second.anatomy)
    microscope = _between(rng, first.microscope, second.microscope)
    length = microscope.noise_length if microscope.noise_length > LEAST_LENGTH else 0
    return Domain(anatomy, replace(microscope, noise_length=length))


def _between(rng: np.random.Generator, one: Part, other: Part) -> Part:
    """Each number, or pair, on the way from one to the other or a little beyond, never below 0."""
    drawn: dict[str, Any] = {}  # a field's own type
    for name, value in vars(one).items():
        way = rng.uniform(-BEYOND, 1 + BEYOND)
        found = np.maximum(np.array(value) + way * (np.array(vars(other)[name]) - np.array(value)), 0)
        drawn[name] = tuple(found.tolist()) if found.ndim else float(found)
    return replace(one, **drawn)
