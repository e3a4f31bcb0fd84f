"""Is every expert at home where the setting says, and is work balanced as far as room allows?"""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.config_file import read_config
from cluster.deploy import deployment_of
from cluster.runner import prepare
from node.errors import InputError, OutOfMemoryError
from node.runtime.homes import Sharding, homes_of

ROOMY = 10**9
TP4 = {"sharding.tensor_parallel": 4}


def balanced(shares: list[int], groups: int, weights: list[int] | None = None, ddr: int = ROOMY) -> list[int]:
    sharding = Sharding("popularity", shares=tuple(shares))
    homes = homes_of(sharding, range(groups), weights or [1] * len(shares), ddr)
    assert all(len(of) == 1 for of in homes)
    return [of[0] for of in homes]


# By popularity


def test_the_most_popular_expert_goes_to_the_group_with_the_least_work_so_far():
    # 9 -> 0, 7 -> 1, 6 -> 2, 5 -> 2 (11), 4 -> 1 (11), 3 -> 0 (12)
    assert balanced([5, 9, 3, 7, 4, 6], 3) == [2, 0, 0, 1, 1, 2]


def test_of_equals_the_lower_number_goes_first_and_to_the_lower_group():
    assert balanced([1, 1, 1, 1, 1], 2) == [0, 1, 0, 1, 0]
    assert balanced([0, 0, 0, 0], 2) == [0, 0, 0, 0]  # nothing to balance


def test_work_is_requests_times_bytes():
    assert balanced([3, 2, 2], 2, weights=[1, 2, 2]) == [0, 0, 1]  # work 3, 4, 4
    assert balanced([3, 2, 2], 2, weights=[1, 1, 1]) == [0, 1, 1]


def test_a_group_without_room_gets_no_more_and_where_none_has_room_the_roomiest_is_refused():
    assert balanced([100, 1, 1, 1], 2, [10] * 4, ddr=1_000) == [0, 1, 1, 1]
    assert balanced([100, 1, 1, 1], 2, [10] * 4, ddr=20) == [0, 1, 1, 0]
    assert balanced([100, 1, 1, 1], 2, [10] * 4, ddr=19) == [0, 1, 0, 1]


@given(st.lists(st.integers(0, 100), min_size=1, max_size=7), st.integers(1, 3))
def test_the_most_loaded_group_has_at_most_a_third_more_than_the_best_that_is_possible(shares, groups):
    def most(places):
        return max(sum(s for s, of in zip(shares, places, strict=True) if of == group) for group in range(groups))

    best = min(most(places) for places in product(range(groups), repeat=len(shares)))
    assert 3 * most(balanced(shares, groups)) <= 4 * best


def test_expected_shares_are_those_of_the_workload():
    deployment = deployment_of(
        read_config(None, {**TP4, "experts.count": 4, "sharding.placement": "popularity"}.items())
    )
    assert deployment.sharding.shares == (480_000_000_000, 240_000_000_000, 160_000_000_000, 120_000_000_000)
    assert deployment.homes == ((0,), (1,), (1,), (1,))  # 48; 24 + 16 + 12: the last goes to the group with 40
    groups = [{"count": 2}, {"count": 2, "weight": 3.0}]
    for popularity, expected in (("uniform", [1, 1, 3, 3]), ("distinct", [2, 2, 2, 2])):
        settings = {"experts.group": groups, "workload.popularity": popularity}
        shares = deployment_of(read_config(None, settings.items())).sharding.shares
        assert [share / 125_000_000_000 for share in shares] == expected


# In several groups


def test_every_group_has_every_expert_where_their_home_is_in_all_of_them():
    sharding = Sharding("popularity", "all_groups", shares=(3, 2, 1))
    assert homes_of(sharding, (0, 1, 2), [1] * 3, 0) == ((0, 1, 2),) * 3


@pytest.mark.parametrize("placement", ["modulo", "popularity"])
def test_the_most_popular_of_equals_the_lower_numbers_have_replicas(placement):
    def everywhere(shares: tuple[int, ...], replicas: int) -> list[int]:
        homes = homes_of(Sharding(placement, replicas=replicas, shares=shares), (0, 1), [1] * 5, ROOMY)
        assert all(len(of) in (1, 2) for of in homes)
        return [expert for expert, of in enumerate(homes) if of == (0, 1)]

    assert everywhere((1, 5, 3, 5, 3), 3) == [1, 2, 3]
    assert everywhere((2, 2, 2, 2, 2), 2) == [0, 1]
    assert everywhere((1, 2, 3, 4, 5), 5) == [0, 1, 2, 3, 4]
    assert everywhere((1, 2, 3, 4, 5), 0) == []


def test_replicas_leave_the_others_less_room_and_are_no_ones_work_to_balance():
    sharding = Sharding("popularity", replicas=1, shares=(100, 4, 3, 2))
    assert homes_of(sharding, (0, 1), [10] * 4, 100) == ((0, 1), (0,), (1,), (1,))
    assert homes_of(sharding, (0, 1), [10] * 4, 20) == ((0, 1), (0,), (1,), (0,))


# Wrong settings


def refusal(**settings: object) -> str:
    with pytest.raises((InputError, OutOfMemoryError)) as caught:
        named = {key.replace("__", "."): value for key, value in settings.items()}
        prepare(read_config(None, {"experts.count": 6, "workload.requests": 5, **named}.items()))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_placement_that_is_none_is_an_error():
    assert refusal(sharding__placement="zipf") == (
        "--set: sharding.placement = 'zipf': must be one of modulo, popularity"
    )


@pytest.mark.parametrize(("key", "value"), [("placement", "popularity"), ("home", "all_groups"), ("replicas", 2)])
def test_where_there_is_one_group_there_is_nothing_to_choose(key, value):
    assert refusal(**{f"sharding__{key}": value}) == (
        f"--set: sharding.{key}: has no effect, because sharding.tensor_parallel = 8 makes one group of all sockets of "
        "sn40l-node"
    )


@pytest.mark.parametrize("replicas", [-1, 7])
def test_no_more_experts_have_replicas_than_there_are(replicas):
    assert refusal(sharding__replicas=replicas) == (
        f"--set: sharding.replicas = {replicas}: must be a whole number from 0 to 6"
    )


def test_home_copies_that_do_not_fit_are_refused_in_one_line():
    assert refusal(sharding__tensor_parallel=1, sharding__home="all_groups", experts__count=150).endswith(
        "for expert 122 of 150: 122 of the group's 150 fit; have fewer home copies (sharding.home, "
        "sharding.replicas), lower experts.count or take a machine with more DDR"
    )


@pytest.mark.parametrize(("key", "value", "usual"), [("placement", "popularity", "modulo"), ("replicas", 2, 0)])
def test_the_popularity_of_a_trace_that_names_experts_is_not_known(key, value, usual, tmp_path):
    trace = tmp_path / "t.jsonl"
    trace.write_text('{"timestamp": 1, "input_length": 5, "output_length": 5, "expert": 3}\n')
    given = {**TP4, f"sharding.{key}": value, "workload.trace": str(trace)}
    with pytest.raises(InputError) as caught:
        prepare(read_config(None, given.items()))
    assert str(caught.value) == (
        f"--set: sharding.{key} = {value!r}: {trace} names the expert of each request, so that nothing is known "
        f"beforehand of their popularity; allowed: {usual}"
    )
