"""The KV region of one group's HBM: a contiguous range for each sequence, for its whole length, before it starts."""

from __future__ import annotations

from node.allocator import Allocator
from node.events import Kind
from node.runtime.sharding import Region
from node.stream import Stream
from node.units import Bytes, Picoseconds

# Where the keys and values of a sequence lie: symbol (a number never used again), address, bytes
Range = tuple[int, int, Bytes]


class KvCache:
    """Ranges, their symbols numbered from ``first_symbol`` on; ``stream`` is told of each.

    A range that ended is given to the next that is as long, without a search. What no other wants is joined with its
    neighbours when there is no room elsewhere, so nothing is refused that some hole could hold.
    """

    def __init__(self, region: Region, first_symbol: int, stream: Stream) -> None:
        self._allocator, self._stream = Allocator(region.start, region.size), stream
        self._next = first_symbol
        self._ended: dict[Bytes, list[int]] = {}  # by size, the addresses that are free

    def reserve(self, size: Bytes, now: Picoseconds) -> Range | None:
        """A new range, or None where there is no room now."""
        ended = self._ended.get(size)
        address = ended.pop() if ended else self._search(size)
        if address is None:
            return None
        symbol = self._next
        self._next = symbol + 1
        self._stream.range(Kind.ALLOCATE, now, symbol, address, size)
        return symbol, address, size

    def release(self, held: Range, now: Picoseconds) -> None:
        """End a range."""
        symbol, address, size = held
        ended = self._ended.get(size)
        if ended is None:
            self._ended[size] = [address]
        else:
            ended.append(address)
        self._stream.range(Kind.FREE, now, symbol, address, size)

    def _search(self, size: Bytes) -> int | None:
        address = self._allocator.allocate(size)
        if address is None and self._ended:
            for addresses in self._ended.values():
                for ended in addresses:
                    self._allocator.release(ended)
            self._ended.clear()
            address = self._allocator.allocate(size)
        return address
