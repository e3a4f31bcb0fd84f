"""Nodes in workers, each with some of them: what each was given, how far it is, what came of it.

Workers go on side by side. Neither how many there are nor which has which node changes anything.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cluster.backends import Backend, SocketLostError
from cluster.execution import MAX_RECOVERIES
from cluster.metrics.reading import Reading
from cluster.nodes.live import Live
from cluster.nodes.node import Outcome, State
from cluster.nodes.record import Plan
from cluster.nodes.shell import NodeShell
from cluster.wire import pack, unpack
from node.deployment import Deployment
from node.errors import InputError
from node.events import Ints
from node.request import Requests
from node.units import NEVER, Picoseconds

States = list[dict[str, Any]]  # of each node
_STATE = ("there", "outstanding", *State._fields)


@dataclass(frozen=True)
class Crew:
    """``count`` nodes of ``deployment``, on so many ``workers`` of ``backend``; ``live`` is told how far they are."""

    deployment: Deployment
    count: int
    backend: Backend
    workers: int
    plan: Plan
    live: Live


class Going:
    """The workers of a crew that is at work, from the beginning or from the ``states`` and ``courses`` of a pause."""

    def __init__(self, crew: Crew, states: States | None = None, courses: Sequence[bytes] = ()) -> None:
        self._crew, self._backend = crew, crew.backend
        self._nodes = [range(worker, crew.count, crew.workers) for worker in range(crew.workers)]
        self._none = np.array(Requests.of([]).columns()[1:])
        self._given: list[list[Ints]] = [[] for _ in range(crew.count)]  # since the courses
        self._courses, self._states = list(courses), states or [dict.fromkeys(_STATE, 0) for _ in range(crew.count)]
        if states is not None:
            crew.live.pace.begin(self._together().now)
        self._started = False

    @property
    def outstanding(self) -> list[int]:
        """How many requests each node has that have not ended."""
        return [state["outstanding"] for state in self._states]

    def advance(self, given: Mapping[int, Ints], until: Picoseconds) -> Iterator[bool]:
        """Give nodes their requests and let time pass up to ``until``, a window at a time: whether all are there."""
        for node, columns in given.items():
            self._given[node].append(columns)
            self._states[node]["outstanding"] += columns.shape[1]
        if not self._started:
            for worker in range(len(self._nodes)):
                self._start(worker)
            self._started, given = True, {}
        messages = {}
        for worker, nodes in enumerate(self._nodes):  # where nothing is to be done, nothing needs to be said
            if until == NEVER or any(self._states[node]["outstanding"] for node in nodes):
                feed = {node: given[node] for node in nodes if node in given}
                messages[worker] = {"feed": feed, "until": until}
        while messages:
            late = self._window(messages)
            messages = {worker: {"feed": {}, "until": until} for worker in late}
            if messages:
                yield False
        yield True

    def _window(self, messages: Mapping[int, dict[str, Any]]) -> list[int]:
        """Send ``messages``, and tell how far all are then: the workers with nodes that are to be told once more."""
        replies = {worker: reply["nodes"] for worker, reply in self._ask(messages).items()}
        for nodes in replies.values():
            for node, state in nodes.items():
                self._states[node] = state
        live, together = self._crew.live, self._together()
        live.pace.hold(together.now)
        for nodes in replies.values():
            for node, state in nodes.items():
                self._post(node, state.get("reading"))
        live.watch(together)
        return [worker for worker, nodes in replies.items() if not all(state["there"] for state in nodes.values())]

    def pause(self) -> tuple[States, list[bytes]]:
        """The states and the courses of all nodes, from which the crew can go on, this one too."""
        replies = self._ask({worker: {"pause": True} for worker in range(len(self._nodes))})
        found = {node: course for reply in replies.values() for node, course in reply["courses"].items()}
        self._courses = [found[node] for node in range(self._crew.count)]
        self._given = [[] for _ in self._given]
        return self._states, self._courses

    def outcomes(self) -> list[Outcome]:
        """What came of each node; all must have come to their end."""
        message = {"makespan": self._together().now}
        replies = self._ask(dict.fromkeys(range(len(self._nodes)), message))
        found = {node: one for reply in replies.values() for node, one in reply["outcomes"].items()}
        for reply in replies.values():
            for node, reading in reply["readings"].items():
                self._post(node, reading)
        return [Outcome.of_message(found[node]) for node in range(self._crew.count)]

    def _post(self, node: int, reading: Mapping[str, Any] | None) -> None:
        if reading is not None:
            self._crew.live.post(node, Reading.of_message(reading))

    def _together(self) -> State:
        return State(
            max(state["now"] for state in self._states),
            *(sum(state[what] for state in self._states) for what in State._fields[1:]),
        )

    def _start(self, worker: int) -> None:
        """Make a worker that knows all that its nodes were given so far."""
        nodes = self._nodes[worker]
        given = {node: np.concatenate([self._none, *self._given[node]], axis=1) for node in nodes}
        courses = {node: self._courses[node] for node in nodes if self._courses}
        deployments = dict.fromkeys(nodes, self._crew.deployment)
        told = {"plan": vars(self._crew.plan), "given": given, "courses": courses}
        self._backend.start(worker, deployments, pack(told), NodeShell)

    def _ask(self, messages: Mapping[int, dict[str, Any]]) -> dict[int, dict[str, Any]]:
        """The replies of workers, which are at it side by side."""
        for worker, message in messages.items():
            with contextlib.suppress(SocketLostError):  # found out when its reply is asked for
                self._backend.submit(worker, pack(message))
        return {worker: self._reply(worker, message) for worker, message in messages.items()}

    def _reply(self, worker: int, message: Mapping[str, Any]) -> dict[str, Any]:
        """The worker's reply; one that was lost is made again, and told once more."""
        health, per_node = self._crew.live.health, self._crew.deployment.machine.sockets
        sockets = [node * per_node + socket for node in self._nodes[worker] for socket in range(per_node)]
        for _ in range(MAX_RECOVERIES):
            with contextlib.suppress(SocketLostError):
                reply = self._collect(worker)
                health.down.difference_update(sockets)
                return reply
            health.down.update(sockets)
            health.restarts += 1
            with contextlib.suppress(SocketLostError):
                self._start(worker)
                self._backend.submit(worker, pack({**message, **({"feed": {}} if "feed" in message else {})}))
        return self._collect(worker)

    def _collect(self, worker: int) -> dict[str, Any]:
        reply = unpack(self._backend.collect(worker))
        if "wrong" in reply:
            raise InputError(reply["wrong"])
        return reply
