"""A Ray cluster of several raylets on this machine, in a process of its own, which serves workloads on it.

A process is on one Ray at most, and the tests' own is on loopback, where there can be no second raylet. This one needs
other addresses, so it wants a token of whoever comes.
"""

from __future__ import annotations

import multiprocessing
import os
import secrets
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import ray
from ray.cluster_utils import Cluster

from cluster.backends import Deployments, Shell
from cluster.config_file import read_config
from cluster.nodes.live import Live
from cluster.nodes.node import State
from cluster.ray_backend import RayBackend
from cluster.runner import prepare, run
from cluster.socket_actor import SocketShell
from node.errors import InputError
from tests.written import hashes_of

STORE = 80 << 20
SOUGHT = 4  # a shell whose machine is lost finds another one when it is started this often
Serve = Callable[..., "Served"]


class Served(NamedTuple):
    """The ``hashes`` of results, or what was ``wrong``; of shells the machines where they answered, and starts."""

    hashes: Mapping[str, str]
    machines: Mapping[int, Sequence[str]]
    starts: Mapping[int, int]
    wrong: str = ""


@contextmanager
def raylets(sockets: Sequence[int], folder: Path) -> Iterator[tuple[Serve, str, str]]:
    """``serve(settings, lost, others, time_limit_s)``, the address and the token of a cluster.

    It has a head without sockets and a machine for each of ``sockets``, which offers so many. In the middle of a run
    the machine of shell ``lost`` is lost, and another one comes when nothing was found for the shell for a while;
    ``others`` have so many sockets from the start.
    """
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    token = secrets.token_hex(32)
    with pytest.MonkeyPatch.context() as environment:
        environment.delenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", raising=False)
        environment.setenv("RAY_AUTH_MODE", "token")
        environment.setenv("RAY_AUTH_TOKEN", token)
        process = multiprocessing.get_context("spawn").Process(target=_cluster, args=(theirs, sockets, folder))
        process.start()
    theirs.close()

    def serve(**asked: Any) -> Served:
        ours.send(asked)
        answer: Served = ours.recv()
        return answer

    try:
        yield serve, ours.recv(), token
        ours.send(None)
    finally:
        process.join(30)
        process.kill()


def _cluster(pipe: Connection, sockets: Sequence[int], folder: Path) -> None:
    """What the process does: it says where the cluster is, and answers until it is told None."""
    head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": STORE}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        machines = [_machine(cluster, number) for number in sockets]
        ray.init(address=cluster.address, log_to_driver=False)
        cluster.wait_for_nodes()
        pipe.send(cluster.address)
        while (asked := pipe.recv()) is not None:
            pipe.send(_serve(cluster, machines, folder, **asked))
    finally:
        ray.shutdown()
        cluster.shutdown()


def _machine(cluster: Cluster, sockets: int) -> Any:
    return cluster.add_node(
        wait=False, num_cpus=2, resources={"socket": sockets} if sockets else {}, object_store_memory=STORE
    )


class Seen(RayBackend):
    """Knows on which machine each shell is and was.

    ``sought``: a shell that does not get much time to answer; when it is started the last time that way, ``found`` is
    called.
    """

    def __init__(self, time_limit_s: float, found: Callable[[], None]) -> None:
        super().__init__(time_limit_s)
        self.patience_s, self.found = time_limit_s, found
        self.sought: int | None = None
        self.machines: dict[int, list[str]] = {}
        self.starts = Counter[int]()

    def start(
        self, actor: int, deployments: Deployments, checkpoint: bytes | None, shell: type[Shell] = SocketShell
    ) -> None:
        self.starts[actor] += 1
        if actor == self.sought and self.starts[actor] >= SOUGHT:
            self.sought = None
            self.found()
        super().start(actor, deployments, checkpoint, shell)

    def shell(self, actor: int) -> Any:
        return self.__dict__["_actors"][actor]

    def collect(self, actor: int) -> bytes:
        self._time_limit_s = 2.0 if actor == self.sought else self.patience_s
        reply = super().collect(actor)
        machine = ray.get(self.shell(actor).__ray_call__.remote(lambda _shell: ray.get_runtime_context().get_node_id()))
        known = self.machines.setdefault(actor, [])
        if not known or known[-1] != machine:
            known.append(machine)
        return reply


@ray.remote(num_cpus=0)
class _Other:
    def pid(self) -> int:
        return os.getpid()


def _serve(
    cluster: Cluster,
    machines: list[Any],
    folder: Path,
    settings: Mapping[str, object],
    lost: int | None = None,
    others: int = 0,
    time_limit_s: float = 60.0,
) -> Served:
    cluster.wait_for_nodes()  # it takes a while until one that was lost is no longer counted
    other = _Other.options(resources={"socket": others}).remote()  # type: ignore[attr-defined]
    ray.get(other.pid.remote())
    config, gone = read_config(None, settings.items()), []

    def strike(state: State) -> None:
        if lost is not None and not gone and state.completed > config.workload.requests // 3:
            where = backend.machines[lost][-1]
            gone.extend(one for one in machines if one.node_id == where)
            process = ray.get(backend.shell(lost).__ray_call__.remote(lambda _shell: os.getpid()))
            cluster.remove_node(gone[0], allow_graceful=False)
            os.kill(process, signal.SIGKILL)  # it would outlive its raylet a while, perhaps to the end of the run
            backend.sought = lost

    def another() -> None:
        machines[machines.index(gone[0])] = _machine(cluster, 1)

    backend = Seen(time_limit_s, another)
    try:
        result = run(config, backend, prepare(config), Live(strike))
        return Served(hashes_of(result, folder), backend.machines, backend.starts)
    except InputError as error:
        return Served({}, backend.machines, backend.starts, str(error))
    finally:
        ray.kill(other)
