"""Figures of memory: which experts were in HBM when, what was copied and evicted, how full tiers and engines were."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from cluster.report.figure import Cell, Figure, cell, shown
from cluster.report.latency import time_axis
from cluster.report.plot import WIDTH, area, bars, heat, plot, steps
from cluster.residency import Residents
from cluster.scales import Axis, Scale
from cluster.summary import Summary
from node.deployment import Deployment
from node.events import Ints
from node.units import show_bytes, show_seconds

HEIGHT = 130
DRAWN, LISTED = 16, 64  # of sockets that differ
ENGINES = ("dma", "tile", "link")


def residents(found: Residents, experts: Ints, nodes: int = 1) -> Figure:
    """Which experts were in HBM when, of so many ``nodes`` on the average; ``experts``: of each request."""
    xs = found.edges * (WIDTH / found.edges[-1])
    top = found.experts.tolist()
    asked = np.bincount(experts, minlength=max(top) + 1)[found.experts] / len(experts)
    alone, rest = found.resident[:-1] / nodes, found.resident[-1] / nodes
    names = [str(expert) for expert in top]
    said = f"Most asked for first; those shown by themselves have {asked.sum():.0%} of requests."
    pictures = [heat(time_axis(found, ""), names, alone, xs, f"Heat map: when experts were in HBM. {said}")]
    up = Scale(Axis("others in HBM, mean", show=lambda count: f"{count:g}"), rest.tolist(), HEIGHT // 2, zero=True)
    heights = np.array([up.at(count) for count in rest.tolist()])
    shape = area(xs, np.zeros(len(rest)), heights, HEIGHT // 2, "k0")
    pictures.append(
        plot(time_axis(found), up, HEIGHT // 2, [shape], (), "Steps over time: other experts in HBM, mean.")
    )
    heads = (
        "from",
        *(f"expert {name} ({share:.1%})" for name, share in zip(names, asked.tolist(), strict=True)),
        "others",
    )
    rows = [
        [Cell(show_seconds(edge)), *(Cell(f"{share:.0%}") for share in shares), Cell(f"{others:.1f}")]
        for edge, shares, others in zip(found.edges.tolist(), alone.T.tolist(), rest.tolist(), strict=False)
    ]
    note = "The stronger the colour, the longer in each span an expert was in HBM: copied and not evicted."
    note += f" The mean of {nodes} nodes." if nodes > 1 else ""
    legend = [(f"heat h{level}", f"to {level / 5:.0%}") for level in range(1, 6)]
    return Figure("Experts in HBM", said, pictures, heads, rows, legend, note, wide=True)


def switches(found: Residents) -> Figure:
    """Activations, upwards, and evictions, downwards, over time."""
    xs = found.edges * (WIDTH / found.edges[-1])
    came, left = found.activations, found.evictions
    ends = [-float(left.max()), float(came.max())]
    up = Scale(Axis("in each span", show=lambda count: f"{abs(count):,.0f}"), ends, HEIGHT, zero=True)
    zero = np.full(len(came), up.at(0))
    heights = [np.array([up.at(count) for count in counts.tolist()]) for counts in (came, -left)]
    shapes = [area(xs, zero, heights[0], HEIGHT, "k5"), area(xs, heights[1], zero, HEIGHT, "k1")]
    totals = [int(counts.sum()) for counts in (came, left)]
    said = f"{totals[0]:,} activations (copies from DDR to HBM), upwards, and {totals[1]:,} evictions, downwards, "
    said += f"in spans of {show_seconds(found.width_us / 1e6)}."
    picture = plot(time_axis(found), up, HEIGHT, shapes, (), f"Bars over time. {said}")
    rows = [
        [Cell(show_seconds(edge)), Cell(f"{arrived:,}"), Cell(f"{gone:,}")]
        for edge, arrived, gone in zip(found.edges.tolist(), came.tolist(), left.tolist(), strict=False)
    ]
    rows.append([Cell("in all"), cell("expert_activations", totals[0]), Cell(f"{totals[1]:,}")])
    legend = [("k5", "activations"), ("k1", "evictions")]
    heads = ("from", "activations", "evictions")
    return Figure("Switches", said, [picture], heads, rows, legend, wide=True)


def hbm_over_run(found: Residents, deployment: Deployment) -> Figure:
    """The most bytes of HBM of a socket in each bin: of the fullest group and, of several, of the emptiest."""
    capacity = deployment.machine.hbm.capacity
    xs = found.edges * (WIDTH / found.edges[-1])
    up = Scale(Axis("of capacity", show=lambda share: f"{share:.0%}"), [0.0, 1.0], HEIGHT, zero=True)
    groups = len(found.hbm_peak)
    lines = {"fullest group": ("5", found.hbm_peak.max(axis=0))}
    if groups > 1:
        lines["emptiest group"] = ("1", found.hbm_peak.min(axis=0))
    shapes = [
        steps(xs, np.array([up.at(used / capacity) for used in line.tolist()]), HEIGHT, f"s{kind}")
        for kind, line in lines.values()
    ]
    most = show_bytes(int(found.hbm_peak.max()))
    said = f"At most {most} of {show_bytes(capacity)} of a socket's HBM: experts, router and KV cache."
    picture = plot(time_axis(found), up, HEIGHT, shapes, (), f"Steps over time: the most HBM in use. {said}")
    peaks = [[show_bytes(used) for used in line.tolist()] for _, line in lines.values()]
    rows = [
        [Cell(show_seconds(edge)), *map(Cell, of_bin)]
        for edge, *of_bin in zip(found.edges.tolist(), *peaks, strict=False)
    ]
    legend = [(f"k{kind}", name) for name, (kind, _) in lines.items()] if groups > 1 else []
    return Figure("HBM over the run", said, [picture], ("from", *lines), rows, legend)


def tiers(summary: Summary, deployment: Deployment) -> Figure:
    """How full the tiers of each socket were."""
    machine, found = deployment.machine, list(alike(summary, deployment))
    rooms = {"HBM peak": ("hbm_peak_bytes", machine.hbm.capacity), "DDR used": ("ddr_used_bytes", machine.ddr.capacity)}
    rows, cells = [], []
    for name, place, one in found[:LISTED]:
        for kind, (what, (key, room)) in zip(("k5", "k1"), rooms.items(), strict=True):
            rows.append(
                (
                    f"{_socket(name)}: {what}",
                    f"{show_bytes(one[key])} ({one[key] / room:.1%})",
                    [(kind, one[key] / room)],
                )
            )
        cells.append([Cell(name), *(cell(f"sockets.{place}.{key}", one[key]) for key, _ in rooms.values())])
    hbm, ddr = (show_bytes(room) for _, room in rooms.values())
    said = f"Each socket has {hbm} of HBM and {ddr} of DDR: the whole length of a bar."
    return Figure(
        "Memory of the sockets",
        said,
        [bars(rows[: DRAWN * len(rooms)], f"Bars. {said}")],
        ("socket", *rooms),
        cells,
        note=_left_out(found),
    )


def engines(summary: Summary, deployment: Deployment) -> Figure:
    """How long the engines of each socket were busy."""
    makespan, found = summary["makespan_s"], list(alike(summary, deployment))
    assert isinstance(makespan, float)
    rows, cells = [], []
    for name, place, one in found[:LISTED]:
        busy = [(engine, one[f"{engine}_busy_s"]) for engine in ENGINES]
        for kind, (engine, time) in zip(("k1", "k5", "k6"), busy, strict=True):
            what = engine if engine != "dma" else "DMA"
            rows.append((f"{_socket(name)}: {what}", f"{time / makespan:.1%}", [(kind, time / makespan)]))
        cells.append([Cell(name), *(cell(f"sockets.{place}.{engine}_busy_s", time) for engine, time in busy)])
    said = f"Shares of the makespan of {show_seconds(makespan)} in which an engine was at work."
    heads = ("socket", "DMA busy", "tile busy", "link busy")
    return Figure(
        "Engines of the sockets",
        said,
        [bars(rows[: DRAWN * len(ENGINES)], f"Bars. {said}")],
        heads,
        cells,
        note=_left_out(found),
    )


def hit_rate(summary: Summary) -> Figure:
    """The hit rate beside Belady's."""
    names = ("hit_rate", "hit_rate_belady")
    labels = ("this run", "Belady's")
    values = [float(str(summary[name])) for name in names]
    rows = [
        (label, f"{value:.1%}", [(kind, value)])
        for label, value, kind in zip(labels, values, ("k5", "k0"), strict=True)
    ]
    bound = "no eviction policy can have more" if summary["hit_rate_belady_is_bound"] else "here it is no bound"
    share = shown("hit_rate", summary["hit_rate_share_of_belady"])
    said = f"The run has {share} of the hits of Belady's, the offline optimum on the same references; {bound}."
    keys = (*names, "hit_rate_share_of_belady", "expert_hits", "expert_activations")
    cells = [[Cell(key), cell(key, summary[key])] for key in keys]
    return Figure("Hit rate", said, [bars(rows, f"Bars. {said}")], ("", "value"), cells)


def alike(summary: Summary, deployment: Deployment) -> Iterator[tuple[str, int, Mapping[str, float]]]:
    """Sockets as in the summary, those of a group that are equal as one: which, the first one's number, its numbers."""
    sockets, degree = summary["sockets"], deployment.degree
    assert isinstance(sockets, list)
    for first in range(0, len(sockets), degree):
        of_group = sockets[first : first + degree]
        equal = degree > 1 and all(one == of_group[0] for one in of_group)
        for rank, one in enumerate(of_group[:1] if equal else of_group):
            yield f"{first}-{first + degree - 1}" if equal else str(first + rank), first + rank, one


def _socket(name: str) -> str:
    return f"socket{'s' if '-' in name else ''} {name}"


def _left_out(found: Sequence[object]) -> str:
    drawn = f"The first {DRAWN} of {len(found):,} sockets that differ" if len(found) > DRAWN else ""
    return drawn and f"{drawn}; the table has {min(LISTED, len(found))}, summary.json all."
