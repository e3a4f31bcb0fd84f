"""Under a hot expert that always has work, how long does anybody wait?

In the clockwork of conftest (one group, batch B, longest answer L tokens) take a request that has waited the bound F of
``runtime.fairness``, and the n requests that came before it and were not begun by then. Everybody before it is overdue
from then on, too: so nobody joins but for the expert of the oldest, the oldest's expert is the next, and as those that
are not routed yet arrived later than those that are, each batch opened or joined takes one of the n at least. None is
opened before the last one has drained, the router runs once at most before each, and nothing idles. What is under way
then, and each of the n, costs at most C = copy + B calls + prefill = 10 + 2 B + 1 ms, as decode D = L - 1 steps =
L - 1 ms, and a run of the router R = a call and 3 passes = 5 ms (0 without one). Hence

    time in queue <= F + (1 + n) (C + D + R).
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.request import Request
from node.units import MS

HOT, COLD = 20, 6  # tokens of an answer


def within(outcome, fairness_ms: int, row) -> int:
    """The most that a request may wait, in ps."""
    overdue = row.request.arrival + fairness_ms * MS
    ahead = [r for r in outcome.rows if r.request.id < row.request.id and r.request.arrival + waited(r) > overdue]
    batch, routing = outcome.deployment.options.batch, 5 * (outcome.deployment.settings.router is not None)
    return (fairness_ms + (1 + len(ahead)) * (10 + 2 * batch + 1 + HOT - 1 + routing)) * MS


def waited(row) -> int:
    return row.charges["queue"]


def stream(every_ms: float, count: int, cold: Sequence[tuple[float, int]]) -> list[Request]:
    """A request for expert 0 every so often, and cold ones (ms, expert) in between."""
    hot = [(number * every_ms, HOT, 0) for number in range(count)]
    rows = sorted([*hot, *((at, COLD, expert) for at, expert in cold)])
    return [Request(number, round(at * MS), 5, tokens, expert) for number, (at, tokens, expert) in enumerate(rows)]


@settings(max_examples=60, deadline=None)
@given(
    batch=st.integers(1, 4),
    slots=st.integers(1, 2),
    every_ms=st.floats(4, 20),
    cold=st.lists(st.tuples(st.floats(0, 400), st.integers(1, 4)), min_size=1, max_size=6),
    fairness_ms=st.integers(0, 150),
    router=st.booleans(),
)
def test_nobody_waits_longer_than_the_bound_and_the_backlog_ahead_explain(
    clockwork, simulate, *, batch, slots, every_ms, cold, fairness_ms, router
):
    deployment = clockwork(experts=5, slots=slots, batch=batch, fairness=fairness_ms * MS, router=router)
    outcome = simulate(deployment, stream(every_ms, 50, cold))
    for row in outcome.rows:
        assert waited(row) <= within(outcome, fairness_ms, row), row


# The hot expert's batch never drains: a newcomer every 12 ms, 19 steps and a stall of 3 ms each
STARVING = stream(12, 80, [(30, 1), (200, 2)])


@pytest.mark.parametrize("fairness_ms", [40, 100, 300])
def test_the_bound_is_what_limits_the_wait_of_a_cold_expert(fairness_ms, clockwork, simulate):
    outcome = simulate(clockwork(batch=3, fairness=fairness_ms * MS), STARVING)
    cold = [row for row in outcome.rows if row.request.expert]
    assert len(cold) == 2
    for row in cold:
        assert fairness_ms * MS < waited(row) <= within(outcome, fairness_ms, row)


def test_without_a_bound_the_same_workload_starves_the_cold_experts(clockwork, simulate):
    outcome = simulate(clockwork(batch=3, fairness=10**9 * MS), STARVING)
    for row in outcome.rows:
        if row.request.expert:
            assert row.request.arrival + waited(row) > STARVING[-1].arrival
            assert waited(row) > within(outcome, 300, row)


def test_a_flood_of_newcomers_for_the_router_does_not_starve_who_is_overdue(clockwork, simulate):
    """A run of the router takes two newcomers, and five more come while it runs."""
    requests = [Request(number, number * MS, 5, 1, number % 3) for number in range(200)]
    outcome = simulate(clockwork(router=True, batch=2, fairness=20 * MS), requests)
    for row in outcome.rows:
        assert waited(row) <= within(outcome, 20, row)
    assert waited(outcome.row(0)) <= 25 * MS
