"""Are pinned experts in HBM from the start, never copied and never evicted, and do all others keep their room?"""

from __future__ import annotations

import numpy as np
import pytest

from node.errors import OutOfMemoryError
from node.events import Kind, Tier
from node.runtime.homes import Sharding, homes_of
from node.runtime.policies import EVICTION
from node.runtime.references import fewest_misses
from node.runtime.sharding import ModelSize, Region, lay_out

POLICIES = pytest.mark.parametrize("eviction", EVICTION)


MODULO = homes_of(Sharding(), range(2), [0] * 5, 0)
ALONE = ((0,),) * 5


def size(weights: int) -> ModelSize:
    return ModelSize(weights, 1, None)


def test_pinned_experts_lie_between_the_kv_cache_and_the_room_of_the_others():
    experts = [size(weights) for weights in (40, 50, 60, 70, 80)]
    layouts = [lay_out(group, MODULO, experts, size(30), 20, (1_000, 250), pinned=(4, 3, 0)) for group in (0, 1)]
    assert [layout.pinned for layout in layouts] == [{0: 50, 4: 90}, {3: 50}]
    assert [layout.experts for layout in layouts] == [Region(170, 80), Region(120, 130)]
    assert (
        layouts[0].ddr == lay_out(0, MODULO, experts, size(30), 20, (1_000, 250)).ddr
    )  # homes of all, pinned ones too


def test_beside_the_pinned_the_largest_of_the_others_must_fit():
    experts = [size(100), size(60), size(70)]
    assert lay_out(0, ALONE[: len(experts)], experts, size(10), 20, (500, 260), pinned=(0, 1)).experts == Region(
        190, 70
    )
    with pytest.raises(OutOfMemoryError) as refusal:
        lay_out(0, ALONE[: len(experts)], experts, size(10), 20, (500, 259), pinned=(0, 1))
    assert str(refusal.value) == (
        "out of memory in HBM of each socket of group 0: asked for 260 bytes, 259 free, largest hole 259; "
        "router 10 + runtime.kv_reserve 20 + runtime.pinned 160 + largest other expert 70 bytes; "
        "pin fewer, lower runtime.kv_reserve or raise sharding.tensor_parallel"
    )


def test_all_may_be_pinned_where_all_fit():
    experts = [size(100), size(60)]
    assert lay_out(0, ALONE[: len(experts)], experts, None, 20, (500, 180), pinned=(0, 1)).experts == Region(180, 0)
    with pytest.raises(OutOfMemoryError, match="asked for 180 bytes, 179 free"):
        lay_out(0, ALONE[: len(experts)], experts, None, 20, (500, 179), pinned=(0, 1))


@POLICIES
@pytest.mark.parametrize("prefetch", [True, False])
def test_a_pinned_expert_is_there_from_the_start_and_stays(eviction, prefetch, clockwork, simulate, requests):
    """Room for 0, which is pinned, and two more of the other three; 0 is asked for first and after all the others."""
    deployment = clockwork(experts=4, slots=3, pinned=(0,), eviction=eviction, prefetch=prefetch)
    rows = [(at, 5, 2, expert) for at, expert in ((0, 0), (20, 1), (40, 2), (60, 3), (80, 1), (80, 2), (130, 0))]
    outcome = simulate(deployment, requests(*rows))
    assert [outcome.ms(number).get("switch", 0) for number in (0, 1, 2, 3, 6)] == [0, 10, 10, 10, 0]
    touched = [p.command.symbol for kind in (Kind.COPY, Kind.FREE) for p in outcome.of_kind(kind)]
    assert 0 not in touched and 1 in touched
    loads = [(p.command.symbol, p.command.address) for p in outcome.of_kind(Kind.LOAD) if p.command.tier == Tier.HBM]
    assert loads == [(0, deployment.layouts[0].kv.size)]
    assert outcome.simulation.groups[0].cache.residents()[0] == 0
    assert len(outcome.simulation.groups[0].cache.references) == len(rows)


@POLICIES
def test_where_all_are_pinned_nothing_is_copied(eviction, clockwork, simulate, requests):
    deployment = clockwork(experts=2, slots=2, pinned=(0, 1), eviction=eviction)
    outcome = simulate(deployment, requests((0, 5, 2, 1), (0, 5, 2, 0), (9, 5, 2, 1)))
    group = outcome.simulation.groups[0]
    assert (group.hits, group.misses, outcome.counters[0]["copied"]) == (3, 0, 0)


def test_the_yardstick_has_the_same_pinned():
    string = np.array([0, 1, 2, 0, 1, 2, 3, 0])
    assert fewest_misses(string, [1] * 4, 2) == 6
    assert fewest_misses(string, [1] * 4, 1, pinned=(0,)) == 5
    assert fewest_misses(string, [1] * 4, 0, pinned=(0, 1, 2, 3)) == 0
