"""Eviction: which resident expert makes room. A policy is a pure function of the candidates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from node.units import Picoseconds


@dataclass(slots=True)
class Resident:
    """An expert in HBM: where, when last used, how often used since it was activated."""

    expert: int
    address: int
    last_used: Picoseconds
    uses: int


Eviction = Callable[[Sequence[Resident]], Resident]


def lru(candidates: Sequence[Resident]) -> Resident:
    """The one not used for the longest time."""
    return min(candidates, key=lambda resident: (resident.last_used, resident.expert))


def lfu(candidates: Sequence[Resident]) -> Resident:
    """The one used least often since it came; of equals the one not used for the longest time."""
    return min(candidates, key=lambda resident: (resident.uses, resident.last_used, resident.expert))


EVICTION: dict[str, Eviction] = {"lru": lru, "lfu": lfu}
