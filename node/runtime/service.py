"""Classes of service: what each was promised, and who goes before whom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from node.request import Requests
from node.units import Picoseconds

_LONGEST: Picoseconds = 2**58  # of fairness, nine years: with all priorities still an int64


@dataclass(frozen=True, slots=True)
class Service:
    """A class of requests: ``ttft`` and ``e2e`` (ps) are what it was promised, None where it was not."""

    name: str = "all"
    priority: int = 0
    ttft: Picoseconds | None = None
    e2e: Picoseconds | None = None


class Order(NamedTuple):
    """Who is served first: a request's ``key`` is its place in that order, ``request`` is who has a key.

    ``since``: by key, since when (ps) it counts as waiting.
    """

    key: Sequence[int]
    request: Sequence[int]
    since: Sequence[Picoseconds]


def order_of(requests: Requests, services: Sequence[Service], fairness: Picoseconds) -> Order:
    """By arrival, where a step of priority counts as if a request had come ``fairness`` earlier.

    So nobody is overtaken by one who came later than the difference in priority times ``fairness``.
    """
    steps = np.array([service.priority for service in services])[requests.service]
    if not steps.any():
        numbers = range(len(requests))
        return Order(numbers, numbers, requests.arrival.tolist())
    since = requests.arrival - steps * min(fairness, _LONGEST)
    request = np.argsort(since, kind="stable")
    key = np.empty_like(request)
    key[request] = np.arange(len(request))
    return Order(key.tolist(), request.tolist(), since[request].tolist())
