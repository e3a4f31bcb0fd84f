"""Does a tier refuse what is out of range, what overlaps and what is not alive, at the byte and at the picosecond?"""

from __future__ import annotations

import re

import pytest

from node.errors import HardwareError
from node.hardware.memory import Memory


@pytest.fixture
def tier() -> Memory:
    """100 bytes; symbol 1 in [20, 40), symbol 2 in [60, 80)."""
    memory = Memory("HBM of socket 0", 100)
    memory.allocate(1, 20, 20)
    memory.allocate(2, 60, 20, valid=5)
    return memory


@pytest.mark.parametrize(("address", "size"), [(-1, 10), (81, 20), (0, 101), (100, 1), (90, 0), (90, -5)])
def test_a_range_outside_the_tier_is_refused(tier: Memory, address: int, size: int) -> None:
    before = tier.snapshot()
    with pytest.raises(HardwareError, match=rf"HBM of socket 0: \[{address}, {address + size}\) is out of range.*100"):
        tier.allocate(3, address, size)
    assert tier.snapshot() == before


@pytest.mark.parametrize(
    ("address", "size", "other"),
    [
        (10, 11, "[20, 40) of symbol 1"),  # its last byte
        (39, 5, "[20, 40) of symbol 1"),  # its first byte
        (25, 5, "[20, 40) of symbol 1"),  # inside
        (20, 20, "[20, 40) of symbol 1"),  # the same
        (20, 5, "[20, 40) of symbol 1"),
        (35, 5, "[20, 40) of symbol 1"),
        (10, 40, "[20, 40) of symbol 1"),  # around
        (40, 21, "[60, 80) of symbol 2"),
        (79, 21, "[60, 80) of symbol 2"),
    ],
)
def test_a_range_that_overlaps_a_live_one_is_refused(tier: Memory, address: int, size: int, other: str) -> None:
    before = tier.snapshot()
    with pytest.raises(HardwareError, match=re.escape(f"[{address}, {address + size}) overlaps {other}")):
        tier.allocate(3, address, size)
    assert tier.snapshot() == before and tier.used == 40


@pytest.mark.parametrize(("address", "size"), [(0, 20), (40, 20), (80, 20), (19, 1), (40, 1), (59, 1), (99, 1)])
def test_a_range_may_touch_its_neighbours_and_the_ends(tier: Memory, address: int, size: int) -> None:
    tier.allocate(3, address, size)
    assert (tier.address(3), tier.used) == (address, 40 + size)


def test_a_symbol_lives_once(tier: Memory) -> None:
    with pytest.raises(HardwareError, match="symbol 1 already lives at 20"):
        tier.allocate(1, 0, 5)
    assert (tier.used, tier.address(1)) == (40, 20)


def test_a_freed_symbol_is_not_alive_and_its_range_is_free(tier: Memory) -> None:
    assert (tier.free(1), tier.used) == (20, 20)
    for use in (tier.address, tier.free):
        with pytest.raises(HardwareError, match="symbol 1 is not alive"):
            use(1)
    for use in (tier.fill, tier.read):
        with pytest.raises(HardwareError, match="symbol 1 is not alive"):
            use(1, 9)
    tier.allocate(3, 0, 60)
    tier.allocate(1, 80, 1)
    assert (tier.address(1), tier.used) == (80, 81)


def test_a_symbol_is_read_from_its_time_on(tier: Memory) -> None:
    with pytest.raises(HardwareError, match="symbol 2 read at 4 ps, but it is there from 5 ps on"):
        tier.read(2, 4)
    assert tier.read(2, 5) == tier.read(2, 6) == 60
    tier.fill(2, 8)  # written again
    with pytest.raises(HardwareError, match="there from 8 ps on"):
        tier.read(2, 7)
    assert tier.read(2, 8) == 60


def test_a_symbol_never_written_is_not_read(tier: Memory) -> None:
    with pytest.raises(HardwareError, match="symbol 1 read at 1,000 ps, but it is never written"):
        tier.read(1, 1000)
    tier.fill(1, 0)
    assert tier.read(1, 0) == 20


def test_what_was_written_before_a_free_is_gone(tier: Memory) -> None:
    tier.free(2)
    tier.allocate(2, 60, 20)
    with pytest.raises(HardwareError, match="never written"):
        tier.read(2, 1000)


def test_the_peak_is_the_most_that_was_ever_live(tier: Memory) -> None:
    assert (tier.used, tier.peak) == (40, 40)
    tier.allocate(3, 0, 20)
    tier.free(1)
    assert (tier.used, tier.peak) == (40, 60)
    tier.allocate(4, 20, 19)
    assert (tier.used, tier.peak) == (59, 60)
    tier.allocate(5, 40, 2)
    assert (tier.used, tier.peak) == (61, 61)


def test_a_tier_restored_from_a_snapshot_is_the_same_tier(tier: Memory) -> None:
    tier.allocate(3, 0, 20, valid=0)
    tier.free(3)
    tier.allocate(4, 99, 1, valid=0)
    other = Memory("HBM of socket 0", 100)
    other.restore(tier.snapshot())
    assert other.snapshot() == tier.snapshot()
    assert (other.used, other.peak) == (tier.used, tier.peak) == (41, 60)
    assert other.read(4, 0) == 99 and other.read(2, 5) == 60
    with pytest.raises(HardwareError, match="there from 5 ps on"):
        other.read(2, 4)
    with pytest.raises(HardwareError, match="never written"):
        other.read(1, 9)
    with pytest.raises(HardwareError, match="overlaps"):
        other.allocate(5, 30, 1)


def test_a_snapshot_does_not_change_with_the_tier(tier: Memory) -> None:
    before = tier.snapshot()
    tier.free(1)
    assert before["ranges"] == [[1, 20, 20, -1], [2, 60, 20, 5]]
