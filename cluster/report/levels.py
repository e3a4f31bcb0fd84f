"""The figure of what was promised: who of each class got it."""

from __future__ import annotations

from cluster.not_served import OUTCOMES
from cluster.report.figure import Cell, Figure, cell, flat, shown
from cluster.report.plot import bars
from cluster.summary import Summary

FIGURES = {
    "attainment": "SLO attained",
    "counted": "of requests",
    "goodput_requests_per_s": "goodput, requests/s",
    "requests": "requests",
    "completed": "completed",
    **{outcome: outcome.replace("_", " ") for outcome in OUTCOMES},
    **{
        f"{what}_s.{which}": f"{what.upper()} {which}"
        for what in ("ttft", "e2e")
        for which in ("mean", "p50", "p90", "p99")
    },
}
DRAWN = 12


def levels(found: Summary) -> Figure:
    """``service_levels`` of a summary."""
    classes = found["classes"]
    assert isinstance(classes, list)
    rows, cells = [], []
    for number, one in enumerate(classes):
        values, name = dict(flat(one)), str(one["name"])
        attained = one["attainment"]
        rows.append((name, shown("attainment", attained), [("k0", attained or 0.0)]))
        prefix = f"service_levels.classes.{number}."
        known = [cell(key, values[key], prefix) if key in values else Cell("-") for key in FIGURES]
        cells.append([cell("name", name, prefix), *known])
    of_all = shown("attainment", found["attainment"])
    said = f"Share of the requests of each class that got what was promised; of all requests {of_all}."
    left = f"The first {DRAWN} of {len(classes)} classes; the table has all." if len(classes) > DRAWN else ""
    heads = ("class", *FIGURES.values())
    return Figure("As promised", said, [bars(rows[:DRAWN], f"Bars. {said}")], heads, cells, note=left, wide=True)
