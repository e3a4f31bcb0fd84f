"""Is a group with one resident expert and batch 1 the queue M/D/1 that the textbooks know?

Its mean wait is W = rho D / (2 (1 - rho)) for service time D and utilisation rho (Pollaczek and Khinchine). Waits of
neighbours are so alike that 2 % takes millions of requests: over seeds, the standard error of the mean of 100,000 waits
was measured as 0.9 % of W at rho = 0.5 and 2.2 % at 0.8. So the emulator is held to Lindley's recursion over the very
same arrivals, request by request and to the picosecond; and the recursion, carried on to 2 million requests of the same
stream, to the formula. Its standard error there was measured as 0.25 % and 0.52 %.
"""

from __future__ import annotations

from itertools import accumulate, pairwise

import numpy as np
import pytest

from node.dataflow.form import Step
from node.request import Request
from node.units import PS_PER_S

EMULATED, ALL, WARM_UP = 3_000, 2_000_000, 10_000
INPUT, OUTPUT, ROUTER_TOKENS = 128, 20, 20
CASES = pytest.mark.parametrize(("scheduler", "router"), [("paper", None), ("affinity", None), ("paper", "llama-2-7b")])


def server(deploy, scheduler: str, router: str | None):
    """One socket, one expert, batch 1."""
    options = {"scheduler": scheduler, "router": router, "router_tokens": ROUTER_TOKENS, "batch": 1}
    return deploy("sn40l-socket", (("llama-2-7b", 1),), degree=1, **options)


def service_ps(deployment) -> int:
    """D by hand: a call, a prefill and a decode run of the expert; the same of the router, where one runs."""
    (program,) = deployment.programs(0)
    call = round(deployment.machine.host.call_overhead * PS_PER_S)
    prefill, _ = program.prefill(Step(INPUT, INPUT * (INPUT + 1) // 2, INPUT, 1))
    expert = call + prefill + program.decode(1).run_ps(INPUT + 1, 1, OUTPUT - 1)
    router = call + prefill + program.decode(1).run_ps(INPUT + 1, 1, ROUTER_TOKENS - 1)
    return expert + (router if deployment.catalogue.router else 0)


def poisson(mean_gap_ps: float, seed: int):
    gaps = np.rint(np.random.default_rng(seed).exponential(mean_gap_ps, ALL)).astype(np.int64)
    return np.cumsum(gaps)


def lindley(arrivals, services):
    """Waits of a queue in order of arrival: start(n) = S(n) + max over k <= n of (arrival(k) - S(k)), S before n."""
    before = np.cumsum(services) - services
    return before + np.maximum.accumulate(arrivals - before) - arrivals


def serve(simulate, deployment, arrivals):
    requests = [Request(number, at, INPUT, OUTPUT, 0) for number, at in enumerate(arrivals)]
    outcome = simulate(deployment, requests)
    return sorted(outcome.rows, key=lambda row: row.request.id)


@CASES
@pytest.mark.parametrize(("rho", "seed"), [(0.5, 1), (0.8, 2)])
def test_waiting_times_are_those_of_m_d_1(scheduler, router, rho, seed, deploy, simulate):
    deployment = server(deploy, scheduler, router)
    service = service_ps(deployment)
    arrivals = poisson(service / rho, seed)
    services = np.full(ALL, service)
    services[0] += deployment.activation_ps(0)
    waits = lindley(arrivals, services)
    rows = serve(simulate, deployment, arrivals[:EMULATED].tolist())
    assert [row.charges["queue"] for row in rows] == waits[:EMULATED].tolist()
    assert [row.e2e for row in rows] == (waits + services)[:EMULATED].tolist()
    assert waits[WARM_UP:].mean() == pytest.approx(rho * service / (2 * (1 - rho)), rel=0.02)


@CASES
def test_saturated_throughput_is_one_over_the_service_time(scheduler, router, deploy, simulate):
    deployment = server(deploy, scheduler, router)
    rows = serve(simulate, deployment, [0] * 100)
    ends = [row.end for row in rows]
    service = service_ps(deployment)
    assert ends == [(number + 1) * service + deployment.activation_ps(0) for number in range(100)]


@pytest.mark.parametrize("rho", [0.5, 0.8, 1.5])
def test_littles_law_holds_for_requests_counted_as_they_come_and_go(rho, deploy, simulate):
    deployment = server(deploy, "paper", "llama-2-7b")
    arrivals = poisson(service_ps(deployment) / rho, seed=3)[:500].tolist()
    rows = serve(simulate, deployment, arrivals)
    events = sorted([*((at, 1) for at in arrivals), *((row.end, -1) for row in rows)])
    present = accumulate(change for _, change in events)
    area = sum(count * (after - now) for count, ((now, _), (after, _)) in zip(present, pairwise(events), strict=False))
    assert area == sum(sum(row.charges.values()) for row in rows)


def test_an_overloaded_server_answers_once_per_service_time_from_the_first_backlog_on(deploy, simulate):
    deployment = server(deploy, "paper", "llama-2-7b")
    service = service_ps(deployment)
    rows = serve(simulate, deployment, poisson(service / 1.5, seed=4)[:500].tolist())
    assert {then.end - first.end for first, then in pairwise(rows[50:])} == {service}
