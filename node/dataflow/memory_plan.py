"""The static memory plan of a compiled program: an address in HBM or DDR for each of its symbols.

The rules are published (arXiv 2405.07518): no dynamic allocation and no aliasing, so lifetimes are static and symbols
whose lifetimes do not overlap share addresses; when HBM is short, symbols spill to DDR in the order of the bytes moved
over the run, fewest first, so that weights stay. How addresses are assigned is not published: here first fit in
several orders, of which the best is kept (after "greedy by size", arXiv 2001.03288).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import compress
from operator import itemgetter

import numpy as np
import numpy.typing as npt

from node.errors import OutOfMemoryError
from node.units import Bytes

ALIGNMENT: Bytes = 64  # a burst of DDR4 and DDR5, a multiple of HBM's (JEDEC): no two symbols share one
_BEYOND = 2**62  # an address above every other
_Column = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Symbol:
    """A tensor in off-chip memory, alive from kernel ``first`` to kernel ``last`` of the schedule, both inclusive.

    ``moved`` is how many bytes of it go to or from the chip over the whole run.
    """

    name: str
    size: Bytes
    first: int
    last: int
    moved: Bytes


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Where each symbol is. All sizes count each symbol as whole multiples of ``ALIGNMENT``."""

    hbm: dict[str, int]  # addresses of the symbols in HBM, from 0
    ddr: dict[str, int]  # and of those spilled
    hbm_bytes: Bytes  # where the highest symbol ends
    ddr_bytes: Bytes
    lifetime_bound: Bytes  # most bytes alive at once among those in HBM: no plan can do with less
    unshared_bytes: Bytes  # what those in HBM would take if none shared an address
    spilled_moved: Bytes  # moved over the run at the speed of DDR, not of HBM

    @property
    def saved_bytes(self) -> Bytes:
        """HBM saved by the sharing of addresses."""
        return self.unshared_bytes - self.hbm_bytes


@dataclass(frozen=True, slots=True)
class _Spans:
    """Symbols as columns: a rectangle each, kernels by bytes, the bytes aligned."""

    first: _Column
    last: _Column
    size: _Column

    def where(self, mask: npt.NDArray[np.bool_]) -> _Spans:
        return _Spans(self.first[mask], self.last[mask], self.size[mask])

    def peak(self) -> tuple[Bytes, int]:
        """The most bytes alive during one kernel, and that kernel (the first such; 0 if there are no symbols)."""
        if not len(self.size):
            return 0, 0
        kernels = np.concatenate([self.first, self.last])
        order = np.argsort(kernels, kind="stable")  # of one kernel births come before deaths: both ends are inclusive
        alive = np.concatenate([self.size, -self.size])[order].cumsum()
        at = alive.argmax()
        return int(alive[at]), int(kernels[order[at]])


def plan_memory(symbols: Iterable[Symbol], hbm_capacity: Bytes, ddr_capacity: Bytes) -> MemoryPlan:
    """The plan of ``symbols``, in any order, in tiers of so many bytes; the same symbols give the same plan.

    Spilled are the first of the symbols ranked by bytes moved (of equal ones the larger, then by name), one fewer of
    which would leave more than HBM holds; never those of no size. ``OutOfMemoryError`` if they do not fit into DDR,
    ``ValueError`` for symbols or capacities that cannot be. All sizes together must be below 2^62 bytes.
    """
    by_name = sorted(symbols, key=lambda symbol: symbol.name)
    _check(by_name, hbm_capacity, ddr_capacity)
    spans = _spans(by_name)
    rank = _spill_rank(by_name)

    def fits(spilled: int) -> bool:
        kept = spans.where(rank >= spilled)
        return kept.peak()[0] <= hbm_capacity and any(top <= hbm_capacity for top, _ in _layouts(kept))

    # First fit is not monotone, but halving is in the capacity: more HBM never spills more
    spilled = 0 if fits(0) else bisect_left(range(len(by_name)), True, lo=1, key=fits)
    stays = rank >= spilled
    hbm_bytes, hbm = min(_layouts(spans.where(stays)), key=itemgetter(0))
    ddr_bytes, ddr = min(_layouts(spans.where(~stays)), key=itemgetter(0))
    if ddr_bytes > ddr_capacity:
        hint = f"it is what {hbm_capacity:,} bytes of HBM leave over: a smaller batch or context, or more sockets"
        raise OutOfMemoryError(
            "DDR", "every socket", asked=ddr_bytes, free=ddr_capacity, largest_hole=ddr_capacity, hint=hint
        )
    in_hbm, in_ddr = list(compress(by_name, stays)), list(compress(by_name, ~stays))
    return MemoryPlan(
        hbm={symbol.name: address for symbol, address in zip(in_hbm, hbm.tolist(), strict=True)},
        ddr={symbol.name: address for symbol, address in zip(in_ddr, ddr.tolist(), strict=True)},
        hbm_bytes=hbm_bytes,
        ddr_bytes=ddr_bytes,
        lifetime_bound=spans.where(stays).peak()[0],
        unshared_bytes=int(spans.size[stays].sum()),
        spilled_moved=sum(symbol.moved for symbol in in_ddr),
    )


def _check(by_name: Sequence[Symbol], hbm_capacity: Bytes, ddr_capacity: Bytes) -> None:
    for tier, capacity in (("HBM", hbm_capacity), ("DDR", ddr_capacity)):
        if capacity < 0:
            raise ValueError(f"capacity of {tier} = {capacity:,} bytes: must not be negative")
    for at, symbol in enumerate(by_name):
        if at and by_name[at - 1].name == symbol.name:
            raise ValueError(f"two symbols are named {symbol.name!r}: names must differ")
        if symbol.first > symbol.last:
            raise ValueError(f"symbol {symbol.name!r}: first kernel {symbol.first} is after the last, {symbol.last}")
        if min(symbol.size, symbol.moved) < 0:
            raise ValueError(
                f"symbol {symbol.name!r}: size {symbol.size:,} and moved {symbol.moved:,} must not be negative"
            )


def _spans(symbols: Sequence[Symbol]) -> _Spans:
    rows = [(symbol.first, symbol.last, -(-symbol.size // ALIGNMENT) * ALIGNMENT) for symbol in symbols]
    return _Spans(*np.array(rows, dtype=np.int64).reshape(-1, 3).T)


def _spill_rank(symbols: Sequence[Symbol]) -> _Column:
    """The place of each symbol in the order of spilling, from 0; of those of no size, beyond all others."""
    rank = np.full(len(symbols), len(symbols), dtype=np.int64)
    sized = [at for at, symbol in enumerate(symbols) if symbol.size]
    sized.sort(key=lambda at: (symbols[at].moved, -symbols[at].size, symbols[at].name))
    rank[sized] = np.arange(len(sized))
    return rank


def _layouts(spans: _Spans) -> Iterator[tuple[Bytes, _Column]]:
    """End and addresses of one layout after another, until one reaches the bound.

    Symbols that live throughout lie side by side at the bottom, where they are in nobody's way.
    """
    addresses = np.zeros(len(spans.size), dtype=np.int64)
    sized = spans.size > 0
    throughout = sized & (spans.first <= spans.first[sized].min(initial=_BEYOND))
    throughout &= spans.last >= spans.last[sized].max(initial=-_BEYOND)
    ends = spans.size[throughout].cumsum()
    addresses[throughout] = ends - spans.size[throughout]
    base = int(ends.max(initial=0))
    others = sized & ~throughout
    passing = spans.where(others)
    bound = base + passing.peak()[0]
    for order in _orders(passing):
        addresses[others] = base + _first_fit(passing, order)
        top = int((addresses + spans.size).max(initial=0))
        yield top, addresses.copy()
        if top == bound:
            return


def _orders(spans: _Spans) -> Iterator[list[int]]:
    """In which orders to place: by size; by size times lifetime; those alive at the peak first, the longest-lived."""
    length = spans.last - spans.first + 1
    yield np.lexsort((spans.first, -length, -spans.size)).tolist()
    yield np.lexsort((spans.first, -spans.size, -spans.size * length.astype(np.float64))).tolist()
    _, peak = spans.peak()
    beside = (peak < spans.first) | (spans.last < peak)
    yield np.lexsort((spans.first, -spans.size, -length, beside)).tolist()


def _first_fit(spans: _Spans, order: Sequence[int]) -> _Column:
    """Addresses when each symbol in turn takes the lowest gap between the placed ones that it overlaps in time."""
    addresses = np.zeros(len(order), dtype=np.int64)
    # first, last, start and end of those placed, by start: at first the floor and the ceiling, which all overlap
    table = np.zeros((4, len(order) + 2), dtype=np.int64)
    table[:, :2] = np.array([(-_BEYOND, _BEYOND, 0, 0), (-_BEYOND, _BEYOND, _BEYOND, _BEYOND)]).T
    for count, at in enumerate(order, start=2):
        first, last, start, end = table[:, :count]
        overlaps = (first <= spans.last[at]) & (last >= spans.first[at])
        below = np.maximum.accumulate(end[overlaps])
        gap = start[overlaps][1:] - below[:-1]
        address = below[(gap >= spans.size[at]).argmax()]
        place = start.searchsorted(address, side="right")
        table[:, place + 1 : count + 1] = table[:, place:count]
        table[:, place] = spans.first[at], spans.last[at], address, address + spans.size[at]
        addresses[at] = address
    return addresses
