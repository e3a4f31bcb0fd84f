"""The commands of one group in the order in which they are decided, kept as plain numbers and handed out as columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from struct import Struct

import numpy as np

from node.events import COLUMNS, ROW, Command, Ints, Kind, Performed, Serving, Tier
from node.plan import WIDE, Plan
from node.units import Bytes, Picoseconds

_NO_RUN = (0,) * (len(COLUMNS) - ROW["source"])
_STEPS = ROW["steps"]
_HBM, _COPY = int(Tier.HBM), int(Kind.COPY)
_packed, _batch = (Struct(f"={width}q").pack for width in (WIDE, 4))  # a third of the time that an array takes
Perform = Callable[[Command, Sequence[Serving]], Performed]


# Where the keys and values of a sequence lie: symbol (a number never used again), address, bytes. Of any length as far
# as mypy knows: what is compiled (``node.native``) would take three numbers out of a tuple, and make them anew.
Range = tuple[int, ...]


class Stream:
    """Commands of ``group``. The run under way may still change: it and what follows it are not handed out.

    Most commands give or end KV ranges, of many requests at once: these are kept as they come. ``perform``: in
    functional mode, does a command with content, a run for those whom it serves (whoever begins a run calls it).
    """

    def __init__(self, group: int, perform: Perform | None = None) -> None:
        self.group, self.perform = group, perform
        self.next = self.taken = 0  # commands so far, and how many of them were handed out
        self._rows = bytearray()
        # of KV ranges that begin or end together: first command, kind, time, how many, and which
        self._batches, self._ranges = bytearray(), list[Sequence[Range]]()
        self._run: tuple[int, ...] | None = None  # under way
        self._before_run = 0  # bytes of rows

    def ranges(self, kind: int, now: Picoseconds, held: Sequence[Range]) -> None:
        """ALLOCATE or FREE of KV ranges in HBM; ``held`` is kept until it is handed out."""
        count = len(held)
        self._batches += _batch(self.next, kind, now, count)
        self._ranges.append(held)
        if self.perform is not None:
            for number, one in enumerate(held, self.next):
                self.perform(Command(number, self.group, kind, now, Tier.HBM, *one), ())
        self.next += count

    def memory(self, kind: Kind, now: Picoseconds, tier: Tier, symbol: int, address: int, size: Bytes) -> None:
        """ALLOCATE, LOAD or FREE of weights."""
        self._note((self.next, self.group, kind, now, tier, symbol, address, size, *_NO_RUN, now))

    def copy(
        self, now: Picoseconds, symbol: int, where: tuple[int, Bytes, int], program: int, end: Picoseconds
    ) -> None:
        """COPY; ``where``: address and size in HBM, address in DDR."""
        self._note((self.next, self.group, Kind.COPY, now, Tier.HBM, symbol, *where, program, *_NO_RUN[2:], end))

    def swap(self, now: Picoseconds, to: Tier, where: Range, end: Picoseconds) -> None:
        """SWAP of KV cache; ``where`` in DDR."""
        self._note((self.next, self.group, Kind.SWAP, now, to, *where, *_NO_RUN, end))

    def image(self, now: Picoseconds, symbol: int, where: tuple[int, Bytes, int], end: Picoseconds) -> None:
        """IMAGE; ``where``: address and size in HBM, address in DDR."""
        self._note((self.next, self.group, Kind.IMAGE, now, Tier.HBM, symbol, *where, *_NO_RUN[1:], end))

    def move(self, kind: Kind, now: Picoseconds, where: Range, program: int, end: Picoseconds) -> None:
        """SEND or RECEIVE of weights; ``where`` in DDR."""
        row = self.next, self.group, kind, now, Tier.DDR, *where, 0, program, *_NO_RUN[2:], end
        self._note(row)

    def run(
        self, kind: Kind, now: Picoseconds, weights: tuple[int, int, int], step: tuple[int, ...], image: int
    ) -> None:
        """A PREFILL or DECODE begins.

        ``weights``: symbol, address, program; ``step``: the fields from tokens on; ``image``: its symbol, or 0.
        """
        symbol, address, program = weights
        self._before_run = len(self._rows)
        self._run = (self.next, self.group, kind, now, _HBM, symbol, address, 0, image, program, *step)
        self.next += 1

    def ran(self, steps: int, end: Picoseconds) -> None:
        """The run under way is over, after ``steps``."""
        run = self._run
        assert run is not None
        if steps != run[_STEPS]:
            run = (*run[:_STEPS], steps)
        self._rows += _packed(*run, end)
        self._run = None

    def under_way(self) -> Command:
        """The run under way."""
        assert self._run is not None
        return Command(*self._run)

    def _note(self, row: tuple[int, ...]) -> None:
        self._rows += _packed(*row)
        self.next += 1
        if self.perform is not None:
            self.perform(Command(*row[:-1]), ())

    def take(self) -> Plan:
        """The commands that will not change any more, in order, each once."""
        first, rows, upto = self.taken, self._rows, self.next
        if self._run is None:
            self._rows = bytearray()
        else:
            rows, self._rows = rows[: self._before_run], rows[self._before_run :]
            upto, self._before_run = self._run[0], 0
        self.taken = upto
        return Plan(self.group, first, upto, rows, *self._taken_ranges(upto))

    def _taken_ranges(self, upto: int) -> tuple[Ints, Ints]:
        """``batches`` and ``ranges`` of the KV ranges before command ``upto``, which are not kept."""
        batches = np.frombuffer(self._batches, dtype=np.int64).reshape(-1, 4)
        count = int(np.searchsorted(batches[:, 0], upto))
        flat = chain.from_iterable(chain.from_iterable(self._ranges[:count]))
        ranges = np.fromiter(flat, dtype=np.int64, count=3 * int(batches[:count, 3].sum())).reshape(-1, 3)
        self._batches, self._ranges = bytearray(batches[count:].tobytes()), self._ranges[count:]
        return batches[:count].T, ranges.T
