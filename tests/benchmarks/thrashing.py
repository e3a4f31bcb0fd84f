"""Experts that push each other out, and what keeps them: the table of docs/design.md.

``python -m tests.benchmarks.thrashing``; the engine alone, no sockets and no files. Nothing here asserts.
"""

from __future__ import annotations

import numpy as np

from cluster.config_file import read_config
from cluster.runner import prepare
from node.units import PS_PER_S

BASE: dict[str, object] = {
    "experts.count": 3,
    "experts.router": "none",
    "workload.popularity": "uniform",
    "workload.requests": 2_000,
    "workload.input_tokens": 128,
    "workload.output_tokens": 20,
    "runtime.call_overhead": "none",
    "machine.hbm.capacity": "6 GB",  # the KV cache and two of the three experts
}
BOUNDS: list[dict[str, object]] = [
    {},
    *[{"drain": drain} for drain in (2, 8, 64)],
    *[{"min_residency": f"{stay} ms"} for stay in (50, 200, 1_000)],
]
HEAD = "| | copies | hits | requests/s | TTFT p50, p99 | held up |"


def measure(scheduler: str, rate: float, bounds: dict[str, object]) -> str:
    """What a run comes to."""
    settings = BASE | {"runtime.scheduler": scheduler, "workload.rate": rate}
    settings |= {f"runtime.{key}": value for key, value in bounds.items()}
    deployment, workload = prepare(read_config(None, settings.items()))
    simulation = deployment.simulation(workload.requests)
    simulation.advance(2**63)
    (group,), ttft = simulation.groups, simulation.columns()["ttft"] / PS_PER_S
    p50, p99 = np.percentile(ttft, [50, 99])
    return (
        f"{group.activations.total():,} | {group.hits / len(ttft):.1%} | "
        f"{len(ttft) * PS_PER_S / simulation.now:,.1f} | {p50:.3f}, {p99:.3f} s | "
        f"{simulation.held_ps[0] / simulation.now:.1%}"
    )


def main() -> None:
    """Measure all bounds, for ``paper`` below and above the rate that it can keep up with without them."""
    for scheduler, rate in (("paper", 28), ("paper", 36), ("affinity", 60)):
        print(f"\n{scheduler}, {rate} requests/s\n{HEAD}\n|---|---|---|---|---|---|")
        for bounds in BOUNDS:
            name = ", ".join(f"{key} {value}" for key, value in bounds.items()) or "no bound"
            print(f"| {name} | {measure(scheduler, rate, bounds)} |", flush=True)


if __name__ == "__main__":
    main()
