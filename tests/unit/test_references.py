"""Is the reference string what hits and misses count, and the yardstick on it worked out as by hand?"""

from __future__ import annotations

from collections import deque

import numpy as np
import pytest

from node.errors import InvariantError
from node.request import Request, Requests
from node.runtime.references import References, fewest_misses, keys_by_expert
from node.runtime.service import Service, order_of


def test_runs_are_kept_and_told_apart():
    references = References()
    for expert, requests in ((3, 2), (0, 1), (3, 1)):
        references.add(expert, requests)
    assert references.experts().tolist() == [3, 0, 3]
    assert references.string().tolist() == [3, 3, 0, 3]
    assert len(references) == 4


def test_a_million_runs_take_eight_bytes_each():
    references = References()
    for number in range(10**5):
        references.add(number % 7, 1)
    assert references._experts.itemsize + references._requests.itemsize == 8


@pytest.mark.parametrize(
    ("string", "slots", "misses"),
    [
        ([], 2, 0),
        ([0, 0, 0], 1, 1),
        ([0, 1, 0, 1], 1, 4),
        ([0, 1, 2, 0, 1, 3, 0, 3, 1, 2, 1], 3, 5),  # 3 comes in place of 2, and 2 in place of 0 or 3
        ([0, 1, 2, 3, 0, 1, 4, 0, 1, 2, 3, 4], 3, 7),  # Belady, Nelson and Shedler 1969
        ([7, 0, 1, 2, 0, 3, 0, 4, 2, 3, 0, 3, 2, 1, 2, 0, 1, 7, 0, 1], 3, 9),  # Silberschatz: figure of OPT
    ],
)
def test_misses_of_the_optimum_are_those_of_the_books(string, slots, misses):
    for size, spare in ((1, 0), (10, 9)):
        assert fewest_misses(np.array(string, dtype=np.int64), [size] * 8, slots * size + spare) == misses


def test_sizes_are_those_of_the_experts():
    """Room for 3 bytes; when 2 (2 bytes) comes, 1 is the farthest and 1 byte is not enough: 0 leaves as well."""
    string = np.array([0, 1, 2, 0, 1])
    assert fewest_misses(string, [1, 1, 1], 3) == 3
    assert fewest_misses(string, [1, 2, 1], 3) == 4
    assert fewest_misses(string, [1, 1, 3], 3) == 5


def test_the_future_is_the_keys_of_each_experts_requests():
    requests = Requests.of(
        [Request(number, number, 1, 1, expert, number // 2) for number, expert in enumerate((1, 0, 1))]
    )
    for services, first in (((Service(),) * 2, [0, 2]), ((Service(), Service(priority=1)), [2, 0])):
        order = order_of(requests, services, 100)
        found = keys_by_expert(requests, order, 3)
        assert found == [deque([order.key[1]]), deque(order.key[number] for number in first), deque()]


def test_the_references_of_a_run_are_its_requests_as_they_were_served(clockwork, simulate, requests):
    """``affinity`` serves the two that wait for expert 1 together, before the one that waits for 2."""
    rows = [(0, 5, 3, 0), (1, 5, 2, 2), (2, 5, 2, 1), (2, 5, 2, 1)]
    group = simulate(clockwork(), requests(*rows)).simulation.groups[0]
    assert group.cache.references.string().tolist() == [0, 1, 1, 2]
    assert len(group.cache.references) == group.hits + group.misses == 4


def test_a_reference_too_many_is_found_at_the_end(clockwork, simulate, requests, monkeypatch):
    add = References.add
    monkeypatch.setattr(References, "add", lambda self, expert, requests: add(self, expert, requests + (expert == 1)))
    with pytest.raises(InvariantError, match="references of group 0: 3, but it must be 2"):
        simulate(clockwork(), requests((0, 5, 2, 0), (0, 5, 2, 1)))
