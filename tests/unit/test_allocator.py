"""Does the allocator hand out the lowest address that fits, and take back what it gave?"""

from __future__ import annotations

import pytest

from node.allocator import Allocator


def test_addresses_begin_at_the_start_and_follow_each_other() -> None:
    allocator = Allocator(1000, 100)
    assert [allocator.allocate(size) for size in (10, 20, 70)] == [1000, 1010, 1030]
    assert (allocator.free, allocator.largest_hole, allocator.allocate(1)) == (0, 0, None)


def test_the_lowest_hole_with_room_is_taken_even_if_a_later_one_fits_better() -> None:
    allocator = Allocator(0, 100)
    taken = [allocator.allocate(size) for size in (30, 10, 10, 50)]
    for address in (taken[0], taken[2]):
        allocator.release(address)  # holes [0, 30) and [40, 50)
    assert allocator.allocate(10) == 0
    assert allocator.allocate(21) is None
    assert allocator.allocate(20) == 10
    assert allocator.allocate(10) == 40


def test_room_in_pieces_is_no_room() -> None:
    allocator = Allocator(0, 30)
    first, _, last = (allocator.allocate(10) for _ in range(3))
    allocator.release(first)
    allocator.release(last)
    assert (allocator.free, allocator.largest_hole) == (20, 10)
    assert allocator.allocate(11) is None
    assert allocator.free == 20  # a refusal takes nothing


@pytest.mark.parametrize("order", [(0, 10, 20), (0, 20, 10), (10, 0, 20), (10, 20, 0), (20, 0, 10), (20, 10, 0)])
def test_neighbouring_holes_are_one(order: tuple[int, ...]) -> None:
    allocator = Allocator(0, 30)
    assert [allocator.allocate(10) for _ in range(3)] == [0, 10, 20]
    assert [allocator.release(address) for address in order] == [10, 10, 10]
    assert (allocator.free, allocator.largest_hole, allocator.allocate(30)) == (30, 30, 0)


@pytest.mark.parametrize("address", [5, 10, 30])
def test_what_was_never_given_cannot_be_released(address: int) -> None:
    allocator = Allocator(0, 30)
    allocator.allocate(10)
    with pytest.raises(KeyError):
        allocator.release(address)
    assert allocator.release(0) == 10
    with pytest.raises(KeyError):
        allocator.release(0)
    assert allocator.free == 30


def test_an_empty_range_has_no_room() -> None:
    allocator = Allocator(7, 0)
    assert (allocator.free, allocator.largest_hole, allocator.allocate(1)) == (0, 0, None)
