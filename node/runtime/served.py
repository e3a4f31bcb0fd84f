"""A request on its way: where it is in its answer, and what its time went to."""

from __future__ import annotations

from node.errors import InvariantError
from node.request import Request
from node.units import Picoseconds

CHARGES = ("queue", "switch", "router", "call_overhead", "prefill", "decode", "stall")


class Served:
    """One request; every picosecond from its arrival on is charged to exactly one of ``CHARGES``."""

    __slots__ = ("_since", "charges", "generated", "group", "kv", "limit", "request", "ttft")

    def __init__(self, request: Request) -> None:
        self.request = request
        self._since = request.arrival
        self.charges: dict[str, Picoseconds] = dict.fromkeys(CHARGES, 0)
        self.ttft: Picoseconds = 0
        self.generated = 0
        self.kv = 0
        self.group = 0
        self.limit: int | None = None  # tokens after which the answer turned out to end

    def charge(self, what: str, now: Picoseconds) -> None:
        """The time since the last charge went to ``what``."""
        self.charges[what] += now - self._since
        self._since = now

    @property
    def context(self) -> int:
        """Tokens that the next decode step attends to, its own among them."""
        return self.request.input_tokens + self.generated

    @property
    def remaining(self) -> int:
        """Tokens still to be generated."""
        most = self.request.output_tokens if self.limit is None else self.limit
        return most - self.generated

    def e2e(self, now: Picoseconds) -> Picoseconds:
        """End-to-end time of a request that ends ``now``; its charges must add up to it."""
        total = now - self.request.arrival
        if sum(self.charges.values()) != total:
            raise InvariantError(f"request {self.request.id}: charges {self.charges} do not add up to {total} ps")
        return total
