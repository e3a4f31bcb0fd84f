"""Figures of a request's time: how latencies are distributed, and where the time went."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from cluster.measured import spread as summarised
from cluster.report.binned import Distribution, Floats, spent_over_time
from cluster.report.figure import Cell, Figure
from cluster.report.plot import WIDTH, area, bars, mark, plot
from cluster.requests_table import spent
from cluster.residency import Residents
from cluster.scales import Axis, Scale
from cluster.summary import Summary
from node.events import Ints
from node.runtime.ledger import CHARGES
from node.units import exact_sum, show_seconds

TITLES = {
    "ttft_s": "Time to first token (TTFT)",
    "tpot_s": "Time per output token (TPOT)",
    "e2e_s": "End to end (E2E)",
    "queue": "Queue",
}
PERCENTILES = {"p50": 2, "p90": 1, "p99": 0}  # rows for their words: no line runs through those of another
HEIGHT, AREA_HEIGHT = 150, 170
TIME = "virtual time"


def latency(name: str, found: Distribution, summary: Summary, times: Ints) -> Figure:
    """The histogram of one kind of latency; mean and percentiles are the summary's, of the queue those of ``times``."""
    spread = summary.get(name) or summarised(times, exact_sum(times))
    assert isinstance(spread, dict)
    across = _across(found)
    total = int(found.counts.sum()) + found.zero
    shares = found.counts / total
    up = Scale(
        Axis("share of requests", show=lambda share: f"{share:.3g}%"), (100 * shares).tolist(), HEIGHT, zero=True
    )
    xs = np.array([across.at(edge) for edge in found.edges.tolist()])
    if len(found.counts) == 1:  # all alike: wide enough to be seen
        xs += (-2, 2)
    heights = np.array([up.at(share) for share in (100 * shares).tolist()])
    shape = area(xs, np.zeros(len(heights)), heights, HEIGHT, "k0")
    marks = [
        mark(across.at(spread[which]), row, HEIGHT, f"{which} {show_seconds(spread[which])}")
        for which, row in PERCENTILES.items()
        if spread[which] > 0
    ]
    said = f"Half of the requests within {show_seconds(spread['p50'])}, 90% within {show_seconds(spread['p90'])}, "
    said += f"99% within {show_seconds(spread['p99'])}; the mean is {show_seconds(spread['mean'])}."
    if found.zero:
        said += f" {found.zero:,} of {total:,} took no time at all and are not in the picture."
    names = {which: f"{name}.{which}" if name in summary else "" for which in spread}
    rows = [[Cell(which), Cell(show_seconds(value), names[which], value)] for which, value in spread.items()]
    rows += [[Cell("0 s"), Cell(f"{found.zero:,} requests")]] if found.zero else []
    bounds = [show_seconds(edge) for edge in found.edges.tolist()]
    rows += [
        [Cell(f"{low} to {high}"), Cell(f"{count:,} requests")]
        for low, high, count in zip(bounds[:-1], bounds[1:], found.counts.tolist(), strict=True)
        if count
    ]
    picture = plot(across, up, HEIGHT, [shape], marks, f"Histogram: {TITLES[name]}. {said}")
    return Figure(TITLES[name], said, [picture], ("", "value"), rows)


def _across(found: Distribution) -> Scale:
    """The axis of a distribution: from its first edge to its last; where there is but one bin, from 0."""
    if len(found.counts) == 1:
        return Scale(Axis("time", show=show_seconds), found.edges.tolist(), WIDTH, zero=True)
    axis = Axis("time, logarithmic" if found.log else "time", log=found.log, show=show_seconds)
    return Scale(axis, found.edges.tolist(), WIDTH, zero=False, tight=True)


def where_time_went(columns: Mapping[str, Ints]) -> Figure:
    """The charges of all requests, with and without the queue."""
    means = spent(columns)
    total = sum(means.values())
    rest = total - means["queue"]
    parts = [(kind(charge), mean / total) for charge, mean in means.items()]
    rows = [("all of it", show_seconds(total), parts)]
    if rest:
        after = [(kind(charge), mean / rest) for charge, mean in means.items() if charge != "queue"]
        rows.append(("without the queue", show_seconds(rest), after))
    said = "Of the mean request: " + ", ".join(f"{c} {show_seconds(mean)}" for c, mean in means.items()) + "."
    legend = [(kind(c), f"{c} {show_seconds(mean)} ({mean / total:.1%})") for c, mean in means.items()]
    cells = [[Cell(c), Cell(show_seconds(mean)), Cell(f"{mean / total:.1%}")] for c, mean in means.items()]
    title, heads = "Where a request's time went", ("charge", "mean", "share")
    return Figure(title, said, [bars(rows, f"Stacked bars. {said}")], heads, cells, legend)


def time_over_run(columns: Mapping[str, Ints], residents: Residents) -> Figure:
    """The charges over the run, of the requests that ended in each bin, with and without the queue."""
    ended, means = spent_over_time(columns, residents)
    pictures = [
        _shares(means, residents, "share of all time", ""),
        _shares(
            np.where(np.arange(len(CHARGES))[:, None] == 0, 0, means),
            residents,
            "share of time without the queue",
            TIME,
        ),
    ]
    edges = [show_seconds(edge) for edge in residents.edges.tolist()]
    shown = [[show_seconds(mean) for mean in of_bin] for of_bin in means.T.tolist()]
    rows = [
        [Cell(edge), Cell(f"{count:,}"), *(map(Cell, words) if count else ())]
        for edge, count, words in zip(edges[:-1], ended.tolist(), shown, strict=True)
    ]
    said = (
        f"Above, shares of all time of the requests that ended in each of {len(ended)} spans of the run; below, "
        "of their time without the queue."
    )
    legend = [(kind(charge), charge) for charge in CHARGES]
    heads = ("from", "ended", *CHARGES)
    return Figure("Where time went over the run", said, pictures, heads, rows, legend, wide=True)


def time_axis(residents: Residents, title: str = TIME) -> Scale:
    """From the start of a run to its end."""
    return Scale(Axis(title, show=show_seconds), [0.0, float(residents.edges[-1])], WIDTH, zero=True, tight=True)


def kind(charge: str) -> str:
    """The class of a charge's colour."""
    return f"k{CHARGES.index(charge)}"


def _shares(means: Floats, residents: Residents, what: str, title: str) -> str:
    across = time_axis(residents, title)
    up = Scale(Axis(what, show=lambda share: f"{share:.0%}"), [0.0, 1.0], AREA_HEIGHT, zero=True)
    totals = means.sum(axis=0)
    tops = np.cumsum(means, axis=0) / np.where(totals > 0, totals, 1) * AREA_HEIGHT
    xs = residents.edges * (WIDTH / residents.edges[-1])
    lows = np.concatenate([np.zeros_like(tops[:1]), tops[:-1]])
    shapes = [
        area(xs, low, high, AREA_HEIGHT, f"k{place}") for place, (low, high) in enumerate(zip(lows, tops, strict=True))
    ]
    return plot(across, up, AREA_HEIGHT, shapes, (), f"Stacked areas over time: {what}.")
