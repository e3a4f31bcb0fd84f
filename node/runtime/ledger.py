"""Where the time of requests went: what is noted while time passes, and each request's account of it afterwards.

Requests of one batch wait for the same things, so times are noted by task, and of a request only the tasks that it was
in. Every picosecond from a request's arrival to its end is charged to exactly one of ``CHARGES``.
"""

from __future__ import annotations

from array import array
from functools import reduce
from struct import Struct

import numpy as np
import numpy.typing as npt

from node.errors import InvariantError
from node.request import Requests
from node.units import Picoseconds, blocks

Ints = npt.NDArray[np.int64]
_run, _task, _moment = (Struct(f"={width}q").pack for width in (3, 6, 2))
CHARGES = ("queue", "switch", "router", "call_overhead", "prefill", "decode", "stall")


class Ledger:
    """Notes of requests, by their places in the workload; of ``count`` at first.

    ``routed``, ``served``, ``ended``: of each request the number of the router's run, of the task that began it and of
    the moment at which it ended; ``order``: those that have ended, as they did. A group's decode clock is the time that
    it has spent in decode steps so far; ``missed``: by request how much of it passed while it had to make room.
    """

    def __init__(self, count: int = 0) -> None:
        self.routed, self.served, self.ended = (array("q", bytes(8 * count)) for _ in range(3))
        self.order = array("q")
        self.missed: dict[int, Picoseconds] = {}
        # rows of numbers, and how many rows: runs of the router (start, end of the call, end); tasks (group, start,
        # end of the copy, of the calls, of the prefill, decode clock then); moments (time, decode clock)
        self._rows = bytearray(), bytearray(), bytearray()
        self._runs = self._tasks = self._moments = 0

    def expect(self, count: int) -> None:
        """There will be ``count`` requests more."""
        for noted in (self.routed, self.served, self.ended):
            noted.frombytes(bytes(8 * count))

    def run(self, start: Picoseconds, called: Picoseconds, end: Picoseconds) -> int:
        """Note a run of the router; its number."""
        self._rows[0].extend(_run(start, called, end))
        self._runs += 1
        return self._runs - 1

    def task(self, noted: tuple[int, Picoseconds, Picoseconds, Picoseconds, Picoseconds, Picoseconds]) -> int:
        """Note a task that began requests: group, start, ends of copy, calls and prefill, decode clock; its number."""
        self._rows[1].extend(_task(*noted))
        self._tasks += 1
        return self._tasks - 1

    def end(self, requests: list[int], time: Picoseconds, clock: Picoseconds) -> None:
        """Note that ``requests`` end, and the decode clock of their group then."""
        number, ended = self._moments, self.ended
        self._rows[2].extend(_moment(time, clock))
        self._moments += 1
        for request in requests:
            ended[request] = number
        self.order.fromlist(requests)

    def columns(self, requests: Requests, served: Ints, *, routed: bool) -> dict[str, Ints]:
        """The ``group`` of each request, all ``CHARGES``, ``e2e`` and ``ttft``, in ps, of those who were ``served``.

        These are places among ``requests``, the workload, in order; all must have ended. ``routed``: whether the router
        ran for them. Raises ``InvariantError`` where charges do not add up.
        """
        away = np.array(list(self.missed.items()), dtype=np.int64).reshape(-1, 2).T
        found = {name: np.empty(len(served), dtype=np.int64) for name in ("group", *CHARGES, "e2e", "ttft")}
        for block in blocks(len(served)):
            for name, column in self._columns(requests, served[block], away, routed=routed).items():
                found[name][block] = column
        return found

    def _columns(self, requests: Requests, served: Ints, away: Ints, *, routed: bool) -> dict[str, Ints]:
        """``columns``; ``away`` (2, requests): who had to make room, and how much of the decode clock passed then."""
        # views of what may still grow: none of them must outlive the call
        runs, tasks, moments = (
            np.frombuffer(rows, dtype=np.int64).reshape(-1, width).T
            for rows, width in zip(self._rows, (3, 6, 2), strict=True)
        )
        group, start, copied, called, first, clock = tasks[:, np.frombuffer(self.served, dtype=np.int64)[served]]
        end, clock_at_end = moments[:, np.frombuffer(self.ended, dtype=np.int64)[served]]
        arrival, decode = requests.arrival[served], clock_at_end - clock
        here = np.isin(away[0], served)
        decode[np.searchsorted(served, away[0, here])] -= away[1, here]
        charges = {
            "queue": start - arrival,
            "switch": copied - start,
            "router": np.zeros_like(arrival),
            "call_overhead": called - copied,
            "prefill": first - called,
            "decode": decode,
            "stall": end - first - decode,
        }
        if routed:
            began, asked, known = runs[:, np.frombuffer(self.routed, dtype=np.int64)[served]]
            charges["queue"] = (began - arrival) + (start - known)
            charges["router"] = known - asked
            charges["call_overhead"] = charges["call_overhead"] + (asked - began)
        e2e = end - arrival
        short = np.flatnonzero((sum(charges.values()) != e2e) | (reduce(np.minimum, charges.values()) < 0))
        if len(short):
            spent = {what: int(column[short[0]]) for what, column in charges.items()}
            total = int(e2e[short[0]])
            raise InvariantError(
                f"request {requests.id[served[short[0]]]}: charges {spent} do not add up to {total} ps"
            )
        return {"group": group, **charges, "e2e": e2e, "ttft": first - arrival}
