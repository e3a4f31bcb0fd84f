"""What several nodes cost to emulate: requests a second of nodes in one process and on Ray, and the price of a look.

``python -m tests.benchmarks.nodes [requests]``; runs without files of results. Nothing here asserts.
"""

from __future__ import annotations

import sys
import time

from cluster.backends import LocalBackend, RayBackend, ray_session
from cluster.config_file import read_config
from cluster.runner import prepare, run

REQUESTS = 400_000
SHORT: dict[str, object] = {"workload.input_tokens": 128, "workload.output_tokens": 20}
RATE = 20.0  # requests/s of a node: a third more than it can serve
LOOKS = 5_000
HEAD = "| case | seconds | requests/s |\n|---|---:|---:|"


def measure(backend: LocalBackend | RayBackend, **settings: object) -> float:
    """Seconds of a run on ``backend``, prepared before."""
    named = {key.replace("__", "."): value for key, value in settings.items()}
    config = read_config(None, {**SHORT, **named}.items())
    prepared = prepare(config)
    began = time.perf_counter()
    run(config, backend, prepared)
    return time.perf_counter() - began


def look(backend: LocalBackend | RayBackend, nodes: int, **settings: object) -> float:
    """Seconds that a look costs: requests one by one, with a look before each, less the same without."""
    common = {"routing__nodes": nodes, "workload__requests": LOOKS, "workload__rate": 0.5 * RATE * nodes, **settings}
    without = measure(backend, routing__policy="round_robin", **common)
    return (measure(backend, routing__policy="least_loaded", routing__staleness="1 us", **common) - without) / LOOKS


def main() -> None:
    """All cases; nodes get as many requests each a second, whatever their number."""
    requests = int(sys.argv[1]) if len(sys.argv) > 1 else REQUESTS
    print(HEAD)
    for nodes in (1, 2, 4, 8):
        cases = [("local", LocalBackend(), {"cluster__backend": "local"})]
        if nodes > 1:
            cases += [
                (f"Ray, {workers} workers", RayBackend(), {"cluster__node_workers": workers}) for workers in (1, 2)
            ]
        for name, backend, settings in cases:
            took = measure(
                backend, routing__nodes=nodes, workload__requests=requests, workload__rate=RATE * nodes, **settings
            )
            print(f"| {nodes} node{'s' * (nodes > 1)}, {name} | {took:.1f} | {requests / took:,.0f} |", flush=True)
    for nodes in (2, 4, 16):
        local = look(LocalBackend(), nodes, cluster__backend="local")
        over_ray = look(RayBackend(), nodes, cluster__node_workers=2)
        print(f"a look at {nodes} nodes: {local * 1e3:.2f} ms in one process, {over_ray * 1e3:.2f} ms over 2 workers")


if __name__ == "__main__":
    with ray_session(None):
        main()
