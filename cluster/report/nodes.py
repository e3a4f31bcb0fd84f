"""The figure of several nodes: what each was given, and how busy it was."""

from __future__ import annotations

from collections.abc import Sequence

from cluster.report.figure import Cell, Figure, cell, flat, shown
from cluster.report.plot import bars
from cluster.summary import Summary

DRAWN, LISTED = 16, 64  # nodes
FIGURES = {"completed": "completed", "hit_rate": "hit rate", "utilisation": "not idle", "ttft_s.p99": "TTFT p99"}


def nodes(found: Sequence[Summary]) -> Figure:
    """How busy each node was, and what came of its requests."""
    rows, cells = [], []
    for number, one in enumerate(found[:LISTED]):
        values = dict(flat(one))
        busy = float(str(values["utilisation"]))
        rows.append((f"node {number}", shown("utilisation", busy), [("k5", busy)]))
        cells.append(
            [Cell(str(number)), *(cell(name, values.get(name), f"nodes.{number}.") for name in FIGURES)],
        )
    said = "Share of the makespan in which the groups of a node were not idle."
    left = f"The first {DRAWN} of {len(found):,} nodes" if len(found) > DRAWN else ""
    return Figure(
        "Nodes",
        said,
        [bars(rows[:DRAWN], f"Bars. {said}")],
        ("node", *FIGURES.values()),
        cells,
        note=left and f"{left}; the table has {min(LISTED, len(found))}, summary.json all.",
    )
