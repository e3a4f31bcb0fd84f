"""How far a node's run has come: all that it takes to go on, here or elsewhere."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cluster.metrics.meter import Meter
from cluster.residency import Residency
from cluster.timeline import Timeline
from node.deployment import Deployment
from node.events import Ints
from node.request import Requests
from node.simulation import Simulation
from node.units import Picoseconds


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


@dataclass
class Course:
    """A node that was ``given`` so many requests, and what was observed of it.

    As of when it was packed: ``sockets`` by number, as ``Rdu.snapshot`` has them (None: new), their ``counters``, and
    how many ``windows`` they did.
    """

    simulation: Simulation
    given: int
    timeline: Timeline
    residency: Residency
    meter: Meter | None
    sockets: Mapping[int, Any] | None = None
    counters: dict[int, dict[str, int]] = field(default_factory=dict)
    windows: int = 0

    @classmethod
    def beginning(cls, number: int, deployment: Deployment, requests: Requests, plan: Plan) -> Course:
        """Of node ``number`` of equal ones, whose first ``requests`` are there."""
        simulation = deployment.planner(requests)
        timeline, residency = Timeline(deployment, plan.events, number), Residency(deployment, plan.experts)
        meter = None if plan.metered is None else Meter(deployment, simulation, plan.metered)
        return cls(simulation, len(requests), timeline, residency, meter)

    def packed(self) -> bytes:
        """For a checkpoint: only the same code and packages can make anything of it."""
        return pickle.dumps(self, protocol=pickle.HIGHEST_PROTOCOL)

    @classmethod
    def unpacked(cls, data: bytes) -> Course:
        """What was ``packed``; it runs what ``data`` says, so that must be the user's own."""
        found = pickle.loads(data)
        assert isinstance(found, cls)
        return found

    def feed(self, columns: Ints) -> None:
        """More requests, as ``numbered`` takes them."""
        requests = numbered(columns, self.given)
        self.simulation.feed(requests)
        self.given += len(requests)


def numbered(columns: Ints, first: int = 0) -> Requests:
    """A node's requests, numbered from ``first`` on; ``columns``: those of ``Requests`` but for the numbers."""
    return Requests(np.arange(first, first + columns.shape[1]), *columns)
