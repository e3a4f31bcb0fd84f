"""One node's run: it is planned, done by its sockets, observed, and held to the laws of conservation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from cluster.backends import Backend
from cluster.coordinator import Coordinator
from cluster.metrics.board import Health
from cluster.metrics.reading import Reading
from cluster.nodes.course import Course
from cluster.nodes.doing import Doing, DoingBeside, Sight
from cluster.nodes.record import Plan
from cluster.residency import Sums
from cluster.summary import Tally, tally_of
from cluster.timeline import Collected
from node.conservation import verify
from node.deployment import Deployment
from node.events import Ints
from node.planned import Planned
from node.runtime.admission import Reason, TurnedAway
from node.simulation import Mark
from node.units import NEVER, Picoseconds


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
    """A node of ``deployment`` that goes on from ``course``.

    ``observe`` is given each window when it was done, and how far the node was then; see ``DoingBeside``.
    """

    def __init__(
        self,
        deployment: Deployment,
        course: Course,
        backend: Backend,
        plan: Plan,
        observe: Callable[[dict[int, Planned], State], None] = lambda _planned, _state: None,
        health: Health | None = None,
    ) -> None:
        self._deployment, self._course, self._observe = deployment, course, observe
        make = partial(Doing, deployment, backend, plan, course.recorded(), health or Health())
        # a process beside has a copy of all that there is when it begins, so it begins first
        self._doing = DoingBeside(make, self._observed) if plan.beside else make(self._observed)
        self.simulation = course.planning(deployment, plan.metered)
        self._sight: Sight | None = None
        self._coordinator = Coordinator(self.simulation, plan.window, self._doing.do)

    def _observed(self, planned: dict[int, Planned], sight: Sight) -> None:
        self._sight = sight
        if self._course.meter is not None:
            self._course.meter.observe(sight.mark)
        self._observe(planned, State.at(sight.mark))

    def feed(self, columns: Ints) -> None:
        """More requests, as ``numbered`` takes them."""
        self._course.feed(columns)

    def pause(self) -> bytes:
        """Have done all that is planned: the course up to here, packed; from here the node can go on, too."""
        self._course.record = self._doing.pause(self.simulation.plans(), self.simulation.mark())
        return self._course.packed()

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
        return self._course.given - self.simulation.completed - turned_away

    def reading(self) -> Reading | None:
        """Its metrics after the last window that was checked; None without any."""
        if self._course.meter is None:
            return None
        if self._sight is None:  # it has yet to go on
            self._sight = self._doing.sight(self.simulation.mark())
        assert self._sight.came is not None
        return self._course.meter.reading(self._sight.windows, self._sight.counters, self._sight.came)

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
