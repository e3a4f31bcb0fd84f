"""Are k groups that share the queue of one expert, with batches of one, the queue M/D/k that the textbooks know?

As in ``test_queueing``: the emulator is held to the recursion of Kiefer and Wolfowitz over the very same arrivals,
request by request and to the picosecond (who comes first is served by the server that is free first). The recursion,
carried on to a million requests of the same stream, is held to Crommelin's formula. Over 12 seeds the standard error of
the mean wait there was measured as 0.7 to 1.0 % (with 8 servers at 0.9 it would be 2 %).
"""

from __future__ import annotations

import math
from heapq import heapify, heapreplace

import numpy as np
import pytest

from node.request import Request
from node.runtime.homes import Sharding
from tests.differential.test_queueing import INPUT, OUTPUT, WARM_UP, service_ps

EMULATED, ALL = 4_000, 1_000_000


def crommelin(servers: int, rho: float) -> float:
    """Mean wait of M/D/k in service times D (Crommelin, Post Office Electrical Engineers J. 25 and 26, 1932 to 1934).

    W / D = sum over i >= 1 of P(N_i >= ik) - P(N_i >= ik + 1) / rho, where N_i is Poisson with mean i k rho.
    """
    total, i = 0.0, 0
    while True:
        i += 1
        mean, first = i * servers * rho, i * servers
        terms = [
            math.exp(-mean + j * math.log(mean) - math.lgamma(j + 1)) for j in range(first, first + 400 + first // 2)
        ]
        tail = math.fsum(terms)
        term = tail - (tail - terms[0]) / rho
        total += term
        if term < 1e-9:
            return total


def test_the_formula_is_pollaczeks_and_khinchines_for_one_server_and_that_of_a_chain_for_more():
    for rho in (0.3, 0.5, 0.8):
        assert crommelin(1, rho) == pytest.approx(rho / (2 * (1 - rho)), rel=1e-6)
    assert crommelin(2, 0.8) == pytest.approx(embedded(2, 0.8), rel=1e-6)
    assert crommelin(4, 0.5) == pytest.approx(embedded(4, 0.5), rel=1e-6)


def embedded(servers: int, rho: float) -> float:
    """The same from another side: requests in the system, one service time apart, are a Markov chain.

    n becomes max(n - k, 0) + Poisson(a); the mean queue by Little's law is a times the wait in service times.
    """
    offered, size = servers * rho, 200
    poisson = [math.exp(-offered + j * math.log(offered) - math.lgamma(j + 1)) for j in range(size)]
    chain = np.zeros((size, size))
    for before in range(size):
        left = max(before - servers, 0)
        chain[before, left:] = poisson[: size - left]
        chain[before, -1] += 1 - chain[before].sum()
    there = np.full(size, 1 / size)
    for _ in range(3_000):
        there = there @ chain
    return float((there * np.maximum(np.arange(size) - servers, 0)).sum() / offered)


def waits(arrivals: list[int], service: int, servers: int) -> list[int]:
    """Kiefer and Wolfowitz (1955): each starts when it has come and the first of the servers is free."""
    free, found = [0] * servers, []
    heapify(free)
    for at in arrivals:
        start = max(at, free[0])
        found.append(start - at)
        heapreplace(free, start + service)
    return found


@pytest.mark.parametrize("scheduler", ["paper", "affinity"])
@pytest.mark.parametrize(("servers", "rho", "seed"), [(2, 0.8, 1), (4, 0.5, 2), (4, 0.8, 3), (8, 0.8, 4)])
def test_waiting_times_are_those_of_m_d_k(scheduler, servers, rho, seed, deploy, simulate):
    deployment = deploy(
        "sn40l-node", (("llama-2-7b", 1),), degree=1, numbers={"sockets": servers}, batch=1, call_overhead="none",
        scheduler=scheduler, pinned=(0,), sharding=Sharding(home="all_groups"),
    )  # fmt: skip
    service = service_ps(deployment) - round(deployment.machine.host.call_overhead * 10**12)
    gaps = np.random.default_rng(seed).exponential(service / rho / servers, ALL)
    arrivals = np.cumsum(np.rint(gaps).astype(np.int64)).tolist()
    expected = waits(arrivals, service, servers)
    requests = [Request(number, at, INPUT, OUTPUT, 0) for number, at in enumerate(arrivals[:EMULATED])]
    outcome = simulate(deployment, requests)
    rows = sorted(outcome.rows, key=lambda row: row.request.id)
    assert [row.charges["queue"] for row in rows] == expected[:EMULATED]
    assert {row.e2e - row.charges["queue"] for row in rows} == {service}
    assert len({row.group for row in rows}) == servers
    assert np.mean(expected[WARM_UP:]) / service == pytest.approx(crommelin(servers, rho), rel=0.03)
