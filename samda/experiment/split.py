"""Which images are for what. Blocks by name, as neighbours in a stack look alike: no shot has a test image beside it.

Source: two thirds to train, a sixth for validation, a sixth to test. Target: half of it shots are drawn from, a fifth
for validation, which lies between them and the rest, the test. Test images choose nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from node.errors import InputError
from samda.images import Case

SOURCE, TARGET = (2 / 3, 1 / 6), (1 / 2, 1 / 5)  # of the images: to train, for validation


@dataclass(frozen=True)
class Split:
    """Images of a domain. ``train``: of the target, those that shots are drawn from."""

    train: Sequence[Case]
    validation: Sequence[Case]
    test: Sequence[Case]

    def names(self) -> dict[str, list[str]]:
        """For the record."""
        return {part: [case.name for case in getattr(self, part)] for part in ("train", "validation", "test")}


def split(folder: Path, cases: Sequence[Case], shares: tuple[float, float]) -> Split:
    """Blocks of the images in their order; raises ``InputError`` where one has no image, or no foreground."""
    first = round(len(cases) * shares[0])
    second = first + max(1, round(len(cases) * shares[1]))
    found = Split(cases[:first], cases[first:second], cases[second:])
    for part in ("train", "validation", "test"):
        if not any(case.truth.any() for case in getattr(found, part)):
            raise InputError(
                f"{folder}: of its {len(cases)} images {len(getattr(found, part))} are for {part}, none of them with "
                "foreground: a split needs some in each; add images"
            )
    return found


def drawn_shots(pool: Sequence[Case], shots: int, seed: int) -> list[Case]:
    """So many images of the pool; of one seed, fewer are the first of more."""
    order = np.random.default_rng((seed, 7)).permutation(len(pool))
    return [pool[place] for place in order[:shots]]
