"""One node's run: it is planned, done by its sockets, observed, and held to the laws of conservation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from cluster.backends import Backend
from cluster.coordinator import Coordinator
from cluster.metrics.board import Health
from cluster.metrics.meter import Meter
from cluster.metrics.reading import Reading
from cluster.nodes.doing import Doing, DoingBeside, Plan
from cluster.residency import Sums
from cluster.summary import Tally, tally_of
from cluster.timeline import Collected
from node.conservation import verify
from node.deployment import Deployment
from node.events import Ints
from node.lane import NEVER
from node.planned import Planned
from node.request import Requests
from node.runtime.admission import Reason, TurnedAway
from node.simulation import Mark
from node.units import Picoseconds


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

    ``observe`` is given each window when it was done, and how far the node was then; see ``DoingBeside``.
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
        self._observe, self._meter = observe, None
        make = partial(Doing, number, deployment, backend, plan, health or Health())
        # a process beside has a copy of all that there is when it begins, so it begins first
        self._doing = DoingBeside(make, self._observed) if plan.beside else make(self._observed)
        self.simulation = deployment.planner(requests)
        self._given = len(requests)
        self._deployment = deployment
        if plan.metered is not None:
            self._meter = Meter(deployment, self.simulation, plan.metered)
        self._coordinator = Coordinator(self.simulation, plan.window, self._doing.do)

    def _observed(self, planned: dict[int, Planned], mark: Mark) -> None:
        if self._meter is not None:
            self._meter.observe(planned, mark)
        self._observe(planned, State.at(mark))

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
        assert isinstance(self._doing, Doing)
        return self._meter.reading(self._doing.execution.checked, self._doing.execution.counters)

    def end(self) -> Picoseconds:
        """Let it come to its end: the time of that."""
        while not self.advance(NEVER):
            pass
        self._coordinator.finish()
        self._doing.finish()
        return self.simulation.now

    def close(self) -> None:
        """It is not needed any more, however it ended."""
        self._doing.close()

    def outcome(self, makespan: Picoseconds) -> Outcome:
        """What came of it, where all nodes together took ``makespan``; it must have ended."""
        columns, seen = self.simulation.columns(), self._doing.seen(makespan)
        verify(self._deployment, self.simulation, seen.counters, columns)
        return Outcome(
            served=self.simulation.served(),
            turned_away=self.simulation.turned_away,
            columns=columns,
            counters=seen.counters,
            tally=tally_of(self._deployment, self.simulation),
            residents=seen.residents,
            timeline=seen.timeline,
            windows=seen.windows,
        )
