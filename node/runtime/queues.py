"""Who waits in a group: newcomers, those without an expert yet, and those with one; and who is turned away."""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from node.request import Requests
from node.runtime.admission import Admission
from node.runtime.arrivals import Arrivals
from node.runtime.service import Order
from node.runtime.settings import Settings, kv_bytes
from node.runtime.sharding import Layout
from node.runtime.shared_waiting import SharedWaiting
from node.runtime.waiting import Waiting, drop, put
from node.units import Bytes, Picoseconds


class Known(NamedTuple):
    """The columns of a workload, which grow; ``kv_bytes``: of each request's whole length, at its expert.

    ``deadline``: see ``Settings.deadlines``.
    """

    arrival: array[Picoseconds]
    input_tokens: list[int]
    output_tokens: list[int]
    expert: list[int]
    kv_bytes: list[Bytes]
    deadline: list[Picoseconds]
    order: Order

    @classmethod
    def nobody(cls, settings: Settings) -> Known:
        """Of a workload that is yet to come."""
        return cls(array("q"), [], [], [], [], [], Order(settings.services, settings.fairness))

    def expect(self, requests: Requests, settings: Settings) -> None:
        """More requests."""
        self.arrival.frombytes(requests.arrival.tobytes())
        self.input_tokens.extend(requests.input_tokens.tolist())
        self.output_tokens.extend(requests.output_tokens.tolist())
        self.expert.extend(requests.expert.tolist())
        self.kv_bytes.extend(kv_bytes(requests, settings.sizes).tolist())
        self.deadline.extend(settings.deadlines(requests))
        self.order.expect(requests)


class Queues:
    """Those who wait in a group, by the columns of the workload, which are ``known`` to all groups of a node."""

    def __init__(self, layout: Layout, settings: Settings, known: Known) -> None:
        self.layout, self.settings = layout, settings
        self.waiting = (SharedWaiting if layout.shared else Waiting)(settings.batch, layout.pinned)
        self.admission = Admission(known.arrival, settings.queue_limit, known.deadline)
        self._known = known
        self.arrivals = Arrivals()  # of those who reach the group by themselves
        self._unrouted = deque[int]()  # their keys, in order

    @property
    def unrouted(self) -> int:
        """How many newcomers have no expert yet."""
        return len(self._unrouted)

    @property
    def newcomer(self) -> int:
        """The key of the newcomer that is routed next."""
        return self._unrouted[0]

    def welcome(self, now: Picoseconds) -> None:
        """Newcomers up to ``now`` are there; where no router runs, they wait for their expert."""
        newcomers = self.arrivals.upto(now)
        if self.settings.router is None:
            self.receive(newcomers)
            return
        admitted = self._admit(newcomers)
        self.admission.expect(admitted)
        put(self._unrouted, self._known.order.keys(admitted))

    def _admit(self, newcomers: Sequence[int]) -> Sequence[int]:
        admitted = self.admission.admit(newcomers, len(self._unrouted) + self.waiting.count)
        for request in newcomers[len(admitted) :]:
            self._forget(request)
        return admitted

    def _forget(self, request: int) -> None:
        """It will not be served: for those who know the future."""
        if self.settings.future:
            future = self.settings.future[self._known.expert[request]]
            _ = drop(future, self._known.order.key[request]) or future.popleft()

    def receive(self, requests: Sequence[int]) -> None:
        """Requests whose expert lives here: newcomers, or from any group's router."""
        self.queue(self._admit(requests) if self.settings.router is None else requests)

    def queue(self, requests: Sequence[int]) -> None:
        """They wait for their expert, which lives here."""
        self.admission.expect(requests)
        known = self._known
        experts = [known.expert[request] for request in requests]
        self.waiting.extend(zip(experts, known.order.keys(requests), strict=True))

    def _turn_away(self, now: Picoseconds) -> None:
        """Those who are late wait no more."""
        for request in self.admission.overdue(now):
            key, expert = self._known.order.key[request], self._known.expert[request]
            if drop(self._unrouted, key) or self.waiting.remove(expert, key):
                self.admission.late(request, now)
                self._forget(request)

    def leave(self, expert: int) -> list[int]:
        """Those who wait for an expert, in order, who do so no more: it has moved."""
        keys = list(self.waiting.queues.get(expert, ()))
        if keys:
            self.waiting.take(expert, len(keys))
        return self._known.order.requests(keys)
