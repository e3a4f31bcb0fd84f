"""What flows through the node: one request of the workload."""

from __future__ import annotations

from dataclasses import dataclass

from node.units import Picoseconds


@dataclass(frozen=True, slots=True)
class Request:
    """A prompt that arrives at ``arrival`` (ps), ``input_tokens`` long, and is answered with ``output_tokens``.

    ``expert`` is the router's choice, drawn beforehand from the workload; the runtime may look at it only once
    the router has run.
    """

    id: int
    arrival: Picoseconds
    input_tokens: int
    output_tokens: int
    expert: int
