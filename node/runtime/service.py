"""Classes of service: what each was promised, and who goes before whom."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from node.request import Requests
from node.units import Picoseconds

_LONGEST: Picoseconds = 2**58  # of fairness, nine years: with all priorities still an int64
_MOST = 2**40  # requests


@dataclass(frozen=True, slots=True)
class Service:
    """A class of requests: ``ttft`` and ``e2e`` (ps) are what it was promised, None where it was not."""

    name: str = "all"
    priority: int = 0
    ttft: Picoseconds | None = None
    e2e: Picoseconds | None = None


class Numbers(Protocol):
    """Found by number, or by key."""

    def __getitem__(self, key: int, /) -> int: ...


class Order:
    """Who is served first: by arrival, where a step of priority counts as if a request had come ``fairness`` earlier.

    So nobody is overtaken by one who came later than the difference in priority times ``fairness``. ``key``: of a
    request by its number, what it is sorted by. By key: ``request``, whose it is; ``since`` when (ps) it counts as
    waiting.
    """

    key: Numbers
    request: Numbers
    since: Numbers

    def __init__(self, services: Sequence[Service], fairness: Picoseconds) -> None:
        self._steps = np.array([service.priority for service in services]) * min(fairness, _LONGEST)
        self._keys: list[int] = []
        self._requests: dict[int, int] = {}
        self._since: dict[int, Picoseconds] = {}
        self._arrivals = array("q")
        self.key, self.request, self.since = self._keys, self._requests, self._since
        self._by_number = not self._steps.any()
        if self._by_number:
            self.key, self.request, self.since = range(_MOST), range(_MOST), self._arrivals

    def expect(self, requests: Requests) -> None:
        """More requests, after all before."""
        if self._by_number:
            self._arrivals.frombytes(requests.arrival.tobytes())
            return
        since = (requests.arrival - self._steps[requests.service]).tolist()
        for number, waits in enumerate(since, len(self._keys)):
            key = waits * _MOST + number
            self._keys.append(key)
            self._requests[key], self._since[key] = number, waits

    def keys(self, requests: Sequence[int]) -> Sequence[int]:
        """``key`` of each."""
        return requests if self._by_number else [self._keys[request] for request in requests]

    def requests(self, keys: Iterable[int]) -> list[int]:
        """``request`` of each."""
        return list(keys) if self._by_number else [self._requests[key] for key in keys]


def order_of(requests: Requests, services: Sequence[Service], fairness: Picoseconds) -> Order:
    """The order of ``requests``."""
    order = Order(services, fairness)
    order.expect(requests)
    return order
