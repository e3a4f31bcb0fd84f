"""What the sockets of a node do, and what is seen of it: the half of a node that decides nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from cluster.backends import Backend
from cluster.execution import Execution
from cluster.metrics.board import Health
from cluster.nodes.beside import Beside
from cluster.residency import Residency, Sums
from cluster.timeline import Collected, Timeline
from node import stream
from node.deployment import Deployment
from node.events import Ints
from node.planned import Planned
from node.simulation import Mark
from node.units import Picoseconds

Observe = Callable[[dict[int, Planned], Mark], None]


@dataclass(frozen=True)
class Plan:
    """How a node is run and observed.

    ``window`` (ps): the coordinator's; ``sockets_per_actor``: the execution's; ``experts``: those that are shown by
    themselves; ``events``: most of its timeline; ``metered``: the experts that have metrics of their own, None without
    metrics; ``exporter``: see ``Execution``. ``beside``: what its sockets do is done in a process of its own.
    """

    window: Picoseconds
    sockets_per_actor: int
    experts: Ints
    events: int
    metered: Ints | None = None
    exporter: tuple[str, str, int] | None = None
    beside: bool = False


class Seen(NamedTuple):
    """``counters`` by socket after so many ``windows``, and what was observed."""

    counters: Mapping[int, Mapping[str, int]]
    windows: int
    residents: Sums
    timeline: Collected


class Doing:
    """The sockets of node ``number``; ``observe`` is given each window when it was done."""

    def __init__(
        self,
        number: int,
        deployment: Deployment,
        backend: Backend,
        plan: Plan,
        health: Health,
        observe: Observe = lambda _planned, _mark: None,
    ) -> None:
        self._timeline = Timeline(deployment, plan.events, number)
        self._residency = Residency(deployment, plan.experts)
        self._observe = observe
        self.execution = Execution(
            deployment,
            deployment.representatives(),
            backend,
            plan.sockets_per_actor,
            self._observed,
            health,
            plan.exporter,
        )
        self.execution.start()

    def do(self, plans: Mapping[int, stream.Plan], mark: Mark) -> None:
        """Do a window; see ``Execution``."""
        self.execution.do(plans, mark)

    def finish(self) -> None:
        """See that all windows were done as planned."""
        self.execution.finish()

    def seen(self, makespan: Picoseconds) -> Seen:
        """What was seen, where all nodes together took ``makespan``."""
        done = self.execution
        return Seen(done.counters, done.checked, self._residency.sums(makespan), self._timeline.collected())

    def close(self) -> None:
        """It is not needed any more."""

    def _observed(self, planned: dict[int, Planned], mark: Mark) -> None:
        self._timeline.observe(planned)
        self._residency.observe(planned)
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

    def seen(self, makespan: Picoseconds) -> Seen:
        """See ``Doing``."""
        found = self._process.ask("seen", makespan)
        assert isinstance(found, Seen)
        return found

    def close(self) -> None:
        """End the process."""
        self._process.end()
