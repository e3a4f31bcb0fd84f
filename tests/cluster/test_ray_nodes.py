"""Do nodes on Ray, in however many workers, come to the same bytes as in this process, whatever happens to a worker?"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray

from cluster.backends import LocalBackend
from cluster.config import Config
from cluster.config_file import read_config
from cluster.nodes.live import Live
from cluster.nodes.node import State
from cluster.ray_backend import RayBackend
from cluster.runner import Run, prepare, run
from node.errors import InputError

Hashes = dict[str, str]
Hash = Callable[[Run], Hashes]
pytestmark = [pytest.mark.alone, pytest.mark.usefixtures("ray_cluster")]


def config(**settings: object) -> Config:
    named = {key.replace("__", "."): value for key, value in settings.items()}
    defaults = {"workload.requests": 200, "workload.rate": 9.0, "experts.count": 60, "routing.nodes": 3}
    return read_config(None, {**defaults, **named}.items())


def serve(
    settings: Config, backend: LocalBackend | RayBackend, watch: Callable[[State], None] = lambda _state: None
) -> Run:
    return run(settings, backend, prepare(settings), Live(watch))


class Pids(RayBackend):
    """Knows in which processes its shells are."""

    def pids(self) -> dict[int, int]:
        handles = self.__dict__["_actors"]
        asked = {actor: one.__ray_call__.remote(lambda _shell: os.getpid()) for actor, one in handles.items()}
        return dict(zip(asked, ray.get(list(asked.values())), strict=True))


@pytest.mark.parametrize("policy", ["round_robin", "least_loaded", "expert_affinity"])
def test_workers_come_to_the_same_bytes(policy: str, hashes: Hash) -> None:
    settings = {"routing__policy": policy, "sharding__tensor_parallel": 4}
    expected = hashes(serve(config(**settings, cluster__backend="local"), LocalBackend()))
    for workers in (1, 2, 3):
        backend, seen = Pids(), set[int]()
        found = serve(
            config(**settings, cluster__node_workers=workers),
            backend,
            lambda _, b=backend, s=seen: s.update(b.pids().values()),
        )
        assert hashes(found) == expected
        assert len(seen) == workers and os.getpid() not in seen


def test_there_are_as_many_workers_as_nodes_or_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    for cpus, workers in ((16, 3), (2, 2)):
        monkeypatch.setattr(RayBackend, "cpus", cpus)
        backend, seen = Pids(), set[int]()
        serve(config(workload__requests=9), backend, lambda _, b=backend, s=seen: s.update(b.pids().values()))
        assert len(seen) == workers


@pytest.mark.parametrize(("policy", "window"), [("round_robin", "200 ms"), ("least_loaded", "auto")])
def test_a_worker_that_is_killed_changes_nothing(policy: str, window: str, hashes: Hash) -> None:
    settings = config(routing__policy=policy, cluster__node_workers=2, cluster__window=window)
    local = replace(settings, cluster=replace(settings.cluster, backend="local"))
    backend, killed = Pids(), list[int]()

    def strike(state: State) -> None:
        if state.completed > 70 and not killed:
            killed.append(backend.pids()[1])
            os.kill(killed[0], signal.SIGKILL)

    found = serve(settings, backend, strike)
    assert killed and hashes(found) == hashes(serve(local, LocalBackend()))


def test_a_users_mistake_in_a_worker_is_one_line() -> None:
    settings = config(workload__requests=40, **{"machine__host.call_overhead": "3000000 s"})
    with pytest.raises(InputError) as caught:
        serve(settings, RayBackend())
    assert str(caught.value).startswith("virtual time passes") and "\n" not in str(caught.value)


def test_coe_run_and_compare_serve_on_nodes(coe: Callable[..., Any], tmp_path: Path) -> None:
    nodes = "--set routing.nodes=3 --set routing.policy=expert_affinity --set workload.requests=40 --output"
    for backend in ("local", "ray"):
        assert coe(f"run --backend {backend} --requests-format csv {nodes} {backend}").code == 0
    for name in ("requests.csv", "summary.json", "timeline.json", "report.html"):
        assert (tmp_path / "local" / name).read_bytes() == (tmp_path / "ray" / name).read_bytes()
    said = coe(f"compare --machines sn40l-node,dgx-a100 --backend local {nodes} both")
    assert said.code == 0, said.err


def test_coe_sweeps_over_nodes(coe: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "nodes.toml").write_text(
        '[workload]\nrequests = 40\n[routing]\npolicy = "least_loaded"\n'
        "[machine]\ncost_per_hour = 10\n[grid]\nrouting.nodes = [1, 2, 4]\n"
    )
    said = coe("sweep nodes.toml --backend local")
    assert said.code == 0, said.err
    rows = [line.split(",") for line in (tmp_path / "runs/nodes/points.csv").read_text().splitlines()]
    of = {
        name: [row[rows[0].index(name)] for row in rows[1:]] for name in ("routing.nodes", "sockets", "cost_per_hour")
    }
    assert of == {
        "routing.nodes": ["1", "2", "4"],
        "sockets": ["8", "16", "32"],
        "cost_per_hour": ["10.0", "20.0", "40.0"],
    }
    assert "of all nodes" in said.out


def test_what_does_not_go_together_is_one_line(coe: Callable[..., Any]) -> None:
    said = coe("run --set routing.nodes=2 --set cluster.sockets_per_actor=2")
    assert said.code == 2 and said.err.count("\n") == 1 and "routing.nodes is above 1" in said.err
    said = coe("switching --set routing.nodes=2")
    assert said.code == 2 and "routing.nodes: this command does not use it" in said.err
