"""How a node is best cut into groups: the table of docs/design.md.

``python -m tests.benchmarks.sharding [rate scale]``; the engine alone, no sockets and no files. Nothing here asserts.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from cluster.config_file import read_config
from cluster.runner import prepare
from node.errors import OutOfMemoryError
from node.units import PS_PER_S

TRACE = Path(__file__).resolve().parents[3] / "shared/traces/azure_llm_2023_conv.csv"
NAMES = {8: "TP8", 4: "TP4x2", 2: "TP2x4", 1: "EP8"}
POPULARITY: dict[str, object] = {"placement": "popularity"}
GROUP: dict[str, object] = {"router": "group"}
CASES: list[tuple[int, dict[str, object]]] = [
    (8, {}),
    *[(4, case) for case in ({}, POPULARITY, {"home": "all_groups"})],
    *[
        (degree, case)
        for degree in (2, 1)
        for case in (
            {}, POPULARITY, {"replicas": 8}, POPULARITY | {"replicas": 8}, POPULARITY | {"replicas": 32},
            {"home": "all_groups"}, POPULARITY | GROUP, POPULARITY | GROUP | {"replicas": 8},
        )
    ],
    (2, GROUP | {"home": "all_groups"}),
]  # fmt: skip
HEAD = "| | served in | busiest group | hit rate | copied | TTFT p50, p99 | E2E p50, p99 | TPOT p50 |"


def measure(degree: int, case: dict[str, object], rate_scale: float) -> str:
    """What a run comes to: the makespan, the busiest group's requests by the mean, hits, bytes, latencies."""
    settings = {"workload.trace": str(TRACE), "workload.rate_scale": rate_scale, "sharding.tensor_parallel": degree}
    settings |= {f"sharding.{key}": value for key, value in case.items()}
    try:
        deployment, workload = prepare(read_config(None, settings.items()))
    except OutOfMemoryError as error:
        return f"refused: {error}"
    simulation = deployment.simulation(workload.requests)
    simulation.advance(2**63)
    columns, groups = simulation.columns(), simulation.groups
    ttft, e2e = columns["ttft"] / PS_PER_S, columns["e2e"] / PS_PER_S
    tokens = np.array([request.output_tokens for request in workload.requests])
    tpot = ((e2e - ttft)[tokens > 1] / (tokens[tokens > 1] - 1)) * 1e3
    served = [group.hits + group.misses for group in groups if group.layout.group in deployment.serving]
    copied = sum(deployment.expert_bytes(e) * times for group in groups for e, times in group.activations.items())
    (ttft50, ttft99), (e2e50, e2e99) = (np.percentile(of, [50, 99]) for of in (ttft, e2e))
    return (
        f"{simulation.now / PS_PER_S:,.0f} s | {max(served) / np.mean(served):.2f} | "
        f"{sum(group.hits for group in groups) / len(tokens):.1%} | {copied / 1e12:,.0f} TB | "
        f"{ttft50:,.2f}, {ttft99:,.1f} s | {e2e50:,.2f}, {e2e99:,.1f} s | {np.median(tpot):.1f} ms"
    )


def main() -> None:
    """Measure all cases on the whole trace, arrivals at so many times their rate."""
    scale = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0
    print(f"Azure conversation trace at {scale:g} times its rate\n{HEAD}\n|---|---|---|---|---|---|---|---|")
    for degree, case in CASES:
        name = ", ".join((NAMES[degree], *(f"{key} {value}" for key, value in case.items())))
        print(f"| {name} | {measure(degree, case, scale)} |", flush=True)


if __name__ == "__main__":
    main()
