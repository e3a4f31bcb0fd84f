"""A run while it goes on: who is told how far it is, how fast it may be, and when it is put aside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from cluster.metrics.board import Health
from cluster.metrics.reading import Reading
from cluster.nodes.node import State
from cluster.nodes.pauses import UNINTERRUPTED, Pauses
from cluster.pace import Pace
from node.events import Ints


def _nobody(*_told: object) -> None: ...


@dataclass
class Live:
    """``watch`` is told how far all nodes are; ``post`` is given the metrics of each, where ``metered`` is not None.

    ``metered``: the experts that have metrics of their own; ``exporter``: where actors serve those of their sockets, if
    they do: the name of the run, an address and a port.
    """

    watch: Callable[[State], None] = _nobody
    pace: Pace = field(default_factory=Pace)
    metered: Ints | None = None
    post: Callable[[int, Reading], None] = _nobody
    health: Health = field(default_factory=Health)
    exporter: tuple[str, str, int] | None = None
    pauses: Pauses = UNINTERRUPTED
