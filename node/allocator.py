"""Addresses in a range of memory: first fit with joining of neighbours. Pure; knows nothing of tiers."""

from __future__ import annotations

from bisect import bisect_left, insort

from node.units import Bytes


class Allocator:
    """Hands out addresses in [start, start + size)."""

    def __init__(self, start: int, size: Bytes) -> None:
        self.start, self.size = start, size
        self.free = size
        self._holes: list[tuple[int, Bytes]] = [(start, size)] if size > 0 else []
        self._taken: dict[int, Bytes] = {}

    @property
    def largest_hole(self) -> Bytes:
        """Bytes that one allocation could still get."""
        return max((size for _, size in self._holes), default=0)

    def allocate(self, size: Bytes) -> int | None:
        """The lowest address with room for ``size`` bytes, or None."""
        for index, (address, room) in enumerate(self._holes):
            if room >= size:
                if room == size:
                    del self._holes[index]
                else:
                    self._holes[index] = (address + size, room - size)
                self._taken[address] = size
                self.free -= size
                return address
        return None

    def release(self, address: int) -> Bytes:
        """Give back what was allocated at ``address``; its size. ``KeyError`` if nothing was."""
        size = self._taken.pop(address)
        self.free += size
        index = bisect_left(self._holes, (address, 0))
        start, end = address, address + size
        if index < len(self._holes) and self._holes[index][0] == end:
            end += self._holes.pop(index)[1]
        if index and sum(self._holes[index - 1]) == start:
            start = self._holes.pop(index - 1)[0]
        insort(self._holes, (start, end - start))
        return size
