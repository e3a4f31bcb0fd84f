"""The table of ``coe plan``."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from cluster.inputs import assumptions
from cluster.plan.interval import CONFIDENCE
from cluster.plan.measure import Measured
from cluster.plan.report import Report
from cluster.plan.search import Row
from cluster.runner import OVERLOAD
from cluster.show import number, print_table
from cluster.sweep.results import label
from node.units import show_seconds

HEADS = {"sharding.tensor_parallel": "TP", "machine.name": "machine"}
SHOWN = {
    "ttft_s.p99": "TTFT p99",
    "e2e_s.p99": "E2E p99",
    "service_levels.goodput_requests_per_s": "goodput/s",
    "hit_rate": "hits",
}


def plan_table(console: Console, report: Report) -> None:
    """A row a candidate: its fewest nodes and how close a node less came; what plans are like; what they rest on."""
    keys = list(dict.fromkeys(key for row in report.rows for key in row.candidate.point))
    heads = ("", *(HEADS.get(key, key.rpartition(".")[2]) for key in keys), "nodes")
    found = [(_choice(report, row, keys), row) for row in sorted(report.rows, key=report.order)]
    experts = report.problem.config.experts.catalogue().count
    title = f"{report.problem.rate:.4g} requests/s for {experts:,} experts; {'; '.join(report.promises)}"
    costs = ("cost/h",) if report.problem.priced else ()
    rows = [
        (*choice, *(_cost(row) for _ in costs), _kept(row.plan), _below(row))
        for choice, row in found
        if row.cannot_run is None
    ]
    left = range(len(keys) + 1)
    print_table(console, title, (*heads, *costs, "kept, %", "a node less, %"), rows, left)
    _cannot_run(console, report)
    plans = [
        (*choice, *(number(metric, row.plan.figures[metric]) for metric in SHOWN))
        for choice, row in found
        if row.plan is not None
    ]
    if plans:
        print_table(console, "What these are like, means over the seeds", (*heads, *SHOWN.values()), plans, left)
    _plan(console, report)
    for machine in report.machines:
        console.print(f"\n{machine.name}: {assumptions(machine)}", style="dim", highlight=False)


def _cannot_run(console: Console, report: Report) -> None:
    """Of each machine and kind of reason the first one, and how many there are."""
    kinds: dict[tuple[str, str], list[str]] = {}
    for row in report.rows:
        if row.cannot_run is not None:
            kind = row.candidate.machine.name, row.cannot_run.partition(":")[0]
            kinds.setdefault(kind, []).append(row.cannot_run)
    for (machine, _), reasons in kinds.items():
        whose = f"{len(reasons)} of {len(report.rows)}, {machine}"
        console.print(f"cannot run ({whose}): {reasons[0]}", highlight=False)


def _choice(report: Report, row: Row, keys: Sequence[str]) -> list[str]:
    values = [label(row.candidate.point[key]) if key in row.candidate.point else "-" for key in keys]
    return ["*" if row is report.best else "", *values, _nodes(row)]


def _plan(console: Console, report: Report) -> None:
    problem, asked, best = report.problem, report.problem.asked, report.best
    for row in report.rows:
        for few, many in row.not_monotone:
            console.print(
                f"not monotone: {row.candidate.name}: {many.nodes} nodes keep to less than {few.nodes} do",
                highlight=False,
            )
    console.print(
        f"kept: share of requests to which all promises are kept, with its {CONFIDENCE:.0%} interval over "
        f"{asked.seeds} seeds (fewer where these show that it fails), of the class of which least is "
        f"certain; in runs of {problem.requests:,} requests over {show_seconds(problem.span_s)}, the first "
        f"{problem.config.workload.warmup:,} left out; overloaded: the last request ends more than {OVERLOAD - 1:.0%} "
        f"later; where none does: the most nodes that were tried; the plan (*): by {report.cost_unit}, then the one "
        "most certain to do; nothing dearer is searched",
        style="dim",
        highlight=False,
    )
    if problem.config.workload.trace is not None:
        console.print(
            f"arrivals and lengths are those of {problem.workload.source} in every run: the interval is of who is "
            "asked for, not of other hours",
            style="dim",
            highlight=False,
        )
    if best is None or best.plan is None:
        return
    far = "" if report.complete else " so far"
    console.print(f"\nplan{far}: {best.nodes} x {best.candidate.machine.title}: {best.candidate.name}", style="bold")
    if (below := best.below) is not None and not below.fails_clearly(asked):
        console.print("whether a node less would do is not certain: more --seeds would tell", highlight=False)


def _nodes(row: Row) -> str:
    if row.nodes is not None:
        return f"{row.nodes}"
    if not row.searched:
        return "?"
    return f"> {row.most}" if row.most else "dearer"


def _cost(row: Row) -> str:
    price = row.candidate.machine.cost_per_hour
    return "-" if row.nodes is None or price is None else f"{row.nodes * price:,.2f}"


def _below(row: Row) -> str:
    """How close the next smaller one came, or, where none does, the largest that was tried."""
    if (below := row.below) is None:
        return "-"
    nodes = "" if row.nodes is not None else f"{below.nodes}: "
    return nodes + _kept(below)


def _kept(one: Measured | None) -> str:
    if one is None:
        return "-"
    if (worst := one.worst) is None:
        return str(one.cannot_run)
    late = ", overloaded" if one.overloaded else ""
    return f"{100 * worst.share:.2f} ({100 * worst.low:.2f} to {100 * worst.high:.2f}){late}"
