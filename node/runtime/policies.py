"""Eviction: which resident expert makes room. A policy is a pure function of the candidates and of its memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, TypeVar

from node.runtime.memories import Future, Known, Lists, Memory, Rates
from node.units import Picoseconds


@dataclass(slots=True)
class Resident:
    """An expert in HBM: where, when last used, how often used since it was activated, since when it is there."""

    expert: int
    address: int
    last_used: Picoseconds
    uses: int
    came: Picoseconds = 0


class Evictor(NamedTuple):
    """A policy at work in one group: ``choose`` looks at ``memory``, and changes nothing."""

    choose: Callable[[Sequence[Resident]], Resident]
    memory: Memory


Eviction = Callable[[Known], Evictor]


def lru(candidates: Sequence[Resident], _memory: Memory) -> Resident:
    """The one not used for the longest time."""
    longest = min([resident.last_used for resident in candidates])
    return min([one for one in candidates if one.last_used == longest], key=lambda one: one.expert)


def lfu(candidates: Sequence[Resident], _memory: Memory) -> Resident:
    """The one used least often since it came; of equals the one not used for the longest time."""
    return min(candidates, key=lambda resident: (resident.uses, resident.last_used, resident.expert))


def arc(candidates: Sequence[Resident], lists: Lists) -> Resident:
    """The Adaptive Replacement Cache (Megiddo and Modha, FAST 2003), procedure REPLACE, with bytes in place of pages.

    The least recently used of those used once lately, if these have more bytes than their target, and else of those
    used more often. The published algorithm is that for experts of one size. Where sizes differ, an expert that is
    missed soon after it left moves the target by its own bytes, and as many leave as it takes.
    """
    there = {resident.expert: resident for resident in candidates}
    held = sum(lists.once.values())
    once = held > lists.target or (lists.from_again and held == lists.target)
    order = (lists.once, lists.again) if once else (lists.again, lists.once)
    return next(there[expert] for experts in order for expert in experts if expert in there)


def cost_aware(candidates: Sequence[Resident], rates: Rates) -> Resident:
    """The one whose eviction costs least: bytes to reload x the chance that it is asked for again.

    Bytes stand for time, as all are copied at one rate. The chance comes from what a runtime may know, who waits now
    and who was asked for how often of late: see ``Rates.cost``. Of equals the one not used for the longest time.
    """
    return min(candidates, key=lambda resident: (rates.cost(resident.expert), resident.last_used, resident.expert))


def belady(candidates: Sequence[Resident], future: Future) -> Resident:
    """The yardstick, which no runtime can have: the one whose next request has the highest number (Belady's MIN, 1966).

    Where sizes are equal and requests are served in the order of their numbers (one group, ``paper``, no prefetch), no
    policy has fewer misses. Otherwise it is a heuristic: a scheduler that groups by expert serves in another order, and
    with unequal sizes to evict the farthest is not optimal, however exact the order (the optimum is NP-hard).
    """
    return max(candidates, key=lambda resident: (future.next(resident.expert), -resident.last_used, -resident.expert))


M = TypeVar("M", bound=Memory)


def _start(memory: Callable[[Known], M], policy: Callable[[Sequence[Resident], M], Resident], known: Known) -> Evictor:
    remembered = memory(known)
    return Evictor(partial(_choose, policy, remembered), remembered)


def _choose(policy: Callable[[Sequence[Resident], M], Resident], memory: M, candidates: Sequence[Resident]) -> Resident:
    return policy(candidates, memory)


EVICTION: dict[str, Eviction] = {  # partial, not a closure: a run is pickled for its checkpoint
    "lru": partial(_start, Memory, lru),
    "lfu": partial(_start, Memory, lfu),
    "arc": partial(_start, Lists, arc),
    "cost_aware": partial(_start, Rates, cost_aware),
    "belady": partial(_start, Future, belady),
}
