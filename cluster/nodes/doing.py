"""What the sockets of a node do, and what is seen of it: the half of a node that decides nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from cluster.backends import Backend
from cluster.execution import Execution
from cluster.nodes.beside import Beside
from cluster.residency import Residency, Sums
from cluster.timeline import Collected, Timeline
from node import stream
from node.deployment import Deployment
from node.events import Ints
from node.hardware.rdu import Rdu
from node.planned import Planned
from node.units import Picoseconds

Observe = Callable[[dict[int, Planned]], None]


@dataclass(frozen=True)
class Plan:
    """How a node is run and observed.

    ``window`` (ps): the coordinator's; ``sockets_per_actor``: the execution's; ``experts``: those that are shown by
    themselves; ``events``: most of its timeline.
    """

    window: Picoseconds
    sockets_per_actor: int
    experts: Ints
    events: int


class Seen(NamedTuple):
    """``counters`` by socket, and what was observed."""

    counters: Mapping[int, Mapping[str, int]]
    residents: Sums
    timeline: Collected


class Doing:
    """The sockets of node ``number``, represented by ``kinds``; ``observe`` is given each window when done."""

    def __init__(
        self,
        number: int,
        deployment: Deployment,
        kinds: Sequence[Sequence[Rdu]],
        backend: Backend,
        plan: Plan,
        observe: Observe | None,
    ) -> None:
        self._timeline = Timeline(deployment, plan.events, number)
        self._residency = Residency(deployment, plan.experts)
        self._observe = observe
        self._execution = Execution(deployment, kinds, backend, plan.sockets_per_actor, self._observed)
        self._execution.start()

    def do(self, plans: Mapping[int, stream.Plan]) -> None:
        """Do a window, by group."""
        self._execution.do(plans)

    def finish(self) -> None:
        """See that all windows were done as planned."""
        self._execution.finish()

    def seen(self, makespan: Picoseconds) -> Seen:
        """What was seen, where all nodes together took ``makespan``."""
        return Seen(self._execution.counters, self._residency.sums(makespan), self._timeline.collected())

    def _observed(self, planned: dict[int, Planned]) -> None:
        self._timeline.observe(planned)
        self._residency.observe(planned)
        if self._observe is not None:
            self._observe(planned)


class DoingBeside:
    """``Doing`` as ``make`` makes it, in a process of its own, which does one window while the next is planned."""

    def __init__(self, make: Callable[[], Doing]) -> None:
        self._process = Beside(make)

    def do(self, plans: Mapping[int, stream.Plan]) -> None:
        """See ``Doing``; what goes wrong is raised later."""
        self._process.tell("do", plans)

    def finish(self) -> None:
        """See ``Doing``."""
        self._process.ask("finish")

    def seen(self, makespan: Picoseconds) -> Seen:
        """See ``Doing``."""
        found = self._process.ask("seen", makespan)
        assert isinstance(found, Seen)
        return found

    def close(self) -> None:
        """End the process."""
        self._process.end()
