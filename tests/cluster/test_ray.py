"""Does a run over real Ray actors end in the same bytes as one in this process, whatever happens to the actors?"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import ray
import ray.exceptions

from cluster.backends import Deployments, LocalBackend
from cluster.config import Config
from cluster.config_file import read_config
from cluster.disagreement import DisagreementError
from cluster.nodes.live import Live
from cluster.nodes.node import State
from cluster.ray_backend import RayBackend, ray_session
from cluster.runner import Run, backends, prepare, run
from cluster.wire import pack, unpack

AZURE_2023 = Path(__file__).resolve().parents[3] / "shared/traces/azure_llm_2023_conv.csv"
SAMDA = Path(__file__).resolve().parents[2] / "examples/samda.toml"
Hashes = dict[str, str]
pytestmark = [pytest.mark.alone, pytest.mark.usefixtures("ray_cluster")]


def config(**settings: object) -> Config:
    named = {key.replace("__", "."): value for key, value in settings.items()}
    defaults = {"workload.requests": 150, "workload.rate": 1.0, "experts.count": 60, "sharding.tensor_parallel": 4}
    return read_config(None, {**({} if "workload.trace" in named else defaults), **named}.items())


def serve(
    settings: Config, backend: LocalBackend | RayBackend, watch: Callable[[State], None] = lambda _state: None
) -> Run:
    return run(settings, backend, prepare(settings), Live(watch))


def pid_of(backend: RayBackend, actor: int) -> int:
    handle = backend.__dict__["_actors"][actor]
    return int(ray.get(handle.__ray_call__.remote(lambda _shell: os.getpid())))


def alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def ends(pid: int, within_s: float = 10.0) -> bool:
    limit = time.monotonic() + within_s
    while alive(pid) and time.monotonic() < limit:
        time.sleep(0.02)
    return not alive(pid)


@pytest.fixture
def expected(hashes: Callable[[Run], Hashes]) -> Hashes:
    """What the workload comes to in this process."""
    return hashes(serve(config(), LocalBackend()))


# The same bytes


@pytest.mark.parametrize(("per_actor", "window"), [(1, "60 s"), (2, "5 s"), (8, "60 s"), (8, "3600 s")])
def test_actors_and_windows_of_any_size_write_the_same_bytes(
    per_actor: int, window: str, expected: Hashes, hashes: Callable[[Run], Hashes]
) -> None:
    settings = config(cluster__sockets_per_actor=per_actor, cluster__window=window)
    assert hashes(serve(settings, RayBackend())) == expected


@pytest.mark.parametrize(
    "sharding",
    [
        {"sharding__home": "all_groups"},
        {"sharding__home": "all_groups", "experts__router": "none", "runtime__prefetch": True},
        {"sharding__placement": "popularity", "sharding__replicas": 5, "sharding__router": "group"},
        {"sharding__rebalance": "9 s"},
        {"sharding__rebalance": "9 s", "experts__router": "none"},
    ],
)
def test_groups_that_share_queues_come_to_the_same_bytes(
    sharding: dict[str, object], hashes: Callable[[Run], Hashes]
) -> None:
    settings = {**sharding, "sharding__tensor_parallel": 2}
    alone = serve(config(**settings), LocalBackend())
    over_ray = serve(config(**settings, cluster__sockets_per_actor=3, cluster__window="700 ms"), RayBackend())
    assert hashes(over_ray) == hashes(alone)


CLASSES = [{"name": "a", "priority": 1, "ttft": "3 s"}, {"name": "b", "e2e": "20 s"}]
PAGES = {
    "runtime__kv_block": 16,
    "runtime__kv_reserve": "3 GiB",
    "runtime__batch": 16,
    "workload__over_context": "clip",
}


@pytest.mark.parametrize(
    "policies",
    [
        {"slo__classes": CLASSES, "runtime__queue_limit": 40, "runtime__shed_late": True},
        {**PAGES, "runtime__preemption": "swap", "runtime__prefetch": True},
        {**PAGES, "runtime__prefill_chunk": 200, "runtime__partial": True},
        {"runtime__min_residency": "5 s", "runtime__drain": 3},
    ],
)
def test_however_requests_are_scheduled_they_come_to_the_same_bytes(
    policies: dict[str, object], hashes: Callable[[Run], Hashes]
) -> None:
    settings = {**policies, "workload__rate": 20.0, "experts__count": 12, "experts__router": "none"}
    alone = serve(config(**settings), LocalBackend())
    over_ray = serve(config(**settings, cluster__sockets_per_actor=3, cluster__window="900 ms"), RayBackend())
    assert hashes(over_ray) == hashes(alone)
    assert alone.others.outcome or alone.summary.get("preemptions", 1)


def test_an_encoder_and_vision_experts_come_to_the_same_bytes(hashes: Callable[[Run], Hashes]) -> None:
    values = {"workload.requests": 300}
    config_of = {name: read_config(SAMDA, {**values, "cluster.backend": name}.items()) for name in ("local", "ray")}
    alone, over_ray = serve(config_of["local"], LocalBackend()), serve(config_of["ray"], RayBackend())
    assert hashes(over_ray) == hashes(alone)
    assert alone.summary["expert_activations"] > 20 and alone.summary["time_s"]["decode"] == 0


def test_a_real_trace_comes_to_the_same_bytes(hashes: Callable[[Run], Hashes]) -> None:
    if not AZURE_2023.exists():
        pytest.skip(f"no Azure trace at {AZURE_2023}")
    settings = config(workload__trace=str(AZURE_2023), workload__limit=1500)
    local, over_ray = (serve(settings, backend) for backend in (LocalBackend(), RayBackend()))
    assert local.summary["completed"] == 1500
    assert hashes(over_ray) == hashes(local)


def test_sockets_with_unequal_shards_come_to_the_same_bytes(tmp_path: Path, hashes: Callable[[Run], Hashes]) -> None:
    model = tmp_path / "uneven.toml"  # 9 heads on 8 sockets
    sizes = {"layers": 4, "hidden": 576, "heads": 9, "kv_heads": 3, "head_dim": 64, "ffn": 1533, "vocabulary": 1001}
    model.write_text("\n".join(['name = "uneven"', "context = 4096", *(f"{k} = {v}" for k, v in sizes.items())]))
    own = {"experts__model": str(model), "experts__router": str(model), "sharding__tensor_parallel": 8}
    settings = config(**own, cluster__sockets_per_actor=3)
    local, over_ray = (serve(settings, backend) for backend in (LocalBackend(), RayBackend()))
    assert len(set(local.deployment.rank_kinds)) > 1
    assert hashes(over_ray) == hashes(local)


# Actors that are lost


class Strike:
    """Sends a signal to an actor after the third window, or another."""

    def __init__(self, backend: RayBackend, actor: int, what: signal.Signals, window: int = 3) -> None:
        self.backend, self.actor, self.what, self.window = backend, actor, what, window
        self.windows, self.pid = 0, 0

    def __call__(self, _state: State) -> None:
        self.windows += 1
        if self.windows == self.window:
            self.pid = pid_of(self.backend, self.actor)
            os.kill(self.pid, self.what)


def test_an_actor_that_is_killed_changes_nothing(expected: Hashes, hashes: Callable[[Run], Hashes]) -> None:
    backend = RayBackend()
    strike = Strike(backend, 2, signal.SIGKILL)
    found = serve(config(cluster__window="5 s", cluster__sockets_per_actor=2), backend, strike)
    assert strike.windows > 10 and not alive(strike.pid)
    assert hashes(found) == expected


def test_an_actor_that_is_killed_beside_a_prefetch_changes_nothing(hashes: Callable[[Run], Hashes]) -> None:
    """After its first checkpoint; windows are shorter than a copy, so that many a copy goes on into the next."""
    short = {"workload__input_tokens": 100, "workload__output_tokens": 20, "workload__popularity": "uniform"}
    settings = config(
        runtime__prefetch=True, cluster__window="10 ms", cluster__sockets_per_actor=2, workload__rate=15.0, **short
    )
    backend = RayBackend()
    strike = Strike(backend, 2, signal.SIGKILL, window=20)
    found = serve(settings, backend, strike)
    assert strike.windows > 40 and not alive(strike.pid)
    assert found.summary["prefetches"] > 10
    assert hashes(found) == hashes(serve(settings, LocalBackend()))


class Patient(RayBackend):
    """Whoever is new may take its time; this machine may be busy."""

    def start(self, actor: int, deployments: Deployments, checkpoint: bytes | None) -> None:
        self._time_limit_s = 60.0
        super().start(actor, deployments, checkpoint)


def test_an_actor_that_hangs_changes_nothing(expected: Hashes, hashes: Callable[[Run], Hashes]) -> None:
    backend = Patient()
    strike = Strike(backend, 0, signal.SIGSTOP)

    def watch(state: State) -> None:
        strike(state)
        if strike.windows == 3:
            backend._time_limit_s = 2.0

    try:
        found = serve(config(cluster__window="5 s", cluster__sockets_per_actor=8), backend, watch)
        assert strike.windows > 10 and backend._time_limit_s == 60.0  # another one was started
        assert hashes(found) == expected
        assert ends(strike.pid)  # the one that hangs does not stay
    finally:
        if alive(strike.pid):
            os.kill(strike.pid, signal.SIGKILL)


def test_a_socket_that_is_slower_than_it_says_is_found_out_over_ray() -> None:
    class Slow(RayBackend):
        def start(self, actor: int, deployments: Deployments, checkpoint: bytes | None) -> None:
            own = dict(deployments)
            if 7 in own:
                ddr = own[7].machine.ddr
                assert ddr.bandwidth is not None
                slower = replace(own[7].machine, ddr=replace(ddr, bandwidth=0.99 * ddr.bandwidth))
                own[7] = replace(own[7], machine=slower)
            super().start(actor, own, checkpoint)

    with pytest.raises(DisagreementError, match=r"^socket 7 disagrees with the plan: command \d+: time planned "):
        serve(config(cluster__sockets_per_actor=2), Slow())


def test_a_fault_inside_an_actor_is_no_reason_to_start_it_again() -> None:
    class Garbled(RayBackend):
        starts = 0

        def start(self, actor: int, deployments: Deployments, checkpoint: bytes | None) -> None:
            self.starts += 1
            super().start(actor, deployments, checkpoint)

        def submit(self, actor: int, message: bytes) -> None:
            super().submit(actor, b"\xc1" if actor == 1 else message)

    backend = Garbled()
    with pytest.raises(ray.exceptions.RayTaskError):
        serve(config(cluster__sockets_per_actor=4), backend)
    assert backend.starts == 2


def test_an_actor_that_is_started_again_owes_nothing() -> None:
    deployment, _ = prepare(config())
    backend, nothing = RayBackend(), pack({"streams": {}, "checkpoint": False, "exporter": None})
    try:
        for _ in range(2):
            backend.start(0, {0: deployment}, None)
            backend.submit(0, nothing)
        assert unpack(backend.collect(0))["counters"][0]["commands"] == 0
    finally:
        backend.stop()


# The session


def test_no_actor_outlives_its_run() -> None:
    backend, pids = RayBackend(), set[int]()
    settings = config(cluster__sockets_per_actor=4)
    serve(settings, backend, lambda _state: pids.update(pid_of(backend, actor) for actor in (0, 1)))
    assert len(pids) == 2 and os.getpid() not in pids
    assert all(ends(pid) for pid in pids)


@pytest.mark.parametrize(("name", "kind"), [("local", LocalBackend), ("ray", RayBackend)])
def test_the_backend_is_the_one_that_was_configured(name: str, kind: type) -> None:
    with backends(config(cluster__backend=name)) as make:
        assert type(make()) is kind


def test_a_ray_that_is_there_already_is_kept() -> None:
    with ray_session(None):
        assert ray.is_initialized()
    assert ray.is_initialized()
