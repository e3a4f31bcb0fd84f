"""Does every expert get its place, once, on the right sockets, and is a refusal worth reading?"""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.errors import InputError, OutOfMemoryError
from node.runtime.homes import Homes, Sharding, homes_of
from node.runtime.sharding import Layout, ModelSize, Region, groups_of, lay_out

ROOMY = (10_000, 10_000)


def size(weights: int) -> ModelSize:
    return ModelSize(weights, kv_token=2, window=None)


def modulo(experts: int, groups: int) -> Homes:
    return homes_of(Sharding(), range(groups), [0] * experts, 0)


# Groups


@pytest.mark.parametrize(("degree", "groups"), [(8, 1), (4, 2), (2, 4), (1, 8)])
def test_eight_sockets_make_eight_over_tp_groups(degree, groups):
    assert groups_of(8, degree) == groups


@pytest.mark.parametrize("degree", [0, -2, 3, 5, 16])
def test_a_degree_that_does_not_divide_the_sockets_is_refused_with_those_that_do(degree):
    with pytest.raises(InputError, match=rf"sharding.tensor_parallel = {degree}: .* 8 sockets: one of 1, 2, 4, 8$"):
        groups_of(8, degree)


def test_a_rack_of_six_allows_three():
    assert groups_of(6, 3) == 2


@pytest.mark.parametrize(
    ("groups", "mine"),
    [
        (1, [[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]]),
        (2, [[0, 2, 4, 6, 8], [1, 3, 5, 7, 9]]),
        (4, [[0, 4, 8], [1, 5, 9], [2, 6], [3, 7]]),
        (8, [[0, 8], [1, 9], [2], [3], [4], [5], [6], [7]]),
    ],
)
def test_expert_e_lives_in_group_e_mod_groups(groups, mine):
    layouts = [lay_out(group, modulo(10, groups), [size(100)] * 10, None, 0, ROOMY) for group in range(groups)]
    assert [list(layout.ddr) for layout in layouts] == mine
    assert [layout.group for layout in layouts] == list(range(groups))


# Addresses


def test_the_layout_of_two_groups_worked_by_hand():
    experts = [size(weights) for weights in (100, 40, 60, 50, 20)]
    first, second = (lay_out(group, modulo(5, 2), experts, size(30), 200, (300, 400)) for group in (0, 1))
    hbm = Region(0, 30), Region(30, 200), Region(230, 170)
    assert first == Layout(0, {0: 0, 2: 100, 4: 160}, *hbm, swap=Region(180, 120))
    assert second == Layout(1, {1: 0, 3: 40}, *hbm, swap=Region(90, 210))


def test_without_a_router_the_kv_region_starts_at_zero():
    layout = lay_out(0, modulo(1, 1), [size(100)], None, 200, ROOMY)
    assert (layout.router, layout.kv, layout.experts) == (Region(0, 0), Region(0, 200), Region(200, 9_800))


def test_a_group_without_experts_has_an_empty_layout():
    layout = lay_out(5, modulo(3, 8), [size(100)] * 3, size(10), 5, ROOMY)
    assert layout.ddr == {} and layout.experts == Region(15, 9_985)


@given(
    experts=st.lists(st.integers(1, 400), min_size=1, max_size=20),
    groups=st.sampled_from([1, 2, 4, 8]),
    router=st.none() | st.integers(1, 300),
    kv=st.integers(0, 300),
    spare=st.integers(0, 100),
)
def test_regions_do_not_overlap_and_fill_hbm(experts, groups, router, kv, spare):
    capacity = (router or 0) + kv + max(experts) + spare
    for group in range(groups):
        sizes = [size(weights) for weights in experts]
        layout = lay_out(
            group, modulo(len(sizes), groups), sizes, None if router is None else size(router), kv, (10_000, capacity)
        )
        parts = (layout.router, layout.kv, layout.experts)
        assert [part.start for part in parts] == [0, parts[0].size, parts[0].size + parts[1].size]
        assert (layout.router.size, layout.kv.size) == (router or 0, kv)
        assert layout.experts.start + layout.experts.size == capacity
        homes = sorted((address, address + experts[expert]) for expert, address in layout.ddr.items())
        assert all(end <= start for (_, end), (start, _) in pairwise(homes))
        assert all(start >= 0 and end <= 10_000 for start, end in homes)


# The window of attention


def test_kv_cache_of_a_sequence_is_its_tokens_up_to_the_window():
    assert [size(1).kv_bytes([tokens]) for tokens in (1, 7, 8, 9)] == [2, 14, 16, 18]
    assert [ModelSize(1, 2, window=8).kv_bytes([tokens]) for tokens in (1, 7, 8, 9)] == [2, 14, 16, 16]
    assert [size(1).kv_bytes([7, 9]), ModelSize(1, 2, window=8).kv_bytes([7, 9])] == [32, 30]


# Refusals


def test_ddr_holds_what_fits_exactly_and_refuses_one_byte_more():
    experts = [size(100), size(999), size(60), size(999), size(41)]  # group 0 of 2: 100, 60, 41
    assert lay_out(0, modulo(5, 2), experts, None, 0, (201, 1_000)).ddr == {0: 0, 2: 100, 4: 160}
    with pytest.raises(OutOfMemoryError) as refusal:
        lay_out(0, modulo(5, 2), experts, None, 0, (200, 1_000))
    error = refusal.value
    assert (error.tier, error.socket) == ("DDR", "each socket of group 0")
    assert (error.asked, error.free, error.largest_hole) == (41, 40, 40)
    assert str(error) == (
        "out of memory in DDR of each socket of group 0: asked for 41 bytes, 40 free, largest hole 40; "
        "for expert 4 of 5: 2 of the group's 3 fit; lower experts.count or take a machine with more DDR"
    )


def test_hbm_holds_router_kv_cache_and_the_largest_expert_exactly_and_refuses_one_byte_less():
    experts = [size(1_000), size(70), size(1_000), size(80)]  # group 1 of 2: 70, 80
    assert lay_out(1, modulo(4, 2), experts, size(1_200), 500, (5_000, 1_780)).experts == Region(1_700, 80)
    with pytest.raises(OutOfMemoryError) as refusal:
        lay_out(1, modulo(4, 2), experts, size(1_200), 500, (5_000, 1_779))
    error = refusal.value
    assert (error.tier, error.socket) == ("HBM", "each socket of group 1")
    assert (error.asked, error.free, error.largest_hole) == (1_780, 1_779, 1_779)
    assert str(error) == (
        "out of memory in HBM of each socket of group 1: asked for 1,780 bytes, 1,779 free, largest hole 1,779; "
        "router 1,200 + runtime.kv_reserve 500 + largest expert 80 bytes; "
        "lower runtime.kv_reserve or raise sharding.tensor_parallel"
    )


def test_a_group_without_experts_still_needs_room_for_router_and_kv_cache():
    assert lay_out(7, modulo(1, 8), [size(1)], size(10), 10, (0, 20)).experts == Region(20, 0)
    with pytest.raises(OutOfMemoryError, match="HBM of each socket of group 7: asked for 20 bytes, 19 free"):
        lay_out(7, modulo(1, 8), [size(1)], size(10), 10, (0, 19))


# Deployed: the same on a machine


@pytest.mark.parametrize(("degree", "groups"), [(8, 1), (4, 2), (2, 4), (1, 8)])
def test_a_node_of_eight_sockets_shards_llama_over_each_degree(deploy, degree, groups):
    deployment = deploy(experts=(("llama-2-7b", 10),), degree=degree)
    shard = deployment.settings.sizes[0]
    replicated = 65 * 4096 * 2  # norms are on every socket: two a layer and the last
    assert shard.weights == (6_738_415_616 * 2 - replicated) // degree + replicated
    assert shard.kv_token == 2 * 32 * 32 * 128 * 2 // degree
    assert [layout.ddr for layout in deployment.layouts] == [
        {expert: place * shard.weights for place, expert in enumerate(range(group, 10, groups))}
        for group in range(groups)
    ]
    assert deployment.expert_bytes(0) == shard.weights * degree
    assert deployment.rank_kinds == (0,) * degree
