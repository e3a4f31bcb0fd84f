"""Does group 0 route and nothing else, where the router has a group of its own, and is its room elsewhere for experts?

In the clockwork, copying an expert takes 10 ms, a call 2 ms, a pass over a model 1 ms; the router's run is 3 passes.
"""

from __future__ import annotations

import pytest

from cluster.config_file import read_config
from cluster.deploy import deployment_of
from cluster.footprint import capacity
from cluster.runner import prepare
from node.errors import InputError
from node.events import Kind
from node.runtime.homes import Sharding

ALONE = Sharding(router="group")
SERVED = {"router": 3, "call_overhead": 4, "prefill": 1, "decode": 4}


@pytest.fixture
def alone(clockwork):
    """``alone(**options)``: three sockets, each a group; the router is number 3 of those who have weights."""
    return lambda **options: clockwork(**{"sockets": 3, "sharding": ALONE, "router": True, **options})


def test_all_are_routed_by_group_0_and_served_by_others(alone, simulate, requests):
    outcome = simulate(alone(), requests((0, 5, 5, 0), (0, 5, 5, 1), (6, 5, 5, 2), (30, 5, 5, 1)))
    assert [outcome.row(number).group for number in range(4)] == [1, 2, 1, 2]
    assert [plan.command.symbol for plan in outcome.of_kind(Kind.PREFILL)] == [3, 3, 3]
    assert {plan.command.symbol for group in (1, 2) for plan in outcome.of_kind(Kind.PREFILL, group)} == {0, 1, 2}
    assert outcome.ms(0) == outcome.ms(1) == SERVED | {"switch": 10}
    # routed from 6 to 11, beside the copy for the first, which ends at 5 + 10 + 2 + 1 + 4 = 22
    assert outcome.ms(2) == SERVED | {"queue": 11, "switch": 10}
    assert outcome.ms(3) == SERVED


def test_only_group_0_has_the_routers_weights_and_only_the_others_have_experts(alone, simulate, requests):
    deployment = alone()
    first, *others = deployment.layouts
    sizes = deployment.settings.sizes
    assert (first.ddr, first.router.size) == ({}, sizes[3].weights)
    assert [list(layout.ddr) for layout in others] == [[0, 2], [1]]
    for layout in others:
        assert layout.router.size == 0
        assert layout.experts.size == first.experts.size + sizes[3].weights
    outcome = simulate(deployment, requests((0, 5, 5, 0), (0, 5, 5, 1)))
    assert [outcome.counters[socket]["ddr_used"] for socket in range(3)] == [0, 2 * sizes[0].weights, sizes[0].weights]
    assert outcome.counters[0]["copied"] == 0
    assert outcome.counters[1]["hbm_used"] == sizes[0].weights


def test_every_group_but_the_routers_has_every_expert(alone, simulate, requests):
    deployment = alone(sharding=Sharding(home="all_groups", router="group"), batch=1)
    assert deployment.homes == ((1, 2),) * 3
    outcome = simulate(deployment, requests((0, 5, 5, 0), (0, 5, 5, 0)))
    assert [outcome.row(number).group for number in range(2)] == [1, 2]


def test_without_a_router_all_groups_serve(clockwork):
    assert clockwork(sockets=3, sharding=ALONE).homes == ((0,), (1,), (2,))


def test_a_node_needs_a_group_for_the_router_and_another_for_experts():
    with pytest.raises(InputError) as caught:
        prepare(read_config(None, {"sharding.router": "group"}.items()))
    assert str(caught.value) == (
        "--set: sharding.router = 'group': leaves no group for experts, because all sockets of the machine are one; "
        "lower sharding.tensor_parallel"
    )


def test_one_group_replicates_nothing():
    with pytest.raises(InputError, match=r"^--set: sharding.router: has no effect, because sharding"):
        prepare(read_config(None, {"sharding.router": "replicated"}.items()))


def test_the_footprint_has_a_group_less_for_experts_and_more_room_in_the_others():
    def room(**settings: object) -> tuple[int, int]:
        named = {f"sharding.{key}": value for key, value in settings.items()}
        found = capacity(deployment_of(read_config(None, named.items())))
        return found.hbm, found.below

    # of 64 GiB a socket, 8 are for KV cache; an expert has 6,738,681,856 bytes, and so has the router
    assert room(tensor_parallel=2) == (4 * 7, 4 * 244)
    assert room(tensor_parallel=2, router="group") == (3 * 8, 3 * 244)
    assert room(tensor_parallel=2, router="group", replicas=10) == (3 * 8, 10 + 3 * 234)
