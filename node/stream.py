"""The commands of one group in the order in which they are decided, kept as plain numbers and handed out as columns."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from node.events import COLUMNS, ROW, Command, Ints, Kind, Performed, Serving, Tier
from node.units import Bytes, Picoseconds

_END = len(COLUMNS)
_WIDE = _END + 1  # a command, and when it is planned to be complete
_NO_RUN = (0,) * (_END - ROW["source"])
Perform = Callable[[Command, Sequence[Serving]], Performed]
_NARROW = ("sequence", "kind", "issued", "symbol", "address", "size")


# Where the keys and values of a sequence lie: symbol (a number never used again), address, bytes
Range = tuple[int, int, Bytes]


class Plan(NamedTuple):
    """Commands as ``columns`` (a row per field of ``Command``), and when each is planned to be complete."""

    columns: Ints
    ends: Ints


class Stream:
    """Commands of ``group``. The run under way may still change: it and what follows it are not handed out.

    Most commands give or end a KV range; of these only what differs is kept, ``_NARROW`` numbers each. ``perform``: in
    functional mode, does a command with content, a run for those whom it serves (whoever begins a run calls it).
    """

    def __init__(self, group: int, perform: Perform | None = None) -> None:
        self.group, self.perform = group, perform
        self.next = self.taken = 0  # commands so far, and how many of them were handed out
        self._rows, self._ranges = array("q"), array("q")
        self._under_way: int | None = None  # where the row of the run begins

    def ranges(self, kind: int, now: Picoseconds, held: Sequence[Range]) -> None:
        """ALLOCATE or FREE of KV ranges in HBM."""
        sequence, row = self.next, list[int]()
        for symbol, address, size in held:
            row += (sequence, kind, now, symbol, address, size)
            sequence += 1
        self._ranges.extend(row)
        if self.perform is not None:
            for number, one in enumerate(held, self.next):
                self.perform(Command(number, self.group, kind, now, Tier.HBM, *one), ())
        self.next = sequence

    def memory(self, kind: Kind, now: Picoseconds, tier: Tier, symbol: int, address: int, size: Bytes) -> None:
        """ALLOCATE, LOAD or FREE of weights."""
        self._note((self.next, self.group, kind, now, tier, symbol, address, size, *_NO_RUN, now))

    def copy(
        self, now: Picoseconds, symbol: int, where: tuple[int, Bytes, int], program: int, end: Picoseconds
    ) -> None:
        """COPY; ``where``: address and size in HBM, address in DDR."""
        self._note((self.next, self.group, Kind.COPY, now, Tier.HBM, symbol, *where, program, *_NO_RUN[2:], end))

    def run(self, kind: Kind, now: Picoseconds, weights: tuple[int, int, int], step: tuple[int, ...]) -> None:
        """A PREFILL or DECODE begins; ``weights``: symbol, address, program; ``step``: the fields from tokens on."""
        symbol, address, program = weights
        self._under_way = len(self._rows)
        self._rows.extend((self.next, self.group, kind, now, Tier.HBM, symbol, address, 0, 0, program, *step, now))
        self.next += 1

    def ran(self, steps: int, end: Picoseconds) -> None:
        """The run under way is over, after ``steps``."""
        row = self._under_way
        assert row is not None
        self._rows[row + ROW["steps"]], self._rows[row + _END] = steps, end
        self._under_way = None

    def under_way(self) -> Command:
        """The run under way."""
        return Command(*self._rows[-_WIDE:-1])

    def _note(self, row: tuple[int, ...]) -> None:
        self._rows.extend(row)
        self.next += 1
        if self.perform is not None:
            self.perform(Command(*row[:-1]), ())

    def take(self) -> Plan:
        """The commands that will not change any more, in order, each once."""
        first, row = self.taken, self._under_way
        upto = self.next if row is None else self._rows[row]
        wide = self._split("_rows", _WIDE, upto)
        narrow = self._split("_ranges", len(_NARROW), upto)
        self._under_way = None if row is None else 0
        self.taken = upto
        table = np.zeros((_WIDE, upto - first), dtype=np.int64)
        table[:, wide[0] - first] = wide
        at = narrow[0] - first
        table[np.ix_([ROW[name] for name in _NARROW], at)] = narrow
        table[ROW["group"]], table[ROW["tier"], at], table[_END, at] = self.group, Tier.HBM, narrow[2]
        return Plan(table[:_END], table[_END])

    def _split(self, name: str, width: int, upto: int) -> Ints:
        """Take the rows of numbers below ``upto`` out of an array: a column each."""
        rows: array[int] = getattr(self, name)
        table = np.frombuffer(rows, dtype=np.int64).reshape(-1, width)
        count = int(np.searchsorted(table[:, 0], upto))
        setattr(self, name, rows[count * width :])
        return table[:count].T
