"""How fast the emulator is: whole processes, with results written, and the engine alone. A table, then JSON.

``make bench`` runs it; ``--most 10000000`` adds that many requests to the last table. The machine is noisy: compare
ratios of one run, and processor time rather than wall time. Nothing here asserts.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from cluster.config_file import parse_setting, read_config
from cluster.coordinator import MOST_COMMANDS
from cluster.cycles import no_search_for_cycles
from cluster.runner import prepare
from node.native import engine

TRACE = Path(__file__).resolve().parents[3] / "shared/traces/azure_llm_2023_conv.csv"
MILLION = 1_000_000
SHORT = ("workload.input_tokens=128", "workload.output_tokens=20")
LONG = ("workload.input_tokens=512", "workload.output_tokens=200")
ONE = ("experts.count=1", "experts.router=none")
BUSY, IDLE = "workload.rate=40", "workload.rate=0.5"  # requests/s: above what one node can do, and far below
# name, requests, settings, backends
Case = tuple[str, int, tuple[str, ...], tuple[str, ...]]
CASES: tuple[Case, ...] = (
    ("128/20, 1 expert, no router, saturated", MILLION, (*SHORT, *ONE, BUSY), ("local", "ray")),
    ("128/20, 1 expert, no router, light", MILLION // 5, (*SHORT, *ONE, IDLE), ("local",)),
    ("128/20, 1 expert, router, saturated", MILLION, (*SHORT, "experts.count=1", BUSY), ("local",)),
    ("128/20, 150 experts, router, saturated", MILLION, (*SHORT, BUSY), ("local", "ray")),
    ("128/20, 150 experts, no router, saturated", MILLION, (*SHORT, "experts.router=none", BUSY), ("local",)),
    ("512/200, 1 expert, no router, saturated", MILLION // 2, (*LONG, *ONE, BUSY), ("local",)),
    ("Azure conversation trace, 150 experts", 19_366, (f"workload.trace={TRACE}",), ("local", "ray")),
)
GROWTH = (*SHORT, *ONE, BUSY)


def settings_of(case: tuple[str, ...], requests: int) -> tuple[str, ...]:
    """With so many requests, where they are generated."""
    return case if any("trace" in text for text in case) else (*case, f"workload.requests={requests}")


def engine_only(settings: Sequence[str]) -> float:
    """``plan`` in a process of its own: a process inherits the peak of memory of the one that starts it."""
    command = [sys.executable, "-m", "tests.benchmarks.engine", "--plan", *settings]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def plan(settings: Sequence[str]) -> float:
    """Seconds of processor time of planning alone: no sockets, no files."""
    config = read_config(None, [parse_setting(text) for text in settings])
    deployment, workload = prepare(config)
    simulation = deployment.simulation(workload.requests)
    spent = 0.0
    with no_search_for_cycles():
        while not simulation.over:
            started = time.process_time()
            simulation.advance(2**63, MOST_COMMANDS)
            spent += time.process_time() - started
            for group in range(deployment.groups):
                simulation.take(group)
    return spent


def whole_process(settings: Sequence[str], backend: str) -> tuple[float, float, float]:
    """Wall and processor seconds and peak MiB of ``coe run`` with results written; Ray's processes are not counted."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "cluster", "run", "--backend", backend, "--output", f"{folder}/out"]
        command += [part for text in settings for part in ("--set", text)]
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            raise RuntimeError(f"{' '.join(command)} ended with status {status}")
        return time.perf_counter() - started, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def measure(case: Case) -> dict[str, object]:
    """All figures of one case."""
    name, count, settings, backends = case
    settings = settings_of(settings, count)
    row: dict[str, object] = {"case": name, "requests": count}
    row["engine_requests_per_cpu_s"] = round(count / engine_only(settings))
    for backend in backends:
        wall_s, cpu_s, peak = whole_process(settings, backend)
        row[f"{backend}_requests_per_s"] = round(count / wall_s)
        if backend == "local":
            row["local_requests_per_cpu_s"] = round(count / cpu_s)
            row["local_peak_mib"] = round(peak)
    return row


def growth(most: int) -> list[dict[str, object]]:
    """Does the cost of a request, or its memory, grow with their number? Without what a run of one request takes."""
    _, fixed_s, fixed_mib = whole_process(settings_of(GROWTH, 1), "local")
    rows: list[dict[str, object]] = []
    for count in (10**4, 10**5, 10**6, 10**7):
        if count <= most:
            _, cpu_s, peak = whole_process(settings_of(GROWTH, count), "local")
            cost = {"us_of_cpu_per_request": round((cpu_s - fixed_s) / count * 1e6, 2)}
            rows.append({"requests": count, **cost, "bytes_per_request": round((peak - fixed_mib) * 2**20 / count)})
            print("  ".join(f"{key}={value}" for key, value in rows[-1].items()), flush=True)
    return rows


def main() -> None:
    """Measure all cases."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--most", type=int, default=MILLION, help="most requests of the last table")
    parser.add_argument("--plan", nargs="+", help="print the seconds of planning with these settings, and end")
    said = parser.parse_args()
    if said.plan:
        print(plan(said.plan))
        return
    most = said.most
    rows = []
    for case in CASES:
        if "Azure" in case[0] and not TRACE.exists():
            print(f"{case[0]}: left out, there is no {TRACE}")
            continue
        rows.append(measure(case))
        print("  ".join(f"{key}={value}" for key, value in rows[-1].items()), flush=True)
    grows = growth(most)
    python = {"engine": engine(), "python": platform.python_version()}
    machine = {"cores": os.cpu_count(), **python, "platform": platform.platform()}
    print(json.dumps({"machine": machine, "load": os.getloadavg(), "rows": rows, "growth": grows}, indent=2))


if __name__ == "__main__":
    main()
