"""What the sockets of a node do, and what is seen of it: here, or in a process beside."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from cluster.backends import Backend
from cluster.execution import Execution
from cluster.metrics.board import Health
from cluster.nodes.beside import Beside
from cluster.nodes.record import Plan, Record
from cluster.residency import Sums
from cluster.timeline import Collected
from node import stream
from node.deployment import Deployment
from node.planned import Planned
from node.simulation import Mark
from node.units import Picoseconds

Observe = Callable[[dict[int, Planned], Mark], None]


class Seen(NamedTuple):
    """``counters`` by socket after so many ``windows``, and what was observed."""

    counters: Mapping[int, Mapping[str, int]]
    windows: int
    residents: Sums
    timeline: Collected


class Doing:
    """The sockets of a node, which go on from ``record``; ``observe`` is given each window when it was done."""

    def __init__(
        self,
        deployment: Deployment,
        backend: Backend,
        plan: Plan,
        record: Record,
        health: Health,
        observe: Observe = lambda _planned, _mark: None,
    ) -> None:
        self._record, self._observe = record, observe
        rest = plan.sockets_per_actor, self._observed, health, plan.exporter
        self.execution = Execution(deployment, record.kinds, backend, *rest)
        self.execution.counters = record.counters
        self.execution.windows = self.execution.checked = record.windows
        self.execution.start(record.sockets)

    def do(self, plans: Mapping[int, stream.Plan], mark: Mark) -> None:
        """Do a window; see ``Execution``."""
        self.execution.do(plans, mark)

    def finish(self) -> None:
        """See that all windows were done as planned."""
        self.execution.finish()

    def pause(self, plans: Mapping[int, stream.Plan], mark: Mark) -> bytes:
        """Do a window, and see that it was done: the record after it, packed."""
        self._record.sockets = self.execution.pause(plans, mark)
        self._record.windows = self.execution.checked
        return self._record.packed()

    def seen(self, makespan: Picoseconds) -> Seen:
        """What was seen, where all nodes together took ``makespan``."""
        done, record = self.execution, self._record
        return Seen(done.counters, done.checked, record.residency.sums(makespan), record.timeline.collected())

    def close(self) -> None:
        """It is not needed any more."""

    def _observed(self, planned: dict[int, Planned], mark: Mark) -> None:
        self._record.timeline.observe(planned)
        self._record.residency.observe(planned)
        self._observe(planned, mark)


class DoingBeside:
    """``Doing`` as ``make`` makes it, in a process of its own, which does one window while the next is planned.

    ``observe`` is told how far the node is when a window is planned; what is in it, it is not given.
    """

    def __init__(self, make: Callable[[], Doing], observe: Observe) -> None:
        self._process, self._observe = Beside(make), observe

    def do(self, plans: Mapping[int, stream.Plan], mark: Mark) -> None:
        """See ``Doing``; what goes wrong is raised later."""
        self._process.tell("do", plans, mark)
        self._observe({}, mark)

    def finish(self) -> None:
        """See ``Doing``."""
        self._process.ask("finish")

    def pause(self, plans: Mapping[int, stream.Plan], mark: Mark) -> bytes:
        """See ``Doing``."""
        found = self._process.ask("pause", plans, mark)
        assert isinstance(found, bytes)
        self._observe({}, mark)
        return found

    def seen(self, makespan: Picoseconds) -> Seen:
        """See ``Doing``."""
        found = self._process.ask("seen", makespan)
        assert isinstance(found, Seen)
        return found

    def close(self) -> None:
        """End the process."""
        self._process.end()
