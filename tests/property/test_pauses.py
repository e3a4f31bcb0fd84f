"""Does a run that is put aside after every window, and goes on from those bytes each time, end as if it had not been?

Each life has sockets and nodes shared out otherwise, and windows of another length, since none of that is in the state.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from itertools import count
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from cluster.backends import LocalBackend
from cluster.config import Config
from cluster.config_file import read_config
from cluster.metrics.reading import Reading
from cluster.nodes.live import Live
from cluster.nodes.pauses import UNINTERRUPTED, Pauses
from cluster.runner import Run, prepare, run
from cluster.workload import Workload
from node.deployment import Deployment

Settings = Mapping[str, object]
SMALL: Settings = {
    "cluster.backend": "local",
    "workload.requests": 70,
    "workload.rate": 12.0,
    "workload.input_tokens": "uniform(low=50, high=900)",
    "workload.output_tokens": "uniform(low=2, high=200)",
    "experts.count": 20,
    "runtime.kv_reserve": "430 GiB",  # leaves room in HBM for a few experts
}
TP2: Settings = {"sharding.tensor_parallel": 2, "runtime.kv_reserve": "60 GiB"}
CLASSES = [{"name": "bulk", "share": 3, "ttft": "4 s"}, {"name": "now", "priority": 2, "ttft": "1 s"}]
PAGES: Settings = {"runtime.kv_block": 16, "runtime.kv_reserve": "3 GiB", "runtime.batch": 16, "experts.count": 3}
ALONE: dict[str, Settings] = {
    "affinity": {},
    "paper": {"runtime.scheduler": "paper", "experts.router": "none", "runtime.call_overhead": "per_batch"},
    **{eviction: {"runtime.eviction": eviction} for eviction in ("lfu", "arc", "cost_aware", "belady")},
    "prefetch": {"runtime.prefetch": True, "runtime.pinned": [0, 3]},
    "partial": {"runtime.partial": True, "experts.router": "none"},
    "stay": {"runtime.min_residency": "500 ms", "runtime.drain": 4},
    "classes": {"slo.classes": CLASSES, "runtime.shed_late": True, "runtime.fairness": "2 s", "workload.rate": 40.0},
    "few may wait": {"runtime.queue_limit": 4, "workload.rate": 60.0},
    "pages swapped": {**PAGES, "runtime.preemption": "swap", "workload.rate": 40.0},
    "pages and chunks": {**PAGES, "runtime.prefill_chunk": 64, "runtime.prefetch": True, "workload.rate": 40.0},
    "programs": {"runtime.switching": "program"},
    "routers in turn": TP2,
    "a group that routes": {**TP2, "sharding.router": "group", "sharding.placement": "popularity"},
    "a door": {**TP2, "sharding.home": "all_groups", "experts.router": "none", "runtime.prefetch": True},
    "replicas": {**TP2, "sharding.replicas": 5},
    "rebalance": {**TP2, "sharding.rebalance": "2 s", "workload.zipf_s": 2.0},
    "a shared link": {"machine.name": "dgx-a100", "sharding.tensor_parallel": 4, "runtime.kv_reserve": "200 GiB"},
}
TOGETHER: dict[str, Settings] = {
    "round_robin": {"routing.policy": "round_robin", "runtime.eviction": "belady"},
    "least_loaded": {"routing.policy": "least_loaded", "routing.staleness": "300 ms"},
    "expert_affinity": {"routing.policy": "expert_affinity", **TP2},
    "some turned away": {"routing.policy": "least_loaded", "runtime.queue_limit": 3, "workload.rate": 90.0},
}
LIVES: tuple[Settings, ...] = (
    {"cluster.window": "300 ms"},
    {"cluster.window": "1 ms"},
    {"cluster.window": "77 ms", "cluster.sockets_per_actor": 1},
    {"cluster.window": "450 ms", "cluster.sockets_per_actor": 3},
)


class Workers(LocalBackend):
    """As if there were room for so many."""

    def __init__(self, workers: int) -> None:
        super().__init__()
        self._workers = workers

    def places(self, _sockets: int) -> int:
        return self._workers


class Aside(Exception):  # noqa: N818  nothing is wrong
    """A run was put aside."""


def config(settings: Settings, life: Settings) -> Config:
    given = {**SMALL, **settings, **life}
    if "routing.nodes" in given:
        given.pop("cluster.sockets_per_actor", None)
    return read_config(None, given.items())


@cache
def prepared(settings: str) -> tuple[Deployment, Workload]:
    """Compiled once."""
    return prepare(config(json.loads(settings), {}))


class Served(NamedTuple):
    """A run, and its metrics at the end, by node."""

    run: Run
    readings: dict[int, Reading]


def serve(settings: Settings, number: int = 0, pauses: Pauses = UNINTERRUPTED) -> Served:
    chosen = config(settings, LIVES[number % len(LIVES)])
    backend, readings = Workers(1 + number % 3), dict[int, Reading]()
    live = Live(metered=np.array([0, 2]), post=readings.__setitem__, pauses=pauses)
    return Served(run(chosen, backend, prepared(json.dumps(settings)), live, timeline_limit=900), readings)


def in_lives(settings: Settings) -> tuple[Served, int]:
    """The run, a window a life, and how many lives it had."""
    state: bytes | None = None

    def keep(found: bytes) -> None:
        nonlocal state
        state = found
        raise Aside

    for number in count():
        try:
            return serve(settings, number, Pauses(lambda: True, keep, state)), number + 1
        except Aside:
            continue
    raise AssertionError


def outcome(served: Served, folder: Path) -> tuple[object, ...]:
    """All that is written of a run, or shown."""
    found = served.run
    found.timeline.write(folder / "timeline.json")
    columns = {name: column.tobytes() for name, column in found.columns.items()}
    others = [part.tobytes() if isinstance(part, np.ndarray) else part for part in vars(found.others).values()]
    residents = [part.tobytes() for part in vars(found.residents).values() if isinstance(part, np.ndarray)]
    timeline = (folder / "timeline.json").read_bytes()
    readings = {node: repr(replace(reading, windows=0)) for node, reading in served.readings.items()}
    return json.dumps(found.summary), columns, [repr(part) for part in others], residents, timeline, readings


@pytest.mark.parametrize("name", ALONE)
def test_a_life_a_window_changes_nothing(name: str, tmp_path: Path) -> None:
    found, lives = in_lives(ALONE[name])
    assert lives > 15
    assert outcome(found, tmp_path) == outcome(serve(ALONE[name]), tmp_path)


@pytest.mark.parametrize("name", TOGETHER)
def test_a_life_a_window_changes_nothing_of_several_nodes(name: str, tmp_path: Path) -> None:
    settings = {**TOGETHER[name], "routing.nodes": 3, "workload.rate": 30.0, **TOGETHER[name]}
    found, lives = in_lives(settings)
    assert lives > 10
    assert outcome(found, tmp_path) == outcome(serve(settings), tmp_path)


@pytest.mark.parametrize("settings", [ALONE["prefetch"], {**TOGETHER["least_loaded"], "routing.nodes": 3}])
def test_a_run_that_is_only_looked_at_goes_on_as_it_was(settings: Settings, tmp_path: Path) -> None:
    states: list[bytes] = []
    seen = serve(settings, 1, Pauses(lambda: True, states.append))
    expected = outcome(serve(settings), tmp_path)
    assert outcome(seen, tmp_path) == expected and len(states) > 10
    for state in (states[0], states[len(states) // 2], states[-1]):  # each on its own, and twice
        for number in (2, 3):
            assert outcome(serve(settings, number, replace(UNINTERRUPTED, begun=state)), tmp_path) == expected
