"""Do experts stay as long as they have to, and does everybody else get on meanwhile? On the clockwork of conftest.

Copying an expert takes 10 ms, a call 2 ms, a pass 1 ms. A request of one token is served in 13 ms, or 3 without a copy.
"""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from cluster.cli import coe
from node.errors import InvariantError
from node.events import Kind
from node.request import Request
from node.runtime.expert_cache import ExpertCache
from node.runtime.homes import Sharding
from node.runtime.policies import EVICTION
from node.runtime.service import Service
from node.runtime.sharding import ModelSize, Region
from node.runtime.stay import Stay, Stays
from node.runtime.waiting import Waiting
from node.units import MS

EVERYWHERE = Sharding(home="all_groups")
BOTH = pytest.mark.parametrize("scheduler", ["paper", "affinity"])


def order(outcome) -> list[int]:
    """Requests in the order in which they ended."""
    return [row.request.id for row in outcome.rows]


def copied(outcome) -> list[tuple[int, float]]:
    """(expert, start in ms) of each copy."""
    return [(plan.command.symbol, plan.command.issued / MS) for plan in outcome.of_kind(Kind.COPY)]


# Minimum residency: 1 came at 10 ms


@BOTH
@pytest.mark.parametrize(("stay_ms", "begins", "held"), [(0, 13, 0), (3, 13, 0), (4, 14, 1), (90, 100, 87)])
def test_an_idle_group_waits_until_the_only_one_that_could_leave_is_of_age(
    scheduler, stay_ms, begins, held, clockwork, simulate, requests
):
    deployment = clockwork(slots=1, scheduler=scheduler, min_residency=stay_ms * MS)
    outcome = simulate(deployment, requests((0, 5, 1, 1), (0, 5, 1, 2)))
    assert copied(outcome) == [(1, 0), (2, begins)]
    assert outcome.ms(1) == {"queue": begins, "switch": 10, "call_overhead": 2, "prefill": 1}
    assert outcome.simulation.held_ps == [held * MS]
    assert outcome.simulation.idle_ps == [held * MS]


@BOTH
def test_who_is_resident_is_served_meanwhile(scheduler, clockwork, simulate, requests):
    rows = [(0, 5, 1, 1), (1, 5, 1, 2), (2, 5, 1, 1), (20, 5, 1, 1)]
    outcome = simulate(clockwork(slots=1, scheduler=scheduler, min_residency=40 * MS), requests(*rows))
    assert order(outcome) == [0, 2, 3, 1]
    assert outcome.ms(2) == {"queue": 11, "call_overhead": 2, "prefill": 1}
    assert outcome.ms(3) == {"call_overhead": 2, "prefill": 1}
    assert copied(outcome) == [(1, 0), (2, 50)]
    assert outcome.simulation.held_ps == [(4 + 27) * MS]  # 16 to 20, 23 to 50


@BOTH
def test_another_candidate_leaves_in_place_of_a_young_one(scheduler, clockwork, simulate, requests):
    """At 40 ms expert 1 came 30 ms ago and 2, less recently used, 17 ms."""
    rows = [(0, 5, 1, 1), (13, 5, 1, 2), (30, 5, 1, 1), (40, 5, 1, 0)]
    for stay_ms, leaves in ((0, 2), (17, 2), (18, 1), (30, 1)):
        outcome = simulate(clockwork(slots=2, scheduler=scheduler, min_residency=stay_ms * MS), requests(*rows))
        assert [p.command.symbol for p in outcome.of_kind(Kind.FREE) if p.command.symbol < 3] == [leaves]
        assert outcome.simulation.held_ps == [0]


@BOTH
def test_the_router_runs_meanwhile(scheduler, clockwork, simulate, requests):
    """The router's run takes 5 ms; expert 1 is there from 15 ms to 115 at least."""
    deployment = clockwork(slots=1, router=True, scheduler=scheduler, min_residency=100 * MS, batch=2)
    outcome = simulate(deployment, requests((0, 5, 1, 1), (0, 5, 1, 2), (40, 5, 1, 1)))
    assert order(outcome) == [0, 2, 1]
    assert outcome.ms(2) == {"router": 3, "call_overhead": 4, "prefill": 1}
    assert copied(outcome) == [(1, 5), (2, 115)]


def test_a_decode_goes_on_and_people_join_it_though_somebody_is_overdue_for_whom_nobody_may_leave(
    clockwork, simulate, requests
):
    rows = [(0, 5, 20, 1), (1, 5, 1, 2), (20, 5, 1, 1)]
    for stay_ms, joins in ((0, False), (100, True)):
        outcome = simulate(clockwork(slots=1, fairness=MS, min_residency=stay_ms * MS), requests(*rows))
        assert (outcome.row(2).charges["queue"] == 0) == joins


def test_an_idle_group_is_woken_for_a_shared_queue_only_by_who_can_serve(clockwork, simulate, requests):
    """Two groups, room for one each. Group 0 has 1 till 110 at least and is asked for 2, which group 1 can copy."""
    deployment = clockwork(sockets=2, slots=1, min_residency=100 * MS, sharding=EVERYWHERE)
    outcome = simulate(deployment, requests((0, 5, 1, 1), (20, 5, 1, 2), (21, 5, 1, 0)))
    assert [(outcome.row(n).group, outcome.row(n).charges["queue"] / MS) for n in range(3)] == [(0, 0), (1, 0), (0, 89)]


def test_a_group_that_others_have_relieved_meanwhile_does_not_wake_for_nothing(clockwork, simulate, requests):
    """Both groups are held up for 2; the first that may let go serves it, and the run ends then."""
    deployment = clockwork(sockets=2, slots=1, min_residency=100 * MS, sharding=EVERYWHERE)
    outcome = simulate(deployment, requests((0, 5, 1, 1), (5, 5, 1, 0), (30, 5, 1, 2)))
    assert (outcome.row(2).group, outcome.row(2).end, outcome.simulation.now) == (0, 123 * MS, 123 * MS)


# Drain before eviction


@pytest.mark.parametrize(
    ("drain", "ends"), [(0, [0, 1, 2, 3]), (1, [0, 1, 2, 3]), (2, [0, 2, 1, 3]), (3, [0, 2, 3, 1]), (9, [0, 2, 3, 1])]
)
def test_so_many_are_served_before_their_expert_leaves(drain, ends, clockwork, simulate, requests):
    """One slot, and requests for 1 2 1 1; without a bound 1 leaves after its first and comes once more."""
    deployment = clockwork(slots=1, scheduler="paper", drain=drain)
    outcome = simulate(deployment, requests((0, 5, 1, 1), (0, 5, 1, 2), (0, 5, 1, 1), (0, 5, 1, 1)))
    assert order(outcome) == ends
    assert len(copied(outcome)) == (3 if drain < 3 else 2)


@pytest.mark.parametrize(("drain", "ends"), [(0, [0, 1, 2, 3]), (1, [0, 1, 2, 3]), (2, [0, 3, 1, 2])])
def test_under_affinity_they_go_before_the_one_that_more_wait_for(drain, ends, clockwork, simulate, requests):
    outcome = simulate(clockwork(slots=1, drain=drain), requests((0, 5, 1, 1), *[(1, 5, 1, 2)] * 2, (1, 5, 1, 1)))
    assert order(outcome) == ends


@BOTH
def test_who_is_not_waited_for_leaves_at_once(scheduler, clockwork, simulate, requests):
    deployment = clockwork(slots=1, scheduler=scheduler, drain=9)
    outcome = simulate(deployment, requests((0, 5, 1, 1), (0, 5, 1, 2), (14, 5, 1, 1)))
    assert order(outcome) == [0, 1, 2]


@BOTH
@pytest.mark.parametrize(("fairness_ms", "ends"), [(16, [0, 2, 3, 1]), (15, [0, 2, 1, 3])])
def test_who_has_waited_too_long_gets_the_room_all_the_same(
    scheduler, fairness_ms, ends, clockwork, simulate, requests
):
    """At 16 ms, after two for 1, the one for 2 has waited 16 ms: not longer than 16, but longer than 15."""
    deployment = clockwork(slots=1, scheduler=scheduler, batch=1, drain=9, fairness=fairness_ms * MS)
    outcome = simulate(deployment, requests((0, 5, 1, 1), (0, 5, 1, 2), (0, 5, 1, 1), (0, 5, 1, 1)))
    assert order(outcome) == ends


def test_fairness_does_not_make_an_expert_older(clockwork, simulate, requests):
    deployment = clockwork(slots=1, drain=9, fairness=0, min_residency=40 * MS)
    outcome = simulate(deployment, requests((0, 5, 1, 1), (0, 5, 1, 2), (1, 5, 1, 1)))
    assert order(outcome) == [0, 2, 1] and copied(outcome) == [(1, 0), (2, 50)]


# Prefetch, and who is turned away meanwhile


def test_who_is_late_when_somebody_comes_of_age_is_turned_away_then(clockwork, simulate, requests):
    """Expert 1 stays till 60 ms; 2 would answer at 73, and was due at 50. Nobody is left, and the run ends."""
    deployment = clockwork(slots=1, min_residency=50 * MS, services=(Service(ttft=50 * MS),), shed_late=True)
    outcome = simulate(deployment, requests((0, 5, 1, 1), (0, 5, 1, 2)))
    assert [(one.request, one.time) for one in outcome.simulation.turned_away] == [(1, 60 * MS)]
    assert (outcome.simulation.now, outcome.simulation.held_ps) == (60 * MS, [47 * MS])


def test_nothing_is_prefetched_into_the_room_of_one_who_has_to_stay(clockwork, simulate, requests):
    """1 came at 10 ms, 2 at 23; 0 is asked for while 2 is served, till 55."""
    rows = [(0, 5, 1, 1), (13, 5, 30, 2), (30, 5, 1, 0)]
    for stay_ms, begins in ((0, 30), (20, 30), (21, 31), (54, 64), (80, 90)):
        outcome = simulate(clockwork(prefetch=True, min_residency=stay_ms * MS), requests(*rows))
        assert copied(outcome)[2] == (0, begins)


# Rooms


def stays(cache: ExpertCache, stay: Stay, waiting: dict[int, list[int]]) -> Stays:
    queues = Waiting(8, ())
    for expert, numbers in waiting.items():
        for number in numbers:
            queues.add(expert, number)
    return Stays(stay, cache, queues, range(1_000))


def made() -> ExpertCache:
    """Experts of 30 bytes came to 100 bytes at 0, 10, 20: 10 are free at the end; 3 has 30, 4 40, 5 60, 6 70 bytes."""
    sizes = [ModelSize(size, 1, None) for size in (30, 30, 30, 30, 40, 60, 70)]
    cache = ExpertCache(Region(1_000, 100), sizes, EVICTION["lru"])
    for expert in (0, 1, 2):
        cache.begin(expert, expert)
        cache.arrived(expert, 10 * expert)
    return cache


def coming(stays: Stays, wanted: dict[int, list[int]], now: int, in_use: tuple[int, ...] = ()) -> set[int]:
    """Those of ``wanted`` who are not blocked."""
    blocked = stays.blocked(now, in_use)
    return {expert for expert in wanted if expert not in blocked}


@pytest.mark.parametrize(
    ("now", "come"), [(19, set()), (20, {3}), (29, {3}), (30, {3, 4, 5}), (39, {3, 4, 5}), (40, {3, 4, 5, 6})]
)
def test_who_can_come_depends_on_the_largest_piece_that_the_old_leave(now, come):
    """With a stay of 20, expert 0 is of age at 20, 1 at 30, 2 at 40."""
    wanted = {expert: [19] for expert in range(7)}
    assert coming(stays(made(), Stay(20, 0, 0), wanted), wanted, now) == {0, 1, 2} | come


@pytest.mark.parametrize(
    ("now", "overdue"), [(100, False), (101, True)], ids=["at the bound of fairness", "a picosecond later"]
)
def test_who_is_waited_for_and_has_served_too_few_stays_until_somebody_else_is_overdue(now, overdue):
    cache, wanted = made(), {0: [50], 1: [51], 2: [52], 3: [0], 4: [1]}
    cache.use(0, 60, 3)
    cache.use(2, 60, 2)
    held = stays(cache, Stay(0, 3, 100), wanted)
    assert coming(held, wanted, now) == {0, 1, 2, 3}  # 0 has served its three
    assert held.kept(3, now) == {1, 2}
    assert held.kept(4, now) == set()  # no room but in the place of one who is waited for
    held = stays(cache, Stay(0, 4, 100), wanted)
    assert coming(held, wanted, now) == {0, 1, 2} | ({3} if overdue else set())


def test_who_is_in_use_stays_and_is_nobody_to_come():
    wanted = {expert: [0] for expert in range(7)}
    free = stays(made(), Stay(1, 0, 0), wanted)
    assert coming(free, wanted, 90) == {0, 1, 2, 3, 4, 5, 6}
    assert coming(free, wanted, 90, (1,)) == {0, 2, 3, 4}
    assert free.kept(3, 90, (1,)) == {1}


def test_the_one_on_its_way_keeps_its_room_and_is_not_kept_waiting_for():
    cache = made()
    cache.begin(4, 60)  # in the place of 0 and 1, to 1,040
    wanted = {expert: [0] for expert in range(7)}
    held = stays(cache, Stay(5, 0, 0), wanted)
    assert coming(held, wanted, 90) == {0, 1, 2, 3, 4, 5} and held.young(90) == {4}
    cache.arrived(4, 95)
    assert held.young(99) == {4} and held.young(100) == set()
    assert (held.of_age(94), held.of_age(99), held.of_age(100)) == (100, 100, None)


def test_without_bounds_nobody_is_blocked():
    free = stays(made(), Stay(), {3: [0]})
    assert free.blocked(5, (1,)) == (1,) and free.kept(3, 5, (1,)) == (1,)


def test_a_group_that_idles_while_somebody_could_be_served_is_an_error(clockwork):
    deployment = clockwork()
    group = deployment.simulation([_request()]).groups[0]
    assert group.held_up(0) is None
    group.receive([0])
    with pytest.raises(InvariantError, match="group 0 is idle at 7 ps with requests waiting"):
        group.held_up(7)


def _request() -> Request:
    return Request(0, 0, 5, 1, 1)


@pytest.mark.parametrize("stay", ["0 s", "30 s"])
def test_a_run_tells_how_long_groups_were_held_up(stay, tmp_path):
    """Room for one expert, which answers in the first second and stays for 30; then the other one comes."""
    settings = ["experts.count=2", "experts.router=none", "workload.popularity=distinct", "workload.requests=2"]
    settings += ["workload.arrivals=at_once", "machine.hbm.capacity=4 GB", f"runtime.min_residency={stay}"]
    command = ["run", "--backend", "local", "--output", str(tmp_path / "out")]
    answer = CliRunner().invoke(coe, command + [part for text in settings for part in ("--set", text)])
    assert answer.exit_code == 0, answer.output
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert ("idle, for experts had to stay" in answer.stdout) == ("held_s" in summary) == (stay == "30 s")
    assert stay == "0 s" or 28 < summary["held_s"] < 30 < summary["makespan_s"]
