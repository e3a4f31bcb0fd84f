"""The KV region of one group's HBM: a contiguous range for each sequence, for its whole length, before it starts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from node.allocator import Allocator
from node.events import Kind
from node.runtime.sharding import Region
from node.stream import Range, Stream
from node.units import Bytes, Picoseconds

ALLOCATE, FREE = int(Kind.ALLOCATE), int(Kind.FREE)


class KvCache:
    """Ranges, their symbols numbered from ``first_symbol`` on; ``stream`` is told of each.

    Ranges of models without KV cache have no bytes, and nobody is told of them; ``bare``: whether there are such.

    A range that ended is given to the next that is as long, without a search. What no other wants is joined with its
    neighbours when there is no room elsewhere, so nothing is refused that some hole could hold.
    """

    def __init__(self, region: Region, first_symbol: int, stream: Stream, *, bare: bool = False) -> None:
        self._allocator, self._stream = Allocator(region.start, region.size), stream
        self._next, self._bare = first_symbol, bare
        self._ended: dict[Bytes, list[int]] = {}  # by size, the addresses that are free

    def reserve(self, sizes: Iterable[Bytes], now: Picoseconds) -> list[Range]:
        """New ranges, one after another, as many of them as there is room for now."""
        held: list[Range] = []
        by_size = self._ended
        for symbol, size in enumerate(sizes, self._next):
            ended = by_size.get(size)
            address = ended.pop() if ended else self._search(size)
            if address is None:
                break
            held.append((symbol, address, size))
        self._next += len(held)
        self._stream.ranges(ALLOCATE, now, self._told(held))
        return held

    def release(self, held: Sequence[Range], now: Picoseconds) -> None:
        """End ranges."""
        by_size, held = self._ended, self._told(held)
        for _, address, size in held:
            ended = by_size.get(size)
            if ended is None:
                by_size[size] = [address]
            else:
                ended.append(address)
        self._stream.ranges(FREE, now, held)

    def _told(self, held: Sequence[Range]) -> Sequence[Range]:
        """Ranges without those of no bytes."""
        return [one for one in held if one[2]] if self._bare else held

    def _search(self, size: Bytes) -> int | None:
        if not size:
            return self._allocator.start
        address = self._allocator.allocate(size)
        if address is None and self._ended:
            for addresses in self._ended.values():
                for ended in addresses:
                    self._allocator.release(ended)
            self._ended.clear()
            address = self._allocator.allocate(size)
        return address
