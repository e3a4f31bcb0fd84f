"""Does every key do something, and do those that must not change a result leave it alone? A new key needs an entry."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from functools import cache

import pytest
from click.testing import CliRunner

from cluster.backends import LocalBackend
from cluster.cli import coe
from cluster.config import Config, ServiceClass
from cluster.config_file import read_config
from cluster.runner import Run, prepare, run
from node.errors import OutOfMemoryError
from node.expert import ExpertGroup
from node.spec import paths

Settings = Mapping[str, object]
BASE: Settings = {
    "cluster.backend": "local",
    "workload.requests": 24,
    "workload.rate": 10.0,
    "workload.input_tokens": "uniform(low=50, high=300)",
    "workload.output_tokens": "uniform(low=2, high=30)",
    "experts.count": 6,
    "machine.hbm.capacity": "9 GB",  # router, KV cache, three experts
}
ABSENT = object()
GROUPS = [{"model": "llama-2-7b", "count": 3}, {"model": "mistral-7b", "count": 3, "weight": 1.0, "dtype": "bf16"}]
CLASSES = [{"name": "a", "share": 1.0, "priority": 1, "ttft": "400 ms", "e2e": "900 ms"}, {"name": "b", "ttft": "1 s"}]
SHORT = {"workload.output_tokens": 300, "experts.count": 1, "experts.router": "none", "machine.hbm.capacity": ABSENT}
TRACED = ("workload.requests", "workload.rate", "workload.input_tokens", "workload.output_tokens")
GROUPED = {"experts.count": ABSENT, "experts.group": GROUPS}
TP4 = {"sharding.tensor_parallel": 4, "machine.hbm.capacity": "18 GB"}
DGX = {"machine.name": "dgx-a100"}
TIGHT = {"machine.sram.banks": 20}  # weights of a layer do not fit on chip, and bandwidth between stages is short

# key -> (value that must change the summary, what else is set for it on both sides)
KNOBS: dict[str, tuple[object, Settings]] = {
    "seed": (1, {}),
    "workload.trace": ("TRACE", {**dict.fromkeys(TRACED, ABSENT), "workload.limit": 24}),
    "workload.requests": (23, {}),
    "workload.rate": (1.0, {}),
    "workload.arrivals": ("gamma(cv=3)", {}),
    "workload.input_tokens": (77, {}),
    "workload.output_tokens": (9, {}),
    "workload.popularity": ("uniform", {}),
    "workload.zipf_s": (0.3, {}),
    "workload.limit": (20, {}),
    "workload.rate_scale": (0.1, {}),
    "workload.warmup": (5, {}),
    "workload.over_context": ("clip", {"workload.input_tokens": 4090}),
    "experts.count": (5, {}),
    "experts.model": ("llama-3-8b", {}),
    "experts.dtype": ("int8", {}),
    "experts.router": ("none", {}),
    "experts.router_tokens": (5, {}),
    "experts.group": (GROUPS, {"experts.count": ABSENT}),
    "sharding.tensor_parallel": (4, {"machine.hbm.capacity": ABSENT}),
    "sharding.placement": ("popularity", TP4),
    "sharding.home": ("all_groups", TP4),
    "sharding.replicas": (2, TP4),
    "sharding.router": ("group", TP4),
    "sharding.rebalance": ("1 s", {**TP4, "workload.zipf_s": 3.0}),
    "runtime.scheduler": ("paper", {}),
    "runtime.batch": (2, {}),
    "runtime.eviction": ("lfu", {}),
    "runtime.kv_reserve": ("30 GiB", {}),
    "runtime.call_overhead": ("per_batch", {}),
    "runtime.fairness": ("1 ms", {"workload.requests": 100}),
    "runtime.fusion": ("unfused", {}),
    "runtime.orchestration": ("so", {}),
    "runtime.prefetch": (True, {}),
    "runtime.partial": (True, {}),
    "runtime.pinned": ([0], {}),
    "runtime.min_residency": ("30 s", {}),
    "runtime.drain": (4, {"workload.rate": 100.0, "workload.requests": 60, "runtime.scheduler": "paper"}),
    "runtime.queue_limit": (3, {"workload.rate": 100.0}),
    "runtime.shed_late": (True, {"workload.rate": 100.0, "slo.ttft": "500 ms"}),
    "runtime.prefill_chunk": (64, {}),
    "runtime.kv_block": (16, {**SHORT, "runtime.kv_reserve": "1 GiB"}),
    "runtime.preemption": ("swap", {**SHORT, "runtime.kv_reserve": "600 MiB", "runtime.kv_block": 16}),
    "runtime.switching": ("program", {}),
    "runtime.program_reserve": ("1 GiB", {"runtime.switching": "program"}),
    "slo.ttft": ("500 ms", {"slo.e2e": "900 ms"}),
    "slo.e2e": ("300 ms", {"slo.ttft": "100 s"}),
    "slo.classes": (CLASSES, {}),
    "routing.nodes": (2, {}),
    "routing.policy": ("expert_affinity", {"routing.nodes": 3}),
    "routing.staleness": ("1 ms", {"routing.nodes": 3, "routing.policy": "least_loaded"}),
    "routing.load_bound": (3.0, {"routing.nodes": 3, "routing.policy": "expert_affinity"}),
    "machine.name": ("dgx-h100", {}),
    "machine.sockets": (16, {}),
    "machine.compute.units": (500, {}),
    "machine.compute.macs_per_cycle": (96, {}),
    "machine.compute.clock": ("0.8 GHz", {}),
    "machine.compute.efficiency": (0.45, {}),
    "machine.sram.banks": (20, {}),
    "machine.sram.bank_capacity": ("1 KiB", {}),
    "machine.sram.bank_bandwidth": ("1 B/cycle", TIGHT),
    "machine.hbm.capacity": ("12 GB", {}),
    "machine.hbm.bandwidth": ("1.6 TB/s", {}),
    "machine.hbm.efficiency": (0.75, {}),
    "machine.ddr.capacity": ("9 GB", {}),
    "machine.ddr.bandwidth": ("150 GB/s", {}),
    "machine.ddr.efficiency": (0.9, {}),
    "machine.host_link.bandwidth": ("64 GB/s", DGX),
    "machine.host_link.sharing": ("per_socket", DGX),
    "machine.peer.bandwidth": ("20 GB/s", {}),
    "machine.peer.latency": ("2 us", {}),
    "machine.peer.hop_worth": ("1 kB", {}),
    "machine.kernel.fusion": ("conventional", {}),
    "machine.kernel.launch_so": ("6 us", {"runtime.orchestration": "so"}),
    "machine.kernel.launch_ho": ("2 us", {}),
    "machine.kernel.configuration": ("1 KiB", {"runtime.switching": "program"}),
    "machine.pipeline.stage_latency": ("200 ns", {}),
    "machine.pipeline.lanes": (16, {}),
    "machine.pipeline.grain": ("320 cycles", {}),
    "machine.kernel.sync": ("4 us", {}),
    "machine.host.call_overhead": ("20 ms", {}),
    "machine.power.socket": ("500 W", {}),
    "machine.cost_per_hour": (98.5, {}),
}
ONLY_REFUSES = ("machine.ddr.capacity",)  # room for home copies, which changes nothing until they do not fit
ECHOED = ("machine", "warmup")  # the summary repeats these keys themselves
CLUSTER: dict[str, tuple[object, ...]] = {
    "cluster.sockets_per_actor": (2, 3, 8),
    "cluster.window": ("1 ms", "37 ms", "1000 s"),
}
ELSEWHERE = {"cluster.backend", "cluster.address", "cluster.node_workers"}  # tests/cluster


def keys() -> set[str]:
    """Every key that a config may set."""
    found = {"seed"} | {f"machine.{path}" for path in paths()}
    for table in fields(Config):
        part = getattr(Config(), table.name)
        if table.name not in ("seed", "explicit"):
            found |= {f"{table.name}.{entry.name}" for entry in fields(part)}
    return found - {"machine.numbers"}


def settings_of(*tables: Settings) -> dict[str, object]:
    merged = {key: value for table in (BASE, *tables) for key, value in table.items()}
    return {key: value for key, value in merged.items() if value is not ABSENT}


def run_with(*tables: Settings) -> Run:
    return _run(json.dumps(settings_of(*tables), sort_keys=True))


@cache
def _run(settings: str) -> Run:
    config = read_config(None, json.loads(settings).items())
    return run(config, LocalBackend(), prepare(config))


def result(found: Run) -> dict[str, object]:
    return {key: value for key, value in found.summary.items() if key not in ECHOED}


def test_every_key_has_an_entry():
    assert keys() == set(KNOBS) | set(CLUSTER) | ELSEWHERE | {"footprint.activation_limit"}


@pytest.mark.parametrize("key", [key for key in KNOBS if key not in ONLY_REFUSES])
def test_every_key_outside_cluster_and_footprint_changes_the_summary(key, tmp_path):
    value, also = KNOBS[key]
    if value == "TRACE":
        trace = tmp_path / "trace.jsonl"
        rows = [{"timestamp": 0.1 * n, "input_length": 100 + n, "output_length": 5} for n in range(24)]
        trace.write_text("".join(json.dumps(row) + "\n" for row in rows))
        value = str(trace)
    assert result(run_with(also, {key: value})) != result(run_with(also))


@pytest.mark.parametrize("key", ONLY_REFUSES)
def test_a_capacity_that_only_refuses_does_refuse(key):
    value, also = KNOBS[key]
    assert run_with(also).summary["completed"] == 24
    with pytest.raises(OutOfMemoryError, match="DDR"):
        run_with(also, {key: value})


@pytest.mark.parametrize(
    ("field", "value"), [("model", "llama-3-8b"), ("count", 4), ("weight", 9.0), ("dtype", "int8")]
)
def test_every_key_of_a_group_of_experts_changes_the_summary(field, value):
    changed = [GROUPS[0], GROUPS[1] | {field: value}]
    assert result(run_with(GROUPED, {"experts.group": changed})) != result(run_with(GROUPED))


@pytest.mark.parametrize(
    ("field", "value"), [("name", "c"), ("share", 9.0), ("priority", 3), ("ttft", "300 ms"), ("e2e", "5 ms")]
)
def test_every_key_of_a_class_changes_the_summary(field, value):
    plain, changed = ({"slo.classes": [CLASSES[0] | one, CLASSES[1]]} for one in ({}, {field: value}))
    also = {"workload.requests": 100, "runtime.fairness": "300 ms"}
    assert result(run_with(also, changed)) != result(run_with(also, plain))


def test_every_key_of_a_class_has_an_entry():
    assert {entry.name for entry in fields(ServiceClass)} == set(CLASSES[0])


def test_every_key_of_a_group_of_experts_has_an_entry():
    assert {entry.name for entry in fields(ExpertGroup)} == {"model", "count", "weight", "dtype"} == set(GROUPS[1])


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in CLUSTER.items() for value in values])
@pytest.mark.parametrize("sharding", [{}, {"sharding.tensor_parallel": 2, "machine.hbm.capacity": "32 GB"}])
def test_no_key_of_cluster_changes_the_summary_or_a_row(key, value, sharding):
    plain, other = run_with(sharding), run_with(sharding, {key: value})
    assert other.summary == plain.summary
    assert {name: column.tolist() for name, column in other.columns.items()} == {
        name: column.tolist() for name, column in plain.columns.items()
    }


@pytest.mark.parametrize(
    ("key", "value"), [("footprint.activation_limit", "1 ms"), *((key, KNOBS[key][0]) for key in ONLY_REFUSES)]
)
def test_every_key_of_footprint_changes_its_rows(key, value):
    def rows(*settings: str) -> object:
        command = ["footprint", "--json", "--machines", "sn40l-node", "--experts", "100,850", *settings]
        answer = CliRunner().invoke(coe, command, catch_exceptions=False)
        assert answer.exit_code == 0, answer.output
        return json.loads(answer.stdout)["rows"]

    assert rows("--set", f"{key}={value}") != rows()
