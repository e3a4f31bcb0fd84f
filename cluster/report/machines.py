"""Figures that have machines side by side."""

from __future__ import annotations

from collections.abc import Sequence

from cluster.compare import METRICS, Column, ratio, value
from cluster.report.figure import Cell, Figure, cell
from cluster.report.latency import kind
from cluster.report.plot import bars
from cluster.show import LABELS, number
from node.runtime.ledger import CHARGES
from node.units import show_seconds


def metrics(columns: Sequence[Column]) -> list[Figure]:
    """A figure for each metric that the machines have."""
    return [_metric(columns, metric) for metric in METRICS]


def time_went(columns: Sequence[Column]) -> Figure:
    """Where the mean request's time went without the queue, on one scale."""
    totals = {column.label: sum(column.spent.values()) for column in columns}
    rests = {column.label: totals[column.label] - column.spent["queue"] for column in columns}
    most = max(rests.values()) or 1.0
    rows = []
    for column in columns:
        queue = f"{show_seconds(rests[column.label])} + {show_seconds(column.spent['queue'])} queue"
        parts = [(kind(charge), spent / most) for charge, spent in column.spent.items() if charge != "queue"]
        rows.append((column.label, queue, parts))
    said = (
        "The mean request's time without the queue, on the same scale for all machines; the queue is written beside it."
    )
    cells = [[Cell(c.label), *(Cell(show_seconds(c.spent[charge])) for charge in CHARGES)] for c in columns]
    legend = [(kind(charge), charge) for charge in CHARGES if charge != "queue"]
    picture = bars(rows, f"Stacked bars. {said}")
    return Figure("Where a request's time went", said, [picture], ("", *CHARGES), cells, legend, wide=True)


def table(columns: Sequence[Column]) -> Figure:
    """Every metric of every machine, and how many times better the first one is."""
    first = columns[0]
    rows = []
    for metric in METRICS:
        cells = [Cell(LABELS[metric])]
        for column in columns:
            times = None if column is first or metric == "hit_rate" else ratio(first, column, metric)
            better = f" ({times:.2f}x)" if times is not None else ""
            found = value(column.summary, metric)
            cells.append(Cell(number(metric, found) + better, f"{column.label}/{metric}", found))
        rows.append(cells)
    said = f"In brackets: how many times better {first.label} is."
    return Figure("Side by side", said, [], ("", *(column.label for column in columns)), rows, wide=True)


def _metric(columns: Sequence[Column], metric: str) -> Figure:
    found = {column.label: value(column.summary, metric) for column in columns}
    most = 1.0 if metric == "hit_rate" else max((one for one in found.values() if one), default=0.0) or 1.0
    rows = [
        (label, number(metric, one), [("k5" if label == columns[0].label else "k0", (one or 0.0) / most)])
        for label, one in found.items()
    ]
    said = "More is better." if METRICS[metric][1] else "Less is better."
    words = "; ".join(f"{label} {number(metric, one)}" for label, one in found.items())
    cells = [[Cell(label), cell(metric, one, f"{label}/")] for label, one in found.items()]
    return Figure(LABELS[metric], said, [bars(rows, f"Bars. {LABELS[metric]}: {words}")], ("", "value"), cells)
