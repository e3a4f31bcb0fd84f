"""One tier of one socket: which symbols live where, checked at every step.

What lies there is not kept here: functional mode has its own stores (``node.functional.store``).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right

import numpy as np

from node.errors import HardwareError
from node.events import Ints
from node.units import Bytes, Picoseconds


class Memory:
    """Addresses [0, capacity). A live range belongs to one symbol and is valid from a time on."""

    def __init__(self, name: str, capacity: Bytes) -> None:
        self.name, self.capacity = name, capacity
        self.used = self.peak = 0
        self._starts: list[int] = []
        self._ends: list[int] = []
        self._symbols: dict[int, int] = {}  # address -> symbol
        self._addresses: dict[int, int] = {}  # symbol -> address
        self._valid: dict[int, Picoseconds] = {}  # symbol -> time from which its content is there

    def allocate(self, symbol: int, address: int, size: Bytes, valid: Picoseconds | None = None) -> None:
        """Make [address, address + size) live for ``symbol``; out of range or overlap raises ``HardwareError``."""
        end = address + size
        if size <= 0 or address < 0 or end > self.capacity:
            raise HardwareError(
                f"{self.name}: [{address:,}, {end:,}) is out of range: capacity {self.capacity:,} bytes"
            )
        if symbol in self._addresses:
            raise HardwareError(f"{self.name}: symbol {symbol} already lives at {self._addresses[symbol]:,}")
        index = bisect_right(self._starts, address)
        if index and self._ends[index - 1] > address:
            raise HardwareError(self._overlap(index - 1, address, end))
        if index < len(self._starts) and self._starts[index] < end:
            raise HardwareError(self._overlap(index, address, end))
        self._starts.insert(index, address)
        self._ends.insert(index, end)
        self._symbols[address], self._addresses[symbol] = symbol, address
        if valid is not None:
            self._valid[symbol] = valid
        self.used += size
        self.peak = max(self.peak, self.used)

    def _overlap(self, index: int, start: int, end: int) -> str:
        other = self._starts[index]
        return (
            f"{self.name}: [{start:,}, {end:,}) overlaps [{other:,}, {self._ends[index]:,}) "
            f"of symbol {self._symbols[other]}"
        )

    def free(self, symbol: int) -> int:
        """End the life of ``symbol``; where it was."""
        address, size = self.address(symbol), self.size(symbol)
        index = bisect_left(self._starts, address)
        del self._starts[index], self._ends[index], self._symbols[address], self._addresses[symbol]
        self._valid.pop(symbol, None)
        self.used -= size
        return address

    def address(self, symbol: int) -> int:
        """Where ``symbol`` lives; ``HardwareError`` if it does not."""
        if symbol not in self._addresses:
            raise HardwareError(f"{self.name}: symbol {symbol} is not alive")
        return self._addresses[symbol]

    def size(self, symbol: int) -> Bytes:
        """Bytes of the range of ``symbol``; ``HardwareError`` if it does not live."""
        index = bisect_left(self._starts, self.address(symbol))
        return self._ends[index] - self._starts[index]

    def fill(self, symbol: int, valid: Picoseconds) -> None:
        """The content of ``symbol`` is there from ``valid`` on."""
        self.address(symbol)
        self._valid[symbol] = valid

    def read(self, symbol: int, now: Picoseconds) -> int:
        """Where ``symbol`` lives, for a reader at ``now``; ``HardwareError`` if its content is not there yet."""
        address = self.address(symbol)
        valid = self._valid.get(symbol)
        if valid is None or valid > now:
            when = "never written" if valid is None else f"there from {valid:,} ps on"
            raise HardwareError(f"{self.name}: symbol {symbol} read at {now:,} ps, but it is {when}")
        return address

    def ranges(self) -> tuple[Ints, Ints, Ints, Ints]:
        """All live ranges by address: symbols, addresses, sizes, and since when their content is there (or -1)."""
        start, end = (np.array(of, dtype=np.int64) for of in (self._starts, self._ends))
        symbols = [self._symbols[at] for at in self._starts]
        valid = [self._valid.get(symbol, -1) for symbol in symbols]
        return np.array(symbols, dtype=np.int64), start, end - start, np.array(valid, dtype=np.int64)

    def become(self, ranges: tuple[Ints, Ints, Ints, Ints], most_used: Bytes) -> None:
        """These, as ``ranges`` gives them, are the live ranges from now on; meanwhile ``most_used`` bytes were."""
        symbols, starts, sizes, valid = (of[np.argsort(ranges[1])].tolist() for of in ranges)
        self._starts, self._ends = starts, [start + size for start, size in zip(starts, sizes, strict=True)]
        self._symbols = dict(zip(starts, symbols, strict=True))
        self._addresses = dict(zip(symbols, starts, strict=True))
        self._valid = {symbol: since for symbol, since in zip(symbols, valid, strict=True) if since >= 0}
        self.used = sum(sizes)
        self.peak = max(self.peak, most_used)

    def snapshot(self) -> dict[str, list[list[int]] | int]:
        """All state as plain numbers; ``restore`` takes it back."""
        ranges = [
            [self._symbols[start], start, end - start, self._valid.get(self._symbols[start], -1)]
            for start, end in zip(self._starts, self._ends, strict=True)
        ]
        return {"ranges": ranges, "peak": self.peak}

    def restore(self, state: dict[str, list[list[int]] | int]) -> None:
        """Take the state of ``snapshot``; the tier must be empty."""
        ranges, peak = state["ranges"], state["peak"]
        assert isinstance(ranges, list) and isinstance(peak, int)
        for symbol, address, size, valid in ranges:
            self.allocate(symbol, address, size, valid if valid >= 0 else None)
        self.peak = peak
