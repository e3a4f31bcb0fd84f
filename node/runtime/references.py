"""The reference string of a group, and how few misses it could have had."""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Collection, Sequence
from heapq import heappop, heappush

import numpy as np

from node.events import Ints
from node.request import Requests
from node.runtime.service import Order
from node.units import Bytes


class References:
    """Which experts a group was asked for, in order: a reference is a request that starts on its expert.

    So there are as many as hits and misses, which are counted by request. Kept as runs: those that start together.
    """

    def __init__(self) -> None:
        self._experts, self._requests = array("i"), array("i")

    def add(self, expert: int, requests: int) -> None:
        """``requests`` references to ``expert``."""
        self._experts.append(expert)
        self._requests.append(requests)

    def __len__(self) -> int:
        return sum(self._requests)

    def experts(self) -> Ints:
        """The expert of each run."""
        return np.array(self._experts, dtype=np.int64)

    def string(self) -> Ints:
        """The expert of each reference."""
        return np.repeat(self.experts(), np.array(self._requests, dtype=np.int64))


def keys_by_expert(requests: Requests, order: Order, experts: int) -> list[deque[int]]:
    """Of each of so many ``experts`` the keys of its requests, in order: the future, for those who may know it."""
    numbers = np.argsort(requests.expert, kind="stable")
    ends = np.cumsum(np.bincount(requests.expert, minlength=experts))
    return [deque(sorted(order.key[number] for number in part.tolist())) for part in np.split(numbers, ends[:-1])]


def fewest_misses(experts: Ints, sizes: Sequence[Bytes], room: Bytes, pinned: Collection[int] = ()) -> int:
    """Misses of Belady's MIN on a reference string, by copies on demand into an empty memory of ``room`` bytes.

    ``sizes``: bytes by expert. Where they are equal, this is the least that is possible without copies ahead of use
    (Belady, IBM Systems Journal 1966; Mattson et al. 1970). Where they differ, to evict the one that is used farthest
    ahead, until there is room, is not optimal: the figure is no bound then. Holes between experts are not counted.
    ``pinned`` experts are there beside ``room``, and are never missed.
    O(n log n), n: references, those to the same expert as the one before left out.
    """
    experts = experts[~np.isin(experts, list(pinned))]
    if not len(experts):
        return 0
    experts = experts[np.concatenate(([True], experts[1:] != experts[:-1]))]
    count = len(experts)
    next_use = count + experts  # never again: beyond all others, each its own
    order = np.argsort(experts, kind="stable")
    again = experts[order[1:]] == experts[order[:-1]]
    next_use[order[:-1][again]] = order[1:][again]
    # the bytes of whoever is used at a position, or never again
    bytes_at = np.array(sizes, dtype=np.int64)[np.concatenate((experts, np.arange(len(sizes))))].tolist()
    there = bytearray(count + len(sizes))  # by position: whether the expert used there is still in memory then
    farthest: list[int] = []  # a heap of positions, negative; those that have passed lie below all that have not
    misses, free = 0, room
    for position, following in enumerate(next_use.tolist()):
        if not there[position]:
            misses += 1
            free -= bytes_at[position]
            while free < 0:
                evicted = -heappop(farthest)
                there[evicted] = 0
                free += bytes_at[evicted]
        there[following] = 1
        heappush(farthest, -following)
    return misses
