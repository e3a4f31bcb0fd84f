"""How many newcomers have come by a time, whoever of them are side by side."""

from __future__ import annotations

from bisect import bisect_right

from hypothesis import given
from hypothesis import strategies as st

from node.runtime.queues import FEW, came_by


@given(times=st.lists(st.integers(0, 12), max_size=200).map(sorted), now=st.integers(0, 13), share=st.floats(0, 1))
def test_it_is_what_a_search_through_all_times_finds(times: list[int], now: int, share: float) -> None:
    there = bisect_right(times, now)
    assert came_by(now, times, int(share * there)) == there


def test_all_of_one_moment_come_however_many_they_are() -> None:
    for count in (FEW - 1, FEW, FEW + 1, 2 * FEW, 10 * FEW + 1):
        assert came_by(5, [5] * count + [6] * FEW, 0) == count
