"""Experts that move between groups: which, when, what it costs, and what becomes of those who wait for them.

In the clockwork an expert is copied in 10 ms; from DDR to DDR of another group it takes as long.
"""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.errors import InputError
from node.events import Kind, Tier
from node.runtime.balance import UNEVEN, Move, moves
from node.runtime.homes import Sharding
from node.units import MS

# Which


def test_the_busiest_gives_the_idlest_what_comes_nearest_to_half_of_what_is_between_them():
    homes = dict.fromkeys((0, 1, 2, 3), 0) | {4: 1}
    assert moves({0: 50, 1: 30, 2: 25, 3: 5, 4: 10}, homes, (0, 1)) == [Move(0, 0, 1)]  # 110 and 10: 50 of 100
    assert moves({0: 80, 1: 50, 4: 30}, homes, (0, 1)) == [Move(1, 0, 1)]  # 130 and 30: 50 of 100, not 80
    assert moves({0: 100, 4: 10}, homes, (0, 1)) == []  # it would only change sides
    assert moves({0: 52, 4: 50}, homes, (0, 1)) == []  # even enough
    assert moves({}, homes, (0, 1)) == []


@given(
    work=st.dictionaries(st.integers(0, 30), st.integers(0, 1000), max_size=30),
    homes=st.lists(st.integers(0, 4), min_size=31, max_size=31),
)
def test_moves_lower_the_most_and_end_when_no_move_would(work, homes):
    at = dict(enumerate(homes))
    loads = [sum(work.get(expert, 0) for expert, home in at.items() if home == group) for group in range(5)]
    found = moves(work, at, range(5))
    assert len({one.expert for one in found}) == len(found)
    for one in found:
        assert at[one.expert] == one.source == loads.index(max(loads)) and loads[one.target] == min(loads)
        before = max(loads)
        loads[one.source] -= work[one.expert]
        loads[one.target] += work[one.expert]
        at[one.expert] = one.target
        assert max(loads[one.source], loads[one.target]) < before
    still = {expert for expert in at if expert not in {one.expert for one in found}}
    busiest, gap = loads.index(max(loads)), max(loads) - min(loads)
    could = [expert for expert in still if at[expert] == busiest and 0 < work.get(expert, 0) < gap]
    assert Fraction(5 * max(loads)) <= UNEVEN * sum(loads) or not could


# When, and at what cost


@pytest.fixture
def two(clockwork):
    """Two groups of one socket: experts 0 and 2 in the first, 1 and 3 in the second."""

    def make(**options: object):
        return clockwork(
            experts=4, slots=2, sockets=2, batch=1, call_overhead="none",
            sharding=Sharding(rebalance=50 * MS), **options,
        )  # fmt: skip

    return make


def test_when_it_is_time_all_drain_and_an_expert_moves_with_those_who_wait_for_it(two, simulate, requests):
    """The first decodes until 60; its expert moves until 70, with the third, and is copied there until 80."""
    outcome = simulate(two(), requests((0, 5, 50, 0), (1, 5, 1, 2), (2, 5, 1, 0), (3, 5, 9, 2)))
    sent, came = (next(iter(outcome.of_kind(kind, group))) for kind, group in ((Kind.SEND, 0), (Kind.RECEIVE, 1)))
    assert [(one.command.symbol, one.command.issued / MS) for one in (sent, came)] == [(0, 60), (0, 60)]
    assert [done.time / MS for done in (*sent.completions, *came.completions)] == [70, 70]
    assert {row.request.id: (row.group, row.end / MS) for row in outcome.rows} == {
        0: (0, 60), 1: (0, 81), 2: (1, 81), 3: (0, 90),
    }  # fmt: skip
    frees = [plan.command for plan in outcome.of_kind(Kind.FREE, 0) if plan.command.symbol == 0]
    assert [(Tier(one.tier).name, one.issued / MS) for one in frees] == [("HBM", 60), ("DDR", 70)]
    assert [list(group.memory.homes) for group in outcome.simulation.groups] == [[2], [1, 3, 0]]
    assert outcome.ms(2) == {"queue": 68, "switch": 10, "prefill": 1}
    weights = outcome.deployment.settings.sizes[0].weights
    ways = [(counters["sent"], counters["received"]) for counters in outcome.counters.values()]
    assert sorted(ways) == [(0, weights), (weights, 0)]


def test_a_group_moves_one_expert_at_a_time(clockwork, simulate, requests):
    """Groups 0 and 1 both give one to group 2, which has nothing to do: one after the other."""
    deployment = clockwork(
        experts=6, slots=2, sockets=3, batch=1, call_overhead="none", sharding=Sharding(rebalance=50 * MS)
    )
    rest = [(1, 5, 1, expert) for expert, count in ((0, 2), (3, 3), (1, 1), (4, 4)) for _ in range(count)]
    outcome = simulate(deployment, requests((0, 5, 45, 3), (0, 5, 45, 4), *rest))
    moved = [plan.command for group in (0, 1) for plan in outcome.of_kind(Kind.SEND, group)]
    assert [(one.group, one.symbol, one.issued / MS) for one in moved] == [(0, 0, 55), (1, 1, 65)]
    assert [list(group.memory.homes) for group in outcome.simulation.groups] == [[3], [4], [2, 5, 0, 1]]


def test_an_expert_that_moves_twice_takes_the_room_of_one_that_left(two, simulate, requests):
    """Work goes to and fro: the first expert leaves, comes back, and lies where it lay."""
    rows = [(at, 5, 5, expert) for at in (0, 60, 120, 180) for expert in ((0, 2) if at in (0, 120) else (1, 3, 0))]
    outcome = simulate(two(), requests(*rows))
    assert outcome.simulation.rebalancing.moved >= 3
    came = [plan.command for group in (0, 1) for plan in outcome.of_kind(Kind.RECEIVE, group)]
    weights = outcome.deployment.settings.sizes[0].weights
    assert max(one.address for one in came) <= 3 * weights


@pytest.mark.parametrize("shared", [{"home": "all_groups"}, {"replicas": 2}])
def test_nothing_moves_once_all_are_served_whoever_is_still_to_come_of_age(shared, clockwork, simulate, requests):
    """The third waits for room in group 0, where expert 0 has to stay until 110, and is served by group 1 until 45.

    Then nobody waits for 110, and the run is over, though experts were due to move at 50.
    """
    deployment = clockwork(
        experts=4, slots=1, sockets=2, batch=1, call_overhead="none", min_residency=100 * MS,
        sharding=Sharding(rebalance=50 * MS, **shared),
    )  # fmt: skip
    deployment.check_fits()
    outcome = simulate(deployment, requests((0, 5, 10, 0), (0, 5, 30, 1), (15, 5, 5, 1)))
    assert [(row.request.id, row.group, row.end / MS) for row in outcome.rows] == [(0, 0, 20), (1, 1, 40), (2, 1, 45)]
    assert outcome.simulation.rebalancing.moved == 0 and outcome.simulation.now == 45 * MS


def test_nothing_moves_where_work_is_even_or_nothing_was_asked(two, simulate, requests):
    outcome = simulate(two(), requests((0, 5, 40, 0), (0, 5, 40, 1), (400, 5, 5, 0), (400, 5, 5, 1)))
    assert outcome.simulation.rebalancing.moved == 0 and not outcome.of_kind(Kind.SEND)
    assert outcome.ms(2) == {"decode": 4, "prefill": 1}


def test_an_expert_that_has_no_room_in_the_others_ddr_stays(two, simulate, requests):
    weights = two().settings.sizes[0].weights
    full = two(numbers={"ddr.capacity": f"{2 * weights + 9} B"})
    rows = requests((0, 5, 50, 0), (1, 5, 1, 2), (2, 5, 1, 0), (3, 5, 9, 2))
    assert simulate(full, rows).simulation.rebalancing.moved == 0
    assert simulate(two(), rows).simulation.rebalancing.moved == 1


def test_pinned_experts_stay(two, simulate, requests):
    rows = requests((0, 5, 50, 0), (1, 5, 1, 2), (2, 5, 1, 0), (3, 5, 9, 2))
    assert simulate(two(pinned=(0, 2)), rows).simulation.rebalancing.moved == 0


@pytest.mark.parametrize(("machine", "options"), [("dgx-a100", {}), ("sn40l-node", {"prefetch": True})])
def test_what_cannot_stand_still_or_has_nothing_to_move_is_refused(deploy, machine, options):
    deployment = deploy(machine, degree=4, sharding=Sharding(rebalance=1), **options)
    with pytest.raises(InputError, match=r"^sharding.rebalance: "):
        deployment.check_fits()
