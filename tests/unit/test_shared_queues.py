"""Do groups that have an expert share its queue: nobody served twice, nobody left waiting beside an idle group?

In the clockwork, copying an expert takes 10 ms, a call 2 ms, a pass over a model 1 ms; the router's run is 3 passes.
"""

from __future__ import annotations

from random import Random

import pytest

from cluster.not_served import NotServed
from cluster.requests_table import columns_of
from cluster.summary import summarise, tally_of
from cluster.workload import Workload
from node.errors import OutOfMemoryError
from node.events import Kind
from node.request import Requests
from node.runtime.homes import Sharding
from node.units import MS

EVERYWHERE = Sharding(home="all_groups")
CALL_MS = {"switch": 10, "call_overhead": 2, "prefill": 1, "decode": 4}


def groups(outcome) -> list[int]:
    return [outcome.row(number).group for number in range(len(outcome.rows))]


@pytest.fixture
def shared(clockwork):
    """``shared(**options)``: two sockets, each a group that has every expert."""
    return lambda **options: clockwork(**{"sockets": 2, "sharding": EVERYWHERE, "batch": 1, **options})


# One queue


@pytest.mark.parametrize("scheduler", ["paper", "affinity"])
def test_whoever_comes_free_takes_the_next(scheduler, shared, simulate, requests):
    outcome = simulate(shared(scheduler=scheduler), requests(*[(0, 5, 5, 0)] * 3, (1, 5, 25, 0), (40, 5, 5, 0)))
    # 0 and 1 end at 17; 2 on group 0 until 24, 3 on group 1 until 44; at 40 group 0 alone is free
    assert groups(outcome) == [0, 1, 0, 1, 0]
    assert outcome.ms(0) == outcome.ms(1) == CALL_MS
    hit = {"call_overhead": 2, "prefill": 1, "decode": 4}
    assert [outcome.ms(number) for number in (2, 3, 4)] == [hit | {"queue": 17}, hit | {"queue": 16, "decode": 24}, hit]


def test_a_batch_takes_from_the_front_and_another_group_has_the_rest(shared, simulate, requests):
    outcome = simulate(shared(batch=3), requests(*[(0, 5, 5, 0)] * 4))
    assert groups(outcome) == [0, 0, 0, 1]
    assert [plan.command.sequences for plan in outcome.of_kind(Kind.PREFILL)] == [3]


def test_who_comes_while_a_group_copies_is_taken_by_another_at_once(shared, simulate, requests):
    outcome = simulate(shared(), requests((0, 5, 5, 0), (3, 5, 5, 0)))
    assert groups(outcome) == [0, 1] and outcome.ms(1) == CALL_MS


def test_who_comes_while_all_are_busy_waits_for_the_first_to_come_free(shared, simulate, requests):
    outcome = simulate(shared(), requests((0, 5, 9, 0), (1, 5, 3, 1), (2, 5, 5, 0)))
    assert groups(outcome) == [0, 1, 1]  # group 1 is free at 1 + 15 = 16, group 0 at 21
    assert outcome.ms(2) == CALL_MS | {"queue": 14}


def test_a_running_batch_is_joined_where_no_group_is_idle(shared, simulate, requests):
    outcome = simulate(shared(batch=2), requests((0, 5, 30, 1), (0, 5, 30, 0), (20, 5, 3, 0)))
    assert groups(outcome) == [0, 1, 1]
    assert outcome.ms(2) == {"call_overhead": 2, "prefill": 1, "decode": 2}


def test_an_idle_group_copies_the_expert_rather_than_have_the_request_join_elsewhere(shared, simulate, requests):
    outcome = simulate(shared(batch=2), requests((0, 5, 30, 0), (20, 5, 3, 0)))
    assert groups(outcome) == [0, 1] and outcome.ms(1) == CALL_MS | {"decode": 2}
    assert len(outcome.of_kind(Kind.DECODE)) == 1  # nor is the batch cut for a request that is gone


def test_two_batches_may_be_cut_for_one_request_and_one_goes_on(shared, simulate, requests):
    outcome = simulate(shared(batch=2), requests((0, 5, 30, 0), (0.5, 5, 30, 0), (20, 5, 3, 0)))
    assert groups(outcome) == [0, 1, 0]
    assert outcome.ms(0)["stall"] == 3 and "stall" not in outcome.ms(1)
    assert [plan.command.steps for plan in outcome.of_kind(Kind.DECODE, 1)] == [7, 22]


# Who is woken


def test_an_idle_group_that_has_the_expert_in_hbm_comes_first_then_the_lowest_number(shared, simulate, requests):
    rows = [(0, 0), (1, 1), (50, 1), (80, 0), (100, 2), (101, 1), (150, 0)]
    outcome = simulate(shared(slots=1), requests(*[(at, 5, 5, expert) for at, expert in rows]))
    # expert 2 takes the place of 0 in group 0; so nobody has 0 at 150, when both are free
    assert groups(outcome) == [0, 1, 1, 0, 0, 1, 0]
    missed = [bool(outcome.ms(number).get("switch")) for number in range(7)]
    assert missed == [True, True, False, False, True, False, True]


def test_each_expert_of_a_moment_goes_where_it_is_before_idle_groups_take_what_is_left(shared, simulate, requests):
    rows = [(0, 0), (1, 1), (2, 2), (50, 0), (50, 2)]
    outcome = simulate(shared(sockets=3, slots=1), requests(*[(at, 5, 5, expert) for at, expert in rows]))
    assert groups(outcome) == [0, 1, 2, 0, 2]
    assert all("switch" not in outcome.ms(number) for number in (3, 4))


def test_who_comes_at_the_moment_at_which_a_group_is_done_comes_first(shared, simulate, requests):
    outcome = simulate(shared(), requests((0, 5, 5, 0), (17, 5, 5, 0)))
    assert outcome.row(0).end == 17 * MS
    assert groups(outcome) == [0, 1] and outcome.ms(1) == CALL_MS


def test_all_idle_groups_are_woken_for_requests_of_one_moment(shared, simulate, requests):
    outcome = simulate(shared(sockets=4), requests(*[(5, 5, 5, expert) for expert in (2, 0, 2, 1)]))
    assert sorted(groups(outcome)) == [0, 1, 2, 3]
    assert all(outcome.ms(number) == CALL_MS for number in range(4))


def test_requests_from_the_router_wake_idle_groups_too(shared, simulate, requests):
    outcome = simulate(shared(router=True), requests((0, 5, 15, 1), (40, 7, 5, 1), (80, 9, 5, 0), (81, 9, 5, 0)))
    # routed by groups 0, 1, 0, 1; the first by 5, the last by 86, when group 0, which copies 0 for the third, is busy
    assert groups(outcome) == [0, 0, 0, 1]
    assert [plan.command.symbol for plan in outcome.of_kind(Kind.PREFILL, 1)] == [3, 3, 0]
    assert outcome.ms(1) == {"router": 3, "call_overhead": 4, "prefill": 1, "decode": 4}
    assert outcome.ms(3) == CALL_MS | {"router": 3, "call_overhead": 4}


def test_a_batch_of_the_host_holds_no_more_than_still_wait(shared, simulate, requests):
    deployment = shared(scheduler="paper", call_overhead="per_batch", batch=8)
    outcome = simulate(deployment, requests(*[(0, 5, 5, 0)] * 2, (100, 5, 5, 0)))
    # both groups' batches were of two and one; what another took is in no batch any more, so the third has its own
    assert outcome.ms(2)["call_overhead"] == 2


# Some experts in several groups


def test_the_most_popular_are_everywhere_and_the_others_where_they_were(clockwork, simulate, requests):
    sharding = Sharding(replicas=1, shares=(1, 5, 1, 1))
    deployment = clockwork(experts=4, sockets=2, batch=1, sharding=sharding)
    assert deployment.homes == ((0,), (0, 1), (0,), (1,))
    outcome = simulate(deployment, requests((0, 5, 5, 0), (1, 5, 5, 1), (2, 5, 5, 2), (3, 5, 5, 1)))
    assert groups(outcome) == [0, 1, 0, 1]
    assert outcome.ms(2) == CALL_MS | {"queue": 15}
    counts = [outcome.counters[socket]["ddr_used"] for socket in range(2)]
    assert counts == [3 * deployment.settings.sizes[0].weights, 2 * deployment.settings.sizes[0].weights]


def test_arrivals_of_one_moment_are_all_there_before_anybody_decides(clockwork, simulate, requests):
    deployment = clockwork(experts=4, sockets=2, batch=2, sharding=Sharding(replicas=1, shares=(1, 5, 1, 1)))
    outcome = simulate(deployment, requests((0, 5, 5, 1), (0, 5, 5, 0), (0, 5, 5, 0)))
    # group 0, woken for expert 1 first, wants expert 0 more; expert 1 goes to group 1
    assert groups(outcome) == [1, 0, 0]
    assert all(outcome.ms(number).get("queue", 0) == 0 for number in range(3))


def test_home_copies_in_every_group_take_room_in_every_group(clockwork):
    size = clockwork().settings.sizes[0].weights
    homes = clockwork(sockets=4, sharding=EVERYWHERE, numbers={"ddr.capacity": f"{3 * size} B"}).layouts
    assert [list(layout.ddr) for layout in homes] == [[0, 1, 2]] * 4
    with pytest.raises(OutOfMemoryError) as refusal:
        _ = clockwork(sockets=4, sharding=EVERYWHERE, numbers={"ddr.capacity": f"{3 * size - 1} B"}).layouts
    assert str(refusal.value).endswith(
        "for expert 2 of 3: 2 of the group's 3 fit; have fewer home copies (sharding.home, "
        "sharding.replicas), lower experts.count or take a machine with more DDR"
    )


def test_a_pinned_expert_is_pinned_wherever_it_is_at_home(shared, simulate, requests):
    outcome = simulate(shared(pinned=(1,)), requests((0, 5, 5, 1), (0, 5, 5, 1)))
    assert groups(outcome) == [0, 1]
    assert all(outcome.ms(number) == {"call_overhead": 2, "prefill": 1, "decode": 4} for number in range(2))


# What is copied ahead of use, and what is known of the future


def test_a_prefetch_is_in_vain_where_another_group_comes_free_first(shared, simulate, requests):
    outcome = simulate(shared(prefetch=True), requests((0, 5, 20, 0), (0, 5, 4, 1), (13, 5, 5, 2)))
    # both copy expert 2 from 13 on; group 1 comes free at 16 and waits until 23; group 0 holds it for nobody
    assert groups(outcome) == [0, 1, 1]
    assert [group.cache.prefetches for group in outcome.simulation.groups] == [1, 1]
    assert [group.cache.unused for group in outcome.simulation.groups] == [{2}, set()]
    assert outcome.ms(2) == {"queue": 3, "switch": 7, "call_overhead": 2, "prefill": 1, "decode": 4}
    workload = Workload(outcome.simulation.requests, Requests.of([]), 0, (), "", experts_given=True)
    others = NotServed.of(workload, [])
    columns = columns_of(outcome.simulation.requests, outcome.simulation.columns())
    tallies = [tally_of(outcome.deployment, outcome.simulation)]
    summary = summarise(outcome.deployment, workload, tallies, columns, outcome.counters, others, 0)
    assert (summary["prefetches"], summary["prefetches_late"], summary["prefetches_wasted"]) == (2, 1, 1)


def test_a_prefetch_for_nobody_may_end_last_of_all(shared, simulate, requests):
    rows = [(0, 5, 25, 0), (0, 5, 1, 2), (20, 5, 4, 1), (35, 5, 1, 2)]
    outcome = simulate(shared(prefetch=True), requests(*rows))
    # at 35 group 0 begins to copy expert 2, which group 1 has, and it is free at 36, one step before group 0
    assert groups(outcome) == [0, 1, 1, 1]
    assert outcome.ms(3) == {"queue": 1, "call_overhead": 2, "prefill": 1}
    assert (outcome.row(3).end, outcome.simulation.now) == (39 * MS, 45 * MS)


def test_who_knows_the_future_knows_what_other_groups_have_served(shared, simulate, requests):
    rows = [(0, 1), (20, 0), (50, 0), (50, 0), (60, 2), (60, 2), (150, 1), (200, 0)]
    outcome = simulate(shared(eviction="belady"), requests(*[(at, 5, 5, expert) for at, expert in rows]))
    assert [len(left) for left in outcome.simulation.groups[0].settings.future] == [0, 0, 0]


# In windows


def test_a_run_takes_the_same_whatever_its_windows(shared, simulate, requests):
    rng = Random(7)
    rows = sorted((rng.randint(0, 300), 5, rng.randint(1, 30), rng.randrange(3)) for _ in range(40))
    deployment = shared(sockets=4, batch=3)
    whole = simulate(deployment, requests(*rows))
    assert len(set(groups(whole))) == 4
    assert simulate(deployment, requests(*rows), [n * 7 * MS for n in range(60)]).trace() == whole.trace()
