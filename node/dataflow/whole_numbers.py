"""What comes in whole numbers: the least that will do, and PMUs shared out among stages."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def least(low: Floats, high: Floats, holds: Callable[[Floats], npt.NDArray[np.bool_]]) -> Floats:
    """The least whole numbers between ``low`` and ``high`` for which ``holds``, true from some number on."""
    low, high = low.copy(), high.copy() + np.zeros_like(low)
    while (low < high).any():
        middle = np.floor((low + high) / 2)
        true = holds(middle)
        high = np.where(true, middle, high)
        low = np.where(true, low, np.minimum(middle + 1, high))
    return low


def apportion(wanted: Floats, room: float) -> Floats:
    """Whole PMUs for what is ``wanted``, no more than there is ``room`` for in all."""
    given = np.ceil(wanted - 1e-9)
    excess = given.sum() - np.floor(room)
    for index in np.argsort(given - wanted)[::-1]:
        if excess <= 0:
            break
        if given[index] > 0:
            given[index] -= 1
            excess -= 1
    return given


def within(pmus: Floats, banks: int) -> Floats:
    """No more PMUs than there are: each stage gives up its share of what is too many, but not its last one."""
    if pmus.sum() <= banks:
        return pmus
    scaled: Floats = np.maximum(np.floor(pmus * (banks / pmus.sum())), pmus > 0)
    while scaled.sum() > banks and scaled.max() > 1:
        scaled[scaled.argmax()] -= 1
    return scaled
