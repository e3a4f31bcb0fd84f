"""Do metrics over HTTP follow a run while it goes on, on Ray as here, when an actor is lost, and after its end?"""

from __future__ import annotations

import http.server
import json
import os
import signal
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from prometheus_client.parser import text_string_to_metric_families

from cluster.metering import board_of, live_of
from cluster.nodes.node import State
from cluster.pace import Pace
from cluster.ray_backend import RayBackend
from cluster.runner import prepare, run
from tests.cluster.conftest import COMMAND, ENVIRONMENT
from tests.metered import Series, config, metered, series

PACED = "--set workload.requests=60 --set workload.rate=6 --set experts.count=60 --pace 2"


def read(url: str) -> dict[str, float]:
    """Samples by name, of all labels together."""
    with urllib.request.urlopen(url, timeout=5) as answer:
        text = answer.read().decode()
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name] = found.get(sample.name, 0.0) + sample.value
    return found


@pytest.fixture
def paced(tmp_path: Path) -> Iterator[Callable[[str], tuple[subprocess.Popen[str], str]]]:
    """Starts a run that is held to a pace: its process, and where its metrics are."""
    started: list[subprocess.Popen[str]] = []

    def start(options: str) -> tuple[subprocess.Popen[str], str]:
        command = [str(COMMAND), "run", *PACED.split(), "--metrics-port", "0", *options.split()]
        process = subprocess.Popen(
            command, cwd=tmp_path, env=ENVIRONMENT, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        started.append(process)
        assert process.stderr is not None
        line = process.stderr.readline()
        assert line.startswith("metrics: http://127.0.0.1:"), line
        return process, line.split()[1]

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stderr.close()  # type: ignore[union-attr]


def test_a_run_can_be_followed_and_lingers_with_what_it_came_to(paced: Any, tmp_path: Path) -> None:
    process, url = paced("--backend local --output out --linger 60")
    seen: list[dict[str, float]] = []
    began = time.monotonic()
    while not seen or seen[-1]["coe_emulator_running"]:
        seen.append(read(url))
        assert time.monotonic() - began < 60
        time.sleep(0.2)
    counts = [one.get("coe_requests_finished_total", 0.0) for one in seen]
    assert counts == sorted(counts) and counts[-1] == 60 and len(set(counts)) > 3
    times = [one.get("coe_virtual_time_seconds_total", 0.0) for one in seen]
    assert times == sorted(times) and len(set(times)) > 3
    while not (tmp_path / "out").exists():
        assert time.monotonic() - began < 60
        time.sleep(0.1)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert times[-1] == summary["makespan_s"]
    assert read(url)["coe_expert_activations_total"] == summary["expert_activations"] > 0
    process.send_signal(signal.SIGINT)  # ends the lingering, and that is no failure
    assert process.wait(20) == 0


@pytest.mark.usefixtures("ray_cluster")
def test_a_socket_whose_actor_is_lost_is_down_until_it_is_back() -> None:
    """And counts nothing twice: what is done again after a checkpoint is what was done."""
    settings = config(cluster__window="5 s", cluster__sockets_per_actor=2, cluster__backend="ray")
    prepared, pace, backend = prepare(settings), Pace(), RayBackend()
    board = board_of(settings, prepared, "tested", 16, pace)
    live = live_of(board, pace)
    down: list[set[int]] = []
    windows = 0

    def watch(_state: State) -> None:
        nonlocal windows
        windows += 1
        if windows == 3:
            os.kill(ray.get(backend._actors[2].__ray_call__.remote(lambda _self: os.getpid())), signal.SIGKILL)

    def follow() -> None:
        while not over.wait(0.005):
            up = series(board).get("coe_socket_up", {})
            down.append({int(dict(labels)["socket"]) for labels, value in up.items() if not value})

    over = threading.Event()
    follower = threading.Thread(target=follow)
    follower.start()
    try:
        live.watch = watch
        run(settings, backend, prepared, live)
    finally:
        over.set()
        follower.join()
    assert {4, 5} in down and all(sockets in (set(), {4, 5}) for sockets in down)
    found = series(board)
    assert set(found["coe_socket_up"].values()) == {1}
    assert found["coe_emulator_restarts_total"] == {(): 1}
    _, local = metered(config(cluster__window="5 s"))
    assert without(found) == without(series(local))


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize("nodes", [1, 3])
def test_metrics_are_the_same_over_ray(nodes: int) -> None:
    several = {"routing__nodes": nodes, "routing__policy": "least_loaded"} if nodes > 1 else {}
    _, local = metered(config(**several))
    _, over_ray = metered(config(**several, cluster__backend="ray", cluster__window="3 s"), RayBackend())
    assert without(series(over_ray)) == without(series(local))


def without(found: dict[str, Series]) -> dict[str, Series]:
    """All of virtual time."""
    return {name: of for name, of in found.items() if not name.startswith("coe_emulator") and name != "coe_run"}


def test_metrics_are_pushed_at_the_end(paced: Any, tmp_path: Path) -> None:
    taken: list[tuple[str, bytes]] = []

    class Gateway(http.server.BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            taken.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_said: object) -> None: ...

    with http.server.HTTPServer(("127.0.0.1", 0), Gateway) as server:
        threading.Thread(target=server.handle_request).start()
        url = f"http://127.0.0.1:{server.server_port}"
        done = coe(tmp_path, f"run --backend local --set workload.requests=9 --output out --push-gateway {url}")
    assert done.returncode == 0, done.stderr
    ((path, body),) = taken
    assert path == "/metrics/job/samba-coe/instance/out"
    assert b'coe_requests_finished_total{class="all",node="0",outcome="completed",run="out"} 9.0' in body


def coe(folder: Path, line: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(COMMAND), *line.split()], cwd=folder, env=ENVIRONMENT, text=True, capture_output=True, check=False
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--linger 5", "--linger: has no effect without --metrics-port"),
        ("--metrics-host 0.0.0.0", "--metrics-host: has no effect without --metrics-port"),
        ("--metrics-experts 3", "--metrics-experts: has no effect without --metrics-port or --push-gateway"),
        ("--socket-metrics-port 9464", "--socket-metrics-port: has no effect without --metrics-port"),
        ("--metrics-port 0 --socket-metrics-port 9464", "has no effect with --backend local: there are no actors"),
        ("--metrics-port 70000", "70000 is not in the range"),
        ("--metrics-port 0 --metrics-host 203.0.113.9", "cannot be listened on: Cannot assign requested address"),
        ("--metrics-port 0 --metrics-host nowhere.invalid", "cannot be listened on: "),
        ("--pace slow", "--pace 'slow': must be a number above zero, virtual seconds in a second, or max"),
    ],
)
def test_what_cannot_be_is_said_before_anything_runs(options: str, said: str, tmp_path: Path) -> None:
    done = coe(tmp_path, f"run --backend local --set workload.requests=9 {options}")
    assert done.returncode == 2 and said in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_gateway_that_cannot_be_reached_loses_no_results(tmp_path: Path) -> None:
    done = coe(tmp_path, "run --backend local --set workload.requests=9 --output out --push-gateway http://127.0.0.1:9")
    assert done.returncode == 2 and "--push-gateway 'http://127.0.0.1:9': did not take the metrics: " in done.stderr
    assert (tmp_path / "out" / "summary.json").exists() and "Traceback" not in done.stderr
