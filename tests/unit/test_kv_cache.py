"""Does every sequence get a range of its own in the KV region, as long as it needs it and no longer than its window?"""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.errors import InputError
from node.events import ROW, Kind
from node.runtime.kv_cache import KvCache
from node.runtime.sharding import Region
from node.stream import Stream


class Cache(KvCache):
    """At time 0, in group 0."""

    def __init__(self, region: Region, first_symbol: int, *, bare: bool = False) -> None:
        self.stream = Stream(0)
        super().__init__(region, first_symbol, self.stream, bare=bare)

    def take(self, size: int) -> tuple[int, int] | None:
        held = self.reserve([size], 0)
        assert [reserved for _, _, reserved in held] == [size] * len(held)
        return held[0][:2] if held else None

    def end(self, symbol: int, address: int, size: int) -> None:
        self.release([(symbol, address, size)], 0)


def test_ranges_follow_each_other_from_the_start_of_the_region_and_symbols_count_up():
    cache = Cache(Region(100, 60), first_symbol=7)
    assert [cache.take(size) for size in (10, 20, 30)] == [(7, 100), (8, 110), (9, 130)]


def test_what_fits_exactly_is_reserved_and_one_byte_more_is_not():
    cache = Cache(Region(100, 60), first_symbol=0)
    assert cache.take(61) is None
    assert cache.take(60) == (0, 100)


def test_who_keeps_nothing_has_a_range_where_there_is_no_room_left_and_nobody_is_told():
    cache = Cache(Region(100, 60), first_symbol=0, bare=True)
    assert cache.take(60) == (0, 100) and cache.take(0) is not None and cache.take(1) is None
    cache.end(1, 100, 0)
    cache.end(0, 100, 60)
    assert cache.take(0) is not None and cache.take(60) is not None
    assert cache.stream.take().columns[ROW["size"]].tolist() == [60, 60, 60]


def test_a_refusal_uses_up_no_symbol_and_no_room():
    cache = Cache(Region(0, 60), first_symbol=3)
    assert cache.take(50) == (3, 0)
    assert cache.take(11) is None
    assert cache.take(10) == (4, 50)


def test_the_room_of_a_range_that_ended_is_given_out_again_under_a_new_symbol():
    cache = Cache(Region(100, 60), first_symbol=0)
    first, second = cache.take(20), cache.take(40)
    assert first == (0, 100) and second == (1, 120)
    cache.end(0, 100, 20)
    assert cache.take(21) is None
    assert cache.take(20) == (2, 100)


def test_who_is_as_long_as_one_that_ended_gets_its_place_and_leaves_the_others_whole():
    cache = Cache(Region(0, 100), first_symbol=0)
    for size in (30, 10, 20):
        cache.take(size)
    cache.end(0, 0, 30)
    cache.end(1, 30, 10)
    assert cache.take(10) == (3, 30)  # not 0, where it would fit as well
    assert cache.take(30) == (4, 0)


def test_ranges_are_contiguous_so_that_two_small_holes_hold_no_large_sequence():
    cache = Cache(Region(0, 30), first_symbol=0)
    for _ in range(3):
        cache.take(10)
    cache.end(0, 0, 10)
    cache.end(2, 20, 10)
    assert cache.take(20) is None
    cache.end(1, 10, 10)
    assert cache.take(30) == (3, 0)


def test_as_many_are_reserved_as_fit_and_the_sockets_are_told_of_each():
    cache = Cache(Region(5, 24), first_symbol=4)
    assert cache.reserve([10, 12, 9], 17) == [(4, 5, 10), (5, 15, 12)]
    cache.release([(5, 15, 12), (4, 5, 10)], 23)
    columns = cache.stream.take().columns
    rows = [columns[ROW[name]].tolist() for name in ("sequence", "kind", "issued", "tier", "symbol", "address", "size")]
    begun = [(0, 0, 17, 1, 4, 5, 10), (1, 0, 17, 1, 5, 15, 12)]
    assert list(zip(*rows, strict=True)) == [*begun, (2, 1, 23, 1, 5, 15, 12), (3, 1, 23, 1, 4, 5, 10)]


@given(st.lists(st.integers(1, 40) | st.none(), max_size=60))
def test_live_ranges_never_overlap_and_nothing_is_refused_that_some_hole_could_hold(steps):
    cache, live = Cache(Region(50, 100), first_symbol=0), {}
    for size in steps:
        if size is None:
            if live:
                symbol = min(live)
                start, end = live.pop(symbol)
                cache.end(symbol, start, end - start)
            continue
        taken = sorted(live.values())
        holes = [b - a for a, b in zip([50, *(end for _, end in taken)], [*(s for s, _ in taken), 150], strict=True)]
        reserved = cache.take(size)
        assert (reserved is None) == (max(holes) < size)
        if reserved is not None:
            symbol, address = reserved
            assert symbol not in live
            assert all(address + size <= start or end <= address for start, end in taken)
            assert address >= 50 and address + size <= 150
            live[symbol] = (address, address + size)


# In a simulation, with the clockwork of conftest


@pytest.mark.parametrize(("kv_tokens", "together"), [(10, 1), (19, 1), (20, 2), (39, 3), (40, 4)])
def test_a_kv_cache_too_small_for_the_batch_delays_and_never_deadlocks(
    kv_tokens, together, clockwork, simulate, requests
):
    outcome = simulate(clockwork(kv_tokens=kv_tokens, call_overhead="none"), requests(*[(0, 5, 5, 0)] * 4))
    waves = [plan.command.sequences for plan in outcome.of_kind(Kind.PREFILL)]
    assert waves == [together] * (4 // together) + [4 % together] * bool(4 % together)
    assert [outcome.ms(number).get("queue", 0) for number in range(4)] == [
        0 if number < together else 10 + 5 * (number // together) for number in range(4)
    ]


@pytest.mark.parametrize(("kv_tokens", "together"), [(8, [1, 1, 1]), (16, [2, 1]), (24, [3])])
def test_the_router_takes_as_many_as_kv_cache_has_room_for(kv_tokens, together, clockwork, simulate, requests):
    deployment = clockwork(kv_tokens=kv_tokens, router=True, call_overhead="none")
    outcome = simulate(deployment, requests(*[(0, 5, 1, 0)] * 3))
    routed = [plan.command.sequences for plan in outcome.of_kind(Kind.PREFILL) if plan.command.symbol == 3]
    assert routed == together


def test_a_join_that_has_no_kv_cache_lets_the_batch_go_on(clockwork, simulate, requests):
    outcome = simulate(clockwork(kv_tokens=25), requests((0, 10, 10, 0), (15.5, 3, 3, 0), (30, 3, 3, 0)))
    assert outcome.ms(0)["decode"] == 9 and "stall" not in outcome.ms(0)
    assert outcome.ms(1) == {"queue": 13 + 9 - 15.5, "call_overhead": 2, "prefill": 1, "decode": 2}


@pytest.mark.parametrize(
    ("row", "router", "kv_tokens", "fits"),
    [
        ((0, 5, 5, 0), False, 10, True),
        ((0, 5, 5, 0), False, 9, False),
        ((0, 5, 2, 0), True, 8, True),  # the router generates 3 tokens
        ((0, 5, 2, 0), True, 7, False),
        ((0, 5, 2, 0), False, 7, True),
    ],
)
def test_a_request_that_can_never_fit_is_refused_by_the_name_of_the_key(
    row, router, kv_tokens, fits, clockwork, simulate, requests
):
    deployment = clockwork(kv_tokens=kv_tokens, router=router)
    small = (0, 2, 1, 0)
    if fits:
        assert len(simulate(deployment, requests(small, row)).rows) == 2
        return
    with pytest.raises(InputError) as error:
        simulate(deployment, requests(small, row))
    per_token = deployment.settings.sizes[0].kv_token
    asked, room = per_token * (kv_tokens + 1), per_token * kv_tokens
    said = f"request 1 ({row[1]} tokens in, {row[2]} out) needs {asked:,} bytes of KV cache per socket, "
    assert str(error.value).startswith(said + f"but runtime.kv_reserve leaves {room:,}; raise runtime.kv_reserve")


# The window of attention


def window_of(clockwork, window: int, **options):
    shape = replace(clockwork().models["clock"], sliding_window=window)
    return clockwork(shape=shape, **options)


def test_a_decode_run_is_cut_where_the_window_is_full_and_grows_no_more(clockwork, simulate, requests):
    outcome = simulate(window_of(clockwork, 8), requests((0, 5, 10, 0), (0, 7, 3, 0), (0, 12, 5, 0)))
    (prefill,) = (plan.command for plan in outcome.of_kind(Kind.PREFILL))
    assert prefill.pairs == 15 + 28 + (36 + 4 * 8)
    decodes = [plan.command for plan in outcome.of_kind(Kind.DECODE)]
    assert [(d.sequences, d.context, d.growth, d.steps) for d in decodes] == [
        (3, 6 + 8 + 8, 1, 2),
        (2, 8 + 8, 0, 2),
        (1, 8, 0, 5),
    ]


def test_mistral_reads_no_further_back_than_its_window(deploy, simulate, requests):
    deployment = deploy(experts=(("mistral-7b", 1),), call_overhead="none")
    outcome = simulate(deployment, requests((0, 4090, 20, 0)))
    runs = outcome.of_kind(Kind.DECODE)
    assert [(run.command.context, run.command.growth, run.command.steps) for run in runs] == [
        (4091, 1, 5),
        (4096, 0, 14),
    ]
    costs = deployment.programs(0)[0].decode(1)
    stepped = sum(costs.run_ps(min(4091 + step, 4096), 0, 1) for step in range(19))
    assert outcome.row(0).charges["decode"] == stepped
    assert runs[0].completions[0].time == runs[1].command.issued


def test_a_router_reads_no_further_back_than_its_window(clockwork, simulate, requests):
    outcome = simulate(window_of(clockwork, 8, router=True, router_tokens=6), requests((0, 5, 1, 0)))
    decodes = [plan.command for plan in outcome.of_kind(Kind.DECODE)]
    assert max(d.context + d.growth * (d.steps - 1) for d in decodes) == 8
