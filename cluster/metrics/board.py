"""What is known of a run at the moment: the run writes it, whoever asks for metrics reads it, at any time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from cluster.metrics.reading import Reading
from node.events import Ints
from node.spec import Machine
from node.units import Picoseconds


class Held(NamedTuple):
    """What the experts need of a machine: so many ``nodes``; one holds ``in_hbm``, and ``below`` it."""

    machine: str
    nodes: int
    in_hbm: int
    below: int


@dataclass(frozen=True)
class Facts:
    """What does not change while the run goes on.

    ``experts`` have rows of their own; ``classes`` of requests, of which ``promised`` says whose have objectives.
    ``sockets_apart``: actors serve the metrics of their sockets themselves.
    """

    run: str
    machine: Machine
    backend: str
    version: str
    nodes: int
    requests: int
    refused: int
    experts: Ints
    catalogue: int
    classes: Sequence[str]
    promised: Sequence[bool]
    held: Sequence[Held]
    sockets_apart: bool


@dataclass
class Health:
    """Of the emulator itself: actors made anew, sockets that are ``down``, and ``refusals`` by socket.

    Sockets are numbered through nodes.
    """

    restarts: int = 0
    down: set[int] = field(default_factory=set)
    refusals: dict[int, int] = field(default_factory=dict)


@dataclass
class Board:
    """``facts``, the ``health`` of a run that goes on, and the last ``readings`` by node.

    ``wall_s`` and ``lag_s`` say how long it has been going on, and by how much it is late; ``passed`` to what virtual
    time it has waited, where it is held to a pace.
    """

    facts: Facts
    health: Health
    pace: float | None
    wall_s: Callable[[], float]
    lag_s: Callable[[], float]
    passed: Callable[[], Picoseconds]
    readings: dict[int, Reading] = field(default_factory=dict)
    running: bool = True
