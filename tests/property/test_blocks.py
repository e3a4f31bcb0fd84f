"""Results are worked out a block of requests at a time: does where a block ends show in any of them?"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.conservation import request_time
from node.request import Request
from node.units import MS, blocks, exact_sum

NUMBERS = st.lists(st.integers(-(2**63), 2**63 - 1), max_size=20)
VISITS = st.lists(st.tuples(st.integers(0, 2**62), st.integers(0, 2**61)), max_size=20)


@pytest.fixture(params=[1, 2, 3, 7], scope="module", autouse=True)
def short(request):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("node.units.BLOCK", request.param)
        yield


@given(count=st.integers(0, 40))
def test_blocks_are_all_of_it_in_order(count):
    assert [number for block in blocks(count) for number in range(count)[block]] == list(range(count))


@given(numbers=NUMBERS)
def test_a_sum_is_exact(numbers):
    assert exact_sum(np.array(numbers, dtype=np.int64)) == sum(numbers)


@given(visits=VISITS)
def test_the_time_of_all_visits_is_the_integral_of_who_is_there(visits):
    arrival, took = (np.array([visit[of] for visit in visits], dtype=np.int64) for of in (0, 1))
    assert request_time(arrival, arrival + took) == sum(span for _, span in visits)


@pytest.mark.parametrize("router", [False, True])
def test_accounts_of_requests_are_what_they_are_as_a_whole(clockwork, router):
    requests = [Request(number, number * 3 * MS, 5, 1 + number % 9, number % 3) for number in range(23)]
    simulation = clockwork(batch=2, router=router).simulation(requests)
    simulation.advance(2**63)
    in_blocks = simulation.columns()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("node.units.BLOCK", 1000)
        whole = simulation.columns()
    assert {name: column.tolist() for name, column in in_blocks.items()} == {
        name: column.tolist() for name, column in whole.items()
    }
    assert len(in_blocks["e2e"]) == len(requests)
