"""Who leaves HBM: the expert not used for longest, or the one used least; ties go to the lowest number."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.runtime.policies import EVICTION, Resident, lfu, lru


def resident(expert: int, last_used: int, uses: int) -> Resident:
    return Resident(expert, address=1_000 - expert, last_used=last_used, uses=uses)


def test_lru_takes_the_one_not_used_for_longest_however_often_it_was_used():
    assert lru([resident(0, 30, 1), resident(1, 10, 99), resident(2, 20, 0)]).expert == 1


def test_lru_takes_the_lowest_number_of_equals():
    assert lru([resident(7, 10, 0), resident(3, 10, 5), resident(1, 11, 0)]).expert == 3


def test_lfu_takes_the_one_used_least_however_lately():
    assert lfu([resident(0, 10, 3), resident(1, 99, 1), resident(2, 20, 2)]).expert == 1


def test_lfu_takes_the_one_not_used_for_longest_of_those_used_equally():
    assert lfu([resident(0, 30, 2), resident(1, 10, 3), resident(2, 20, 2)]).expert == 2


def test_lfu_takes_the_lowest_number_of_equals():
    assert lfu([resident(7, 10, 2), resident(3, 10, 2), resident(1, 11, 2)]).expert == 3


def test_the_registry_knows_both_by_name():
    assert {"lru": lru, "lfu": lfu} == EVICTION


@pytest.mark.parametrize("policy", EVICTION.values())
@given(data=st.data())
def test_the_choice_is_a_candidate_and_does_not_depend_on_their_order(policy, data):
    used = data.draw(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=6))
    candidates = [resident(expert, *row) for expert, row in enumerate(used)]
    shuffled = data.draw(st.permutations(candidates))
    assert policy(candidates) is policy(shuffled)
    assert policy(candidates) in candidates
