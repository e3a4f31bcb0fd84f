"""What metrics cost a run, and how long a scrape takes while it goes on at full speed. A table, then JSON.

Runs with and without metrics take turns; processor time of all processes and wall time are compared. Nothing asserts.
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
from typing import NamedTuple

SETTINGS = ("workload.input_tokens=128", "workload.output_tokens=20", "workload.rate=40")
CASES = {"150 experts and a router": (), "1 expert, no router": ("experts.count=1", "experts.router=none")}
EVERY_S = 0.5  # a scrape: thirty times as often as Prometheus does by default


class Took(NamedTuple):
    """Processor and wall seconds of a run, seconds of every scrape, series of the last one."""

    cpu_s: float
    wall_s: float
    scrapes: list[float]
    series: int


def run(settings: tuple[str, ...], requests: int, *, metered: bool) -> Took:
    """A run, scraped as it goes on where it is metered."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "cluster", "run", "--backend", "local", "--output", f"{folder}/out"]
        command += [
            part for text in (*SETTINGS, *settings, f"workload.requests={requests}") for part in ("--set", text)
        ]
        command += ["--metrics-port", "0"] if metered else []
        begun = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        scrapes: list[float] = []
        series = 0
        if metered:
            found = re.search(r"http://\S+", process.stderr.readline())
            assert found is not None
            while True:
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
        return Took(usage.ru_utime + usage.ru_stime, time.perf_counter() - begun, scrapes, series)


def main() -> None:
    """Measure both cases."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--times", type=int, default=4)
    said = parser.parse_args()
    rows = []
    for name, settings in CASES.items():
        without, metered = [], []
        for _ in range(said.times):
            without.append(run(settings, said.requests, metered=False))
            metered.append(run(settings, said.requests, metered=True))
        scrapes = sorted(scrape for one in metered for scrape in one.scrapes)
        row: dict[str, object] = {"case": name}
        for what in ("cpu_s", "wall_s"):
            least, most = (min(getattr(one, what) for one in runs) for runs in (without, metered))
            row |= {f"{what}_without": round(least, 2), f"{what}_with_metrics": round(most, 2)}
            row |= {f"{what}_more_percent": round((most / least - 1) * 100, 1)}
        row |= {
            "scrapes": len(scrapes),
            "scrape_ms_p50": round(statistics.median(scrapes) * 1000, 1),
            "scrape_ms_p95": round(scrapes[int(len(scrapes) * 0.95)] * 1000, 1),
            "scrape_ms_most": round(scrapes[-1] * 1000, 1),
            "series": metered[-1].series,
        }
        rows.append(row)
        print("  ".join(f"{key}={value}" for key, value in row.items()), flush=True)
    print(json.dumps({"load": os.getloadavg(), "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
