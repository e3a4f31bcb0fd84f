"""A node in virtual time: its groups, each on a lane of its own, what they hand each other, and windows.

Events of one moment go in one order: arrivals first, then completions by group, of its copy before that of its run or
call. Lanes that have nothing to do with each other (no router that hands over, no host link to share) need no common
order, and each runs through a window by itself.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from node.events import Ints
from node.hardware.host import Host
from node.hardware.rdu import Rdu
from node.hardware.sockets import OverlappingSockets, Sockets
from node.lane import NEVER, Lane
from node.planned import Planned, planned_of
from node.request import Request, Requests
from node.runtime.group import Group, Known
from node.runtime.ledger import Ledger
from node.runtime.settings import Settings
from node.runtime.sharding import Layout
from node.stream import Perform
from node.units import Picoseconds

MOST_ROWS = 2**62


class Simulation:
    """A node in virtual time: ``kinds[group]`` are the representatives of the group's kinds of socket.

    ``perform``: in functional mode, does a command with content for those whom it serves.
    """

    def __init__(
        self,
        layouts: Sequence[Layout],
        settings: Settings,
        kinds: Sequence[Sequence[Rdu]],
        host: Host,
        requests: Sequence[Request],
        perform: Perform | None = None,
    ) -> None:
        self.requests = Requests.of(requests)
        self.kinds = kinds
        self._routed = settings.router is not None
        self._ledger = Ledger(len(self.requests))
        columns = self.requests
        known = Known(*(getattr(columns, name).tolist() for name in Known._fields))
        self._homes = homes = {expert: layout.group for layout in layouts for expert in layout.ddr}
        owner = (
            columns.id % len(layouts) if self._routed else np.array([homes[e] for e in sorted(homes)])[columns.expert]
        )
        self._lanes = []
        for layout, of_group in zip(layouts, kinds, strict=True):
            mine = np.flatnonzero(owner == layout.group).tolist()
            group = Group(layout, settings, known, mine, perform)
            costs = [rdu.costs for rdu in of_group]
            sockets = Sockets(costs) if settings.next_expert is None else OverlappingSockets(costs)
            self._lanes.append(Lane(group, sockets, host, self._ledger, self._hand_over))
            group.memory.deploy()
        self.groups = [lane.group for lane in self._lanes]
        self._apart = len(self._lanes) == 1 or not (self._routed or host.shared)

    @property
    def now(self) -> Picoseconds:
        """When the last event was."""
        return max(lane.now for lane in self._lanes)

    @property
    def completed(self) -> int:
        """Requests that have ended."""
        return sum(lane.completed for lane in self._lanes)

    @property
    def idle_ps(self) -> list[Picoseconds]:
        """Of each group, how long it was idle before its last task."""
        return [lane.idle_ps for lane in self._lanes]

    @property
    def over(self) -> bool:
        """No event is left."""
        return self.next_event() is None

    def next_event(self) -> Picoseconds | None:
        """When something happens next that may matter to a decision."""
        time = min(lane.next()[0] for lane in self._lanes)
        return None if time == NEVER else time

    def advance(self, until: Picoseconds, commands: int = MOST_ROWS) -> None:
        """Let time pass up to (not including) ``until``, or until some group has so many ``commands`` to take."""
        until = min(until, NEVER)
        if self._apart:
            for lane in self._lanes:
                lane.run(until, commands)
            return
        lanes = self._lanes
        while all(lane.group.stream.count < commands for lane in lanes):
            (time, what), index = min((lane.next(), index) for index, lane in enumerate(lanes))
            if time >= until:
                return
            lanes[index].step(time, what)

    def take(self, group: int) -> Planned:
        """The group's commands that will not change any more, in order, each once."""
        return planned_of(self._lanes[group].group.stream.take(), self.kinds[group])

    def columns(self) -> dict[str, Ints]:
        """Of every request: its ``group``, where its time went, ``e2e`` and ``ttft`` (ps); the run must be over."""
        return self._ledger.columns(self.requests, routed=self._routed)

    def _hand_over(self, routed: Sequence[int], _by: Lane, now: Picoseconds) -> None:
        """Requests whose expert is known now go to the groups that hold it, in order."""
        count = len(self._lanes)
        if count == 1:
            lane = self._lanes[0]
            lane.group.receive(routed)
            return
        by_group: dict[int, list[int]] = {}
        expert = self.requests.expert
        for request in routed:
            by_group.setdefault(self._homes[int(expert[request])], []).append(request)
        for index in sorted(by_group):
            self._lanes[index].group.receive(by_group[index])
            self._lanes[index].reconsider(now)
