"""The loop: event -> decide -> commands -> time passes -> event.

What the sockets of a group do is in ``hardware/sockets``. Events at equal times go in one order: arrivals first, in the
order of the workload, then completions by group, of its copy before that of its run or call.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from node.errors import InputError, InvariantError
from node.events import Command, CopyDone, Cut, Event, GroupDone, HostCall, Kind, Order, RequestsArrived
from node.hardware.host import Host
from node.hardware.rdu import RUN_KINDS, Rdu
from node.hardware.sockets import Planned, Sockets
from node.request import Request
from node.runtime.coe import Runtime
from node.runtime.orders import Settings
from node.runtime.served import Served
from node.runtime.sharding import Layout
from node.units import MOST_PS, PS_PER_S, Picoseconds

_COPY, _REST = 0, 1  # of completions at one moment, what comes first


# In functional mode: does a command with content, for those whom the group serves; as it turned out to be
Perform = Callable[[Command, Sequence[Served]], Command]


def as_it_is(command: Command, _serving: Sequence[Served]) -> Command:
    """Timing only: a command is what it was planned to be."""
    return command


@dataclass
class Totals:
    """What is counted while time passes; ``request_ps`` is the integral of requests in the system over time."""

    request_ps: int = 0
    in_system: int = 0
    idle_ps: list[int] = field(default_factory=list)


class Simulation:
    """A node in virtual time: ``kinds[group]`` are the representatives of the group's kinds of socket."""

    def __init__(
        self,
        layouts: Sequence[Layout],
        settings: Settings,
        kinds: Sequence[Sequence[Rdu]],
        host: Host,
        requests: Sequence[Request],
        finished: Callable[[Served, Picoseconds], None],
        perform: Perform = as_it_is,
    ) -> None:
        self.runtime = Runtime(layouts, settings, self._finish)
        self.now: Picoseconds = 0
        self.completed = 0
        self.totals = Totals(idle_ps=[0] * len(kinds))
        self._host = host
        self._sockets = [Sockets(group, of_group) for group, of_group in enumerate(kinds)]
        self._requests, self._next_request = requests, 0
        # time, group, _COPY or _REST, generation, the expert copied or the steps of a decode
        self._heap: list[tuple[Picoseconds, int, int, int, int]] = []
        self._generation = [0] * len(kinds)  # of each group's runs; a completion of an older one is void
        self._idle_since: list[Picoseconds | None] = [0] * len(kinds)
        self._report, self._perform = finished, perform
        self._dispatch(self.runtime.deploy())

    @property
    def over(self) -> bool:
        """No event is left."""
        return not self._heap and self._next_request == len(self._requests)

    def advance(self, until: Picoseconds) -> None:
        """Let time pass up to (not including) ``until``."""
        requests, heap = self._requests, self._heap
        while True:
            arrival = requests[self._next_request].arrival if self._next_request < len(requests) else None
            completion = heap[0][0] if heap else None
            if arrival is not None and (completion is None or arrival <= completion):
                if arrival >= until:
                    return
                self._arrive(arrival)
            elif completion is not None:
                if completion >= until:
                    return
                self._complete()
            else:
                return

    def next_event(self) -> Picoseconds | None:
        """When something happens next."""
        times = [self._heap[0][0]] if self._heap else []
        if self._next_request < len(self._requests):
            times.append(self._requests[self._next_request].arrival)
        return min(times, default=None)

    def take(self, group: int) -> Iterator[Planned]:
        """The group's commands that will not change any more, in order, each once."""
        return self._sockets[group].take()

    def _arrive(self, time: Picoseconds) -> None:
        """All requests of one moment arrive together."""
        self._pass_to(time)
        first, requests = self._next_request, self._requests
        while self._next_request < len(requests) and requests[self._next_request].arrival == time:
            self._next_request += 1
        arrived = tuple(requests[first : self._next_request])
        self.totals.in_system += len(arrived)
        self._dispatch(self.runtime.handle(RequestsArrived(arrived), time))

    def _complete(self) -> None:
        time, group, what, generation, number = heapq.heappop(self._heap)
        if what == _REST and generation != self._generation[group]:
            return
        self._pass_to(time)
        event: Event = CopyDone(group, number)
        if what == _REST:
            self._sockets[group].complete()
            event = GroupDone(group, number)
        self._dispatch(self.runtime.handle(event, time))

    def _pass_to(self, time: Picoseconds) -> None:
        self.totals.request_ps += self.totals.in_system * (time - self.now)
        self.now = time

    def _dispatch(self, orders: list[Order]) -> None:
        for order in orders:
            match order:
                case Command():
                    self._execute(order)
                case HostCall(group=group, calls=calls):
                    self._schedule(self._host.call(calls, self.now), group, _REST)
                case Cut(group=group):
                    self._reschedule(group, *self._sockets[group].cut(self.now))
        self._watch_idle()

    def _execute(self, command: Command) -> None:
        group = command.group
        if command.kind == Kind.COPY:
            command = command._replace(issued=self._host.grant(self.now))
        command = self._perform(command, self.runtime.groups[group].serving)
        complete = self._sockets[group].execute(command)
        if command.kind == Kind.COPY:
            self._host.release(complete)
            self._schedule(complete, group, _COPY, command.symbol)
            moved = self._sockets[group].moved()
            if moved is not None:
                self._reschedule(group, *moved)
        elif command.kind in RUN_KINDS:
            self._schedule(complete, group, _REST, command.steps)

    def _reschedule(self, group: int, time: Picoseconds, steps: int) -> None:
        """The run under way ends at another time, or after other ``steps``: its completion so far is void."""
        self._generation[group] += 1
        self._schedule(time, group, _REST, steps)

    def _schedule(self, time: Picoseconds, group: int, what: int, number: int = 0) -> None:
        if time > MOST_PS:
            raise InputError(
                f"virtual time passes {MOST_PS // PS_PER_S:,} s: the machine is too slow for this workload, "
                "or the workload too long"
            )
        heapq.heappush(self._heap, (time, group, what, self._generation[group], number))

    def _finish(self, served: Served, now: Picoseconds) -> None:
        self.completed += 1
        self.totals.in_system -= 1
        self._report(served, now)

    def _watch_idle(self) -> None:
        for index, group in enumerate(self.runtime.groups):
            since = self._idle_since[index]
            if group.idle and (group.unrouted or group.waiting or group.running):
                raise InvariantError(f"group {index} is idle at {self.now:,} ps with requests waiting")
            if group.idle and since is None:
                self._idle_since[index] = self.now
            elif not group.idle and since is not None:
                self.totals.idle_ps[index] += self.now - since
                self._idle_since[index] = None
