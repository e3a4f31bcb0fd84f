"""What a node has come to, as numbers that can be read at any time and go on the wire."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from node.events import Ints
from node.units import Picoseconds

OF_EXPERTS = ("activations", "evictions", "hits", "misses", "resident")


@dataclass(frozen=True)
class Reading:
    """Counts since the beginning, after a window that was checked.

    ``now``: virtual time; ``windows`` done; ``sockets``: their own counters, by number within the node; ``arrived``,
    ``running`` and ``turned_away`` requests, those by class and ``Reason``; ``completed`` ones and those ``kept`` as
    promised, by class; ``tokens`` in and out; ``charges``: ps by charge; ``buckets``: by class, latency and bucket,
    ``sums``: ps by class and latency; ``experts``: a row for each of ``OF_EXPERTS``, a column for each expert that is
    shown by itself and one for all others; ``held``: copies of experts in HBM, and homes in DDR; ``activation_ps`` of
    all copies.
    """

    now: Picoseconds
    windows: int
    sockets: Mapping[int, Mapping[str, int]]
    arrived: int
    running: int
    completed: Sequence[int]
    kept: Sequence[int]
    turned_away: Ints
    tokens: Sequence[int]
    charges: Sequence[int]
    buckets: Ints
    sums: Sequence[Sequence[int]]
    experts: Ints
    held: Sequence[int]
    activation_ps: Picoseconds

    def as_message(self) -> dict[str, Any]:
        """For the wire, on which no integer may have more than 64 bits."""
        message = {field.name: getattr(self, field.name) for field in fields(self)}
        message["charges"] = [str(total) for total in self.charges]
        message["sums"] = [[str(total) for total in of_class] for of_class in self.sums]
        return message

    @classmethod
    def of_message(cls, message: Mapping[str, Any]) -> Reading:
        """Back from the wire."""
        charges = [int(total) for total in message["charges"]]
        sums = [[int(total) for total in of_class] for of_class in message["sums"]]
        return cls(**{**message, "charges": charges, "sums": sums})
