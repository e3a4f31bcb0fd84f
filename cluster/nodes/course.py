"""How far a node's run has come: all that it takes to go on, here or elsewhere."""

from __future__ import annotations

import pickle
from dataclasses import dataclass

import numpy as np

from cluster.metrics.meter import Meter
from cluster.nodes.record import Plan, Record
from node.deployment import Deployment
from node.events import Ints
from node.native import pickled
from node.request import Requests
from node.simulation import Simulation


@dataclass
class Course:
    """A node that was ``given`` so many requests: its planning, and the ``record`` of its sockets, packed or not.

    ``first``: the requests of one whose planning is yet to begin.
    """

    given: int
    record: Record | bytes
    first: Requests | None = None
    simulation: Simulation | None = None
    meter: Meter | None = None

    @classmethod
    def beginning(cls, number: int, deployment: Deployment, requests: Requests, plan: Plan) -> Course:
        """Of node ``number`` of equal ones, whose first ``requests`` are there."""
        return cls(len(requests), Record.beginning(number, deployment, plan), requests)

    def planning(self, deployment: Deployment, metered: Ints | None) -> Simulation:
        """The simulation, which is made now where the node is new; ``metered``: see ``Plan``."""
        if self.simulation is None:
            assert self.first is not None
            self.simulation, self.first = deployment.planner(self.first), None
            self.meter = None if metered is None else Meter(deployment, self.simulation, metered)
        return self.simulation

    def recorded(self) -> Record:
        """The record of its sockets."""
        return Record.unpacked(self.record) if isinstance(self.record, bytes) else self.record

    def packed(self) -> bytes:
        """For a checkpoint: only the same code and packages can make anything of it."""
        return pickled(self)

    @classmethod
    def unpacked(cls, data: bytes) -> Course:
        """What was ``packed``; it runs what ``data`` says, so that must be the user's own."""
        found = pickle.loads(data)
        assert isinstance(found, cls)
        return found

    def feed(self, columns: Ints) -> None:
        """More requests, as ``numbered`` takes them."""
        requests = numbered(columns, self.given)
        assert self.simulation is not None
        self.simulation.feed(requests)
        self.given += len(requests)


def numbered(columns: Ints, first: int = 0) -> Requests:
    """A node's requests, numbered from ``first`` on; ``columns``: those of ``Requests`` but for the numbers."""
    return Requests(np.arange(first, first + columns.shape[1]), *columns)
