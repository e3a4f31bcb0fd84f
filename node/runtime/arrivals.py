"""Requests that come by themselves, in order, each at its time."""

from __future__ import annotations

from array import array
from bisect import bisect_right

from node.events import Ints
from node.units import NEVER, Picoseconds

_FEW = 8


class Arrivals:
    """Requests by number, and when each arrives (ps)."""

    def __init__(self) -> None:
        self._numbers, self._times = array("q"), array("q")
        self._came = 0  # how many of them

    def expect(self, numbers: Ints, times: Ints) -> None:
        """``numbers`` will come at ``times``, in order, after all before."""
        self._numbers.frombytes(numbers.tobytes())
        self._times.frombytes(times.tobytes())

    def next(self) -> Picoseconds:
        """When the next one comes; ``NEVER`` where none does."""
        return self._times[self._came] if self._came < len(self._times) else NEVER

    def upto(self, now: Picoseconds) -> list[int]:
        """Those who have come up to ``now``, each once.

        Looked for nearby first: a search through all times reads memory that no cache has.
        """
        came, times, far = self._came, self._times, _FEW
        while came + far < len(times) and times[came + far] <= now:
            far *= 2
        self._came = bisect_right(times, now, came, min(came + far, len(times)))
        return self._numbers[came : self._came].tolist()
