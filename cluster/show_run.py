"""What came of a run, on the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from cluster import compare as comparing
from cluster.inputs import assumptions
from cluster.not_served import TURNED_AWAY
from cluster.runner import Run
from cluster.show import LABELS, number, print_table
from cluster.summary import Summary
from node.runtime.ledger import CHARGES
from node.units import PS_PER_S, exact_sum, show_bytes, show_seconds

LISTED = 16  # nodes


def run_table(console: Console, result: Run) -> None:
    """What a person reads at a glance."""
    summary, machine = result.summary, result.deployment.machine
    nodes, count = summary.get("nodes"), result.deployment.catalogue.count
    title = f"{times(summary)}{machine.title}: {count} experts, workload {result.workload.source}"
    rows = [("requests completed", f"{summary['completed']:,} of {summary['requests']:,}")]
    if summary["over_context"]:
        rows.append(("over the model's context", f"{summary['over_context']:,}"))
    rows += [(LABELS[metric], number(metric, comparing.value(summary, metric))) for metric in comparing.METRICS]
    rows.append(("share of Belady's", _of_belady(summary)))
    copied = summary["bytes_ddr_to_hbm"]
    assert isinstance(copied, int)
    rows.append(("expert activations", f"{summary['expert_activations']:,} ({show_bytes(copied)} from DDR to HBM)"))
    if "prefetches" in summary:
        late, wasted = summary["prefetches_late"], summary["prefetches_wasted"]
        rows.append(("of them prefetched", f"{summary['prefetches']:,} ({late:,} late, {wasted:,} wasted)"))
    if "experts_moved" in summary:
        moved = summary["bytes_moved"]
        assert isinstance(moved, int)
        rows.append(("experts moved between groups", f"{summary['experts_moved']:,} ({show_bytes(moved)})"))
    if "preemptions" in summary:
        moved, again = summary["bytes_swapped"], summary["tokens_recomputed"]
        assert isinstance(moved, int)
        cost = f"{show_bytes(moved)} swapped" if moved else f"{again:,} tokens recomputed"
        rows.append(("made room for others", f"{summary['preemptions']:,} times ({cost})"))
    if "program_loads" in summary:
        loads, moved, took = (summary[f"program_{what}"] for what in ("loads", "bytes", "load_s"))
        assert isinstance(moved, int) and isinstance(took, float)
        rows.append(("compiled programs loaded", f"{loads:,} ({show_bytes(moved)}, {show_seconds(took)})"))
    if "held_s" in summary:
        held = summary["held_s"]
        assert isinstance(held, float)
        rows.append(("idle, for experts had to stay", show_seconds(held)))
    for reason in TURNED_AWAY:
        if reason in summary:
            rows.append((f"turned away, {reason.replace('_', ' ')}", f"{summary[reason]:,}"))
    if "energy_j" in summary:
        rows.append(("energy", f"{summary['energy_j']:,.0f} J"))
    if "cost" in summary:
        rows.append(("cost, in the currency of cost_per_hour", f"{summary['cost']:,.2f}"))
    print_table(console, title, ("", "value"), rows)
    if "service_levels" in summary:
        _service_levels(console, summary["service_levels"])
    _where_time_went(console, result)
    if isinstance(nodes, list):
        _nodes(console, nodes)
    _sockets(console, result)
    console.print(f"\n{assumptions(machine)}", style="dim", highlight=False)


def _of_belady(summary: Summary) -> str:
    share, best = summary["hit_rate_share_of_belady"], summary["hit_rate_belady"]
    bound = "the optimum on the same references" if summary["hit_rate_belady_is_bound"] else "no bound here"
    return ("-" if share is None else f"{share:.1%}") + f" of {best:.1%} ({bound})"


def _service_levels(console: Console, levels: object) -> None:
    assert isinstance(levels, dict)
    rows = []
    for one in (*levels["classes"], *([{"name": "all of them", **levels}] if len(levels["classes"]) > 1 else [])):
        spreads = [one.get(what) or {} for what in ("ttft_s", "e2e_s")]
        rows.append(
            (
                one["name"],
                "-" if one["attainment"] is None else f"{one['attainment']:.1%}",
                number("", one["goodput_requests_per_s"]),
                *(number(f"ttft_s.{p}", spread.get(p)) for spread in spreads for p in ("p50", "p99")),
            )
        )
    heads = ("class", "SLO attained", "goodput, requests/s", "TTFT p50", "TTFT p99", "E2E p50", "E2E p99")
    print_table(console, "As promised", heads, rows)


def _where_time_went(console: Console, result: Run) -> None:
    columns = result.columns
    total, count = exact_sum(columns["e2e"]), len(columns["e2e"])
    sums = {name: exact_sum(columns[name]) for name in CHARGES}
    rows = [(name, show_seconds(spent / count / PS_PER_S), f"{spent / total:.1%}") for name, spent in sums.items()]
    print_table(console, "Where a request's time went", ("", "mean", "share"), rows)


def times(summary: Summary) -> str:
    """How many machines there are, before what one is called."""
    nodes = summary.get("nodes")
    return f"{len(nodes)} x " if isinstance(nodes, list) else ""


def _nodes(console: Console, nodes: Sequence[Summary]) -> None:
    rows = []
    for index, one in enumerate(nodes[:LISTED]):
        hits, ttft, busy = one["hit_rate"], one["ttft_s"], one["utilisation"]
        assert isinstance(busy, float) and isinstance(ttft, dict)
        found = (number("hit_rate", hits if isinstance(hits, float) else None), f"{busy:.1%}")
        rows.append((str(index), f"{one['completed']:,}", *found, number("ttft_s.p99", ttft["p99"])))
    title = "Nodes" if len(nodes) <= LISTED else f"Nodes, the first {LISTED}; summary.json has all"
    print_table(console, title, ("node", "completed", "hit rate", "not idle", "TTFT p99"), rows)


def _sockets(console: Console, result: Run) -> None:
    makespan, sockets = result.summary["makespan_s"], result.summary["sockets"]
    assert isinstance(makespan, float) and isinstance(sockets, list)
    machine, degree = result.deployment.machine, result.deployment.degree
    rows = []
    for group in range(len(sockets) // degree):
        of_group = sockets[group * degree : (group + 1) * degree]
        equal = all(one == of_group[0] for one in of_group)
        for rank, one in enumerate(of_group[:1] if equal else of_group):
            first = group * degree + rank
            name = f"{first}-{first + degree - 1}" if equal and degree > 1 else str(first)
            rows.append(
                (
                    name,
                    f"{one['hbm_peak_bytes'] / machine.hbm.capacity:.1%}",
                    f"{one['ddr_used_bytes'] / machine.ddr.capacity:.1%}",
                    *(f"{one[f'{engine}_busy_s'] / makespan:.1%}" for engine in ("dma", "tile", "link")),
                )
            )
    print_table(console, "Sockets", ("socket", "HBM peak", "DDR used", "DMA busy", "tile busy", "link busy"), rows)
