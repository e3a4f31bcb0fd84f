"""Who has come by a time, whoever of them arrive side by side, and however many."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from node.runtime.arrivals import Arrivals
from node.units import NEVER


def expecting(times: Sequence[int], first: int = 0) -> Arrivals:
    arrivals = Arrivals()
    arrivals.expect(np.arange(first, first + len(times)), np.array(times, dtype=np.int64))
    return arrivals


@given(times=st.lists(st.integers(0, 12), max_size=200).map(sorted), looks=st.lists(st.integers(0, 13)).map(sorted))
def test_each_comes_once_at_its_time(times: list[int], looks: list[int]) -> None:
    arrivals, came = expecting(times), 0
    for now in looks:
        there = [number for number, time in enumerate(times) if time <= now]
        assert arrivals.upto(now) == there[came:]
        came = len(there)
        assert arrivals.next() == (times[came] if came < len(times) else NEVER)


def test_all_of_one_moment_come_however_many_they_are() -> None:
    for count in range(1, 100):
        assert len(expecting([5] * count + [6] * 8).upto(5)) == count


def test_more_come_after_all_before() -> None:
    arrivals = expecting([1, 3])
    assert arrivals.upto(2) == [0]
    arrivals.expect(np.array([7, 9]), np.array([3, 4]))
    assert arrivals.upto(3) == [1, 7]
    assert (arrivals.next(), arrivals.upto(4), arrivals.next()) == (4, [9], NEVER)
