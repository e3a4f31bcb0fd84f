"""A node in virtual time: its groups, each on a lane of its own, what they hand each other, and windows.

Events of one moment go in one order: arrivals first, then completions by group, of its copy before that of its run or
call. Lanes that have nothing to do with each other (no router that hands over, no host link to share) need no common
order, and each runs through a window by itself. Where experts are at home in several groups and no router runs,
newcomers come in through one door, before all other events of a moment.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from node.continuous_lane import ContinuousLane
from node.events import Ints
from node.exchange import Exchange
from node.hardware.host import Host
from node.hardware.rdu import Rdu
from node.hardware.sockets import OverlappingSockets, Sockets
from node.lane import Lane
from node.plan import Plan
from node.planned import Planned, planned_of
from node.program_lane import ProgramLane
from node.rebalancing import Rebalancing
from node.request import Request, Requests
from node.runtime.admission import TurnedAway
from node.runtime.arrivals import Arrivals
from node.runtime.continuous import ContinuousGroup
from node.runtime.group import Group
from node.runtime.ledger import Ledger
from node.runtime.programs import ProgramGroup
from node.runtime.queues import Known
from node.runtime.settings import Settings
from node.runtime.sharding import Layout
from node.stream import Perform
from node.units import NEVER, Picoseconds

MOST_ROWS = 2**62
DOOR = -1  # in place of a group: whose newcomers wait for no group's own


class Mark(NamedTuple):
    """How far a node is: the time of its last event, and requests since the beginning.

    ``arrived`` by then; ``completed``: the first so many of ``Simulation.ended``; ``running``: served but not complete;
    ``turned_away`` by group; ``hits`` and ``misses`` by expert.
    """

    now: Picoseconds
    arrived: int
    completed: int
    running: int
    turned_away: Sequence[int]
    hits: Sequence[int]
    misses: Sequence[int]


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
        self.kinds = kinds
        self._settings, self._routed = settings, settings.router is not None
        self._fed: list[Requests] = []
        self._known = Known.nobody(settings)
        self._ledger = Ledger()
        homes = _homes(layouts)
        shared = any(layout.shared for layout in layouts)
        self._routers = np.array([layout.group for layout in layouts if layout.router.size], dtype=np.int64)
        # of each expert, the group or the door to which its newcomers come, where no router runs
        moving = settings.rebalance > 0 and len(layouts) > 1
        by_door = shared or moving
        self._entrance = np.array([DOOR if by_door else homes[expert][0] for expert in sorted(homes)])
        self._door = Arrivals()
        self._lanes: list[Lane] = []
        for layout, of_group in zip(layouts, kinds, strict=True):
            costs = [rdu.costs for rdu in of_group]
            overlapping = settings.next_expert is not None or settings.partial
            sockets = OverlappingSockets(costs) if overlapping else Sockets(costs)
            rest = sockets, host, self._ledger, self._hand_over
            if settings.continuous:
                self._lanes.append(ContinuousLane(ContinuousGroup(layout, settings, self._known), *rest))
            elif settings.images is not None:
                self._lanes.append(ProgramLane(ProgramGroup(layout, settings, self._known, settings.images), *rest))
            else:
                self._lanes.append(Lane(Group(layout, settings, self._known, perform), *rest))
            self._lanes[-1].group.memory.deploy()
        self.groups = [lane.group for lane in self._lanes]
        self._exchange = Exchange(self._lanes, homes, self._known.expert)
        self._apart = len(self._lanes) == 1 or not (self._routed or host.shared or by_door)
        self.rebalancing: Rebalancing | None = None
        if moving:
            weights = [size.weights for size in settings.sizes]
            pinned = [expert for layout in layouts for expert in layout.pinned]
            self.rebalancing = Rebalancing(self._lanes, self._exchange, settings.rebalance, weights, pinned)
        self.feed(Requests.of(requests))

    def feed(self, requests: Requests) -> None:
        """More requests, none of which arrives before one that is there or before a moment that is past."""
        first = len(self._known.arrival)
        self._known.expect(requests, self._settings)
        self._fed.append(requests)
        self._ledger.expect(len(requests))
        owner = self._routers[requests.id % len(self._routers)] if self._routed else self._entrance[requests.expert]
        at_door = np.flatnonzero(owner == DOOR)
        self._door.expect(at_door + first, requests.arrival[at_door])
        for index, lane in enumerate(self._lanes):
            mine = np.flatnonzero(owner == index)
            lane.expect(mine + first, requests.arrival[mine])

    @property
    def requests(self) -> Requests:
        """All that are there so far."""
        if len(self._fed) > 1:
            self._fed = [Requests.joined(self._fed)]
        return self._fed[0]

    @property
    def now(self) -> Picoseconds:
        """When the last event was."""
        return max(self.ended_ps)

    @property
    def ended_ps(self) -> list[Picoseconds]:
        """Of each group, when its last event was."""
        return [lane.now for lane in self._lanes]

    @property
    def completed(self) -> int:
        """Requests that have ended."""
        return sum(lane.completed for lane in self._lanes)

    @property
    def idle_ps(self) -> list[Picoseconds]:
        """Of each group, how long it was idle before its last task."""
        return [lane.idle_ps for lane in self._lanes]

    @property
    def held_ps(self) -> list[Picoseconds]:
        """Of each group, how long it was idle because experts had to stay in the room of those waited for."""
        return [lane.held_ps for lane in self._lanes]

    @property
    def busy_ps(self) -> list[Picoseconds]:
        """Of each group, how long it was not idle up to its last event."""
        return [lane.now - lane.idle_ps for lane in self._lanes]

    @property
    def over(self) -> bool:
        """No event is left."""
        return self.next_event() is None

    def next_event(self) -> Picoseconds | None:
        """When something happens next that may matter to a decision."""
        time = min(self._door.next(), *(lane.next()[0] for lane in self._lanes))
        if self.rebalancing is not None:
            time = min(time, self.rebalancing.next(self._following()))
        return None if time == NEVER else time

    def _following(self) -> Picoseconds:
        """When the next event is for which there may have to be something moved: one that matters to somebody."""
        return min(self._door.next(), *(lane.next_for_somebody() for lane in self._lanes))

    def advance(self, until: Picoseconds, commands: int = MOST_ROWS) -> None:
        """Let time pass up to (not including) ``until``, or until some group has so many ``commands`` to take."""
        until = min(until, NEVER)
        if self._apart:
            for lane in self._lanes:
                lane.run(until, commands)
            return
        lanes = self._lanes
        while all(lane.group.stream.next < lane.group.stream.taken + commands for lane in lanes):
            (time, what), index = min((lane.next(), index) for index, lane in enumerate(lanes))
            opens = self._door.next()
            if self.rebalancing is not None and (moves := self.rebalancing.next(self._following())) != NEVER:
                if moves >= until:
                    return
                self.rebalancing.do(moves)
                continue
            if opens <= time:
                if opens >= until:
                    return
                self._exchange.hand_over(self._door.upto(opens), opens)
                continue
            if time >= until:
                return
            lanes[index].step(time, what)

    def take(self, group: int) -> Planned:
        """The group's commands that will not change any more, in order, each once."""
        return planned_of(self._lanes[group].group.stream.take(), self.kinds[group])

    def plans(self) -> dict[int, Plan]:
        """By group the commands of ``take`` before its representatives do them, of groups with anything to do."""
        found = {index: lane.group.stream.take() for index, lane in enumerate(self._lanes)}
        return {group: plan for group, plan in found.items() if len(plan)}

    @property
    def turned_away(self) -> list[TurnedAway]:
        """Those who were not served, by their numbers."""
        return sorted(one for group in self.groups for one in group.admission.turned_away)

    def served(self) -> Ints:
        """The numbers of those who were not turned away."""
        count = len(self.requests)
        return np.setdiff1d(np.arange(count), [one.request for one in self.turned_away], assume_unique=True)

    def columns(self) -> dict[str, Ints]:
        """Of every request ``served``: its ``group``, where its time went, ``e2e`` and ``ttft`` (ps).

        The run must be over.
        """
        return self.columns_of(self.served())

    def columns_of(self, numbers: Ints) -> dict[str, Ints]:
        """``columns`` of requests that have ended; their ``numbers`` must be in order."""
        return self._ledger.columns(self.requests, numbers, routed=self._routed)

    def mark(self) -> Mark:
        """How far it is."""
        groups, now = self.groups, self.now
        return Mark(
            now,
            bisect_right(self._known.arrival, now),
            len(self._ledger.order),
            sum(group.members for group in groups),
            [len(group.admission.turned_away) for group in groups],
            [sum(of_expert) for of_expert in zip(*(group.hits_of for group in groups), strict=True)],
            [sum(of_expert) for of_expert in zip(*(group.misses_of for group in groups), strict=True)],
        )

    def ended(self, first: int, upto: int) -> Ints:
        """The numbers of those who ended, in order: from the ``first`` of them to end up to that of place ``upto``."""
        return np.sort(np.array(self._ledger.order[first:upto], dtype=np.int64))

    def _hand_over(self, routed: Sequence[int], now: Picoseconds) -> None:
        """Requests whose expert is known now go to the groups that hold it, in order."""
        if len(self._lanes) == 1:
            self._lanes[0].group.receive(routed)
        else:
            self._exchange.hand_over(routed, now)


def _homes(layouts: Sequence[Layout]) -> dict[int, list[int]]:
    """By expert, the groups whose DDR it is in."""
    found: dict[int, list[int]] = {}
    for layout in layouts:
        for expert in layout.ddr:
            found.setdefault(expert, []).append(layout.group)
    return found
