"""The KV region of one group's HBM: a contiguous range for each sequence, for its whole length, before it starts."""

from __future__ import annotations

from itertools import count

from node.allocator import Allocator
from node.runtime.sharding import Region
from node.units import Bytes


class KvCache:
    """Ranges by symbol; symbols are numbered from ``first_symbol`` on."""

    def __init__(self, region: Region, first_symbol: int) -> None:
        self._allocator = Allocator(region.start, region.size)
        self._symbols = count(first_symbol)
        self._ranges: dict[int, int] = {}

    def reserve(self, size: Bytes) -> tuple[int, int] | None:
        """(symbol, address) of a new range, or None where there is no room now."""
        address = self._allocator.allocate(size)
        if address is None:
            return None
        symbol = next(self._symbols)
        self._ranges[symbol] = address
        return symbol, address

    def release(self, symbol: int) -> tuple[int, Bytes]:
        """End a range: its address and size."""
        address = self._ranges.pop(symbol)
        return address, self._allocator.release(address)
