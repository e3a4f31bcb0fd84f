"""Are sockets where a Ray cluster offers them, and nowhere else?"""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cluster.backends import LocalBackend
from cluster.config_file import read_config
from cluster.runner import Run, prepare, run
from tests.cluster.conftest import COMMAND, ENVIRONMENT
from tests.cluster.raylets import SOUGHT, Serve, raylets

Cluster = tuple[Serve, str, str]
Hash = Callable[[Run], dict[str, str]]
ONE = {"workload.requests": 60, "experts.count": 20, "cluster.window": "20 s"}
SEVERAL = {"workload.requests": 90, "workload.rate": 4.0, "experts.count": 20, "routing.policy": "least_loaded"}


@pytest.fixture(scope="module")
def socket_per_machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with raylets([1] * 8, tmp_path_factory.mktemp("of_one")) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with raylets([8, 0, 8], tmp_path_factory.mktemp("of_eight")) as cluster:
        yield cluster


def locally(**settings: object) -> Run:
    config = read_config(None, {**settings, "cluster.backend": "local"}.items())
    return run(config, LocalBackend(), prepare(config))


def test_eight_sockets_are_on_eight_machines(socket_per_machine: Cluster, hashes: Hash) -> None:
    found = socket_per_machine[0](settings=ONE)
    assert found.hashes == hashes(locally(**ONE))
    assert sorted(found.machines) == list(range(8))
    assert len({machine for (machine,) in found.machines.values()}) == 8


def test_more_sockets_at_once_than_a_machine_offers_have_no_place(socket_per_machine: Cluster) -> None:
    found = socket_per_machine[0](settings={**ONE, "cluster.sockets_per_actor": 2})
    assert not found.machines
    assert found.wrong.startswith("there is no place for an actor of 2 sockets: ") and "at most 1; " in found.wrong


def test_who_asks_for_more_sockets_than_there_are_is_told_in_one_line(
    socket_per_machine: Cluster, tmp_path: Path
) -> None:
    _, address, token = socket_per_machine
    asked = ["run", "--address", address, "--machine", "sn40l-rack", "--set", "workload.requests=5"]
    environment = {**ENVIRONMENT, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
    said = subprocess.run(
        [COMMAND, *asked], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (said.returncode, said.stderr.count("\n"), list(tmp_path.iterdir())) == (2, 1, [])
    assert said.stderr.startswith("coe: error: 9 sockets or more are asked for, and of the resource 'socket' ")


def test_sockets_that_others_have_are_not_waited_for_without_end(socket_per_machine: Cluster) -> None:
    found = socket_per_machine[0](settings=ONE, others=1, time_limit_s=6.0)
    assert re.match(r"no machine of the Ray cluster had sockets free for actor \d within 6 s; ", found.wrong)
    assert len(found.machines) < 8


def test_a_machine_that_is_lost_is_waited_for_until_another_one_comes(
    socket_per_machine: Cluster, hashes: Hash
) -> None:
    found = socket_per_machine[0](settings=ONE, lost=3)
    assert found.hashes == hashes(locally(**ONE))
    moved = {actor: len(machines) for actor, machines in found.machines.items() if len(machines) > 1}
    assert moved == {3: 2}
    assert found.starts == {actor: SOUGHT if actor == 3 else 1 for actor in range(8)}
    assert len({machines[-1] for machines in found.machines.values()}) == 8


def test_eight_sockets_are_on_one_machine_where_it_offers_eight(nodes: Cluster) -> None:
    found = nodes[0](settings={**ONE, "cluster.sockets_per_actor": 8})
    assert len(found.machines) == 1 and not found.wrong


def test_a_machine_of_sixteen_sockets_is_on_two(nodes: Cluster, hashes: Hash) -> None:
    rack = {**ONE, "machine.name": "sn40l-rack", "sharding.tensor_parallel": 16}
    found = nodes[0](settings={**rack, "cluster.sockets_per_actor": 4})
    assert found.hashes == hashes(locally(**rack))
    assert sorted(Counter(machine for (machine,) in found.machines.values()).values()) == [2, 2]


@pytest.mark.parametrize("workers", [None, 2])
def test_nodes_are_where_there_is_room_for_one(nodes: Cluster, hashes: Hash, workers: int | None) -> None:
    several = {**SEVERAL, "routing.nodes": 5}
    asked = {} if workers is None else {"cluster.node_workers": workers}
    found = nodes[0](settings={**several, **asked})
    assert found.hashes == hashes(locally(**several))
    assert len(found.machines) == 2 == len({machine for (machine,) in found.machines.values()})


def test_more_workers_than_there_is_room_for_have_no_place(nodes: Cluster) -> None:
    found = nodes[0](settings={**SEVERAL, "routing.nodes": 3, "cluster.node_workers": 3})
    assert found.wrong.startswith("24 sockets or more are asked for, and ")
