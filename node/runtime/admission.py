"""Who is turned away from a group: because too many wait, or because what it was promised cannot be kept any more."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from enum import IntEnum
from heapq import heappop, heappush
from typing import NamedTuple

from node.units import Picoseconds


class Reason(IntEnum):
    """Why a request was not served."""

    QUEUE_FULL = 0
    LATE = 1


class TurnedAway(NamedTuple):
    """``request`` was turned away at ``time``."""

    request: int
    time: Picoseconds
    reason: Reason


class Admission:
    """At most ``limit`` wait (None: any number); ``deadline`` by request, of the first token (empty: nobody is late).

    ``turned_away``: all of them so far.
    """

    def __init__(self, arrival: Sequence[Picoseconds], limit: int | None, deadline: Sequence[Picoseconds]) -> None:
        self.turned_away: list[TurnedAway] = []
        self._arrival, self._limit, self._deadline = arrival, limit, deadline
        self._waiting: list[tuple[Picoseconds, int]] = []  # deadline, request: whoever may still be waiting

    def admit(self, newcomers: Sequence[int], waiting: int) -> Sequence[int]:
        """Those of ``newcomers``, in order of arrival, for whom there is room beside ``waiting`` others.

        Nobody has left since the first of them came: one for whom there is no room is turned away as it arrives.
        """
        if self._limit is None or waiting + len(newcomers) <= self._limit:
            return newcomers
        room = max(0, self._limit - waiting)
        self.turned_away += [TurnedAway(one, self._arrival[one], Reason.QUEUE_FULL) for one in newcomers[room:]]
        return newcomers[:room]

    def expect(self, requests: Iterable[int]) -> None:
        """They wait from now on."""
        if self._deadline:
            for request in requests:
                heappush(self._waiting, (self._deadline[request], request))

    def overdue(self, now: Picoseconds) -> Iterator[int]:
        """Those who were expected, and whose first token was due before ``now``, each once."""
        while self._waiting and self._waiting[0][0] < now:
            yield heappop(self._waiting)[1]

    def late(self, request: int, now: Picoseconds) -> None:
        """Turn one away who is overdue and still waits."""
        self.turned_away.append(TurnedAway(request, now, Reason.LATE))
