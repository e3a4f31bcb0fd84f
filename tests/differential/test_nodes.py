"""Is a run of many nodes what its nodes make of their own requests, each run by itself, to the picosecond?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from cluster.backends import LocalBackend
from cluster.config import POLICIES, Config, RoutingConfig
from cluster.config_file import read_config
from cluster.not_served import REFUSED
from cluster.runner import Run, prepare, run
from cluster.workload import Workload
from node.events import Ints
from node.request import Requests

SMALL = {
    "cluster.backend": "local",
    "workload.requests": 240,
    "workload.rate": 12.0,
    "experts.count": 60,
    "routing.nodes": 3,
    "runtime.kv_reserve": "8 GiB",
}
MACHINES: dict[str, dict[str, object]] = {
    "one group": {},
    "few in HBM": {"runtime.kv_reserve": "400 GiB"},
    "paper": {"runtime.scheduler": "paper", "runtime.call_overhead": "per_batch"},
    "routers in turn": {"sharding.tensor_parallel": 2},
    "a group that routes": {"sharding.tensor_parallel": 2, "sharding.router": "group"},
    "a door": {"sharding.tensor_parallel": 4, "sharding.home": "all_groups", "experts.router": "none"},
    "groups apart": {"sharding.tensor_parallel": 4, "experts.router": "none", "runtime.eviction": "cost_aware"},
    "prefetch": {"runtime.prefetch": True, "sharding.tensor_parallel": 4, "sharding.replicas": 9},
    "several of one moment": {"workload.arrivals": "gamma(cv=8)", "workload.rate": 40.0},
    "classes": {
        "slo.classes": [{"name": "bulk", "share": 3, "ttft": "4 s"}, {"name": "now", "priority": 2, "ttft": "1 s"}],
        "runtime.shed_late": True,
        "workload.rate": 40.0,
        "runtime.fairness": "2 s",
    },
    "pages": {"runtime.prefill_chunk": 300, "runtime.kv_block": 16, "workload.rate": 40.0},
    "few may wait": {"runtime.queue_limit": 4, "workload.rate": 60.0, "sharding.tensor_parallel": 4},
    "refused": {"workload.over_context": "refuse", "workload.input_tokens": "uniform(low=1, high=6000)"},
}


def config(**settings: object) -> Config:
    named = {key.replace("__", "."): value for key, value in settings.items()}
    return read_config(None, {**SMALL, **named}.items())


def serve(settings: Config) -> Run:
    return run(settings, LocalBackend(), prepare(settings))


def nodes_of(together: Run) -> Ints:
    """Of each request of the workload its node, whether it was served or turned away."""
    others = together.others
    assert others.node is not None
    away = np.array(others.outcome) != REFUSED
    found = {**dict(zip(together.columns["request"].tolist(), together.columns["node"].tolist(), strict=True)),
             **dict(zip(others.requests.id[away].tolist(), others.node[away].tolist(), strict=True))}  # fmt: skip
    return np.array([found[number] for number in together.workload.requests.id.tolist()])


def alone(settings: Config, together: Run, given: npt.NDArray[np.bool_]) -> Run:
    """The run of one node with the requests that it was given."""
    requests = together.workload.requests.where(given)
    requests = Requests(np.arange(len(requests)), *requests.columns()[1:])
    workload = Workload(requests, Requests.of([]), 0, (), "those of a node", True)
    return run(replace(settings, routing=RoutingConfig()), LocalBackend(), (together.deployment, workload))


def same(settings: Config) -> Run:
    """The run of ``settings``; each of its nodes alone must come to the same."""
    together = serve(settings)
    sockets, nodes = together.summary["sockets"], together.summary["nodes"]
    assert isinstance(sockets, list) and isinstance(nodes, list)
    count, per_node = settings.routing.nodes, together.deployment.machine.sockets
    assert len(nodes) == count and len(sockets) == count * per_node
    chosen, others = nodes_of(together), together.others
    singles = {node: alone(settings, together, chosen == node) for node in np.unique(chosen).tolist()}
    for node, single in singles.items():
        served = together.columns["node"] == node
        for name in set(single.columns) - {"request"}:
            assert together.columns[name][served].tolist() == single.columns[name].tolist(), (node, name)
        ids = together.workload.requests.id[chosen == node]
        away = np.isin(others.requests.id, ids)
        assert others.requests.id[away].tolist() == ids[single.others.requests.id].tolist()
        assert others.waited[away].tolist() == single.others.waited.tolist()
        assert [what for what, mine in zip(others.outcome, away, strict=True) if mine] == list(single.others.outcome)
        assert sockets[node * per_node : (node + 1) * per_node] == single.summary["sockets"]
        assert nodes[node]["hit_rate"] == single.summary["hit_rate"]
        assert nodes[node]["completed"] == single.summary["completed"] == int(served.sum())
        assert nodes[node]["ttft_s"]["p99"] == single.summary["ttft_s"]["p99"]  # type: ignore[index]
    for name in ("expert_hits", "expert_activations", "bytes_ddr_to_hbm"):
        assert together.summary[name] == sum(int(str(single.summary[name])) for single in singles.values())
    assert together.summary["makespan_s"] == max(float(str(one.summary["makespan_s"])) for one in singles.values())
    return together


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("machine", MACHINES)
def test_nodes_together_do_what_each_does_alone(machine: str, policy: str) -> None:
    found = same(config(routing__policy=policy, **{k.replace(".", "__"): v for k, v in MACHINES[machine].items()}))
    assert len(np.unique(found.columns["node"])) == 3
    assert bool(set(found.others.outcome) - {REFUSED}) == (machine in ("classes", "few may wait"))


def test_belady_knows_the_future_of_each_node() -> None:
    few = {"runtime__kv_reserve": "400 GiB"}
    found = same(config(runtime__eviction="belady", **few))
    assert float(str(found.summary["hit_rate"])) > float(str(serve(config(**few)).summary["hit_rate"]))


def test_nodes_that_nobody_is_sent_to_are_idle_all_along() -> None:
    found = same(config(workload__requests=2, routing__nodes=5))
    nodes = found.summary["nodes"]
    assert isinstance(nodes, list)
    assert [one["completed"] for one in nodes] == [1, 1, 0, 0, 0]
    assert nodes[4] == {"completed": 0, "hit_rate": None, "utilisation": 0.0, "ttft_s": {"p99": None}}
