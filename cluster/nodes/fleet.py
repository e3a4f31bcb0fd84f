"""Many equal nodes behind a front-end: which requests each has, how far each is, and what came of all of them.

Between two looks of the front-end nodes have nothing to do with each other, so workers, each with some of them, go on
side by side. Neither how many workers there are nor which has which node changes anything.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from cluster.backends import Backend, SocketLostError
from cluster.execution import MAX_RECOVERIES
from cluster.front_end import FrontEnd, looks
from cluster.metrics.reading import Reading
from cluster.nodes.doing import Plan
from cluster.nodes.live import Live
from cluster.nodes.node import Outcome, State
from cluster.nodes.shell import NodeShell
from cluster.wire import pack, unpack
from node.deployment import Deployment
from node.errors import InputError
from node.events import Ints
from node.lane import NEVER
from node.request import Requests
from node.units import Picoseconds


@dataclass(frozen=True)
class Fleet:
    """``count`` nodes of ``deployment``, on so many ``workers`` of ``backend``; ``live`` is told how far they are."""

    deployment: Deployment
    count: int
    backend: Backend
    workers: int
    plan: Plan
    live: Live

    def run(self, requests: Requests, front_end: FrontEnd, staleness: Picoseconds | None) -> tuple[Ints, list[Outcome]]:
        """The node of each request, and what came of each node. ``staleness``: None where nobody looks at nodes."""
        rows = np.array(requests.columns()[1:])
        spans = [(0, 0, len(requests))] if staleness is None else list(looks(requests.arrival, staleness))
        ends = [start for start, _, _ in spans[1:]] + [NEVER]
        chosen = np.empty(len(requests), dtype=np.int64)
        going = _Going(self)
        for (_, first, upto), until in zip(spans, ends, strict=True):
            of_span = chosen[first:upto]
            of_span[:] = front_end.send(requests.expert[first:upto].tolist())
            given = {node: rows[:, first:upto][:, of_span == node] for node in np.unique(of_span).tolist()}
            front_end.view.outstanding[:] = going.advance(given, until)
        return chosen, going.outcomes()


class _Going:
    """The workers of a fleet that runs."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet, self._backend = fleet, fleet.backend
        self._nodes = [range(worker, fleet.count, fleet.workers) for worker in range(fleet.workers)]
        self._none = np.array(Requests.of([]).columns()[1:])
        self._given: list[list[Ints]] = [[] for _ in range(fleet.count)]
        self._states = [dict.fromkeys(("there", "outstanding", *State._fields), 0) for _ in range(fleet.count)]
        self._started = False

    def advance(self, given: Mapping[int, Ints], until: Picoseconds) -> list[int]:
        """Give nodes their requests and let time pass up to ``until``: how many each has outstanding then."""
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
            replies = self._ask(messages)
            for worker, reply in replies.items():
                for node, state in reply["nodes"].items():
                    self._states[node] = state
                if all(state["there"] for state in reply["nodes"].values()):
                    del messages[worker]
                else:
                    messages[worker] = {"feed": {}, "until": until}
            live, together = self._fleet.live, self._together()
            live.pace.hold(together.now)
            for reply in replies.values():
                for node, state in reply["nodes"].items():
                    self._post(node, state.get("reading"))
            live.watch(together)
        return [state["outstanding"] for state in self._states]

    def outcomes(self) -> list[Outcome]:
        """What came of each node; all must have come to their end."""
        message = {"makespan": self._together().now}
        replies = self._ask(dict.fromkeys(range(len(self._nodes)), message))
        found = {node: one for reply in replies.values() for node, one in reply["outcomes"].items()}
        for reply in replies.values():
            for node, reading in reply["readings"].items():
                self._post(node, reading)
        return [Outcome.of_message(found[node]) for node in range(self._fleet.count)]

    def _post(self, node: int, reading: Mapping[str, Any] | None) -> None:
        if reading is not None:
            self._fleet.live.post(node, Reading.of_message(reading))

    def _together(self) -> State:
        return State(
            max(state["now"] for state in self._states),
            *(sum(state[what] for state in self._states) for what in State._fields[1:]),
        )

    def _start(self, worker: int) -> None:
        """Make a worker that knows all that its nodes were given so far."""
        given = {node: np.concatenate([self._none, *self._given[node]], axis=1) for node in self._nodes[worker]}
        deployments = dict.fromkeys(self._nodes[worker], self._fleet.deployment)
        self._backend.start(worker, deployments, pack({"plan": vars(self._fleet.plan), "given": given}), NodeShell)

    def _ask(self, messages: Mapping[int, dict[str, Any]]) -> dict[int, dict[str, Any]]:
        """The replies of workers, which are at it side by side."""
        for worker, message in messages.items():
            with contextlib.suppress(SocketLostError):  # found out when its reply is asked for
                self._backend.submit(worker, pack(message))
        return {worker: self._reply(worker, message) for worker, message in messages.items()}

    def _reply(self, worker: int, message: Mapping[str, Any]) -> dict[str, Any]:
        """The worker's reply; one that was lost is made again, and told once more."""
        health, per_node = self._fleet.live.health, self._fleet.deployment.machine.sockets
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
