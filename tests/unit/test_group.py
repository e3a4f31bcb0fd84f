"""What does each request wait for? Scenarios on one group, worked by hand.

The deployment is a clockwork: copying an expert takes 10 ms, a call 2 ms, a pass over a model 1 ms (a prefill, or a
decode step), whatever its batch and context; the router's run is 3 passes.
"""

from __future__ import annotations

import pytest

from node.events import Kind
from node.units import MS

SERVED_ALONE = {"switch": 10, "call_overhead": 2, "prefill": 1, "decode": 4}


# One request


@pytest.mark.parametrize("scheduler", ["paper", "affinity"])
def test_a_request_alone_waits_for_copy_call_prefill_and_a_step_per_further_token(
    scheduler, clockwork, simulate, requests
):
    outcome = simulate(clockwork(scheduler=scheduler), requests((7, 5, 5, 0)))
    assert outcome.ms(0) == SERVED_ALONE
    assert (outcome.row(0).ttft, outcome.row(0).e2e, outcome.row(0).end) == (13 * MS, 17 * MS, 24 * MS)
    assert outcome.kinds() == ["ALLOCATE", "ALLOCATE", "COPY", "PREFILL", "DECODE", "FREE"]


@pytest.mark.parametrize("scheduler", ["paper", "affinity"])
def test_an_answer_of_one_token_ends_with_its_prefill(scheduler, clockwork, simulate, requests):
    outcome = simulate(clockwork(scheduler=scheduler), requests((0, 5, 1, 0)))
    assert outcome.ms(0) == {"switch": 10, "call_overhead": 2, "prefill": 1}
    assert outcome.row(0).ttft == outcome.row(0).e2e
    assert "DECODE" not in outcome.kinds()


@pytest.mark.parametrize("scheduler", ["paper", "affinity"])
@pytest.mark.parametrize(("tokens", "router_ms"), [(3, 3), (1, 1)])
def test_the_router_costs_a_call_and_a_pass_per_token(scheduler, tokens, router_ms, clockwork, simulate, requests):
    deployment = clockwork(scheduler=scheduler, router=True, router_tokens=tokens)
    outcome = simulate(deployment, requests((0, 5, 5, 0)))
    assert outcome.ms(0) == SERVED_ALONE | {"router": router_ms, "call_overhead": 2 + 2}
    assert outcome.row(0).ttft == (router_ms + 2 + 13) * MS
    router = [plan.command for plan in outcome.planned[0] if plan.command.kind != Kind.LOAD][:4]
    prefill, *decode = [command for command in router if command.kind in (Kind.PREFILL, Kind.DECODE)]
    assert (prefill.symbol, prefill.address, prefill.tokens, prefill.pairs) == (3, 0, 5, 15)
    assert [(d.symbol, d.context, d.growth, d.steps) for d in decode] == [(3, 6, 1, 2)] * (tokens > 1)


def test_the_router_is_loaded_with_the_experts_before_time_zero(clockwork, simulate, requests):
    outcome = simulate(clockwork(router=True), requests((5, 5, 5, 0)))
    loads = [plan.command for plan in outcome.planned[0][:4]]
    weights = outcome.deployment.settings.sizes[0].weights
    assert [(c.kind, c.issued, c.tier, c.symbol, c.address) for c in loads] == [
        (Kind.LOAD, 0, 0, 0, 0),
        (Kind.LOAD, 0, 0, 1, weights),
        (Kind.LOAD, 0, 0, 2, 2 * weights),
        (Kind.LOAD, 0, 1, 3, 0),
    ]


# Calls: two requests for one expert at once, 3 tokens each; affinity serves them together, paper one by one


@pytest.mark.parametrize(
    ("options", "calls_ms", "ends_ms"),
    [
        ({"scheduler": "affinity", "call_overhead": "per_request"}, (4, 4), (17, 17)),
        ({"scheduler": "affinity", "call_overhead": "per_batch"}, (2, 2), (15, 15)),
        ({"scheduler": "affinity", "call_overhead": "none"}, (0, 0), (13, 13)),
        ({"scheduler": "paper", "call_overhead": "per_request"}, (2, 2), (15, 20)),
        ({"scheduler": "paper", "call_overhead": "per_batch"}, (2, 0), (15, 18)),
        ({"scheduler": "paper", "call_overhead": "none"}, (0, 0), (13, 16)),
    ],
)
@pytest.mark.parametrize("router", [False, True])
def test_calls_are_charged_by_request_by_batch_or_not_at_all(
    router, options, calls_ms, ends_ms, clockwork, simulate, requests
):
    outcome = simulate(clockwork(router=router, **options), requests((0, 5, 3, 0), (0, 5, 3, 0)))
    call_of_router = 2 if router and options["call_overhead"] != "none" else 0
    for number, (calls, end) in enumerate(zip(calls_ms, ends_ms, strict=True)):
        assert outcome.ms(number).get("call_overhead", 0) == calls + call_of_router
        assert outcome.row(number).end == (end + call_of_router + 3 * router) * MS


def test_paper_counts_a_batch_as_what_was_routed_together(clockwork, simulate, requests):
    deployment = clockwork(scheduler="paper", call_overhead="per_batch", router=True, batch=2)
    outcome = simulate(deployment, requests(*[(0, 5, 1, 0)] * 5))
    calls = [outcome.ms(number)["call_overhead"] for number in range(5)]
    assert calls == [2 + 2, 2, 2 + 2, 2, 2 + 2]
    assert [plan.command.sequences for plan in outcome.of_kind(Kind.PREFILL)] == [2, 1, 1, 2, 1, 1, 1, 1]


def test_without_a_router_paper_counts_a_batch_as_what_waits_up_to_the_batch_size(clockwork, simulate, requests):
    deployment = clockwork(scheduler="paper", call_overhead="per_batch", batch=2)
    outcome = simulate(deployment, requests(*[(0, 5, 1, 0)] * 5, (14, 5, 1, 0)))
    assert [outcome.ms(number).get("call_overhead", 0) for number in range(6)] == [2, 0, 2, 0, 2, 0]


def test_who_joins_a_running_batch_opens_one_of_its_own(clockwork, simulate, requests):
    deployment = clockwork(call_overhead="per_batch", batch=2)
    outcome = simulate(deployment, requests((0, 5, 9, 0), (14, 5, 2, 0)))
    assert [outcome.ms(number)["call_overhead"] for number in (0, 1)] == [2, 2]


# Batches


def test_requests_of_one_moment_are_routed_and_served_together(clockwork, simulate, requests):
    outcome = simulate(clockwork(router=True), requests((0, 5, 2, 0), (0, 7, 2, 0), (0, 9, 2, 0)))
    router, experts = (plan.command for plan in outcome.of_kind(Kind.PREFILL))
    assert (router.sequences, router.tokens, router.pairs) == (3, 21, 15 + 28 + 45)
    assert (experts.sequences, experts.tokens, experts.pairs) == (3, 21, 15 + 28 + 45)
    assert outcome.ms(2) == {"router": 3, "call_overhead": 2 + 6, "switch": 10, "prefill": 1, "decode": 1}
    assert (outcome.simulation.groups[0].hits, len(outcome.rows)) == (2, 3)


def test_a_batch_shrinks_as_answers_end_and_who_did_not_fit_it_joins(clockwork, simulate, requests):
    outcome = simulate(clockwork(batch=3), requests((0, 5, 2, 0), (0, 5, 4, 0), (0, 5, 6, 0), (0, 5, 2, 0)))
    decodes = [plan.command for plan in outcome.of_kind(Kind.DECODE)]
    assert [(d.sequences, d.steps, d.context, d.growth) for d in decodes] == [
        (3, 1, 6 + 6 + 6, 3),
        (3, 1, 7 + 7 + 6, 3),  # the fourth took the place of the first
        (2, 1, 8 + 8, 2),
        (1, 2, 9, 1),
    ]
    assert [plan.command.issued // MS for plan in outcome.of_kind(Kind.DECODE)] == [17, 21, 22, 23]
    assert outcome.ms(3) == {"queue": 18, "call_overhead": 2, "prefill": 1, "decode": 1}
    assert outcome.ms(2) == {"switch": 10, "call_overhead": 6, "prefill": 1, "decode": 5, "stall": 3}


def test_under_paper_pairs_go_one_after_another(clockwork, simulate, requests):
    outcome = simulate(clockwork(scheduler="paper"), requests(*[(0, 5, 5, expert) for expert in (1, 0, 1)]))
    assert outcome.ms(0) == SERVED_ALONE
    assert outcome.ms(1) == SERVED_ALONE | {"queue": 17}
    assert outcome.ms(2) == {"queue": 34, "call_overhead": 2, "prefill": 1, "decode": 4}


# Joining a running batch: the first request is prefilled at 13 ms, its steps end at 14, 15, 16, ...


@pytest.mark.parametrize(("arrival", "steps", "queue"), [(15.5, 3, 0.5), (15.0, 2, 0), (13.5, 1, 0.5)])
def test_a_join_waits_for_the_end_of_the_step_under_way_and_stalls_the_batch(
    arrival, steps, queue, clockwork, simulate, requests
):
    outcome = simulate(clockwork(batch=2), requests((0, 5, 10, 0), (arrival, 5, 4, 0)))
    assert outcome.ms(0) == {"switch": 10, "call_overhead": 2, "prefill": 1, "decode": 9, "stall": 3}
    joined = {"call_overhead": 2, "prefill": 1, "decode": 3}
    assert outcome.ms(1) == (joined | {"queue": queue} if queue else joined)
    decodes = [plan.command for plan in outcome.of_kind(Kind.DECODE)]
    assert [(d.sequences, d.steps) for d in decodes] == [(1, steps), (2, 3), (1, 9 - steps - 3)]
    assert [d.context for d in decodes] == [6, (6 + steps) + 6, 6 + steps + 3]


def test_who_arrives_as_the_prefill_ends_joins_before_the_first_step(clockwork, simulate, requests):
    outcome = simulate(clockwork(batch=2), requests((0, 5, 10, 0), (13, 5, 4, 0)))
    assert [plan.command.steps for plan in outcome.of_kind(Kind.DECODE)] == [3, 6]
    assert outcome.ms(1) == {"call_overhead": 2, "prefill": 1, "decode": 3}


@pytest.mark.parametrize(
    ("scheduler", "batch", "expert"), [("affinity", 2, 1), ("affinity", 1, 0), ("paper", 2, 0), ("paper", 2, 1)]
)
def test_a_decode_is_not_cut_for_who_cannot_join(scheduler, batch, expert, clockwork, simulate, requests):
    deployment = clockwork(scheduler=scheduler, batch=batch)
    outcome = simulate(deployment, requests((0, 5, 10, 0), (15.5, 5, 4, expert)))
    assert outcome.of_kind(Kind.DECODE)[0].command.steps == 9
    assert outcome.ms(1)["queue"] == 13 + 9 - 15.5


def test_a_second_arrival_in_the_same_step_joins_with_the_first(clockwork, simulate, requests):
    outcome = simulate(clockwork(), requests((0, 5, 10, 0), (15.25, 5, 4, 0), (15.5, 5, 4, 0)))
    assert outcome.ms(1) == {"queue": 0.75, "call_overhead": 4, "prefill": 1, "decode": 3}
    assert outcome.ms(2) == {"queue": 0.5, "call_overhead": 4, "prefill": 1, "decode": 3}
    assert [plan.command.steps for plan in outcome.of_kind(Kind.DECODE)] == [3, 3, 3]


def test_a_whole_batch_of_newcomers_has_the_router_interrupt_the_batch(clockwork, simulate, requests):
    deployment = clockwork(router=True, batch=2)
    outcome = simulate(deployment, requests((0, 5, 20, 0), (20.5, 5, 2, 0), (21.5, 5, 2, 1)))
    # 5 ms of router, then copy, call, prefill end at 18; the step under way at 21.5 ends at 22; router again to 27
    assert outcome.ms(0)["stall"] == 5 + 3
    assert outcome.ms(1) == {"queue": 1.5, "router": 3, "call_overhead": 4, "prefill": 1, "decode": 1}
    assert outcome.row(1).charges["stall"] == 0
    assert outcome.row(2).charges["queue"] == (22 - 21.5) * MS + outcome.row(0).end - 27 * MS


def test_who_is_interrupted_by_the_router_for_nobodys_good_stalls_for_its_run(clockwork, simulate, requests):
    deployment = clockwork(router=True, batch=2)
    outcome = simulate(deployment, requests((0, 5, 20, 0), (20.5, 5, 2, 1), (21.5, 5, 2, 1)))
    assert outcome.ms(0) == SERVED_ALONE | {"decode": 19, "router": 3, "call_overhead": 2 + 2, "stall": 5}


def test_the_router_runs_once_between_two_experts_that_are_overdue(clockwork, simulate, requests):
    """Both of the first are overdue once routed; who comes at 10 ms is routed between them, not before both."""
    rows = [(0, 5, 1, 0), (0, 6, 1, 1), (10, 7, 1, 2), (10, 8, 1, 2), (10, 9, 1, 2)]
    outcome = simulate(clockwork(router=True, batch=2, fairness=MS), requests(*rows))
    prefills = [plan.command for plan in outcome.of_kind(Kind.PREFILL)]
    assert [(c.symbol, c.tokens) for c in prefills] == [(3, 11), (0, 5), (3, 15), (1, 6), (3, 9), (2, 15), (2, 9)]
