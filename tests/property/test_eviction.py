"""On random reference strings: is no policy better than Belady's, the yardstick his, and ARC the published one?"""

from __future__ import annotations

from fractions import Fraction
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.runtime.policies import EVICTION
from node.runtime.references import fewest_misses
from tests.evicting import cache_for, refer, replay

EXPERTS = 12
STRINGS = st.integers(1, EXPERTS).flatmap(lambda most: st.lists(st.integers(0, most - 1), min_size=1, max_size=200))
POLICIES = pytest.mark.parametrize("policy", EVICTION)
EXAMPLES = settings(max_examples=150, deadline=None)


def yardstick(string: list[int], sizes: list[int], room: int) -> int:
    return fewest_misses(np.array(string, dtype=np.int64), sizes, room)


@POLICIES
@EXAMPLES
@given(string=STRINGS, slots=st.integers(1, EXPERTS), size=st.integers(1, 9), left=st.integers(0, 8))
def test_belady_is_never_worse_than_any_policy_and_the_yardstick_is_belady(policy, string, slots, size, left):
    sizes, room = [size] * EXPERTS, slots * size + min(left, size - 1)
    misses = replay(policy, string, sizes, room)[0].count(False)
    best = replay("belady", string, sizes, room)[0].count(False)
    assert len(set(string)) <= best <= misses
    assert yardstick(string, sizes, room) == best


def fewest(string: tuple[int, ...], slots: int) -> int:
    """Every choice tried."""

    @cache
    def misses(position: int, there: frozenset[int]) -> int:
        if position == len(string):
            return 0
        expert = string[position]
        if expert in there:
            return misses(position + 1, there)
        if len(there) < slots:
            return 1 + misses(position + 1, there | {expert})
        return 1 + min(misses(position + 1, there - {victim} | {expert}) for victim in there)

    return misses(0, frozenset())


@EXAMPLES
@given(string=st.lists(st.integers(0, 5), max_size=14), slots=st.integers(1, 5))
def test_the_yardstick_is_the_least_that_any_choices_come_to(string, slots):
    assert yardstick(string, [3] * 6, 3 * slots + 2) == fewest(tuple(string), slots)


@EXAMPLES
@given(string=STRINGS, sizes=st.lists(st.integers(1, 9), min_size=EXPERTS, max_size=EXPERTS), spare=st.integers(0, 30))
def test_with_unequal_sizes_the_yardstick_is_whoever_evicts_the_farthest(string, sizes, spare):
    """As it says of itself: in bytes, no holes between experts."""
    room, there, misses = max(sizes) + spare, set[int](), 0
    for position, expert in enumerate(string):
        if expert in there:
            continue
        misses += 1
        later = string[position + 1 :]
        while sum(sizes[one] for one in there) + sizes[expert] > room:
            # of those that never come again the highest number leaves first, which matters where sizes differ
            there.remove(max(there, key=lambda one: (later.index(one) if one in later else len(string), one)))
        there.add(expert)
    assert yardstick(string, sizes, room) == misses


# ARC, from figure 4 of the paper, in pages


class Textbook:
    """ARC(c) of Megiddo and Modha (FAST 2003), line by line; lists are least recently used first."""

    def __init__(self, c: int) -> None:
        self.c, self.p = c, Fraction(0)
        self.t1: list[int] = []
        self.t2: list[int] = []
        self.b1: list[int] = []
        self.b2: list[int] = []

    def request(self, x: int) -> bool:
        t1, t2, b1, b2, c = self.t1, self.t2, self.b1, self.b2, self.c
        if x in t1 or x in t2:  # case I
            (t1 if x in t1 else t2).remove(x)
            t2.append(x)
            return True
        if x in b1:  # case II
            delta = Fraction(1) if len(b1) >= len(b2) else Fraction(len(b2), len(b1))
            self.p = min(self.p + delta, Fraction(c))
            self.replace(x)
            b1.remove(x)
            t2.append(x)
            return False
        if x in b2:  # case III
            delta = Fraction(1) if len(b2) >= len(b1) else Fraction(len(b1), len(b2))
            self.p = max(self.p - delta, Fraction(0))
            self.replace(x)
            b2.remove(x)
            t2.append(x)
            return False
        if len(t1) + len(b1) == c:  # case IV A
            if len(t1) < c:
                b1.pop(0)
                self.replace(x)
            else:
                t1.pop(0)
        elif len(t1) + len(t2) + len(b1) + len(b2) >= c:  # case IV B
            if len(t1) + len(t2) + len(b1) + len(b2) == 2 * c:
                b2.pop(0)
            self.replace(x)
        t1.append(x)
        return False

    def replace(self, x: int) -> None:
        if self.t1 and ((x in self.b2 and len(self.t1) == self.p) or len(self.t1) > self.p):
            self.b1.append(self.t1.pop(0))
        else:
            self.b2.append(self.t2.pop(0))


LONG = st.integers(2, EXPERTS).flatmap(
    lambda most: st.tuples(st.integers(0, 2**32 - 1), st.just(most), st.integers(1, 400))
)


@settings(max_examples=300, deadline=None)
@given(drawn=LONG, slots=st.integers(1, 8), size=st.integers(1, 10**9), exponent=st.sampled_from([0.0, 0.5, 1.0, 2.0]))
def test_arc_is_the_textbooks_for_experts_of_one_size(drawn, slots, size, exponent):
    seed, most, length = drawn
    shares = np.arange(1, most + 1) ** -exponent
    string = np.random.default_rng(seed).choice(most, length, p=shares / shares.sum()).tolist()
    textbook, arc = Textbook(slots), cache_for("arc", [size] * most, slots * size, string)
    for now, expert in enumerate(string):
        assert refer(arc, expert, now) == textbook.request(expert)
        lists = arc._memory
        found = [list(one) for one in (lists.once, lists.again, lists.once_gone, lists.again_gone)]
        assert found == [textbook.t1, textbook.t2, textbook.b1, textbook.b2]
        assert lists.target == textbook.p * size


@EXAMPLES
@given(data=st.data())
def test_what_arc_remembers_is_bounded_and_is_of_who_is_there_whatever_the_sizes(data):
    sizes = data.draw(st.lists(st.integers(1, 50), min_size=EXPERTS, max_size=EXPERTS))
    string = data.draw(STRINGS)
    room = max(sizes) + data.draw(st.integers(0, 200))
    arc = cache_for("arc", sizes, room, string)
    for now, expert in enumerate(string):
        refer(arc, expert, now, data.draw(st.integers(1, 3)))
        lists = arc._memory
        first, second = [*lists.once, *lists.once_gone], [*lists.again, *lists.again_gone]
        assert len({*first, *second}) == len(first) + len(second)
        assert {*lists.once, *lists.again} == set(arc.residents())
        assert sum(sizes[one] for one in first) <= room
        assert sum(sizes[one] for one in first + second) <= 2 * room
        assert 0 <= lists.target <= room


@POLICIES
@EXAMPLES
@given(string=STRINGS, sizes=st.lists(st.integers(1, 9), min_size=EXPERTS, max_size=EXPERTS))
def test_a_policy_does_the_same_again_and_does_not_depend_on_the_order_of_candidates(policy, string, sizes):
    first, again = (cache_for(policy, sizes, 20, string) for _ in range(2))
    choose = again._choose
    again._choose = lambda candidates: choose(candidates[::-1])
    for now, expert in enumerate(string):
        refer(first, expert, now)
        refer(again, expert, now)
        assert first.residents() == again.residents()
