"""Where do the symbols of a program lie, and which of them go to DDR? Worked by hand, in units of one alignment."""

from __future__ import annotations

import re

import pytest

from node.dataflow.memory_plan import ALIGNMENT, MemoryPlan, Symbol, plan_memory
from node.errors import OutOfMemoryError

AMPLE = 1000


def symbol(name: str, units: int, first: int, last: int, moved: int = 0) -> Symbol:
    return Symbol(name, units * ALIGNMENT, first, last, moved)


def plan(*symbols: Symbol, hbm: int = AMPLE, ddr: int = AMPLE) -> MemoryPlan:
    return plan_memory(symbols, hbm * ALIGNMENT, ddr * ALIGNMENT)


def units(addresses: dict[str, int]) -> dict[str, int]:
    return {name: address // ALIGNMENT for name, address in addresses.items()}


def test_symbols_share_an_address_from_the_kernel_after_the_last() -> None:
    apart = plan(symbol("a", 3, 0, 1), symbol("b", 3, 2, 3))
    assert units(apart.hbm) == {"a": 0, "b": 0}
    assert (apart.hbm_bytes, apart.unshared_bytes, apart.saved_bytes) == (3 * ALIGNMENT, 6 * ALIGNMENT, 3 * ALIGNMENT)
    meeting = plan(symbol("a", 3, 0, 2), symbol("b", 3, 2, 3))  # kernel 2 reads a and writes b
    assert units(meeting.hbm) == {"a": 0, "b": 3}
    assert meeting.saved_bytes == 0


def test_a_chain_takes_two_buffers() -> None:
    chain = plan(*(symbol(f"x{kernel:02}", 5, kernel, kernel + 1) for kernel in range(20)))
    assert chain.hbm_bytes == chain.lifetime_bound == 2 * 5 * ALIGNMENT
    assert chain.unshared_bytes == 20 * 5 * ALIGNMENT
    assert units(chain.hbm) == {f"x{kernel:02}": 5 * (kernel % 2) for kernel in range(20)}


def test_a_residual_across_a_chain_takes_a_third() -> None:
    chain = [symbol(f"x{kernel}", 5, kernel, kernel + 1) for kernel in range(1, 5)]
    with_residual = plan(symbol("residual", 5, 0, 5), *chain, symbol("after", 5, 6, 7))
    assert with_residual.hbm_bytes == with_residual.lifetime_bound == 3 * 5 * ALIGNMENT


def test_weights_lie_side_by_side_at_the_bottom() -> None:
    held = plan(symbol("x", 9, 0, 1), symbol("w1", 2, 0, 3), symbol("y", 9, 2, 3), symbol("w0", 4, 0, 3))
    assert units(held.hbm) == {"w0": 0, "w1": 4, "x": 6, "y": 6}


def test_a_gap_below_is_filled_before_the_top_grows() -> None:
    # The large one at 0, then the long one on top of it; small fits below the long one once large has died
    filled = plan(symbol("large", 8, 0, 1), symbol("long", 4, 1, 9), symbol("small", 3, 2, 8))
    assert units(filled.hbm) == {"large": 0, "long": 8, "small": 0}


def test_where_the_order_by_size_wastes_another_is_taken() -> None:
    # By size: a at 0, b on it at 3, c below b at 0, and d, which meets b and c, on b at 5: ends at 7.
    # By size times lifetime: b at 0, c at 2, d at 4, and a at 2, where c and d have died: ends at 6
    found = plan(symbol("a", 3, 3, 3), symbol("b", 2, 1, 4), symbol("c", 2, 0, 1), symbol("d", 2, 0, 1))
    assert units(found.hbm) == {"b": 0, "c": 2, "d": 4, "a": 2}
    assert found.hbm_bytes == found.lifetime_bound == 6 * ALIGNMENT


def test_where_both_waste_the_symbols_alive_at_the_peak_go_first() -> None:
    # e lives throughout: at 0. By size b and a at 1, d on a at 4, c on d at 7: ends at 8; the same by size x lifetime.
    # The peak of 7 is at kernel 1, of e, a and d: a at 1, d at 4, then c below d at 1, and b above c at 2
    symbols = [symbol("a", 3, 0, 1), symbol("b", 4, 3, 4), symbol("c", 1, 2, 4), symbol("d", 3, 1, 2)]
    found = plan(*symbols, symbol("e", 1, 0, 4))
    assert units(found.hbm) == {"e": 0, "a": 1, "d": 4, "c": 1, "b": 2}
    assert found.hbm_bytes == found.lifetime_bound == 7 * ALIGNMENT


def test_sizes_are_rounded_up_to_whole_alignments() -> None:
    odd = plan_memory([Symbol("a", 1, 0, 0, 0), Symbol("b", ALIGNMENT + 1, 0, 0, 0)], 3 * ALIGNMENT, 0)
    assert odd.hbm == {"a": 0, "b": ALIGNMENT}
    assert odd.hbm_bytes == odd.lifetime_bound == odd.unshared_bytes == 3 * ALIGNMENT


def test_symbols_of_no_size_take_nothing_and_are_never_spilled() -> None:
    empty = plan(symbol("nothing", 0, 0, 9), symbol("a", 2, 3, 4), hbm=1)
    assert (empty.hbm, empty.ddr) == ({"nothing": 0}, {"a": 0})
    assert (empty.hbm_bytes, empty.ddr_bytes) == (0, 2 * ALIGNMENT)


def test_no_symbols_take_nothing() -> None:
    assert plan(hbm=0, ddr=0) == MemoryPlan({}, {}, 0, 0, 0, 0, 0)


def test_kernels_may_be_far_apart() -> None:
    far = plan(symbol("a", 1, -(10**12), 10**12), symbol("b", 1, 10**12 + 1, 10**15))
    assert units(far.hbm) == {"a": 0, "b": 0}


RANKED = (
    symbol("weight", 6, 0, 9, moved=900),
    symbol("cache", 4, 0, 9, moved=300),
    symbol("state", 3, 0, 9, moved=20),
    symbol("table", 5, 0, 9, moved=20),
    symbol("mask", 5, 0, 9, moved=20),
)  # 23 units, all alive together


@pytest.mark.parametrize(
    ("hbm", "spilled"),
    [
        (23, []),
        (22, ["mask"]),  # of equal ones the larger, then by name
        (18, ["mask"]),
        (17, ["mask", "table"]),
        (12, ["mask", "table", "state"]),
        (9, ["mask", "table", "state", "cache"]),
        (6, ["mask", "table", "state", "cache"]),
        (5, ["mask", "table", "state", "cache", "weight"]),
        (0, ["mask", "table", "state", "cache", "weight"]),
    ],
)
def test_the_least_moved_spill_first_and_no_more_than_need_be(hbm: int, spilled: list[str]) -> None:
    short = plan(*RANKED, hbm=hbm)
    assert set(short.ddr) == set(spilled)
    assert short.hbm.keys() == {each.name for each in RANKED} - set(spilled)
    assert short.spilled_moved == sum(each.moved for each in RANKED if each.name in spilled)
    assert short.ddr_bytes == sum(each.size for each in RANKED if each.name in spilled)


def test_spilled_symbols_share_addresses_too() -> None:
    chain = [symbol(f"x{kernel}", 5, kernel, kernel + 1, moved=10) for kernel in range(6)]
    short = plan(symbol("weight", 7, 0, 6, moved=100), *chain, hbm=7)
    assert units(short.hbm) == {"weight": 0}
    assert short.ddr_bytes == 2 * 5 * ALIGNMENT
    assert (short.unshared_bytes, short.lifetime_bound) == (7 * ALIGNMENT, 7 * ALIGNMENT)  # of HBM alone


def test_ddr_too_short_for_what_hbm_leaves_is_out_of_memory() -> None:
    assert plan(*RANKED, hbm=12, ddr=13).ddr_bytes == 13 * ALIGNMENT
    with pytest.raises(OutOfMemoryError, match="out of memory in DDR") as caught:
        plan(*RANKED, hbm=12, ddr=12)
    assert (caught.value.asked, caught.value.free) == (13 * ALIGNMENT, 12 * ALIGNMENT)
    assert f"{12 * ALIGNMENT:,} bytes of HBM" in str(caught.value)


@pytest.mark.parametrize(
    ("symbols", "message"),
    [
        ([symbol("a", 1, 0, 0), symbol("a", 2, 1, 1)], "two symbols are named 'a': names must differ"),
        ([symbol("a", 1, 3, 2)], "symbol 'a': first kernel 3 is after the last, 2"),
        ([Symbol("a", -5, 0, 0, 0)], "symbol 'a': size -5 and moved 0 must not be negative"),
        ([Symbol("a", 5, 0, 0, -1)], "symbol 'a': size 5 and moved -1 must not be negative"),
    ],
)
def test_symbols_that_cannot_be_are_refused(symbols: list[Symbol], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        plan(*symbols)


@pytest.mark.parametrize(("hbm", "ddr", "tier"), [(-1, 0, "HBM"), (0, -1, "DDR")])
def test_a_capacity_below_zero_is_refused(hbm: int, ddr: int, tier: str) -> None:
    with pytest.raises(ValueError, match=f"^capacity of {tier} = -1 bytes: must not be negative$"):
        plan_memory([], hbm, ddr)
