"""A window of commands on the tiers of a socket all at once, where every one of them is plainly legal.

What is not is left to ``Tiers``, command by command, which says what is wrong with the first. So this only has to
prove, never to explain: a range of addresses is a rectangle of positions in the window by addresses, and no two may
share a point; a weight is read where the last thing that happened to its symbol was that it came to lie there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from node.events import ROW, Ints, Kind, Tier
from node.hardware.memory import Memory
from node.units import Bytes, Picoseconds

_NEVER = np.iinfo(np.int64).max
_RUNS = (Kind.PREFILL, Kind.DECODE)


@dataclass(frozen=True)
class Latest:
    """Events of symbols in a window, found by symbol and position: the last one up to a position."""

    keys: Ints  # sorted
    order: Ints
    span: int

    @classmethod
    def of(cls, symbol: Ints, position: Ints, span: int) -> Latest:
        """Events at positions from -1 to ``span`` - 2."""
        keys = symbol * span + (position + 1)
        order = np.argsort(keys, kind="stable")
        return cls(keys[order], order, span)

    def before(self, symbol: Ints, position: Ints) -> Ints:
        """The event of each symbol before a position, or -1."""
        if not len(self.keys):
            return np.full(len(symbol), -1)
        found = np.searchsorted(self.keys, symbol * self.span + (position + 1)) - 1
        same = (found >= 0) & (self.keys[found] // self.span == symbol)
        return np.where(same, self.order[found], -1)


@dataclass(frozen=True)
class Lives:
    """What a window does to one tier: ranges that live before it or begin in it, in order of their beginning.

    ``begun``, ``ended``: positions (-1: before the window, ``_NEVER``: not in it); ``valid``: since when the content is
    there, -1 where nothing was written before or with the beginning. ``change``: of the tier's use, by position.
    """

    symbol: Ints
    address: Ints
    size: Ints
    begun: Ints
    ended: Ints
    valid: Ints
    change: Ints
    latest: Latest

    @classmethod
    def of(cls, memory: Memory, columns: Ints, tier: Tier) -> Lives | None:
        """None where a symbol begins or ends twice, or ends elsewhere than it began."""
        kind, count = columns[ROW["kind"]], columns.shape[1]
        of_tier = columns[ROW["tier"]] == tier
        begins = np.flatnonzero(of_tier & ((kind == Kind.ALLOCATE) | (kind == Kind.LOAD)))
        ends = np.flatnonzero(of_tier & (kind == Kind.FREE))
        symbol, address, size = (columns[ROW[name]] for name in ("symbol", "address", "size"))
        before = memory.ranges()
        loaded = np.where(kind[begins] == Kind.LOAD, columns[ROW["issued"], begins], -1)
        symbols, addresses, sizes, valid = (
            np.concatenate([old, new])
            for old, new in zip(before, (symbol[begins], address[begins], size[begins], loaded), strict=True)
        )
        begun = np.concatenate([np.full(len(before[0]), -1), begins])
        latest = Latest.of(symbols, begun, count + 1)
        ended = np.full(len(begun), _NEVER)
        which = latest.before(symbol[ends], ends)
        if len(ends) and (which.min() < 0 or np.bincount(which).max() > 1):
            return None
        if (addresses[which] != address[ends]).any() or (sizes[which] != size[ends]).any():
            return None
        ended[which] = ends
        of_symbol = latest.order  # one after another: the next life of a symbol begins when the last has ended
        again = symbols[of_symbol[1:]] == symbols[of_symbol[:-1]]
        if (ended[of_symbol[:-1]][again] > begun[of_symbol[1:]][again]).any():
            return None
        change = np.zeros(count, dtype=np.int64)
        change[begins], change[ends] = size[begins], -size[ends]
        return cls(symbols, addresses, sizes, begun, ended, valid, change, latest)

    def apart(self, capacity: Bytes) -> bool:
        """Whether all ranges are within the tier and no two share an address while both live."""
        low, high = self.address, self.address + self.size
        if not len(low):
            return True
        if low.min() < 0 or self.size.min() <= 0 or high.max() > capacity:
            return False
        by_address = np.argsort(low, kind="stable")
        reach = np.maximum.accumulate(high[by_address])
        band = np.empty_like(low)  # ranges in different bands share no address
        band[by_address] = np.cumsum(np.concatenate([[0], low[by_address[1:]] >= reach[:-1]]))
        order = np.lexsort((self.begun, band))
        band, low, high = band[order], low[order], high[order]
        begun, ended = self.begun[order], self.ended[order]
        first, back = np.arange(len(low)), 1  # those that may live on when the one ``back`` places on begins
        while len(first):
            first = first[first + back < len(low)]
            then = first + back
            living = (band[then] == band[first]) & (ended[first] > begun[then])
            first, then = first[living], then[living]
            if ((low[then] < high[first]) & (low[first] < high[then])).any():
                return False
            back += 1
        return True

    def at(self, symbol: Ints, position: Ints) -> Ints:
        """The range of each symbol at a position, or -1 where it does not live then."""
        found = self.latest.before(symbol, position)
        if not len(self.ended):
            return found
        return np.where((found >= 0) & (self.ended[found] > position), found, -1)


class Spans(NamedTuple):
    """Of each command when it starts and ends (ps), and by when a run needs all of its weights."""

    start: Ints
    end: Ints
    whole: Ints


def do_at_once(
    tiers: tuple[Memory, Memory], in_use: dict[int, Picoseconds], columns: Ints, sizes: Ints, spans: Spans
) -> Ints | None:
    """What came of a window: rows of address, bytes and occupancy; ``tiers`` (DDR, HBM) and ``in_use`` are as after it.

    ``sizes``: bytes of weights by program. None, and nothing has changed, where anything is not plainly right.
    """
    kind, symbol, tier = (columns[ROW[name]] for name in ("kind", "symbol", "tier"))
    if ((kind < Kind.ALLOCATE) | (kind > Kind.LOAD) | (tier < Tier.DDR) | (tier > Tier.HBM)).any():
        return None
    runs = np.flatnonzero((kind == Kind.PREFILL) | (kind == Kind.DECODE))
    if columns[ROW["source"], runs].any():  # which have images
        return None
    ddr, hbm = (Lives.of(memory, columns, of) for memory, of in zip(tiers, (Tier.DDR, Tier.HBM), strict=True))
    if ddr is None or hbm is None or not (ddr.apart(tiers[0].capacity) and hbm.apart(tiers[1].capacity)):
        return None
    copies = np.flatnonzero(kind == Kind.COPY)
    uses = np.sort(np.concatenate([copies, runs]))
    fills = Latest.of(symbol[copies], copies, columns.shape[1] + 1)
    weights = sizes[columns[ROW["program"], uses]]
    bytes_moved = columns[ROW["size"]].copy()
    bytes_moved[uses] = weights
    if not (
        _copied(columns, copies, (ddr, hbm), bytes_moved, spans.start)
        and _read(columns, runs, hbm, (copies, fills), spans)
        and _freed(columns, uses, in_use, spans.end)
    ):
        return None
    used = [memory.used + np.cumsum(of.change) for memory, of in zip(tiers, (ddr, hbm), strict=True)]
    for memory, of, use, filled in zip(tiers, (ddr, hbm), used, (copies[:0], copies), strict=True):
        if of.change.any() or len(filled):
            valid = _valid(of, (filled, fills), np.full(len(of.symbol), columns.shape[1]), spans.end)
            left = of.ended == _NEVER
            memory.become((of.symbol[left], of.address[left], of.size[left], valid[left]), int(use.max()))
    in_use.update(zip(symbol[uses].tolist(), spans.end[uses].tolist(), strict=True))
    occupancy = np.where((tier == Tier.DDR) & (kind != Kind.COPY) & ~np.isin(kind, _RUNS), used[0], used[1])
    return np.stack([columns[ROW["address"]], bytes_moved, occupancy])


def _valid(lives: Lives, filled: tuple[Ints, Latest], position: Ints, ends: Ints, which: Ints | None = None) -> Ints:
    """Since when the content of ranges (all, or ``which``) is there, seen at a position; -1 where it never is."""
    places, fills = filled
    of = slice(None) if which is None else which
    fill = fills.before(lives.symbol[of], position) if len(places) else np.full(len(position), -1)
    inside = (fill >= 0) & (places[fill] > lives.begun[of]) if len(places) else np.zeros(len(position), dtype=bool)
    return np.where(inside, ends[places[fill]] if len(places) else -1, lives.valid[of])


def _copied(columns: Ints, copies: Ints, tiers: tuple[Lives, Lives], moved: Ints, starts: Ints) -> bool:
    """Whether every COPY finds its source and room for it."""
    if not len(copies):
        return True
    ddr, hbm = tiers
    symbol, address, size, source = (columns[ROW[name], copies] for name in ("symbol", "address", "size", "source"))
    home, room = ddr.at(symbol, copies), hbm.at(symbol, copies)
    if home.min() < 0 or room.min() < 0:
        return False
    there = (ddr.valid[home] >= 0) & (ddr.valid[home] <= starts[copies]) & (ddr.address[home] == source)
    fits = (hbm.address[room] == address) & (hbm.size[room] == size) & (moved[copies] <= size)
    return bool((there & fits).all())


def _read(columns: Ints, runs: Ints, hbm: Lives, filled: tuple[Ints, Latest], spans: Spans) -> bool:
    """Whether every run finds its weights where it says, and there in time."""
    if not len(runs):
        return True
    weights = hbm.at(columns[ROW["symbol"], runs], runs)
    if weights.min() < 0 or (hbm.address[weights] != columns[ROW["address"], runs]).any():
        return False
    valid = _valid(hbm, filled, runs, spans.end, weights)
    return bool(((valid >= 0) & (valid <= spans.whole[runs])).all())


def _freed(columns: Ints, uses: Ints, in_use: Mapping[int, Picoseconds], ends: Ints) -> bool:
    """Whether nothing is freed in HBM while an engine reads or writes it."""
    symbol, issued = columns[ROW["symbol"]], columns[ROW["issued"]]
    used = np.union1d(symbol[uses], np.fromiter(in_use, dtype=np.int64, count=len(in_use)))
    frees = np.flatnonzero((columns[ROW["kind"]] == Kind.FREE) & (columns[ROW["tier"]] == Tier.HBM))
    frees = frees[np.isin(symbol[frees], used)]
    last = Latest.of(symbol[uses], uses, columns.shape[1] + 1).before(symbol[frees], frees)
    for place, use in zip(frees.tolist(), last.tolist(), strict=True):
        until = in_use.get(int(symbol[place]), 0) if use < 0 else int(ends[uses[use]])
        if int(issued[place]) < until:
            return False
    return True
