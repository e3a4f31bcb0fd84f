"""One node's run: it is planned, done by its sockets, observed, and held to the laws of conservation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from cluster.backends import Backend
from cluster.coordinator import Coordinator
from cluster.nodes.doing import Doing, DoingBeside, Observe, Plan
from cluster.residency import Sums
from cluster.summary import Tally, tally_of
from cluster.timeline import Collected
from node.conservation import verify
from node.deployment import Deployment
from node.events import Ints
from node.lane import NEVER
from node.request import Requests
from node.runtime.admission import Reason, TurnedAway
from node.units import Picoseconds


@dataclass(frozen=True)
class Outcome:
    """What came of a node's run: numbers of those who were ``served``, and who was not; ``columns`` of the former.

    ``counters`` are by socket, ``tally`` by group.
    """

    served: Ints
    turned_away: list[TurnedAway]
    columns: Mapping[str, Ints]
    counters: Mapping[int, Mapping[str, int]]
    tally: Tally
    residents: Sums
    timeline: Collected

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


class Node:
    """Node ``number`` of equal ones, whose first ``requests`` are there; ``observe`` is given each window when done.

    ``beside``: what its sockets do is done in a process of its own, where nobody else observes it.
    """

    def __init__(
        self,
        number: int,
        deployment: Deployment,
        requests: Requests,
        backend: Backend,
        plan: Plan,
        observe: Observe | None = None,
        *,
        beside: bool = False,
    ) -> None:
        kinds = deployment.representatives()
        make = partial(Doing, number, deployment, kinds, backend, plan, observe)
        self._doing = DoingBeside(make) if beside else make()  # before there is much for it to have a copy of
        self.simulation = deployment.planner(requests, kinds=kinds)
        self._given = len(requests)
        self._deployment = deployment
        self._coordinator = Coordinator(self.simulation, plan.window, self._doing.do)

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
        groups = self.simulation.groups
        hits, misses = (sum(getattr(group, what) for group in groups) for what in ("hits", "misses"))
        return State(self.simulation.now, self._given - self.outstanding, hits, misses)

    @property
    def outstanding(self) -> int:
        """Requests that it has and that have neither ended nor been turned away."""
        turned_away = sum(len(group.admission.turned_away) for group in self.simulation.groups)
        return self._given - self.simulation.completed - turned_away

    def end(self) -> Picoseconds:
        """Let it come to its end: the time of that."""
        while not self.advance(NEVER):
            pass
        self._coordinator.finish()
        self._doing.finish()
        return self.simulation.now

    def close(self) -> None:
        """It is not needed any more, however it ended."""
        if isinstance(self._doing, DoingBeside):
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
        )
