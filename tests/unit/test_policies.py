"""Who leaves HBM under each policy, worked by hand; of those whom it holds equal, the one not used for longest."""

from __future__ import annotations

from collections import deque
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.runtime.memories import HALVING, NO_MORE, Future, Known, Memory, Rates
from node.runtime.policies import EVICTION, Resident, belady, cost_aware, lfu, lru
from tests.evicting import cache_for, refer

PLAIN = Memory(Known([], 0, lambda _: 0))


def resident(expert: int, last_used: int, uses: int = 1) -> Resident:
    return Resident(expert, address=1_000 - expert, last_used=last_used, uses=uses)


def test_the_registry_knows_five_by_name():
    assert list(EVICTION) == ["lru", "lfu", "arc", "cost_aware", "belady"]


@pytest.mark.parametrize("policy", [lru, lfu])
@given(data=st.data())
def test_the_choice_is_a_candidate_and_does_not_depend_on_their_order(policy, data):
    used = data.draw(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=6))
    candidates = [resident(expert, *row) for expert, row in enumerate(used)]
    shuffled = data.draw(st.permutations(candidates))
    assert policy(candidates, PLAIN) is policy(shuffled, PLAIN)
    assert policy(candidates, PLAIN) in candidates


# lru and lfu


def test_lru_takes_the_one_not_used_for_longest_however_often_it_was_used():
    assert lru([resident(0, 30, 1), resident(1, 10, 99), resident(2, 20, 0)], PLAIN).expert == 1


def test_lru_takes_the_lowest_number_of_equals():
    assert lru([resident(7, 10, 0), resident(3, 10, 5), resident(1, 11, 0)], PLAIN).expert == 3


def test_lfu_takes_the_one_used_least_however_lately():
    assert lfu([resident(0, 10, 3), resident(1, 99, 1), resident(2, 20, 2)], PLAIN).expert == 1


def test_lfu_takes_the_one_not_used_for_longest_of_those_used_equally():
    assert lfu([resident(0, 30, 2), resident(1, 10, 3), resident(2, 20, 2)], PLAIN).expert == 2


def test_lfu_takes_the_lowest_number_of_equals():
    assert lfu([resident(7, 10, 2), resident(3, 10, 2), resident(1, 11, 2)], PLAIN).expert == 3


# cost_aware


def rates(sizes: list[int], uses: list[int], waiting: tuple[int, ...] = ()) -> Rates:
    """Of eight experts, the first with these ``sizes``, used in this order."""
    found = Rates(Known(sizes + [1] * (8 - len(sizes)), 1_000, waiting.count))
    for expert in uses:
        found.used(expert, 1)
    return found


def test_cost_aware_takes_the_one_asked_for_least_of_equal_sizes():
    known = rates([10, 10, 10], [0, 1, 0, 2, 2])
    assert cost_aware([resident(0, 3), resident(1, 2), resident(2, 5)], known).expert == 1


def test_a_cost_is_bytes_times_the_chance_that_it_is_asked_for_before_the_horizon():
    """3 of 4 uses were of expert 0: 3/4 a reference, against a horizon of 2 x 8 references: 12 / (12 + 1)."""
    known = rates([13, 10], [0, 0, 0, 1])
    assert (HALVING, known.cost(0), known.cost(1)) == (2, 12.0, 10 * 4 / 5)


def test_who_is_waited_for_costs_all_its_bytes_and_who_was_never_used_nothing():
    known = rates([13, 10, 7], [0, 0, 0], waiting=(1,))
    assert (known.cost(1), known.cost(2)) == (10.0, 0.0)
    assert rates([13, 10], []).cost(0) == 0.0


def test_cost_aware_spares_a_large_expert_that_is_asked_for_less_often():
    """60 x 8/11 against 30 x 16/19: a chance a little higher does not make up for half the bytes."""
    candidates = [resident(0, 2), resident(1, 3)]
    assert cost_aware(candidates, rates([60, 30], [0, 1, 1])).expert == 1
    assert cost_aware(candidates, rates([30, 30], [0, 1, 1])).expert == 0


def test_cost_aware_spares_the_one_that_is_waited_for():
    candidates = [resident(0, 2), resident(1, 9)]
    assert cost_aware(candidates, rates([10, 10], [0, 1, 1], waiting=(0,))).expert == 1


def test_of_equal_costs_the_one_not_used_for_longest_leaves_then_the_lowest_number():
    known = rates([10, 10, 10], [0, 1, 2])
    assert cost_aware([resident(0, 5), resident(1, 4), resident(2, 4)], known).expert == 1


def test_a_use_counts_half_after_a_period_and_nothing_after_many():
    """Of eight experts a period is 16 references, and the last of these 16 is the first to count whole: 8.5 in all."""
    known = rates([33, 10], [0] + [1] * 15)
    assert known.cost(0) == 33 * (0.5 * 16) / (0.5 * 16 + 8.5) == 16.0
    known.used(1, 16 * 30)
    assert known.cost(0) == 0.0


# belady


def future(numbers: list[list[int]], served: dict[int, int]) -> Future:
    found = Future(Known([10] * len(numbers), 100, lambda _: 0, [deque(of) for of in numbers]))
    for expert, requests in served.items():
        found.used(expert, requests)
    return found


def test_belady_takes_the_one_whose_next_request_is_farthest():
    known = future([[0, 9], [1, 3], [2, 5]], {0: 1, 1: 1, 2: 1})
    assert belady([resident(0, 0), resident(1, 1), resident(2, 2)], known).expert == 0


def test_belady_knows_what_was_served_and_takes_who_is_never_asked_for_again():
    known = future([[0, 9], [1, 3], [2, 5]], {0: 1, 1: 2, 2: 1})
    assert (known.next(0), known.next(1), known.next(2)) == (9, NO_MORE, 5)
    assert belady([resident(0, 0), resident(1, 1), resident(2, 2)], known).expert == 1


def test_belady_takes_the_one_not_used_for_longest_of_those_never_asked_for_again():
    known = future([[0], [1], [2]], {0: 1, 1: 1, 2: 1})
    assert belady([resident(0, 7), resident(1, 5), resident(2, 5)], known).expert == 1


def test_belady_knows_the_requests_of_a_run(clockwork, simulate, requests):
    """Room for two. At 2, expert 1 comes again and 0 never does; lru sends 0 away too, then 1 before 0's sake."""
    rows = [(0, 5, 2, expert) for expert in (0, 1, 2, 0, 3, 0, 1)]
    hits = {}
    for name in ("lru", "belady"):
        outcome = simulate(clockwork(experts=4, slots=2, eviction=name, scheduler="paper"), requests(*rows))
        hits[name] = outcome.simulation.groups[0].hits
    assert hits == {"lru": 1, "belady": 2}


@pytest.mark.parametrize(("waiting", "there"), [(True, {0, 2}), (False, {1, 2})])
def test_who_waits_in_a_run_is_known_to_cost_aware(waiting, there, clockwork, simulate, requests):
    """Expert 1 is used twice, 0 once: 0 leaves for 2, but for the request that waits for it."""
    rows = [(0, 5, 2, 1), (30, 5, 2, 1), (60, 5, 2, 0), (90, 5, 2, 2), (90, 5, 2, 0)]
    deployment = clockwork(slots=2, eviction="cost_aware", scheduler="paper")
    group = simulate(deployment, requests(*rows[: len(rows) if waiting else -1])).simulation.groups[0]
    assert set(group.cache.residents()) == there


# arc, in a cache of two experts of 10 bytes: (expert, requests) in order, then once, again, once_gone, again_gone


@pytest.mark.parametrize(
    ("references", "lists", "target"),
    [
        ([(0, 1), (1, 1)], ([0, 1], [], [], []), 0),
        ([(0, 1), (1, 1), (0, 1)], ([1], [0], [], []), 0),
        ([(0, 3), (1, 1)], ([1], [0], [], []), 0),  # three requests are three references
        ([(0, 1), (1, 1), (2, 1)], ([1, 2], [], [], []), 0),  # T1 fills HBM: who leaves it is forgotten
        ([(0, 2), (1, 1), (2, 1)], ([2], [0], [1], []), 0),
        # 1 is missed from B1: p = 1 page, which T1 has, so 0 leaves T2
        ([(0, 2), (1, 1), (2, 1), (1, 1)], ([2], [1], [], [0]), 10),
        ([(0, 2), (1, 1), (2, 1), (1, 1), (3, 1)], ([2, 3], [], [], [0, 1]), 10),
        # 0 is missed from B2: p = 0, and T1 gives
        ([(0, 2), (1, 1), (2, 1), (1, 1), (3, 1), (0, 1)], ([3], [0], [2], [1]), 0),
    ],
)
def test_arc_keeps_its_lists_as_published(references, lists, target):
    cache = cache_for("arc", [10] * 4, 20, [])
    for now, (expert, requests) in enumerate(references):
        refer(cache, expert, now, requests)
    found = cache._memory
    assert tuple(list(one) for one in (found.once, found.again, found.once_gone, found.again_gone)) == lists
    assert found.target == target


def test_arc_moves_its_target_by_the_bytes_of_who_was_missed():
    """Room for 60 bytes: 3 (20 bytes) leaves T1 and is missed again; B1 holds nothing else, so it weighs as it is."""
    cache = cache_for("arc", [10, 30, 30, 20], 60, [])
    for now, (expert, requests) in enumerate([(1, 2), (3, 1), (2, 1), (3, 1)]):
        refer(cache, expert, now, requests)
    assert cache._memory.target == 20


def test_a_target_whose_denominator_has_grown_long_is_rounded_down_to_a_byte():
    cache = cache_for("arc", [10, 10], 20, [])
    for denominator, target in ((2**500, 7 + Fraction(1, 2**500)), (2**600, 7)):
        cache._memory.target = 7 + Fraction(1, denominator)
        cache._memory.wanted(0)
        assert cache._memory.target == target


def test_a_prefetched_expert_is_used_once_by_who_was_foreseen():
    cache = cache_for("arc", [10] * 3, 30, [])
    cache.prefetch(0, 0, ())
    cache.arrived(0, 1)
    assert list(cache._memory.once) == [0]
    cache.use(0, 2, 1)
    assert (list(cache._memory.once), list(cache._memory.again)) == ([0], [])
    cache.use(0, 3, 0)  # goes on with those it serves
    assert list(cache._memory.once) == [0]
    cache.use(0, 4, 1)
    assert (list(cache._memory.once), list(cache._memory.again)) == ([], [0])
