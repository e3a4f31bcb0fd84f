"""Do the experts of a machine come out as when its bytes are divided by hand?

Llama-2-7B has 6,738,415,616 parameters of 2 bytes, of which 65 x 4096 are norms. Norms are on every socket, the rest
is split: at TP8 a socket holds 2 x (6,738,149,376 / 8 + 266,240) = 1,685,069,824 bytes of each expert.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from cluster.config_file import read_config
from cluster.deploy import deployment_of
from cluster.footprint import Capacity, Row, capacity, row
from node.units import parse

SHARD = 1_685_069_824
RESERVE = 2 * 2**30  # per socket: 16 GiB over 8
COPY_PS = 13_589_272_775  # SHARD bytes at 200 GB/s x 0.62, rounded up


def room(machine: str = "sn40l-node", sharing: str | None = None, **settings: object) -> Capacity:
    named = {key.replace("__", ".", 1).replace("__", "."): value for key, value in settings.items()}
    deployment = deployment_of(read_config(None, {"machine.name": machine, **named}.items()))
    if sharing is not None:
        link = deployment.machine.host_link
        assert link is not None
        deployment = replace(deployment, machine=replace(deployment.machine, host_link=replace(link, sharing=sharing)))
    return capacity(deployment)


def found(room: Capacity, experts: int, limit: str = "50 ms") -> Row:
    return row("m", room, experts, parse(limit, "s", "limit"))


# Room


@pytest.mark.parametrize(
    ("machine", "hbm", "below"),
    [
        ("sn40l-node", 38, 978),  # (64 GiB - router - reserve) / SHARD = 38.5; 1.5 TiB / SHARD = 978.8
        ("dgx-a100", 45, 163),  # (80 GB - router - reserve) / SHARD = 45.2; 256 GiB / SHARD = 163.1
        ("dgx-h100", 45, 163),
    ],
)
def test_a_machine_has_room_for_so_many_experts(machine: str, hbm: int, below: int) -> None:
    assert (room(machine).hbm, room(machine).below) == (hbm, below)
    assert room(machine, experts__count=3) == room(machine)  # how many there are to be makes no room


@pytest.mark.parametrize(
    ("degree", "hbm", "below"),
    [
        (4, 2 * 18, 2 * 489),  # shard 3,369,607,168: (64 GiB - shard - 4 GiB) / shard = 18.1, 1.5 TiB / shard = 489.5
        (2, 4 * 7, 4 * 244),  # shard 6,738,681,856: (64 GiB - shard - 8 GiB) / shard = 7.9, 1.5 TiB / shard = 244.7
    ],
)
def test_smaller_groups_each_hold_their_own(degree: int, hbm: int, below: int) -> None:
    found = room(sharding__tensor_parallel=degree)
    assert (found.hbm, found.below) == (hbm, below)
    assert found.activation_s == pytest.approx(COPY_PS * 1e-12 * 8 / degree, rel=1e-3)  # norms are not split


def test_an_expert_that_is_at_home_in_all_groups_takes_room_in_each() -> None:
    two = {"sharding__tensor_parallel": 4}  # 489 home copies fit each of two groups
    assert room(sharding__home="all_groups", **two).below == 489
    assert room(sharding__replicas=100, **two).below == 100 + 2 * 389
    assert room(sharding__replicas=500, experts__count=500, **two).below == 489
    assert room(sharding__home="all_groups", **two).hbm == room(**two).hbm == 36


def test_a_byte_too_few_is_an_expert_less_in_hbm() -> None:
    enough = SHARD + RESERVE + 3 * SHARD
    assert room(machine__hbm__capacity=f"{enough} B").hbm == 3
    assert room(machine__hbm__capacity=f"{enough - 1} B").hbm == 2


def test_a_byte_too_few_is_an_expert_less_below() -> None:
    assert room(machine__ddr__capacity=f"{5 * SHARD} B").below == 5
    assert room(machine__ddr__capacity=f"{5 * SHARD - 1} B").below == 4


def test_what_router_and_kv_cache_leave_is_for_experts() -> None:
    assert room(experts__router="none").hbm == 39
    most = 64 * 2**30 - SHARD - 39 * SHARD  # bytes of reserve per socket beside which 39 experts fit
    assert room(runtime__kv_reserve=f"{8 * most} B").hbm == 39
    assert room(runtime__kv_reserve=f"{8 * (most + 1)} B").hbm == 38
    assert room(runtime__kv_reserve="8 B").below == 978


def test_experts_in_a_smaller_type_are_smaller() -> None:
    half = 842_534_912  # a byte each
    assert room(experts__dtype="int8").below == 1_649_267_441_664 // half
    assert room(experts__dtype="int8").hbm == (64 * 2**30 - SHARD - RESERVE) // half  # the router stays as it is


def test_groups_fill_a_machine_in_proportion_to_their_counts() -> None:
    groups = [{"model": "llama-2-7b", "count": 20}, {"model": "llama-3-70b", "count": 10}]
    found = room(experts__group=groups)
    # Of every 3 experts 2 are SHARD and one 2 x (70,552,387,584 / 8 + 1,318,912) = 17,640,734,720 bytes. In HBM,
    # 64,886,923,264 bytes: three times 3 take 63,032,623,104, one more SHARD fits, the large one after it does not.
    # In DDR, 1,649,267,441,664 bytes: 78 times 3 take 1,638,848,200,704 and two more 10,419,240,960 of the rest.
    assert found.hbm == 3 * 3 + 1
    assert found.below == 3 * 78 + 1
    assert found.activation_s == pytest.approx(17_640_734_720 / 124e9, rel=1e-9)  # the largest decides


# Rows


def test_850_experts_are_one_node_or_nineteen_dgx() -> None:
    nodes = {machine: found(room(machine), 850) for machine in ("sn40l-node", "dgx-a100", "dgx-h100")}
    assert {machine: one.nodes for machine, one in nodes.items()} == {"sn40l-node": 1, "dgx-a100": 19, "dgx-h100": 19}
    assert nodes["sn40l-node"] == Row("m", 850, 1, 38, 812, "spills")
    assert nodes["dgx-a100"] == Row("m", 850, 19, 45, 118, "out_of_memory")


@pytest.mark.parametrize(
    ("experts", "expected"),
    [
        (1, Row("m", 1, 1, 1, 0, "fits")),
        (38, Row("m", 38, 1, 38, 0, "fits")),
        (39, Row("m", 39, 1, 38, 1, "spills")),
        (978, Row("m", 978, 1, 38, 940, "spills")),
        (979, Row("m", 979, 2, 38, 940, "out_of_memory")),
        (2 * 978, Row("m", 2 * 978, 2, 38, 940, "out_of_memory")),
        (2 * 978 + 1, Row("m", 2 * 978 + 1, 3, 38, 940, "out_of_memory")),
    ],
)
def test_experts_fit_then_spill_then_are_too_many(experts: int, expected: Row) -> None:
    assert found(room(), experts) == expected


@pytest.mark.parametrize(("experts", "nodes"), [(38, 1), (39, 2), (76, 2), (77, 3), (978, 26)])
def test_what_takes_too_long_to_activate_is_not_held_below(experts: int, nodes: int) -> None:
    slow = found(room(), experts, "1 ms")
    quick = found(room(), experts)
    assert slow.nodes == nodes and quick.nodes == 1
    assert replace(slow, nodes=1) == quick  # what a single machine makes of them is the same


def test_the_limit_is_the_longest_time_that_still_counts_as_held() -> None:
    assert room().activation_s == COPY_PS / 10**12
    assert found(room(), 850, f"{COPY_PS} ps").nodes == 1
    assert found(room(), 850, f"{COPY_PS - 1} ps").nodes == 23  # 850 / 38


def test_a_host_link_per_gpu_makes_the_dgx_hold_experts_below_hbm() -> None:
    for machine, bandwidth in (("dgx-a100", 32e9), ("dgx-h100", 64e9)):
        shared, alone = room(machine), room(machine, "per_socket")
        assert shared.activation_s == pytest.approx(8 * SHARD / bandwidth, rel=1e-9)
        assert alone.activation_s == pytest.approx(SHARD / bandwidth, rel=1e-9)
        assert (alone.hbm, alone.below) == (shared.hbm, shared.below)
        assert (found(shared, 850, "60 ms").nodes, found(alone, 850, "60 ms").nodes) == (19, 6)  # 850 / 163
    assert found(room("dgx-h100", "per_socket"), 850).nodes == 6  # 26 ms
    assert found(room("dgx-a100", "per_socket"), 850).nodes == 19  # 53 ms, above the limit of 50


@pytest.mark.parametrize("experts", [978 * 10**15 + 1, 10**400])
def test_any_number_of_experts_is_divided_exactly(experts: int) -> None:
    assert found(room(), experts).nodes == (experts + 977) // 978


def test_cost_is_that_of_all_machines() -> None:
    assert row("m", Capacity(38, 978, 0.0136), 979, 0.05, price=98.5).cost_per_hour == 197.0
    assert row("m", Capacity(38, 978, 0.0136), 979, 0.05).cost_per_hour is None


def test_a_small_lower_tier_holds_no_negative_number() -> None:
    small = found(Capacity(hbm=40, below=20, activation_s=0.01), 50)
    assert (small.resident_in_hbm, small.held_below_hbm) == (40, 0)
