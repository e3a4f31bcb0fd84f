"""One node's run: it is planned, done by its sockets, observed, and held to the laws of conservation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from cluster.backends import Backend
from cluster.coordinator import Coordinator
from cluster.metrics.board import Health
from cluster.metrics.meter import Meter
from cluster.metrics.reading import Reading
from cluster.residency import Residency, Sums
from cluster.summary import Tally, tally_of
from cluster.timeline import Collected, Timeline
from node.conservation import verify
from node.deployment import Deployment
from node.events import Ints
from node.lane import NEVER
from node.planned import Planned
from node.request import Requests
from node.runtime.admission import Reason, TurnedAway
from node.simulation import Mark
from node.units import Picoseconds

Observe = Callable[[dict[int, Planned]], None]


@dataclass(frozen=True)
class Plan:
    """How a node is run and observed.

    ``window`` (ps) and ``sockets_per_actor``: the coordinator's; ``experts``: those that are shown by themselves;
    ``events``: most of its timeline; ``metered``: the experts that have metrics of their own, None without metrics;
    ``exporter``: see ``Coordinator``.
    """

    window: Picoseconds
    sockets_per_actor: int
    experts: Ints
    events: int
    metered: Ints | None = None
    exporter: tuple[str, str, int] | None = None


@dataclass(frozen=True)
class Outcome:
    """What came of a node's run: numbers of those who were ``served``, and who was not; ``columns`` of the former.

    ``counters`` are by socket, ``tally`` by group; it was done in so many ``windows``.
    """

    served: Ints
    turned_away: list[TurnedAway]
    columns: Mapping[str, Ints]
    counters: Mapping[int, Mapping[str, int]]
    tally: Tally
    residents: Sums
    timeline: Collected
    windows: int

    def as_message(self) -> dict[str, Any]:
        """For the wire."""
        return vars(self)

    @classmethod
    def of_message(cls, message: Mapping[str, Any]) -> Outcome:
        """Back from the wire."""
        of_kind = {
            "turned_away": [TurnedAway(number, time, Reason(why)) for number, time, why in message["turned_away"]],
            "residents": Sums(*message["residents"]),
            "timeline": Collected(*message["timeline"]),
        }
        return cls(**{**message, **of_kind})


def numbered(columns: Ints, first: int = 0) -> Requests:
    """A node's requests, numbered from ``first`` on; ``columns``: those of ``Requests`` but for the numbers."""
    return Requests(np.arange(first, first + columns.shape[1]), *columns)


class State(NamedTuple):
    """How far a node is, or several together: time of the last event (ps), and requests.

    ``completed``: served or turned away.
    """

    now: Picoseconds
    completed: int
    hits: int
    misses: int

    @classmethod
    def at(cls, mark: Mark) -> State:
        """Of a node that came so far."""
        return cls(mark.now, mark.completed + sum(mark.turned_away), sum(mark.hits), sum(mark.misses))


class Node:
    """Node ``number`` of equal ones, whose first ``requests`` are there.

    ``observe`` is given each window when it was done, and how far the node was then.
    """

    def __init__(
        self,
        number: int,
        deployment: Deployment,
        requests: Requests,
        backend: Backend,
        plan: Plan,
        observe: Callable[[dict[int, Planned], State], None] = lambda _planned, _state: None,
        health: Health | None = None,
    ) -> None:
        self.simulation = deployment.planner(requests)
        self._given = len(requests)
        self._deployment = deployment
        self._timeline = Timeline(deployment, plan.events, number)
        self._residency = Residency(deployment, plan.experts)

        self._meter = None if plan.metered is None else Meter(deployment, self.simulation, plan.metered)

        def observed(planned: dict[int, Planned], mark: Mark) -> None:
            self._timeline.observe(planned)
            self._residency.observe(planned)
            if self._meter is not None:
                self._meter.observe(planned, mark)
            observe(planned, State.at(mark))

        self._coordinator = Coordinator(
            deployment,
            self.simulation,
            backend,
            plan.window,
            plan.sockets_per_actor,
            observed,
            health or Health(),
            plan.exporter,
        )
        self._coordinator.start()

    def feed(self, columns: Ints) -> None:
        """More requests, as ``numbered`` takes them."""
        requests = numbered(columns, self._given)
        self.simulation.feed(requests)
        self._given += len(requests)

    def advance(self, until: Picoseconds) -> bool:
        """Let time pass up to (not including) ``until``; False where a window was full before, and more is to come."""
        return self._coordinator.advance(until)

    @property
    def state(self) -> State:
        """How far it is."""
        return State.at(self.simulation.mark())

    @property
    def outstanding(self) -> int:
        """Requests that it has and that have neither ended nor been turned away."""
        turned_away = sum(len(group.admission.turned_away) for group in self.simulation.groups)
        return self._given - self.simulation.completed - turned_away

    def reading(self) -> Reading | None:
        """Its metrics after the last window that was checked; None without any."""
        if self._meter is None:
            return None
        return self._meter.reading(self._coordinator.checked, self._coordinator.counters)

    def end(self) -> Picoseconds:
        """Let it come to its end: the time of that."""
        while not self.advance(NEVER):
            pass
        self._coordinator.finish()
        return self.simulation.now

    def outcome(self, makespan: Picoseconds) -> Outcome:
        """What came of it, where all nodes together took ``makespan``; it must have ended."""
        columns, counters = self.simulation.columns(), self._coordinator.counters
        verify(self._deployment, self.simulation, counters, columns)
        return Outcome(
            served=self.simulation.served(),
            turned_away=self.simulation.turned_away,
            columns=columns,
            counters=counters,
            tally=tally_of(self._deployment, self.simulation),
            residents=self._residency.sums(makespan),
            timeline=self._timeline.collected(),
            windows=self._coordinator.checked,
        )
