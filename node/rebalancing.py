"""Moves experts between the groups of a node every so often of virtual time, while all of them stand still.

When it is time, no group begins anything new. Once all have drained, homes move: each socket of a group sends its shard
from DDR to DDR of the socket of its rank in the other, over the peer links, one expert at a time in each group. Then
all go on. What it costs is the time for which they stood still; the requests of an expert that moves go with it.
"""

from __future__ import annotations

from collections.abc import Sequence

from node.exchange import Exchange
from node.lane import Lane
from node.runtime.balance import Move, moves
from node.units import NEVER, Bytes, Picoseconds


class Rebalancing:
    """``every`` so many ps; ``weights``: bytes by expert; ``pinned`` experts stay where they are."""

    def __init__(
        self,
        lanes: Sequence[Lane],
        exchange: Exchange,
        every: Picoseconds,
        weights: Sequence[Bytes],
        pinned: Sequence[int],
    ) -> None:
        self.moved = 0  # experts so far
        self._lanes, self._exchange, self._every = lanes, exchange, every
        self._weights, self._pinned = weights, frozenset(pinned)
        self._due, self._stopping = every, False

    def next(self, following: Picoseconds) -> Picoseconds:
        """When something is to be done before the event at ``following`` (``NEVER``: there is none); else ``NEVER``."""
        if not self._stopping:
            idle = not self._exchange.asked and all(lane.idle for lane in self._lanes)
            if following != NEVER and idle:  # nothing to move, and nobody to stop
                self._due = max(self._due, (following // self._every + 1) * self._every)
            return self._due if self._due <= following != NEVER else NEVER
        lanes = self._lanes
        if not all(lane.idle for lane in lanes):
            return NEVER
        if following == NEVER and not any(lane.group.waiting.count or lane.group.unrouted for lane in lanes):
            return NEVER
        return max(self._due, *(lane.idle_since for lane in lanes))

    def do(self, now: Picoseconds) -> None:
        """What is to be done at the time that ``next`` says."""
        if self._stopping:
            self._go_on(now)
            return
        self._stopping = True
        for lane in self._lanes:
            lane.stop(now)

    def _go_on(self, now: Picoseconds) -> None:
        """Everybody stands still: move experts, then all go on."""
        free = dict.fromkeys(range(len(self._lanes)), now)
        for one in self._wanted():
            source, target = self._lanes[one.source], self._lanes[one.target]
            address = target.group.memory.home_for(one.expert, now)
            if address is None:
                continue
            start = max(free[one.source], free[one.target])
            end = free[one.source] = free[one.target] = source.sockets.move(start, source.program(one.expert))
            source.group.give(one.expert, (now, start, end))
            target.group.memory.take(one.expert, address, (start, end))
            self._exchange.moved(one.expert, one.target)
            self.moved += 1
        until = max(free.values())
        for lane in self._lanes:
            lane.resume(now, until)
        self._due, self._stopping = (until // self._every + 1) * self._every, False

    def _wanted(self) -> list[Move]:
        asked = self._exchange.asked
        work = {expert: count * self._weights[expert] for expert, count in asked.items()}
        asked.clear()
        homes = {
            expert: groups[0]
            for expert, groups in self._exchange.homes.items()
            if len(groups) == 1 and expert not in self._pinned
        }
        return moves(work, homes, sorted({group for groups in self._exchange.homes.values() for group in groups}))
