"""Reference strings replayed through the expert cache itself, for tests of eviction."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from node.runtime.expert_cache import ExpertCache
from node.runtime.policies import EVICTION
from node.runtime.sharding import ModelSize, Region


def cache_for(
    policy: str, sizes: Sequence[int], room: int, string: Sequence[int], waiting: Callable[[int], int] = lambda _: 0
) -> ExpertCache:
    """A cache whose future is ``string``, should its policy look at it."""
    future = [deque(n for n, one in enumerate(string) if one == expert) for expert in range(len(sizes))]
    models = [ModelSize(size, 1, None) for size in sizes]
    return ExpertCache(Region(1_000, room), models, EVICTION[policy], waiting, future)


def refer(cache: ExpertCache, expert: int, now: int, requests: int = 1) -> bool:
    """Requests for ``expert`` at ``now``, which is copied where it is not there; whether it was."""
    hit = cache.resident(expert)
    if not hit:
        cache.begin(expert, now)
        cache.arrived(expert, now)
    cache.use(expert, now, requests)
    return hit


def replay(policy: str, string: Sequence[int], sizes: Sequence[int], room: int) -> tuple[list[bool], list[set[int]]]:
    """Of each reference whether it is a hit, and who is in HBM after it."""
    cache = cache_for(policy, sizes, room, string)
    hits, there = [], []
    for now, expert in enumerate(string):
        hits.append(refer(cache, expert, now))
        there.append(set(cache.residents()))
    return hits, there
