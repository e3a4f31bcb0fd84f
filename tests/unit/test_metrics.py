"""Is every metric at the end of a run what the run's own results say?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from cluster.metering import board_of
from cluster.metrics.board import Board
from cluster.metrics.families import FAMILIES
from cluster.metrics.meter import BOUNDS_S
from cluster.metrics.samples import OF_NODE, OF_RUN, OF_SOCKET
from cluster.pace import Pace
from cluster.runner import Run, prepare
from node.runtime.ledger import CHARGES
from node.units import PS_PER_S
from tests.metered import Series, config, metered, series

CLASSES = [
    {"name": "chat", "share": 3.0, "ttft": "400 ms", "priority": 1},
    {"name": "batch", "share": 1.0, "e2e": "3 s"},
]
KINDS: dict[str, dict[str, Any]] = {
    "plain": {"experts__count": 150, "workload__requests": 250},
    "four groups": {"sharding__tensor_parallel": 2, "sharding__home": "all_groups", "cluster__window": "3 s"},
    "classes, shedding": {
        "slo__classes": CLASSES,
        "cluster__window": "2 s",
        "runtime__shed_late": True,
        "runtime__queue_limit": 6,
    },
    "prefetch": {"runtime__prefetch": True, "runtime__partial": True},
    "pages that are swapped": {
        "runtime__kv_block": 16,
        "runtime__preemption": "swap",
        "runtime__kv_reserve": "8 GiB",
        "workload__output_tokens": 900,
        "workload__rate": 30.0,
    },
    "programs": {"runtime__switching": "program", "runtime__program_reserve": "256 MiB"},
    "rebalancing": {"sharding__tensor_parallel": 1, "sharding__rebalance": "5 s", "workload__popularity": "zipf"},
    "pinned, over context": {"runtime__pinned": [0, 5], "workload__over_context": "refuse"},
    "three nodes": {"routing__nodes": 3, "routing__policy": "least_loaded"},
}
MOVED = {
    ("ddr_to_hbm", "expert"): "bytes_copied",
    ("ddr_to_hbm", "program"): "bytes_loaded",
    ("ddr_to_hbm", "kv"): "bytes_swapped_in",
    ("hbm_to_ddr", "kv"): "bytes_swapped_out",
    ("to_peers", "expert"): "bytes_sent",
    ("from_peers", "expert"): "bytes_received",
    ("to_peers", "collective"): "bytes_collectives",
}
# no counts of what was done: the first is compared with the makespan, the others are the emulator's own (``run.json``)
OF_TIME = {
    "coe_virtual_time_seconds", "coe_emulator_windows", "coe_emulator_restarts", "coe_emulator_wall_seconds"
}  # fmt: skip


@pytest.fixture(scope="module", params=KINDS)
def ended(request: pytest.FixtureRequest) -> tuple[Run, Board, dict[str, Series]]:
    found, board = metered(config(**KINDS[request.param]))
    return found, board, series(board)


def total(of: Series, **labels: str) -> float:
    """The sum of the samples with these labels."""
    return sum(value for key, value in of.items() if set(labels.items()) <= set(key))


def of_sockets(found: Run, board: Board) -> Iterator[tuple[dict[str, str], dict[str, float]]]:
    """The labels of each socket, and what the summary says of it."""
    sockets: Any = found.summary["sockets"]
    for number, socket in enumerate(sockets):
        node, within = divmod(number, board.facts.machine.sockets)
        yield {"node": str(node), "socket": str(within)}, socket


def counters(found: Run, board: Board) -> Iterator[tuple[str, dict[str, str], float]]:
    """Of each counter the labels by which it is summed up, and the number in ``summary.json``."""
    summary: Any = found.summary
    for labels, socket in of_sockets(found, board):
        for engine in ("dma", "tile", "link"):
            yield "coe_socket_busy_seconds", {**labels, "engine": engine}, socket[f"{engine}_busy_s"]
        for (direction, what), name in MOVED.items():
            yield "coe_socket_bytes", {**labels, "direction": direction, "what": what}, socket[name]
        yield "coe_socket_commands", labels, socket["commands"]
        yield "coe_socket_refusals", labels, 0
    shown = board.facts.experts.tolist()
    for what in ("activations", "hits", "misses", "evictions"):
        of_expert = summary["experts"][what]
        for expert in shown:
            yield f"coe_expert_{what}", {"expert": str(expert)}, of_expert[expert]
        others = sum(count for expert, count in enumerate(of_expert) if expert not in shown)
        yield f"coe_expert_{what}", {"expert": "other"}, others
    yield "coe_activation_seconds", {}, summary["switch_s"]
    yield "coe_requests_arrived", {}, summary["requests"] - summary["refused"]
    yield "coe_requests_refused", {}, summary["refused"]
    for kind in ("input", "output"):
        yield "coe_tokens", {"kind": kind}, summary[f"{kind}_tokens"]
    for charge in CHARGES:
        yield "coe_request_time_seconds", {"charge": charge}, summary["time_s"][charge]
    yield "coe_requests_finished", {"outcome": "completed"}, summary["completed"]
    for outcome in ("queue_full", "late"):
        yield "coe_requests_finished", {"outcome": outcome}, summary.get(outcome, 0)
    for one in summary.get("service_levels", {"classes": ()})["classes"]:
        yield "coe_requests_finished", {"class": one["name"], "outcome": "completed"}, one["completed"]
        kept = round(one["attainment"] * one["counted"])
        yield "coe_slo_requests", {"class": one["name"], "kept": "yes"}, kept
        yield "coe_slo_requests", {"class": one["name"], "kept": "no"}, one["counted"] - kept
    yield "coe_emulator_commands", {}, sum(socket["commands"] for socket in summary["sockets"])


def test_every_counter_is_the_number_in_the_summary(ended: tuple[Run, Board, dict[str, Series]]) -> None:
    found, board, read = ended
    compared = set[str]()
    for name, labels, expected in counters(found, board):
        compared.add(name)
        assert total(read[f"{name}_total"], **labels) == pytest.approx(expected, rel=1e-12), (name, labels)
    promised = any(board.facts.promised)
    known = {name for name, family in FAMILIES.items() if family.kind == "counter" and "_link_" not in name}
    assert known - compared - OF_TIME == (set() if promised else {"coe_slo_requests"})
    if not promised:
        assert "coe_slo_requests_total" not in read


def test_every_histogram_is_that_of_the_table_of_requests(ended: tuple[Run, Board, dict[str, Series]]) -> None:
    found, board, read = ended
    columns, workload = found.columns, found.workload.requests
    place = {number: at for at, number in enumerate(workload.id.tolist())}
    service = workload.service[[place[number] for number in columns["request"].tolist()]]
    node = columns.get("node", np.zeros_like(service))
    several = columns["output_tokens"] > 1
    each = (columns["e2e"] - columns["ttft"]) / np.maximum(columns["output_tokens"] - 1, 1)
    values = {**{name: columns[name] for name in ("ttft", "e2e", "queue", "switch")}, "tpot": np.floor(each)}
    for latency, of_request in values.items():
        for number in range(board.facts.nodes):
            for at, name in enumerate(board.facts.classes):
                chosen = (service == at) & (node == number) & (several if latency == "tpot" else True)
                mine, labels = of_request[chosen] / 1e12, {"class": name, "node": str(number)}
                said = f"coe_request_{latency}_seconds"
                assert total(read[f"{said}_count"], **labels) == len(mine)
                assert total(read[f"{said}_sum"], **labels) == pytest.approx(mine.sum(), rel=1e-9)
                for bound in BOUNDS_S[latency]:
                    below = total(read[f"{said}_bucket"], **labels, le=str(float(bound)))
                    assert below == int((mine <= bound).sum()), (latency, bound)


def test_every_gauge_is_what_is_left_at_the_end(ended: tuple[Run, Board, dict[str, Series]]) -> None:
    found, board, read = ended
    deployment, machine = found.deployment, board.facts.machine
    for labels, socket in of_sockets(found, board):
        assert total(read["coe_tier_peak_bytes"], **labels, tier="hbm") == socket["hbm_peak_bytes"]
        assert total(read["coe_tier_used_bytes"], **labels, tier="ddr") == socket["ddr_used_bytes"]
        assert total(read["coe_tier_capacity_bytes"], **labels, tier="hbm") == machine.hbm.capacity
        assert total(read["coe_tier_capacity_bytes"], **labels, tier="sram") == machine.sram.capacity
        assert total(read["coe_socket_up"], **labels) == 1
        assert 0 < total(read["coe_socket_clock_seconds"], **labels) <= found.summary["makespan_s"]
    assert max(read["coe_virtual_time_seconds_total"].values()) == found.summary["makespan_s"]
    assert set(read["coe_requests"].values()) == {0}
    experts: Any = found.summary["experts"]
    pinned = len(deployment.options.pinned) * deployment.groups * board.facts.nodes
    there = sum(experts["activations"]) + pinned - sum(experts["evictions"])
    assert total(read["coe_experts"], tier="hbm") == total(read["coe_expert_resident"]) == there
    homes = sum(len(layout.ddr) for layout in deployment.layouts) * board.facts.nodes
    assert total(read["coe_experts"], tier="ddr") == homes
    assert total(read["coe_emulator_running"]) == 0 == total(read["coe_emulator_restarts_total"])
    assert total(read["coe_emulator_windows_total"]) == found.windows > 0
    assert total(read["coe_run_requests"]) == len(found.workload.requests)


def test_each_family_is_of_one_source() -> None:
    histograms = {name for name, family in FAMILIES.items() if family.kind == "histogram"}
    of_links = {"coe_link_bytes", "coe_link_frames", "coe_link_refusals"}  # of functional mode, served by actors
    of_health = {"coe_socket_up", "coe_socket_refusals", "coe_virtual_time_seconds"}
    sources = [histograms, of_health, of_links, set(OF_RUN), set(OF_NODE), set(OF_SOCKET)]
    assert sorted(name for source in sources for name in source) == sorted(FAMILIES)


def test_labels_are_those_of_the_table(ended: tuple[Run, Board, dict[str, Series]]) -> None:
    for name, samples in ended[2].items():
        family = next(name.removesuffix(end) for end in ("_total", "_bucket", "_count", "_sum", "") if
                      name.removesuffix(end) in FAMILIES)  # fmt: skip
        labels = set(FAMILIES[family].labels) | ({"le"} if name.endswith("_bucket") else set())
        assert {frozenset(dict(key)) for key in samples} == {frozenset(labels)}


@pytest.mark.parametrize(
    ("kind", "name", "labels"),
    [
        ("plain", "coe_expert_evictions_total", {}),
        ("classes, shedding", "coe_requests_finished_total", {"outcome": "late"}),
        ("classes, shedding", "coe_requests_finished_total", {"outcome": "queue_full"}),
        ("classes, shedding", "coe_slo_requests_total", {"kept": "no", "class": "chat"}),
        ("pages that are swapped", "coe_socket_bytes_total", {"direction": "hbm_to_ddr", "what": "kv"}),
        ("programs", "coe_socket_bytes_total", {"what": "program"}),
        ("rebalancing", "coe_socket_bytes_total", {"direction": "from_peers", "what": "expert"}),
        ("pinned, over context", "coe_requests_refused_total", {}),
        ("three nodes", "coe_requests_arrived_total", {"node": "2"}),
    ],
)
def test_the_kinds_of_runs_have_what_they_are_for(kind: str, name: str, labels: dict[str, str]) -> None:
    _, board = metered(config(**KINDS[kind]))
    assert total(series(board)[name], **labels) > 0


def test_each_node_has_a_virtual_time_before_anything_has_happened() -> None:
    settings, pace = config(routing__nodes=2), Pace()
    board = board_of(settings, prepare(settings), "tested", 16, pace)
    times = {(("node", "0"),): 0.0, (("node", "1"),): 0.0}
    assert series(board)["coe_virtual_time_seconds_total"] == times
    pace.passed = 3 * PS_PER_S
    assert set(series(board)["coe_virtual_time_seconds_total"].values()) == {3.0}
