"""How fast the emulator is: whole processes and the engine alone. ``make bench`` prints a table and JSON.

The machine is noisy: compare ratios of one run. Nothing here asserts.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cluster.config_file import parse_setting, read_config
from cluster.runner import prepare

TRACE = Path(__file__).resolve().parents[3] / "shared/traces/azure_llm_2023_conv.csv"
SHORT = ("workload.input_tokens=128", "workload.output_tokens=20", "workload.rate=20", "workload.requests=20000")
CASES: dict[str, tuple[str, ...]] = {
    "generated 128/20, 1 expert": (*SHORT, "experts.count=1"),
    "generated 128/20, 150 experts": SHORT,
    "Azure conversation trace, 150 experts": (f"workload.trace={TRACE}",),
}


def engine_only(settings: tuple[str, ...]) -> tuple[int, float]:
    """Requests and seconds of planning alone: no sockets, no files."""
    config = read_config(None, [parse_setting(text) for text in settings])
    deployment, workload = prepare(config)
    simulation = deployment.simulation(workload.requests)
    started = time.perf_counter()
    simulation.advance(2**63)
    return len(workload.requests), time.perf_counter() - started


def whole_process(settings: tuple[str, ...], backend: str) -> tuple[float, float]:
    """Seconds and peak MiB of ``coe run`` with results written."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "cluster", "run", "--backend", backend, "--output", f"{folder}/out"]
        command += [part for text in settings for part in ("--set", text)]
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            raise RuntimeError(f"{' '.join(command)} ended with status {status}")
        return time.perf_counter() - started, usage.ru_maxrss / 1024


def main() -> None:
    """Measure all cases."""
    rows = []
    for name, settings in CASES.items():
        if "Azure" in name and not TRACE.exists():
            print(f"{name}: left out, there is no {TRACE}")
            continue
        count, engine_s = engine_only(settings)
        row: dict[str, object] = {"case": name, "requests": count, "engine_requests_per_s": round(count / engine_s)}
        for backend in ("local", "ray"):
            wall_s, peak = whole_process(settings, backend)
            row[f"{backend}_requests_per_s"] = round(count / wall_s)
            row[f"{backend}_peak_mib"] = round(peak)
        rows.append(row)
        print("  ".join(f"{key}={value}" for key, value in row.items()), flush=True)
    machine = {"cores": os.cpu_count(), "python": platform.python_version(), "platform": platform.platform()}
    print(json.dumps({"machine": machine, "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
