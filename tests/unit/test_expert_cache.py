"""Is an expert always where its state says, and does the right one leave when room is needed?"""

from __future__ import annotations

from itertools import product

import pytest

from node.errors import InvariantError
from node.events import Kind
from node.runtime.expert_cache import MOVES, ExpertCache, ExpertState
from node.runtime.policies import EVICTION
from node.runtime.sharding import ModelSize, Region
from node.units import MS

IN_DDR, COPYING, RESIDENT = ExpertState
LEGAL = {(IN_DDR, COPYING), (COPYING, RESIDENT), (RESIDENT, IN_DDR)}


def cache_of(*sizes: int, room: int = 100, eviction: str = "lru") -> ExpertCache:
    return ExpertCache(Region(1_000, room), [ModelSize(size, 1, None) for size in sizes], EVICTION[eviction])


def activate(cache: ExpertCache, expert: int, now: int, uses: int = 1) -> tuple[tuple[int, ...], int]:
    """Copy and use an expert; who was evicted for it, and its address."""
    evicted, address = cache.begin(expert, now)
    cache.arrived(expert, now + 1)
    cache.use(expert, now + 2, uses)
    return tuple(victim.expert for victim in evicted), address


# States


@pytest.mark.parametrize(("state", "to"), list(product(ExpertState, repeat=2)))
def test_a_move_is_legal_or_raises_with_the_experts_history(state, to):
    cache = cache_of(60, 60)
    if state is not IN_DDR:
        cache.begin(0, 10)
    if state is RESIDENT:
        cache.arrived(0, 20)
    assert cache.state(0) is state
    moves = {
        COPYING: lambda: cache.begin(0, 30),
        RESIDENT: lambda: cache.arrived(0, 30),
        IN_DDR: lambda: cache._move(0, IN_DDR, 30),
    }
    if (state, to) in LEGAL:
        assert to in MOVES[state]
        moves[to]()
        assert cache.state(0) is to
        return
    known = {IN_DDR: "nothing", COPYING: "COPYING at 10 ps", RESIDENT: "COPYING at 10 ps; RESIDENT at 20 ps"}
    with pytest.raises(InvariantError) as error:
        moves[to]()
    move = f"expert 0: {state.value} -> {to.value} at 30 ps is no legal move; before: {known[state]}"
    assert str(error.value) == move
    assert cache.state(0) is state


def test_the_history_is_that_of_the_expert_alone_and_forgets_what_is_long_ago():
    cache = cache_of(100, 100)
    for turn in range(20):
        activate(cache, turn % 2, 10 * turn)
    with pytest.raises(InvariantError) as error:
        cache.arrived(1, 500)
    moves = str(error.value).partition("before: ")[2].split("; ")
    assert len(moves) == 12
    assert moves[-3:] == ["IN_DDR at 180 ps", "COPYING at 190 ps", "RESIDENT at 191 ps"]


def test_an_expert_is_there_once_it_arrived_and_not_before():
    cache = cache_of(60, 60)
    assert not cache.resident(0) and cache.residents() == ()
    assert cache.begin(0, 0) == ((), 1_000)
    assert not cache.resident(0) and cache.address(0) == 1_000
    cache.arrived(0, 5)
    assert cache.resident(0) and cache.residents() == (0,)
    activate(cache, 1, 10)
    assert not cache.resident(0) and cache.state(0) is IN_DDR
    assert cache.residents() == (1,)


# Eviction


def test_nobody_is_evicted_while_there_is_room():
    cache = cache_of(30, 30, 40)
    assert [activate(cache, expert, expert) for expert in range(3)] == [((), 1_000), ((), 1_030), ((), 1_060)]


def test_lru_evicts_the_one_not_used_for_longest_and_the_new_one_takes_its_place():
    cache = cache_of(50, 50, 50)
    activate(cache, 0, 10, uses=1)
    activate(cache, 1, 20, uses=9)
    cache.use(0, 30, 0)
    assert activate(cache, 2, 40) == ((1,), 1_050)


def test_an_expert_that_came_and_was_never_used_counts_from_when_it_came():
    cache = cache_of(50, 50, 50)
    for expert, now in ((1, 10), (0, 20)):
        cache.begin(expert, now)
        cache.arrived(expert, now + 1)
    assert activate(cache, 2, 40) == ((1,), 1_000)


def test_lfu_evicts_the_one_used_least_since_it_came():
    cache = cache_of(50, 50, 50, eviction="lfu")
    activate(cache, 0, 10, uses=1)
    activate(cache, 1, 20, uses=9)
    cache.use(0, 30, 0)
    assert activate(cache, 2, 40, uses=3) == ((0,), 1_000)
    assert activate(cache, 0, 50, uses=4) == ((2,), 1_000)
    assert activate(cache, 2, 60) == ((0,), 1_000)  # 4 uses against 9: those before its eviction do not count


def test_the_victim_comes_with_its_address_and_its_use():
    cache = cache_of(100, 100)
    activate(cache, 0, 10, uses=3)
    cache.use(0, 50, 2)
    (victim,), _ = cache.begin(1, 60)
    assert (victim.expert, victim.address, victim.last_used, victim.uses) == (0, 1_000, 50, 5)


def test_a_large_expert_evicts_as_many_small_ones_as_it_needs_and_no_more():
    cache = cache_of(30, 30, 30, 60)
    for expert in (0, 1, 2):
        activate(cache, expert, 10 * expert)
    assert activate(cache, 3, 50) == ((0, 1), 1_000)
    assert cache.residents() == (2, 3)


def test_evicting_goes_on_while_holes_are_too_far_apart():
    cache = cache_of(30, 30, 30, 60)
    for expert, now in ((1, 0), (0, 10), (2, 20)):  # addresses 1000, 1030, 1060
        activate(cache, expert, now)
    cache.use(0, 100, 1)  # the middle one is the last to go
    assert activate(cache, 3, 200) == ((1, 2, 0), 1_000)


def test_a_freed_hole_is_used_by_the_next_that_fits():
    cache = cache_of(40, 20, 40, 30, 25)
    for expert, now in ((0, 0), (1, 10), (2, 20)):
        activate(cache, expert, now)
    assert activate(cache, 3, 30) == ((0,), 1_000)  # leaves a hole of 10 behind it
    assert activate(cache, 4, 40) == ((1,), 1_030)  # 10 + 20 joined


def test_what_does_not_fit_an_empty_region_is_a_defect_that_is_named():
    cache = cache_of(101, 40)
    activate(cache, 1, 0)
    with pytest.raises(InvariantError, match="expert 0: 101 bytes do not fit an empty expert region"):
        cache.begin(0, 10)


def test_an_expert_that_is_being_copied_is_never_evicted():
    cache = cache_of(60, 60)
    cache.begin(0, 0)
    with pytest.raises(InvariantError, match="expert 1: 60 bytes do not fit"):
        cache.begin(1, 10)
    assert cache.state(0) is COPYING


# In a simulation, with the clockwork of conftest


def test_a_third_expert_evicts_the_one_not_used_for_longest(clockwork, simulate, requests):
    rows = [(at, 5, 2, expert) for at, expert in ((0, 0), (20, 1), (40, 0), (60, 2), (80, 0), (100, 1))]
    outcome = simulate(clockwork(slots=2), requests(*rows))
    assert [outcome.ms(number).get("switch", 0) for number in range(6)] == [10, 10, 0, 10, 0, 10]
    group = outcome.simulation.groups[0]
    assert group.cache.residents() == (0, 1) and (group.hits, dict(group.activations)) == (2, {0: 1, 1: 2, 2: 1})
    assert [plan.command.symbol for plan in outcome.of_kind(Kind.FREE) if plan.command.symbol < 3] == [1, 2]
    assert outcome.counters[0]["copied"] == 4 * outcome.deployment.expert_bytes(0)


@pytest.mark.parametrize(("eviction", "evicted"), [("lru", 0), ("lfu", 1)])
def test_lfu_counts_requests_and_keeps_the_one_that_served_more(eviction, evicted, clockwork, simulate, requests):
    rows = [(0, 5, 2, 0), (0, 5, 2, 0), (40, 5, 9, 1), (80, 5, 2, 2)]
    outcome = simulate(clockwork(slots=2, eviction=eviction), requests(*rows))
    assert [plan.command.symbol for plan in outcome.of_kind(Kind.FREE) if plan.command.symbol < 3] == [evicted]


def test_the_address_of_an_evicted_expert_is_used_again(clockwork, simulate, requests):
    outcome = simulate(clockwork(slots=1), requests((0, 5, 1, 0), (0, 5, 1, 1), (0, 5, 1, 2)))
    layout = outcome.deployment.layouts[0]
    copies = [(plan.command, plan.completions[0].time) for plan in outcome.of_kind(Kind.COPY)]
    assert [(c.symbol, c.address, c.source) for c, _ in copies] == [
        (expert, layout.experts.start, layout.ddr[expert]) for expert in range(3)
    ]
    assert [(c.issued, end) for c, end in copies] == [(0, 10 * MS), (13 * MS, 23 * MS), (26 * MS, 36 * MS)]
