"""Do the front-end's policies keep what they promise, whatever nodes have outstanding?"""

from __future__ import annotations

from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.front_end import POLICIES, FrontEnd, View, expert_affinity, least_loaded, looks, order, round_robin

EXPERTS = 5_000


def test_in_turn_every_node_has_every_nth() -> None:
    front_end = FrontEnd(round_robin, View([0] * 3))
    assert front_end.send([7, 7, 7, 7]) == [0, 1, 2, 0]
    assert front_end.send([7]) == [1] and front_end.view.sent == 5
    assert front_end.view.outstanding == [2, 2, 1]


def test_the_least_loaded_are_taken_in_turn() -> None:
    assert FrontEnd(least_loaded, View([0] * 3)).send([0] * 5) == [0, 1, 2, 0, 1]
    assert FrontEnd(least_loaded, View([2, 0, 1, 0])).send([0] * 5) == [1, 3, 2, 3, 1]
    assert least_loaded(0, View([1, 1, 5, 1], sent=2)) == 3
    assert least_loaded(0, View([1, 1, 5, 1], sent=3)) == 3
    assert least_loaded(0, View([1, 1, 5, 1], sent=4)) == 0


@given(
    outstanding=st.lists(st.integers(0, 40), min_size=2, max_size=9),
    bound=st.fractions(1, 5, max_denominator=100),
    experts=st.lists(st.integers(0, 20), max_size=80),
)
def test_nobody_gets_more_than_the_bound(outstanding: list[int], bound: Fraction, experts: list[int]) -> None:
    view = View(list(outstanding), bound)
    front_end = FrontEnd(expert_affinity, view)
    for expert in experts:
        before = sum(view.outstanding)
        (node,) = front_end.send([expert])
        assert sum(view.outstanding) == before + 1
        # the least whole number that is no less than bound x mean
        assert view.outstanding[node] - 1 < bound * (before + 1) / len(outstanding)


@given(st.integers(0, 10**6), st.integers(1, 40))
def test_an_expert_goes_to_its_own_node_as_long_as_that_has_room(expert: int, nodes: int) -> None:
    first, *others = order(expert, nodes)
    assert expert_affinity(expert, View([0] * nodes, Fraction(nodes))) == first
    full = View([0] * nodes, Fraction(1))
    full.outstanding[first] = 1
    assert expert_affinity(expert, full) == (others or [first])[0]


@given(st.integers(0, 10**6), st.integers(1, 40))
def test_with_a_node_more_the_others_keep_their_order(expert: int, nodes: int) -> None:
    assert sorted(order(expert, nodes)) == list(range(nodes))
    assert [node for node in order(expert, nodes + 1) if node != nodes] == list(order(expert, nodes))


@pytest.mark.parametrize("nodes", [1, 2, 4, 9])
def test_a_node_more_takes_its_share_of_experts_and_nothing_else_moves(nodes: int) -> None:
    moved = Counter(order(expert, nodes)[0] for expert in range(EXPERTS) if order(expert, nodes + 1)[0] == nodes)
    share = 1 / (nodes + 1)
    deviation = (share * (1 - share) / EXPERTS) ** 0.5
    assert abs(sum(moved.values()) / EXPERTS - share) < 4 * deviation
    assert len(moved) == nodes  # from all of them
    kept = [order(expert, nodes)[0] == order(expert, nodes + 1)[0] for expert in range(EXPERTS)]
    assert sum(kept) + sum(moved.values()) == EXPERTS


@pytest.mark.parametrize("place", [0, 1, 3])
def test_experts_are_spread_over_nodes_at_every_place_of_the_order(place: int) -> None:
    counts = Counter(order(expert, 8)[place] for expert in range(EXPERTS))
    expected = EXPERTS / 8
    assert sum((counts[node] - expected) ** 2 / expected for node in range(8)) < 24.3  # chi squared, 7 degrees: 0.1 %


def test_who_overflows_goes_to_different_nodes() -> None:
    seconds = {order(expert, 8)[1] for expert in range(EXPERTS) if order(expert, 8)[0] == 3}
    assert seconds == set(range(8)) - {3}


def test_the_order_is_the_same_in_every_process_and_release() -> None:
    assert [order(expert, 5) for expert in (0, 1, 149)] == [(3, 0, 1, 4, 2), (3, 1, 4, 0, 2), (0, 4, 1, 3, 2)]


@given(
    st.lists(st.integers(0, 50), min_size=1, max_size=60).map(sorted),
    st.integers(1, 20),
)
def test_looks_are_at_multiples_of_staleness_and_only_before_somebody_comes(times: list[int], staleness: int) -> None:
    found = list(looks(np.array(times), staleness))
    assert [n for _, first, upto in found for n in range(first, upto)] == list(range(len(times)))
    for time, first, upto in found:
        assert first < upto and time % staleness == 0
        assert all(time <= times[n] < time + staleness for n in range(first, upto))
    assert len({time for time, _, _ in found}) == len(found)


@given(
    st.sampled_from(sorted(POLICIES)), st.integers(0, 9), st.lists(st.integers(0, 9), min_size=1), st.integers(0, 99)
)
def test_a_policy_only_looks(policy: str, expert: int, outstanding: list[int], sent: int) -> None:
    view = View(list(outstanding), Fraction(5, 4), sent)
    first = POLICIES[policy](expert, view)
    assert view == View(outstanding, Fraction(5, 4), sent) and POLICIES[policy](expert, view) == first
