"""The shell around nodes: it takes their requests and how far to go, and sends back how far they are.

One shell holds several nodes, each with its sockets. It runs in a Ray actor or, for the local backend, in the process.
"""

from __future__ import annotations

from collections.abc import Mapping

from cluster.backends import LocalBackend
from cluster.cycles import no_search_for_cycles
from cluster.nodes.course import Course, numbered
from cluster.nodes.node import Node
from cluster.nodes.record import Plan
from cluster.wire import pack, unpack
from node.deployment import Deployment
from node.errors import InputError
from node.events import Ints
from node.units import Picoseconds


class NodeShell:
    """Nodes of ``deployments`` by number. ``start`` (``cluster.wire``): their ``plan``, what each is ``given`` so far.

    Where they go on from the ``courses`` of an earlier pause, that is what each was given since then. A node that was
    given more than it has come to is the same as one that was given it bit by bit: so a shell that was lost is made
    again from the last courses and all that its nodes were given since.
    """

    def __init__(self, deployments: Mapping[int, Deployment], start: bytes | None) -> None:
        assert start is not None
        told = unpack(start)
        plan, given, courses = Plan(**told["plan"]), told["given"], told.get("courses", {})
        self._nodes: dict[int, Node] = {}
        for number, deployment in deployments.items():
            if number in courses:
                course = Course.unpacked(courses[number])
                course.feed(given[number])
            else:
                course = Course.beginning(number, deployment, numbered(given[number]), plan)
            self._nodes[number] = Node(deployment, course, LocalBackend(), plan)

    @staticmethod
    def sockets(deployments: Mapping[int, Deployment]) -> int:
        """Those of one node: it takes one after another."""
        return next(iter(deployments.values())).machine.sockets

    def execute(self, message: bytes) -> bytes:
        """What each node is given more, ``feed``, and the time ``until`` which all are to come, or a ``makespan`` (ps).

        To the former the reply has of each node whether it is ``there`` yet, or was kept by a full window and must be
        told once more, how far it is, and its metrics if it has any. To the latter it has their outcomes, and metrics.
        To ``pause`` it has their ``courses``, to go on from elsewhere. ``wrong``: the user's mistake.
        """
        told = unpack(message)
        with no_search_for_cycles():
            try:
                if "pause" in told:
                    return pack({"courses": {number: node.pause() for number, node in self._nodes.items()}})
                return pack(self._end(told["makespan"]) if "makespan" in told else self._advance(**told))
            except InputError as error:  # Ray would wrap it up
                return pack({"wrong": str(error)})

    def _end(self, makespan: Picoseconds) -> dict[str, object]:
        for node in self._nodes.values():
            node.end()
        outcomes = {number: node.outcome(makespan).as_message() for number, node in self._nodes.items()}
        readings = {number: reading.as_message() for number, node in self._nodes.items() if (reading := node.reading())}
        return {"outcomes": outcomes, "readings": readings}

    def _advance(self, feed: Mapping[int, Ints], until: Picoseconds) -> dict[str, object]:
        for number, columns in feed.items():
            self._nodes[number].feed(columns)
        return {"nodes": {number: self._go_on(node, until) for number, node in self._nodes.items()}}

    @staticmethod
    def _go_on(node: Node, until: Picoseconds) -> dict[str, object]:
        there, reading = node.advance(until), node.reading()
        found = {"there": there, "outstanding": node.outstanding, **node.state._asdict()}
        return found if reading is None else {**found, "reading": reading.as_message()}
