"""The loop: event -> decide -> commands -> time passes -> event.

One representative of each kind of socket in a group is simulated (sockets whose shards are equal are equal); a
group's command is complete when its slowest member's is; in a decode run the members step together. Events at equal
times go in one order: arrivals first, in the order of the workload, then completions by group.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from node.errors import InputError, InvariantError
from node.events import Command, Cut, GroupDone, HostCall, Kind, Order, RequestsArrived
from node.hardware.costs import GroupDecode
from node.hardware.host import Host
from node.hardware.rdu import Rdu
from node.hardware.tiers import Completion
from node.request import Request
from node.runtime.coe import Runtime
from node.runtime.orders import Settings
from node.runtime.served import Served
from node.runtime.sharding import Layout
from node.units import MOST_PS, PS_PER_S, Picoseconds


@dataclass(slots=True)
class Planned:
    """A command as planned: what each kind of socket in the group should answer, and whether it may still change."""

    command: Command
    completions: list[Completion]
    final: bool = True


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
    ) -> None:
        self.runtime = Runtime(layouts, settings, self._finish)
        self.now: Picoseconds = 0
        self.completed = 0
        self.totals = Totals(idle_ps=[0] * len(kinds))
        self._kinds, self._host = kinds, host
        self._decodes = [GroupDecode([rdu.programs for rdu in of_group]) for of_group in kinds]
        self._requests, self._next_request = requests, 0
        self._heap: list[tuple[Picoseconds, int, int, int]] = []  # time, group, generation, steps
        self._generation = [0] * len(kinds)  # of each group; a completion of an older one is void
        self._planned: list[deque[Planned]] = [deque() for _ in kinds]
        self._decoding: list[Planned | None] = [None] * len(kinds)
        self._idle_since: list[Picoseconds | None] = [0] * len(kinds)
        self._report = finished
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
        planned = self._planned[group]
        while planned and planned[0].final:
            yield planned.popleft()

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
        time, group, generation, steps = heapq.heappop(self._heap)
        if generation != self._generation[group]:
            return
        self._pass_to(time)
        decoding = self._decoding[group]
        if decoding is not None:
            decoding.final = True
            self._decoding[group] = None
        self._dispatch(self.runtime.handle(GroupDone(group, steps), time))

    def _pass_to(self, time: Picoseconds) -> None:
        self.totals.request_ps += self.totals.in_system * (time - self.now)
        self.now = time

    def _dispatch(self, orders: list[Order]) -> None:
        for order in orders:
            match order:
                case Command():
                    self._execute(order)
                case HostCall(group=group, calls=calls):
                    self._schedule(self._host.call(calls, self.now), group)
                case Cut(group=group):
                    self._cut(group)
        self._watch_idle()

    def _execute(self, command: Command) -> None:
        group = command.group
        if command.kind == Kind.COPY:
            command = command._replace(issued=self._host.grant(self.now))
        planned = Planned(command, [rdu.execute(command) for rdu in self._kinds[group]])
        self._planned[group].append(planned)
        if command.kind not in (Kind.COPY, Kind.PREFILL, Kind.DECODE):
            return
        complete = max(completion.time for completion in planned.completions)
        if command.kind == Kind.COPY:
            self._host.release(complete)
        if command.kind == Kind.DECODE:
            planned.final = False
            self._decoding[group] = planned
            steps = self._decodes[group].cost(command).run_ps(command.context, command.growth, command.steps)
            complete = command.issued + steps
        self._schedule(complete, group, command.steps)

    def _cut(self, group: int) -> None:
        planned = self._decoding[group]
        if planned is None:
            raise InvariantError(f"group {group}: a decode is cut at {self.now:,} ps, but none runs")
        command, cost = planned.command, self._decodes[group].cost(planned.command)
        steps = cost.steps_until(self.now - command.issued, command.context, command.growth, command.steps)
        ends = [rdu.shorten(steps) for rdu in self._kinds[group]]
        planned.command = command._replace(steps=steps)
        planned.completions = [was._replace(time=end) for was, end in zip(planned.completions, ends, strict=True)]
        self._generation[group] += 1
        self._schedule(command.issued + cost.run_ps(command.context, command.growth, steps), group, steps)

    def _schedule(self, time: Picoseconds, group: int, steps: int = 0) -> None:
        if time > MOST_PS:
            raise InputError(
                f"virtual time passes {MOST_PS // PS_PER_S:,} s: the machine is too slow for this workload, "
                "or the workload too long"
            )
        heapq.heappush(self._heap, (time, group, self._generation[group], steps))

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
