"""Is the LRU hit rate of independent references what Che's approximation says?

Expert i of popularity p(i) is a hit with probability 1 - exp(-p(i) T), where T, the time that an expert stays without
being used, solves sum over i of 1 - exp(-p(i) T) = C for C experts in HBM (Che, Tung and Wang, IEEE JSAC 2002; Fricker,
Robert and Roberts, ITC 2012 say why it is so close). One group, ``paper``, batch 1, no router: requests are served in
the order in which they come, so that the references are the draws.
"""

from __future__ import annotations

from math import exp

import numpy as np
import pytest

from node.request import Request
from node.units import MS

EXPERTS, REQUESTS, WARM_UP = 150, 16_000, 2_000


def shares(exponent: float) -> list[float]:
    weights = [rank**-exponent for rank in range(1, EXPERTS + 1)]
    return [weight / sum(weights) for weight in weights]


def che(popularity: list[float], slots: int) -> float:
    """Halving on T, which the left side of its equation grows with."""
    low, high = 0.0, 1e9
    for _ in range(200):
        middle = (low + high) / 2
        held = sum(1 - exp(-share * middle) for share in popularity)
        low, high = (middle, high) if held < slots else (low, middle)
    return sum(share * (1 - exp(-share * low)) for share in popularity)


def hit_rate(deployment, experts: list[int]) -> float:
    """Of those after the warm-up. A request takes 1 ms, and 10 more where its expert is copied; one comes every 8."""
    requests = [Request(number, number * 8 * MS, 5, 1, expert) for number, expert in enumerate(experts)]
    simulation = deployment.simulation(requests)
    group = simulation.groups[0]
    while len(group.cache.references) < WARM_UP:
        simulation.advance(simulation.next_event() + 100 * MS)
    hits, misses = group.hits, group.misses
    simulation.advance(2**62)
    assert len(group.cache.references) == REQUESTS
    assert group.cache.references.string().tolist() == experts  # first come, first served
    return (group.hits - hits) / (group.hits - hits + group.misses - misses)


@pytest.mark.parametrize("exponent", [0.6, 1.0, 1.4])
@pytest.mark.parametrize("slots", [4, 20, 60])
def test_the_hit_rate_of_lru_is_ches_within_two_points(slots, exponent, clockwork):
    drawn = np.random.default_rng(7).choice(EXPERTS, REQUESTS, p=shares(exponent)).tolist()
    options = {"scheduler": "paper", "batch": 1, "call_overhead": "none", "eviction": "lru"}
    found = hit_rate(clockwork(experts=EXPERTS, slots=slots, **options), drawn)
    assert found == pytest.approx(che(shares(exponent), slots), abs=0.02)
