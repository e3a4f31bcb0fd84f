"""What a group has decided: its commands, as columns where somebody asks for them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from node.events import COLUMNS, ROW, Ints, Tier

_END = len(COLUMNS)
WIDE = _END + 1  # numbers in a row: a command, and when it is planned to be complete


@dataclass(frozen=True, eq=False)
class Plan:
    """Commands of ``group`` from number ``first`` up to ``upto``; they become columns where somebody asks for them.

    ``rows``: a command each, and when it is planned to be complete. KV ranges are apart, ``batches`` (4, batches) of
    them: first command, kind, time, and how many of ``ranges`` (3, ranges): symbol, address, size.
    """

    group: int
    first: int
    upto: int
    rows: bytes | bytearray
    batches: Ints
    ranges: Ints

    def __len__(self) -> int:
        return self.upto - self.first

    @property
    def columns(self) -> Ints:
        """A row per field of ``Command``."""
        return self._table[:_END]

    @property
    def ends(self) -> Ints:
        """When each is planned to be complete."""
        ends: Ints = self._table[_END]
        return ends

    @cached_property
    def _table(self) -> Ints:
        table = np.zeros((WIDE, len(self)), dtype=np.int64)
        wide = np.frombuffer(self.rows, dtype=np.int64).reshape(-1, WIDE).T
        table[:, wide[0] - self.first] = wide
        begun, kind, now, sizes = self.batches
        # within a batch one after another: from where it begins, less those of the batches before it
        at = np.repeat(begun - self.first - (np.cumsum(sizes) - sizes), sizes) + np.arange(self.ranges.shape[1])
        table[[[ROW["kind"]], [ROW["issued"]], [_END]], at] = np.repeat([kind, now, now], sizes, axis=1)
        table[[[ROW["symbol"]], [ROW["address"]], [ROW["size"]]], at] = self.ranges
        table[ROW["sequence"]], table[ROW["group"]] = np.arange(self.first, self.upto), self.group
        table[ROW["tier"], at] = Tier.HBM
        return table
