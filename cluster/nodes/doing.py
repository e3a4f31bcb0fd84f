"""What the sockets of a node do, and what is seen of it: here, or in a process beside."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from cluster.backends import Backend
from cluster.execution import Execution
from cluster.metrics.board import Health
from cluster.metrics.comings import Came
from cluster.nodes.beside import Beside
from cluster.nodes.record import Plan, Record
from cluster.residency import Sums
from cluster.timeline import Collected
from node import plan as decided
from node.deployment import Deployment
from node.planned import Planned
from node.simulation import Mark
from node.units import Picoseconds


class Sight(NamedTuple):
    """After a window that was done as it was planned by ``mark``: ``counters`` by socket after so many ``windows``.

    ``came``: what came of their commands, in a run with metrics.
    """

    mark: Mark
    windows: int
    counters: Mapping[int, Mapping[str, int]]
    came: Came | None


Observe = Callable[[dict[int, Planned], Sight], None]


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
        observe: Observe = lambda _planned, _sight: None,
    ) -> None:
        self._record, self._observe = record, observe
        rest = plan.sockets_per_actor, self._observed, health, plan.exporter
        self.execution = Execution(deployment, record.kinds, backend, *rest)
        self.execution.counters = record.counters
        self.execution.windows = self.execution.checked = record.windows
        self.execution.start(record.sockets)

    def do(self, plans: Mapping[int, decided.Plan], mark: Mark) -> None:
        """Do a window; see ``Execution``."""
        self.execution.do(plans, mark)

    def finish(self) -> None:
        """See that all windows were done as planned."""
        self.execution.finish()

    def pause(self, plans: Mapping[int, decided.Plan], mark: Mark) -> bytes:
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

    def sight(self, mark: Mark) -> Sight:
        """What is to be seen after the window planned by ``mark``."""
        done, comings = self.execution, self._record.comings
        return Sight(mark, done.checked, dict(done.counters), None if comings is None else comings.so_far())

    def _observed(self, planned: dict[int, Planned], mark: Mark) -> None:
        self._record.timeline.observe(planned)
        self._record.residency.observe(planned)
        if self._record.comings is not None:
            self._record.comings.observe(planned.values())
        self._observe(planned, self.sight(mark))


class Paused(NamedTuple):
    """What was seen before a pause, and the packed record."""

    sights: list[Sight]
    record: bytes


class _There:
    """``Doing`` in another process: what is seen of it is told with the next answer."""

    def __init__(self, make: Callable[[Observe], Doing]) -> None:
        self._sights: list[Sight] = []
        self._doing = make(lambda _planned, sight: self._sights.append(sight))

    def do(self, plans: Mapping[int, decided.Plan], mark: Mark) -> list[Sight]:
        self._doing.do(plans, mark)
        return self._told()

    def finish(self) -> list[Sight]:
        self._doing.finish()
        return self._told()

    def pause(self, plans: Mapping[int, decided.Plan], mark: Mark) -> Paused:
        record = self._doing.pause(plans, mark)
        return Paused(self._told(), record)

    def sight(self, mark: Mark) -> Sight:
        return self._doing.sight(mark)

    def seen(self, makespan: Picoseconds) -> Seen:
        return self._doing.seen(makespan)

    def _told(self) -> list[Sight]:
        told, self._sights = self._sights, []
        return told


class DoingBeside:
    """``Doing`` as ``make`` makes it, in a process of its own, which does one window while the next is planned.

    ``observe`` is given what is seen of a window, though not what is in it.
    """

    def __init__(self, make: Callable[[Observe], Doing], observe: Observe) -> None:
        self._process, self._observe = Beside(lambda: _There(make)), observe

    def do(self, plans: Mapping[int, decided.Plan], mark: Mark) -> None:
        """See ``Doing``; what goes wrong is raised later."""
        self._heard(self._process.hear())
        self._process.tell("do", plans, mark)

    def finish(self) -> None:
        """See ``Doing``."""
        self._heard(self._process.hear())
        self._heard(self._process.ask("finish"))

    def pause(self, plans: Mapping[int, decided.Plan], mark: Mark) -> bytes:
        """See ``Doing``."""
        self._heard(self._process.hear())
        found = self._process.ask("pause", plans, mark)
        assert isinstance(found, Paused)
        self._heard(found.sights)
        return found.record

    def sight(self, mark: Mark) -> Sight:
        """See ``Doing``."""
        found = self._process.ask("sight", mark)
        assert isinstance(found, Sight)
        return found

    def seen(self, makespan: Picoseconds) -> Seen:
        """See ``Doing``."""
        found = self._process.ask("seen", makespan)
        assert isinstance(found, Seen)
        return found

    def close(self) -> None:
        """End the process."""
        self._process.end()

    def _heard(self, sights: object) -> None:
        assert sights is None or isinstance(sights, list)
        for sight in sights or ():
            self._observe({}, sight)
