"""What metrics cost a run, and how long a scrape takes while it goes on at full speed. A table, then JSON.

Runs with and without metrics take turns, and processor time is compared: the machine is noisy. Nothing here asserts.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

SETTINGS = ("workload.input_tokens=128", "workload.output_tokens=20", "workload.rate=40")
CASES = {"150 experts and a router": (), "1 expert, no router": ("experts.count=1", "experts.router=none")}
EVERY_S = 0.25  # a scrape


def run(settings: tuple[str, ...], requests: int, *, metered: bool) -> tuple[float, list[float], int]:
    """Processor seconds of a run, and of every scrape its seconds; series of the last one."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "cluster", "run", "--backend", "local", "--output", f"{folder}/out"]
        command += [
            part for text in (*SETTINGS, *settings, f"workload.requests={requests}") for part in ("--set", text)
        ]
        command += ["--metrics-port", "0"] if metered else []
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        scrapes: list[float] = []
        series = 0
        if metered:
            found = re.search(r"http://\S+", process.stderr.readline())
            assert found is not None
            while process.poll() is None:
                began = time.perf_counter()
                try:
                    with urllib.request.urlopen(found[0]) as answer:
                        text = answer.read()
                except OSError:  # it has ended
                    break
                scrapes.append(time.perf_counter() - began)
                series = sum(line.startswith(b"coe_") for line in text.splitlines())
                time.sleep(EVERY_S)
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            raise RuntimeError(f"{' '.join(command)} ended with status {status}")
        process.returncode = 0
        return usage.ru_utime + usage.ru_stime, scrapes, series


def main() -> None:
    """Measure both cases."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--requests", type=int, default=500_000)
    parser.add_argument("--times", type=int, default=3)
    said = parser.parse_args()
    rows = []
    for name, settings in CASES.items():
        without, with_metrics, scrapes, series = [], [], [], 0
        for _ in range(said.times):
            without.append(run(settings, said.requests, metered=False)[0])
            cpu_s, taken, series = run(settings, said.requests, metered=True)
            with_metrics.append(cpu_s)
            scrapes += taken
        scrapes.sort()
        row = {
            "case": name,
            "cpu_s_without": round(min(without), 2),
            "cpu_s_with_metrics": round(min(with_metrics), 2),
            "more_percent": round((min(with_metrics) / min(without) - 1) * 100, 1),
            "scrapes": len(scrapes),
            "scrape_ms_p50": round(statistics.median(scrapes) * 1000, 1),
            "scrape_ms_p95": round(scrapes[int(len(scrapes) * 0.95)] * 1000, 1),
            "series": series,
        }
        rows.append(row)
        print("  ".join(f"{key}={value}" for key, value in row.items()), flush=True)
    print(json.dumps({"load": os.getloadavg(), "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
