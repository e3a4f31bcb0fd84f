"""BF16 in float32's clothes: the upper half of a float32, rounded to nearest, ties to even."""

from __future__ import annotations

import numpy as np

from node.dataflow.meaning.operands import Array

HALF, LAST, UPPER = np.uint32(0x7FFF), np.uint32(1), np.uint32(0xFFFF0000)


def to_bf16(array: Array) -> Array:
    """Each finite number as the nearest that BF16 has; beyond its largest, infinity."""
    bits = np.ascontiguousarray(array, dtype=np.float32).view(np.uint32)
    rounded = bits + HALF + ((bits >> np.uint32(16)) & LAST)
    return (rounded & UPPER).view(np.float32)
