"""Do the groups of a node work side by side, each for its experts, within its memory?

In the clockwork, copying an expert takes 10 ms, a call 2 ms, a pass over a model 1 ms; the router's run is 3 passes.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from node.errors import InputError, InvariantError
from node.events import Cut, Kind
from node.runtime.scheduler import paper
from node.runtime.sharding import Region
from node.units import MS

CALL_MS = {"switch": 10, "call_overhead": 2, "prefill": 1, "decode": 4}


# Two groups


def test_two_groups_of_four_sockets_work_at_the_same_time(clockwork, simulate, requests):
    outcome = simulate(clockwork(sockets=8, degree=4), requests((0, 5, 5, 0), (0, 5, 5, 1), (0, 5, 5, 2)))
    assert [row.group for row in sorted(outcome.rows, key=lambda row: row.request.id)] == [0, 1, 0]
    assert outcome.ms(0) == outcome.ms(1) == CALL_MS
    assert outcome.ms(2) == CALL_MS | {"queue": 17}
    assert outcome.simulation.now == 34 * MS


def test_newcomers_go_to_the_routers_in_turn_and_are_served_where_their_expert_lives(clockwork, simulate, requests):
    deployment = clockwork(sockets=8, degree=4, router=True)
    outcome = simulate(deployment, requests((0, 5, 5, 1), (0, 7, 5, 1), (40, 9, 5, 0), (40, 11, 5, 0)))
    assert [outcome.row(number).group for number in range(4)] == [1, 1, 0, 0]
    lengths = [[plan.command.tokens for plan in outcome.of_kind(Kind.PREFILL, group)] for group in (0, 1)]
    assert lengths == [[5, 9, 9, 11], [7, 5 + 7, 11]]
    for number in range(2):  # each routed alone; group 0 is done first, so group 1 knows of both when it decides
        assert outcome.ms(number) == CALL_MS | {"router": 3, "call_overhead": 2 + 4}
    assert outcome.ms(2) == CALL_MS | {"router": 3, "call_overhead": 2 + 2, "stall": 2 + 1}
    routed_by_group_1 = {"router": 3, "call_overhead": 2 + 2, "queue": 10 + 2 + 1, "prefill": 1, "decode": 4}
    assert outcome.ms(3) == routed_by_group_1


def test_a_request_routed_by_one_group_joins_the_running_batch_of_another(clockwork, simulate, requests):
    deployment = clockwork(sockets=2, router=True)
    outcome = simulate(deployment, requests((0, 5, 20, 0), (15.5, 5, 2, 0)))
    # the second is routed in group 1 until 20.5 ms; group 0, decoding since 18, cuts at 21
    assert outcome.ms(1) == {"router": 3, "queue": 0.5, "call_overhead": 4, "prefill": 1, "decode": 1}
    assert outcome.ms(0)["stall"] == 3
    assert [plan.command.symbol for plan in outcome.of_kind(Kind.PREFILL, 1)] == [3]


def test_without_a_router_newcomers_go_straight_to_their_experts_group(clockwork, simulate, requests):
    outcome = simulate(clockwork(sockets=8), requests(*[(0, 5, 5, expert) for expert in (2, 1, 0)]))
    assert [outcome.row(number).group for number in range(3)] == [2, 1, 0]
    assert all(outcome.ms(number) == CALL_MS for number in range(3))


def test_requests_of_one_expert_are_served_in_order_of_arrival_whichever_group_routed_them(
    clockwork, simulate, requests
):
    deployment = clockwork(sockets=2, router=True, batch=1)
    rows = [(0, 5, 30, 0), (1, 5, 1, 1), (25, 5, 1, 0), (26, 5, 1, 0)]  # 2 is for the busy group 0 to route, 3 not
    outcome = simulate(deployment, requests(*rows))
    assert outcome.row(2).end < outcome.row(3).end


# The host link


def test_one_host_link_copies_for_one_group_after_the_other(deploy, simulate, requests):
    deployment = deploy("dgx-a100", degree=4, call_overhead="none")
    outcome = simulate(deployment, requests((0, 128, 20, 0), (0, 128, 20, 1), (100, 128, 20, 2)))
    copy = deployment.activation_ps(0)
    assert copy == pytest.approx(6_738_415_616 * 2 / 32e9 * 1e12, rel=1e-3)  # whole expert over the whole link
    assert [outcome.row(number).charges["switch"] for number in range(2)] == [copy, 2 * copy]
    first, third = (plan for plan in outcome.of_kind(Kind.COPY, 0))
    (second,) = outcome.of_kind(Kind.COPY, 1)
    assert (first.command.issued, second.command.issued) == (0, copy)
    assert third.command.issued == max(2 * copy, outcome.row(0).end)
    assert outcome.counters[4]["dma_busy"] == copy


def test_a_link_per_socket_copies_for_all_groups_at_once(deploy, simulate, requests):
    numbers = {"host_link.sharing": "per_socket"}
    deployment = deploy("dgx-a100", degree=4, numbers=numbers, call_overhead="none")
    outcome = simulate(deployment, requests((0, 128, 20, 0), (0, 128, 20, 1)))
    copy = deployment.activation_ps(0)
    assert copy == pytest.approx(6_738_415_616 * 2 / 4 / 32e9 * 1e12, rel=1e-3)
    assert [outcome.row(number).charges["switch"] for number in range(2)] == [copy, copy]


# Windows


def test_time_passes_up_to_and_not_including_the_end_of_a_window(clockwork, requests):
    simulation = clockwork().simulation(requests((5, 5, 1, 0), (5, 5, 1, 0)), lambda served, now: None)
    assert (simulation.next_event(), simulation.over) == (5 * MS, False)
    for end, then in ((5 * MS, 0), (5 * MS + 1, 5 * MS), (15 * MS, 5 * MS), (15 * MS + 1, 15 * MS)):
        simulation.advance(end)
        assert simulation.now == then
    assert [plan.command.kind for plan in simulation.take(0)].count(Kind.COPY) == 1
    assert list(simulation.take(0)) == []
    simulation.advance(20 * MS + 1)  # the calls, the prefill
    assert (simulation.next_event(), simulation.over, simulation.completed) == (None, True, 2)


def test_a_decode_is_handed_out_only_when_it_can_be_cut_no_more(clockwork, requests):
    simulation = clockwork().simulation(requests((0, 5, 9, 0), (15.5, 5, 1, 0)), lambda served, now: None)
    simulation.advance(15 * MS)
    assert Kind.DECODE not in [plan.command.kind for plan in simulation.take(0)]
    simulation.advance(16 * MS)  # cut, but the step under way has not ended
    assert list(simulation.take(0)) == []
    simulation.advance(16 * MS + 1)
    decode, *_ = simulation.take(0)
    assert (decode.command.kind, decode.command.steps, decode.completions[0].time) == (Kind.DECODE, 3, 16 * MS)


# Defects of a workload, of a scheduler


def test_a_workload_without_requests_is_refused(clockwork, simulate):
    with pytest.raises(InputError, match="no request"):
        simulate(clockwork(), [])


def scheduled(deployment, scheduler):
    deployment.__dict__["settings"] = replace(deployment.settings, scheduler=scheduler)
    return deployment


def test_a_group_that_falls_idle_while_somebody_waits_is_a_defect_that_is_named(clockwork, simulate, requests):
    deployment = scheduled(clockwork(), lambda view: None if view.now else paper(view))
    with pytest.raises(InvariantError, match="group 0 is idle at 13,000,000,000 ps with requests waiting"):
        simulate(deployment, requests((0, 5, 1, 0), (0, 5, 1, 0)))


def test_a_group_that_stays_idle_while_somebody_waits_is_a_defect_that_is_named(clockwork, simulate, requests):
    deployment = scheduled(clockwork(), lambda view: None)
    with pytest.raises(InvariantError, match="group 0 is idle at 5,000,000,000 ps with requests waiting"):
        simulate(deployment, requests((5, 5, 5, 0)))


def test_no_kv_cache_for_anybody_while_nobody_runs_is_a_defect_that_is_named(clockwork, simulate, requests):
    deployment = clockwork(kv_tokens=10)
    layout = replace(deployment.layouts[0], kv=Region(0, 1))
    deployment.__dict__["layouts"] = (layout,)
    with pytest.raises(InvariantError, match="group 0: no KV cache for anybody, and nobody to wait for"):
        simulate(deployment, requests((0, 5, 5, 0)))


def test_a_cut_where_nothing_decodes_is_a_defect_that_is_named(clockwork, requests):
    simulation = clockwork().simulation(requests((0, 5, 5, 0)), lambda served, now: None)
    simulation.advance(1)
    with pytest.raises(InvariantError, match="group 0: a decode is cut at 0 ps, but none runs"):
        simulation._dispatch([Cut(0)])
