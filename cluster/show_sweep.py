"""The table of a sweep."""

from __future__ import annotations

from collections import Counter

from rich.console import Console

from cluster.compare import value
from cluster.inputs import assumptions
from cluster.show import number, print_table
from cluster.sweep.results import Results, label

SHOWN = {
    "ttft_s.p50": "TTFT p50",
    "ttft_s.p99": "TTFT p99",
    "e2e_s.p50": "E2E p50",
    "e2e_s.p99": "E2E p99",
    "throughput_requests_per_s": "req/s",
    "hit_rate": "hits",
}
MOST_ROWS, MOST_REASONS = 40, 8


def sweep_table(console: Console, results: Results) -> None:
    """A row a point, best first where they are many; then why others cannot run, and what the numbers rest on."""
    keys = list(results.points[0])
    best = {place for one in results.candidates if one.on_front for place in one.points}
    order = list(range(len(results.points)))
    if len(order) > MOST_ROWS:
        order = sorted(order, key=lambda place: place not in best)[:MOST_ROWS]
    cells = []
    for place in order:
        point, found = results.points[place], results.found[place]
        summary = found.get("summary")
        row = [label(point[key]) for key in keys]
        if isinstance(summary, dict):
            state = "on the front" if place in best else "overloaded" if found["overloaded"] else ""
            row += [*(number(metric, value(summary, metric)) for metric in SHOWN), state]
        else:
            row += [*("-" for _ in SHOWN), "cannot run"]
        cells.append(row)
    heads = (*(key.rpartition(".")[2] for key in keys), *SHOWN.values(), "")
    last = len(heads) - 1
    print_table(console, f"{len(results.points)} points", heads, cells, left=(*range(len(keys)), last))
    if len(order) < len(results.points):
        console.print(f"and {len(results.points) - len(order)} more, all in points.csv", highlight=False)
    reasons = Counter(str(found["cannot_run"]) for found in results.found if "cannot_run" in found)
    for reason, count in list(reasons.items())[:MOST_REASONS]:
        console.print(f"cannot run ({count} of {len(results.points)}): {reason}", highlight=False)
    if len(reasons) > MOST_REASONS:
        console.print(f"and {len(reasons) - MOST_REASONS} more reasons, all in points.csv", highlight=False)
    console.print(
        f"front: {results.latency} against cost ({results.cost_unit}), mean over seeds; points that are overloaded, "
        "whose latencies grow with the length of the workload, are left out",
        highlight=False,
    )
    for machine in results.machines:
        console.print(f"\n{machine.name}: {assumptions(machine)}", style="dim", highlight=False)
