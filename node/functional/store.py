"""The content of one tier: a number for every element that its addresses can hold.

The machine keeps BF16, two bytes an element; the emulator computes in float32. So the element at address a is number
a / 2 of a flat float32 array: addresses, overlaps and sizes are the machine's, and nothing is rounded. A buffer that is
untouched costs no memory where the system gives pages on first use.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right

import numpy as np
import numpy.typing as npt

from node.errors import HardwareError
from node.units import Bytes

Array = npt.NDArray[np.float32]
ELEMENT: Bytes = 2  # of the machine's


class Store:
    """Content of the tier ``name`` in ``buffer``, a float32 for each ``ELEMENT``; only what was written can be read."""

    def __init__(self, name: str, buffer: Array) -> None:
        self._name, self._buffer = name, buffer
        self._starts: list[int] = []  # of the ranges that are written, in order, none touching the next
        self._ends: list[int] = []

    @property
    def capacity(self) -> Bytes:
        """Bytes of the machine's."""
        return len(self._buffer) * ELEMENT

    def read(self, address: int, size: Bytes) -> Array:
        """A view of [address, address + size); ``HardwareError`` where any of it was never written, or was freed."""
        index = bisect_right(self._starts, address) - 1
        if index < 0 or self._ends[index] < address + size:
            where = f"[{address:,}, {address + size:,})"
            raise HardwareError(f"{self._name}: {where} is read, but some of it was never written, or freed since")
        return self._buffer[address // ELEMENT : (address + size) // ELEMENT]

    def write(self, address: int, content: Array) -> None:
        """Put ``content`` (any shape) at ``address``."""
        end = address + content.size * ELEMENT
        if address % ELEMENT or address < 0 or end > self.capacity:
            raise HardwareError(f"{self._name}: [{address:,}, {end:,}) cannot be written: {self.capacity:,} bytes")
        self._buffer[address // ELEMENT : end // ELEMENT] = content.ravel()
        first, last = bisect_left(self._ends, address), bisect_right(self._starts, end)
        if first < last:
            address, end = min(address, self._starts[first]), max(end, self._ends[last - 1])
        self._starts[first:last], self._ends[first:last] = [address], [end]

    def forget(self, address: int, size: Bytes) -> None:
        """What was in [address, address + size) may not be read any more."""
        end = address + size
        first, last = bisect_right(self._ends, address), bisect_left(self._starts, end)
        kept = [(start, stop) for start, stop in self._around(first, last, address, end) if start < stop]
        self._starts[first:last] = [start for start, _ in kept]
        self._ends[first:last] = [stop for _, stop in kept]

    def close(self) -> None:
        """Nothing is in it any more: its memory goes back as soon as nobody has a view of it."""
        self._buffer, self._starts, self._ends = np.empty(0, dtype=np.float32), [], []

    def _around(self, first: int, last: int, address: int, end: int) -> list[tuple[int, int]]:
        """What is left of the ranges ``first`` to ``last`` before ``address`` and after ``end``."""
        if first >= last:
            return []
        return [(self._starts[first], address), (end, self._ends[last - 1])]
