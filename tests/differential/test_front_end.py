"""Does each request go where the policies, written once more and slowly, send it, with no more known than there is?

The oracle has nothing of the front-end's: for each request it looks through all before it, which were sent where and
when they ended, and the nodes' own times are held to runs of each alone in ``test_nodes``.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster.backends import LocalBackend
from cluster.front_end import POLICIES, FrontEnd, View
from cluster.nodes.fleet import Fleet
from cluster.nodes.live import Live
from cluster.nodes.node import Outcome
from cluster.nodes.record import Plan
from node.deployment import Deployment
from node.request import Request, Requests
from node.runtime.service import Service
from node.units import MOST_PS, MS
from tests.differential.test_queueing import INPUT, OUTPUT, service_ps

NOTHING = Plan(MOST_PS, 8, np.empty(0, dtype=np.int64), 0)
Clockwork = Callable[..., Deployment]


def serve(
    deployment: Deployment,
    requests: Sequence[Request],
    nodes: int,
    policy: str,
    staleness: int | None,
    bound: Fraction = Fraction(1),
    workers: int = 1,
) -> tuple[list[int], list[int]]:
    """Of each request its node, and when it ended."""
    columns = Requests.of(requests)
    fleet = Fleet(deployment, nodes, LocalBackend(), workers, NOTHING, Live())
    chosen, outcomes = fleet.run(columns, FrontEnd(POLICIES[policy], View([0] * nodes, bound)), staleness)
    return chosen.tolist(), ends(columns, chosen, outcomes)


def ends(requests: Requests, chosen: np.ndarray, outcomes: Sequence[Outcome]) -> list[int]:
    """Of each request, when it ended or was turned away."""
    found = requests.arrival.copy()
    for node, outcome in enumerate(outcomes):
        mine = np.flatnonzero(chosen == node)
        found[mine[outcome.served]] += outcome.columns["e2e"]
        for away in outcome.turned_away:
            found[mine[away.request]] = away.time
    return found.tolist()


def outstanding(request: int, arrival: Sequence[int], end: Sequence[int], node: Sequence[int], staleness: int) -> list:
    """Of each node those before ``request`` that were sent there and of whose end nobody knew at the last look."""
    look = arrival[request] // staleness * staleness
    unknown = [node[earlier] for earlier in range(request) if not end[earlier] < look]
    return [unknown.count(one) for one in range(max(node) + 1)]


def the_least_loaded(request: int, loads: list[int]) -> int:
    turn = [(request + step) % len(loads) for step in range(len(loads))]
    return next(one for one in turn if loads[one] == min(loads))


def by_affinity(expert: int, loads: list[int], bound: Fraction) -> int:
    most = math.ceil(bound * Fraction(sum(loads) + 1, len(loads)))
    scores = {hashlib.blake2b(b"%d %d" % (expert, node), digest_size=8).hexdigest(): node for node in range(len(loads))}
    for score in sorted(scores)[::-1]:
        if loads[scores[score]] + 1 <= most:
            return scores[score]
    raise AssertionError("nobody is within the bound")


@st.composite
def workloads(draw: st.DrawFn) -> list[Request]:
    """Many arrive at one moment, or end at the very moment of a look."""
    count, gap = draw(st.integers(1, 50)), draw(st.sampled_from([0, 1, 2, 7]))
    seed = np.random.default_rng(draw(st.integers(0, 2**20)))
    arrivals = np.cumsum(seed.integers(0, gap + 1, count)) * MS
    lengths, experts = seed.integers(1, 9, (2, count)), seed.integers(0, 6, count)
    return [Request(n, int(arrivals[n]), *lengths[:, n].tolist(), int(experts[n])) for n in range(count)]


@pytest.fixture(scope="module", params=[None, 12 * MS])
def machine(request: pytest.FixtureRequest, clockwork: Clockwork) -> Deployment:
    """Two groups; who waits longer than so long is turned away."""
    late = {"services": (Service(ttft=request.param),), "shed_late": request.param is not None}
    return clockwork(experts=6, slots=2, sockets=2, degree=1, **late)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    workload=workloads(),
    nodes=st.integers(2, 5),
    policy=st.sampled_from(["round_robin", "least_loaded", "expert_affinity"]),
    staleness=st.sampled_from([1, MS, 5 * MS, 40 * MS, 10**6 * MS]),
    bound=st.sampled_from([Fraction(1), Fraction(5, 4), Fraction(2), Fraction(100)]),
    workers=st.integers(1, 3),
)
def test_requests_go_where_the_oracle_sends_them(
    machine: Deployment, workload: list[Request], nodes: int, policy: str, staleness: int, bound: Fraction, workers: int
) -> None:
    span = None if policy == "round_robin" else staleness
    node, end = serve(machine, workload, nodes, policy, span, bound, min(workers, nodes))
    arrival = [request.arrival for request in workload]
    for number, request in enumerate(workload):
        loads = outstanding(number, arrival, end, [*node, nodes - 1], staleness)
        expected = {
            "round_robin": number % nodes,
            "least_loaded": the_least_loaded(number, loads),
            "expert_affinity": by_affinity(request.expert, loads, bound),
        }[policy]
        assert node[number] == expected, (number, loads)


def poisson(count: int, rate_of_one: float, nodes: int, service: int, seed: int) -> list[int]:
    gaps = np.random.default_rng(seed).exponential(service / (rate_of_one * nodes), count)
    return np.cumsum(gaps).astype(np.int64).tolist()


def one_expert(deploy: Callable[..., Deployment]) -> tuple[Deployment, int]:
    """A node that is a server with one time of service, in ps."""
    deployment = deploy(experts=(("llama-2-7b", 1),), batch=1, scheduler="paper", pinned=(0,))
    return deployment, service_ps(deployment)


@pytest.mark.parametrize(("nodes", "rho", "seed"), [(2, 0.9, 1), (4, 0.7, 2), (5, 0.95, 3)])
def test_in_turn_each_node_is_a_queue_with_erlang_arrivals(
    nodes: int, rho: float, seed: int, deploy: Callable[..., Deployment]
) -> None:
    """E_k/D/1 by Lindley's recursion, request by request to the picosecond: w' = max(0, w + D - gap)."""
    deployment, service = one_expert(deploy)
    arrivals = poisson(3_000, rho, nodes, service, seed)
    requests = [Request(n, at, INPUT, OUTPUT, 0) for n, at in enumerate(arrivals)]
    chosen, end = serve(deployment, requests, nodes, "round_robin", None)
    waits: dict[int, int] = {}
    for number, at in enumerate(arrivals):
        node = number % nodes
        gap = at - arrivals[number - nodes] if number >= nodes else 0
        waits[number] = max(0, waits[number - nodes] + service - gap) if number >= nodes else 0
        assert (chosen[number], end[number]) == (node, at + waits[number] + service)
    assert sum(waits.values()) > 0.05 * service * len(arrivals)


def uneven(deployment: Deployment, nodes: int, rho: float, seed: int) -> tuple[list[Request], list[int]]:
    """Requests of very different lengths, and of each its time of service, of which the mean gives ``rho``."""
    outputs = np.random.default_rng(seed).choice([2, 20, 1500], 2_000, p=[0.5, 0.3, 0.2]).tolist()
    whole, one = service_ps(deployment), deployment.programs(0)[0].decode(1)
    services = [whole + one.run_ps(INPUT + 1, 1, out - 1) - one.run_ps(INPUT + 1, 1, OUTPUT - 1) for out in outputs]
    arrivals = poisson(len(outputs), rho, nodes, sum(services) // len(services), seed + 1)
    return [Request(n, at, INPUT, out, 0) for n, (at, out) in enumerate(zip(arrivals, outputs, strict=True))], services


@pytest.mark.parametrize(("nodes", "rho", "seed"), [(2, 0.8, 1), (4, 0.7, 2)])
def test_with_no_staleness_the_least_loaded_is_the_shortest_queue(
    nodes: int, rho: float, seed: int, deploy: Callable[..., Deployment]
) -> None:
    """Join-the-shortest-queue, as a loop over departures."""
    deployment, _ = one_expert(deploy)
    requests, services = uneven(deployment, nodes, rho, seed)
    chosen, end = serve(deployment, requests, nodes, "least_loaded", 1)
    departures: list[list[int]] = [[] for _ in range(nodes)]
    for number, (request, service) in enumerate(zip(requests, services, strict=True)):
        queues = [sum(time >= request.arrival for time in one) for one in departures]
        node = the_least_loaded(number, queues)
        departures[node].append(max(request.arrival, departures[node][-1] if departures[node] else 0) + service)
        assert (chosen[number], end[number]) == (node, departures[node][-1])
    assert chosen != [number % nodes for number in range(len(requests))]


def test_what_is_known_late_is_worth_less(deploy: Callable[..., Deployment]) -> None:
    """Mean times grow with staleness, up to those of who sends in turn: who never looks sends to whom it sent least."""
    deployment, _ = one_expert(deploy)
    requests, services = uneven(deployment, 4, 0.8, 5)
    mean = sum(services) // len(services)
    means = []
    for staleness in (1, 4 * mean, 30 * mean, MOST_PS):
        _, end = serve(deployment, requests, 4, "least_loaded", staleness)
        means.append(sum(end))
    assert means == sorted(set(means))
    _, in_turn = serve(deployment, requests, 4, "round_robin", None)
    assert means[-1] == sum(in_turn)
