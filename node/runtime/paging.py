"""KV cache in pages of one size: a sequence takes one more as it grows, and keeps no room that it does not use yet."""

from __future__ import annotations

from collections.abc import Sequence

from node.events import Kind
from node.runtime.sharding import ModelSize, Region
from node.stream import Range, Stream
from node.units import Bytes, Picoseconds

ALLOCATE, FREE = int(Kind.ALLOCATE), int(Kind.FREE)


class Paging:
    """The KV region of one group's HBM in pages; ``page``: bytes, ``free``: addresses of those that nobody has.

    A page holds ``block`` tokens of the model with the most bytes a token, and as many as fit of any other. Symbols are
    numbered from ``first_symbol`` on.
    """

    def __init__(
        self, region: Region, sizes: Sequence[ModelSize], block: int, first_symbol: int, stream: Stream
    ) -> None:
        self.page = page_bytes(sizes, block)
        self.free = [region.start + number * self.page for number in reversed(range(region.size // self.page))]
        self._tokens = [self.page // size.kv_token for size in sizes]
        self._windows = [size.window for size in sizes]
        self._stream, self._next = stream, first_symbol

    def pages(self, model: int, tokens: int) -> int:
        """How many pages hold a sequence of ``tokens`` of a model (an expert, or the router)."""
        window = self._windows[model]
        return -(-(tokens if window is None else min(tokens, window)) // self._tokens[model])

    def symbol(self) -> int:
        """A number that no other range has."""
        self._next += 1
        return self._next - 1

    def take(self, count: int, now: Picoseconds) -> list[Range]:
        """So many pages; there must be as many ``free``."""
        held: list[Range] = [(self.symbol(), self.free.pop(), self.page) for _ in range(count)]
        if held:
            self._stream.ranges(ALLOCATE, now, tuple(held))  # which keeps it
        return held

    def release(self, held: Sequence[Range], now: Picoseconds) -> None:
        """Give pages back."""
        self.free.extend(address for _, address, _ in reversed(held))
        if held:
            self._stream.ranges(FREE, now, held)


def page_bytes(sizes: Sequence[ModelSize], block: int) -> Bytes:
    """Bytes of a page that holds ``block`` tokens of any of these models."""
    return block * max(size.kv_token for size in sizes)
