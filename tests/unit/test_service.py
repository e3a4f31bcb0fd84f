"""Who goes first, who is turned away and why, and what was kept of what was promised."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cluster.backends import LocalBackend
from cluster.config_file import read_config
from cluster.not_served import NotServed
from cluster.runner import Run, prepare, run
from cluster.service_levels import attained
from node.errors import InputError
from node.request import Request, Requests
from node.runtime.admission import Admission, Reason, TurnedAway
from node.runtime.homes import Sharding
from node.runtime.service import Order, Service, order_of
from node.units import MS, PS_PER_S

LOW, HIGH = Service("low"), Service("high", priority=1)


def of_classes(requests: list[Request], *classes: int) -> list[Request]:
    return [replace(one, service=service) for one, service in zip(requests, classes, strict=True)]


# The order


def test_without_priorities_requests_are_served_as_they_come():
    requests = Requests.of([Request(n, at, 1, 1, 0, n % 2) for n, at in enumerate((0, 5, 5, 9))])
    order = order_of(requests, (LOW, replace(HIGH, priority=0)), 100)
    assert [(order.key[n], order.request[n], order.since[n]) for n in range(4)] == [
        (0, 0, 0),
        (1, 1, 5),
        (2, 2, 5),
        (3, 3, 9),
    ]


def test_a_step_of_priority_counts_as_having_waited_fairness_longer():
    arrivals, classes = (0, 60, 100, 101, 250), (0, 0, 1, 1, 2)
    requests = Requests.of([Request(n, at, 1, 1, 0, of) for n, (at, of) in enumerate(zip(arrivals, classes))])  # noqa: B905
    order = order_of(requests, (LOW, HIGH, Service("top", priority=2)), 100)
    keys = [order.key[number] for number in range(5)]
    assert [order.request[key] for key in keys] == [0, 1, 2, 3, 4]
    assert [order.request[key] for key in sorted(keys)] == [0, 2, 3, 4, 1]
    assert [order.since[key] for key in sorted(keys)] == [0, 0, 1, 50, 60]


def test_fairness_without_end_is_strict_priority():
    requests = Requests.of([Request(n, n * PS_PER_S, 1, 1, 0, n % 2) for n in range(6)])
    key = order_of(requests, (LOW, Service("high", priority=9)), 2**63).key
    assert sorted(range(6), key=key.__getitem__) == [1, 3, 5, 0, 2, 4]


@pytest.mark.parametrize("services", [(LOW, HIGH), (LOW, replace(HIGH, priority=0))])
def test_an_order_that_grows_is_that_of_all(services):
    requests = Requests.of([Request(n, 7 * n, 1, 1, 0, n // 3 % 2) for n in range(20)])
    whole, grown = order_of(requests, services, 30), Order(services, 30)
    for first, upto in ((0, 4), (4, 4), (4, 5), (5, 20)):
        grown.expect(requests[first:upto])
    for number in range(20):
        key = grown.key[number]
        assert key == whole.key[number] and grown.request[key] == number and grown.since[key] == whole.since[key]


def test_of_those_who_wait_for_an_expert_the_more_important_start_first(clockwork, simulate, requests):
    deployment = clockwork(batch=1, services=(LOW, HIGH), fairness=30 * MS)
    rows = of_classes(requests((0, 5, 8, 0), (1, 5, 8, 0), (2, 5, 8, 0), (3, 5, 8, 0)), 0, 0, 1, 0)
    outcome = simulate(deployment, rows)
    assert [row.request.id for row in outcome.rows] == [0, 2, 1, 3]


def test_nobody_is_overtaken_by_one_who_came_more_than_fairness_later(clockwork, simulate, requests):
    deployment = clockwork(batch=1, services=(LOW, HIGH), fairness=12 * MS)
    rows = of_classes(requests((0, 5, 8, 0), (1, 5, 8, 0), (12, 5, 8, 0), (14, 5, 8, 0)), 0, 0, 1, 1)
    assert [row.request.id for row in simulate(deployment, rows).rows] == [0, 2, 1, 3]


def test_an_important_request_ends_the_joining_of_another_experts_batch(clockwork, simulate, requests):
    """Two requests for expert 0 decode; one more of them and one for expert 1 come: who goes on?"""
    rows = requests((0, 5, 20, 0), (0, 5, 30, 0), (20, 5, 5, 1), (30, 5, 20, 0))
    first = {}
    for classes in ((0, 0, 0, 0), (0, 0, 1, 0)):
        deployment = clockwork(batch=4, services=(LOW, HIGH), fairness=1000 * MS)
        first[classes] = simulate(deployment, of_classes(rows, *classes)).rows
    assert [row.request.id for row in first[0, 0, 0, 0]] == [0, 1, 3, 2]
    assert [row.request.id for row in first[0, 0, 1, 0]] == [0, 1, 2, 3]


def test_the_router_takes_the_more_important_first(clockwork, simulate, requests):
    deployment = clockwork(router=True, batch=1, services=(LOW, HIGH), scheduler="paper", fairness=100 * MS)
    rows = of_classes(requests((0, 5, 5, 0), (1, 5, 5, 0), (2, 5, 5, 0)), 0, 0, 1)
    assert [row.request.id for row in simulate(deployment, rows).rows] == [0, 2, 1]


# Who is turned away


def test_who_comes_when_the_queue_is_full_is_turned_away_on_arrival():
    admission = Admission([0, 3, 5, 9], 3, [])
    assert admission.admit([0], 1) == [0] and admission.admit([1, 2, 3], 2) == [1]
    assert admission.turned_away == [TurnedAway(2, 5, Reason.QUEUE_FULL), TurnedAway(3, 9, Reason.QUEUE_FULL)]
    assert admission.admit([3], 5) == []
    unlimited = Admission([0], None, [])
    assert unlimited.admit([0], 10**6) == [0] and unlimited.turned_away == []


def test_who_is_overdue_is_named_once_in_the_order_of_deadlines():
    admission = Admission([0, 0, 0], None, [30, 10, 20])
    admission.expect([0, 1, 2])
    assert list(admission.overdue(10)) == [] and list(admission.overdue(21)) == [1, 2]
    assert list(admission.overdue(99)) == [0] and list(admission.overdue(99)) == []


def test_a_queue_has_a_limit(clockwork, simulate, requests):
    """One runs from 0 to 20 (copied, called, 8 tokens); two wait; the fourth finds two, the fifth comes later."""
    rows = requests((0, 5, 8, 0), (1, 5, 8, 0), (2, 5, 8, 0), (3, 5, 8, 0), (25, 5, 8, 0))
    outcome = simulate(clockwork(batch=1, queue_limit=2), rows)
    assert [row.request.id for row in outcome.rows] == [0, 1, 2, 4]
    assert outcome.simulation.turned_away == [(3, 3 * MS, Reason.QUEUE_FULL)]
    assert outcome.simulation.served().tolist() == [0, 1, 2, 4]


@pytest.mark.parametrize("router", [True, False])
def test_who_cannot_have_a_first_token_in_time_is_turned_away_when_something_is_decided(
    clockwork, simulate, requests, router
):
    deployment = clockwork(batch=1, router=router, services=(Service(ttft=25 * MS),), shed_late=True)
    rows = requests((0, 5, 30, 0), (1, 5, 4, 0), (30, 5, 4, 0))
    outcome = simulate(deployment, rows)
    assert [row.request.id for row in outcome.rows] == [0, 2]
    (gone,) = outcome.simulation.turned_away
    assert gone == (1, 30 * MS, Reason.LATE)


def test_a_request_on_time_to_the_picosecond_is_served(clockwork, simulate, requests):
    """The first is served until 20 ms, and nothing is decided before that."""
    for ttft, served in ((19 * MS, [0, 1]), (19 * MS - 1, [0])):
        deployment = clockwork(batch=1, services=(Service(ttft=ttft),), shed_late=True)
        outcome = simulate(deployment, requests((0, 5, 8, 0), (1, 5, 4, 0)))
        assert [row.request.id for row in outcome.rows] == served


def test_a_class_without_a_promise_waits(clockwork, simulate, requests):
    deployment = clockwork(batch=1, services=(Service("a", ttft=5 * MS), Service("b", e2e=1)), shed_late=True)
    rows = of_classes(requests((0, 5, 20, 0), (1, 5, 4, 0), (2, 5, 4, 0)), 1, 1, 0)
    assert [row.request.id for row in simulate(deployment, rows).rows] == [0, 1]


def test_groups_that_share_a_queue_share_who_is_late(clockwork, simulate, requests):
    """Both are busy until 62; the last is overdue at 30, and gone when the first of them looks up."""
    deployment = clockwork(
        sockets=2,
        batch=1,
        sharding=Sharding(home="all_groups"),
        services=(Service(ttft=25 * MS),),
        shed_late=True,
        prefetch=False,
    )
    rows = requests((0, 5, 50, 0), (0, 5, 50, 0), (5, 5, 4, 0), (80, 5, 4, 0))
    outcome = simulate(deployment, rows)
    assert [row.request.id for row in outcome.rows] == [0, 1, 3]
    assert [group.waiting.count for group in outcome.simulation.groups] == [0, 0]
    assert [one.request for one in outcome.simulation.turned_away] == [2]


def test_who_knows_the_future_knows_who_was_turned_away(clockwork, simulate, requests):
    deployment = clockwork(batch=1, eviction="belady", services=(Service(ttft=15 * MS),), shed_late=True)
    outcome = simulate(deployment, requests((0, 5, 20, 0), (1, 5, 4, 1), (2, 5, 4, 1), (40, 5, 4, 1)))
    assert [row.request.id for row in outcome.rows] == [0, 3]
    assert [len(left) for left in outcome.simulation.groups[0].settings.future] == [0, 0, 0]


# What was kept


def test_who_attains_is_within_both_promises_or_has_none():
    services = (Service("a", ttft=10, e2e=20), Service("b"), Service("c", e2e=20))
    columns = {"ttft": np.array([10, 11, 9, 99, 99]), "e2e": np.array([20, 15, 21, 99, 20])}
    assert attained(services, np.array([0, 0, 0, 1, 2]), columns).tolist() == [True, False, False, True, True]


SMALL = {
    "cluster.backend": "local",
    "workload.requests": 300,
    "workload.rate": 2.0,
    "workload.input_tokens": "uniform(low=10, high=4090)",
    "workload.output_tokens": 40,
    "workload.over_context": "refuse",
    "experts.count": 60,
    "slo.e2e": "20 s",
    "slo.classes": [
        {"name": "chat", "share": 2.0, "priority": 1, "ttft": "3 s"},
        {"name": "batch"},
    ],
}


def serve(**settings: object) -> Run:
    config = read_config(None, {**SMALL, **{key.replace("__", "."): value for key, value in settings.items()}}.items())
    return run(config, LocalBackend(), prepare(config))


@pytest.fixture(scope="module")
def overloaded() -> Run:
    """Some are refused, some turned away as late, some find the queue full."""
    return serve(workload__rate=30.0, runtime__queue_limit=90, runtime__shed_late=True, workload__warmup=20)


def test_classes_are_drawn_by_share_and_change_nothing_else_that_is_drawn():
    plain, classes = serve(slo__classes=[{"name": "all"}]).workload, serve().workload
    for name in ("arrival", "input_tokens", "output_tokens", "expert"):
        assert (getattr(plain.requests, name) == getattr(classes.requests, name)).all()
    assert 0.6 < (classes.requests.service == 0).mean() < 0.73 and not plain.requests.service.any()


def test_levels_are_what_anybody_would_count(overloaded):
    """From the table of requests, request by request."""
    summary, others = overloaded.summary, overloaded.others
    workload, columns = overloaded.workload, overloaded.columns
    assert {*others.outcome} == {"refused", "queue_full", "late"}
    service = {one.id: one.service for one in [*workload.requests, *workload.refused]}
    warm = {one.id for one in list(workload.requests)[20:]} | {one.id for one in workload.refused if one.id > 20}
    limit = {0: (3, 20), 1: (float("inf"), 20)}
    kept = {
        request
        for request, ttft, e2e in zip(*(columns[name].tolist() for name in ("request", "ttft", "e2e")), strict=True)
        if ttft <= limit[service[request]][0] * PS_PER_S and e2e <= limit[service[request]][1] * PS_PER_S
    }
    assert 20 < len(kept) < len(columns["request"])
    levels = summary["service_levels"]
    assert levels["goodput_requests_per_s"] == len(kept) / summary["makespan_s"]
    assert levels["attainment"] == len(kept & warm) / len(warm)
    for number, found in enumerate(levels["classes"]):
        mine = {request for request, of in service.items() if of == number}
        assert (found["name"], found["requests"]) == (("chat", "batch")[number], len(mine))
        assert found["goodput_requests_per_s"] == len(kept & mine) / summary["makespan_s"]
        assert found["attainment"] == len(kept & mine & warm) / len(mine & warm)
        assert found["counted"] == len(mine & warm)
        gone = [what for who, what in zip(others.requests, others.outcome, strict=True) if who.service == number]
        assert {what: found[what] for what in ("refused", "queue_full", "late")} == {
            what: gone.count(what) for what in ("refused", "queue_full", "late")
        }
        ttft = [
            time
            for request, time in zip(columns["request"].tolist(), columns["ttft"].tolist(), strict=True)
            if request in mine & warm
        ]
        assert found["ttft_s"]["mean"] == pytest.approx(sum(ttft) / len(ttft) / PS_PER_S, rel=1e-12)
        assert found["completed"] == len(mine) - len(gone)
    assert (summary["queue_full"], summary["late"]) == tuple(
        others.outcome.count(one) for one in ("queue_full", "late")
    )
    assert summary["completed"] + len(others.outcome) == summary["requests"] == 300


def test_those_turned_away_waited_from_their_arrival(overloaded):
    others = overloaded.others
    for request, what, waited in zip(others.requests, others.outcome, others.waited.tolist(), strict=True):
        assert (waited == 0) if what in ("refused", "queue_full") else (waited > 3 * PS_PER_S)
        assert what != "late" or request.service == 0


def test_priority_and_shedding_help_whom_they_are_for():
    """Overloaded: with priority chat attains more than without, at the cost of batch."""
    by_priority = {}
    for priority in (0, 1):
        classes = [{"name": "chat", "ttft": "3 s", "priority": priority}, {"name": "batch", "share": 2.0}]
        levels = serve(workload__rate=30.0, slo__classes=classes, runtime__fairness="60 s").summary["service_levels"]
        by_priority[priority] = [one["attainment"] for one in levels["classes"]]
    assert by_priority[1][0] > by_priority[0][0] + 0.1
    served, shed = (serve(workload__rate=30.0, runtime__shed_late=late).summary for late in (False, True))
    assert shed["service_levels"]["goodput_requests_per_s"] > served["service_levels"]["goodput_requests_per_s"]


def test_nothing_is_said_of_levels_where_nothing_was_promised():
    plain = {key: value for key, value in SMALL.items() if not key.startswith("slo.")}
    config = read_config(None, plain.items())
    assert not {"service_levels", "queue_full", "late"} & run(config, LocalBackend(), prepare(config)).summary.keys()


def test_a_promise_that_nobody_can_be_kept_is_an_error_of_the_user():
    with pytest.raises(InputError, match=r"^runtime.shed_late: every request was turned away; give "):
        serve(runtime__shed_late=True, slo__classes=[{"name": "all", "ttft": "1 us"}])


def test_the_table_of_those_not_served(overloaded):
    found = NotServed.of(overloaded.workload, [])
    assert found.outcome == ["refused"] * len(overloaded.workload.refused) and not found.waited.any()
