"""How a node is run, and what its sockets have come to: the half of a node's run that decides nothing."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cluster.metrics.comings import Comings
from cluster.residency import Residency
from cluster.timeline import Timeline
from node.deployment import Deployment
from node.events import Ints
from node.hardware.rdu import Rdu
from node.native import pickled
from node.units import Picoseconds


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


@dataclass
class Record:
    """What was observed of a node's sockets, and ``kinds``, their representatives by group.

    ``comings`` are counted in a run with metrics.

    As of when it was packed: ``sockets`` by number, as ``Rdu.snapshot`` has them (None: new), their ``counters``, and
    how many ``windows`` they did.
    """

    kinds: Sequence[Sequence[Rdu]]
    timeline: Timeline
    residency: Residency
    comings: Comings | None
    sockets: Mapping[int, Any] | None = None
    counters: dict[int, dict[str, int]] = field(default_factory=dict)
    windows: int = 0

    @classmethod
    def beginning(cls, number: int, deployment: Deployment, plan: Plan) -> Record:
        """Of node ``number`` of equal ones."""
        timeline, residency = Timeline(deployment, plan.events, number), Residency(deployment, plan.experts)
        comings = None if plan.metered is None else Comings(deployment)
        return cls(deployment.representatives(), timeline, residency, comings)

    def packed(self) -> bytes:
        """For a checkpoint, or another process; see ``Course.packed``."""
        return pickled(self)

    @classmethod
    def unpacked(cls, data: bytes) -> Record:
        """What was ``packed``."""
        found = pickle.loads(data)
        assert isinstance(found, cls)
        return found
