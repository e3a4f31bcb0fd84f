"""Is a footprint's curve what its own arithmetic says? Bytes as worked out in test_footprint."""

from __future__ import annotations

import json

import pytest

from cluster.compare import variants
from cluster.config import Config
from cluster.config_file import read_config
from cluster.deploy import deployment_of
from cluster.footprint_curve import Curve, as_json, curve, picture


def made(label: str, **settings: object) -> Curve:
    named = {key.replace("__", ".", 1).replace("__", "."): value for key, value in settings.items()}
    config = read_config(None, named.items())
    machines = dict(variants([label.partition(",")[0]], config))
    return curve(label, deployment_of(config, machines[label]), 0.05)


def test_a_machine_spills_then_is_full() -> None:
    found = made("sn40l-node")
    assert (found.spills_from, found.out_of_memory_from) == (39, 979)
    states = [found.row(experts).state for experts in (38, 39, 978, 979)]
    assert states == ["fits", "spills", "spills", "out_of_memory"]


def test_the_steps_are_where_another_machine_is_needed() -> None:
    assert made("sn40l-node").steps(2000) == [(1, 1), (979, 2), (1957, 3), (2000, 3)]
    assert made("dgx-a100").steps(100) == [(1, 1), (46, 2), (91, 3), (100, 3)]
    assert made("dgx-a100").steps(45) == [(1, 1), (45, 1)]


def test_far_out_only_some_steps_are_drawn_and_they_are_right() -> None:
    found = made("dgx-a100")
    steps = found.steps(10**9)
    assert len(steps) < 600 and steps == sorted(set(steps)) and steps[-1] == (10**9, -(-(10**9) // 45))
    assert all(found.row(int(experts)).nodes == nodes for experts, nodes in steps)


def test_the_arithmetic_of_a_direct_attached_tier() -> None:
    assert made("sn40l-node").arithmetic == (
        "HBM of a socket 68,719,476,736 B - router 1,685,069,824 B - KV cache 2,147,483,648 B = 64,886,923,264 B",
        "in HBM: 64,886,923,264 B / 1,685,069,824 B of an expert = 38.51: 38 experts",
        "below: 1,649,267,441,664 B / 1,685,069,824 B of an expert = 978.75: 978 experts",
        "activation: 1,685,069,824 B a socket at 200 GB/s x 0.62 of DDR = 124 GB/s: 13.6 ms, limit 50 ms: what is "
        "below HBM counts as held",
    )


@pytest.mark.parametrize(
    ("label", "said", "nodes"),
    [
        ("dgx-h100", "64 GB/s of host link over the 8 sockets that share it = 8 GB/s: 211 ms", 19),  # 850 / 45
        ("dgx-h100, link per GPU", "64 GB/s of host link for itself = 64 GB/s: 26.3 ms", 6),  # 850 / 163
        ("dgx-a100, link per GPU", "32 GB/s of host link for itself = 32 GB/s: 52.7 ms", 19),
    ],
)
def test_a_host_link_per_gpu_decides_the_claim(label: str, said: str, nodes: int) -> None:
    found = made(label)
    assert said in found.arithmetic[-1] and found.row(850).nodes == nodes


def test_several_groups_and_models_are_said() -> None:
    assert made("sn40l-node", sharding__tensor_parallel=4).arithmetic[1].endswith("= 18.12 x 2 groups: 36 experts")
    groups = [{"model": "llama-2-7b", "count": 20}, {"model": "llama-3-70b", "count": 10}]
    found = made("sn40l-node", experts__group=groups)
    mean = (2 * 1_685_069_824 + 17_640_734_720) / 3  # as in test_footprint
    assert f"/ {mean:,.0f} B of the mean expert = {64_886_923_264 / mean:.2f}: 10 experts" in found.arithmetic[1]


def test_the_json_has_rows_machines_and_where_their_numbers_are_from() -> None:
    found = made("dgx-a100, link per GPU", machine__cost_per_hour=12.5)
    answer = json.loads(json.dumps(as_json([found], [found.row(100)])))
    assert answer["rows"] == [
        {
            "machine": "dgx-a100, link per GPU",
            "experts": 100,
            "nodes": 3,
            "resident_in_hbm": 45,
            "held_below_hbm": 55,
            "state": "spills",
            "cost_per_hour": 37.5,
        }
    ]
    machine = answer["machines"][0]
    assert (machine["hbm"], machine["below"], machine["held"], machine["out_of_memory_from"]) == (45, 163, 45, 164)
    assert machine["curve"] == [[1, 1], [46, 2], [91, 3], [100, 3]]
    kinds = {one["path"]: (one["value"], one["kind"]) for one in machine["inputs"]}
    assert kinds["cost_per_hour"] == ("12.5", "assumed") and kinds["hbm.capacity"] == ("80 GB", "published")
    assert kinds["host_link.sharing"] == ("per_socket", "assumed")


def test_the_picture_has_a_panel_of_cost_only_where_one_is_given() -> None:
    plain, priced = (picture([made("sn40l-node", **more)], 850) for more in ({}, {"machine__cost_per_hour": 98.5}))
    assert "cost per hour" not in plain and "sn40l-node at 98.5" in priced
    assert "inputs: sockets 8 (published)" in plain and "ddr.efficiency 0.62 (derived)" in plain
    assert "850 experts" in plain and "a machine is out of memory" in plain


def test_the_default_machines_all_have_a_curve() -> None:
    labels = [label for label, _ in variants(["sn40l-node", "dgx-a100", "dgx-h100"], Config())]
    assert picture([made(label) for label in labels], 850).count("link per GPU") >= 4
