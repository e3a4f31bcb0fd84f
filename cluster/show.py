"""Tables for people, on the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from cluster import compare as comparing
from cluster.kernels import Memory, Pass
from cluster.published import Row, headline
from node.composed import ComposedEstimate
from node.estimate import Estimate
from node.spec import Figure, Machine
from node.units import show_bytes, show_seconds

TIMES = ("makespan_s", "ttft_s.p50", "ttft_s.p99", "tpot_s.p50", "e2e_s.p50", "e2e_s.p99", "switch_s_mean")


LABELS = {
    "makespan_s": "makespan",
    "throughput_requests_per_s": "requests/s",
    "throughput_tokens_per_s": "output tokens/s",
    "ttft_s.p50": "TTFT p50",
    "ttft_s.p99": "TTFT p99",
    "tpot_s.p50": "TPOT p50",
    "e2e_s.p50": "E2E p50",
    "e2e_s.p99": "E2E p99",
    "switch_s_mean": "expert switch, mean",
    "hit_rate": "expert hit rate",
}


def print_table(
    console: Console, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[int] = (0,)
) -> None:
    """A title and a plain table; columns ``left`` are on the left, the others on the right."""
    made = Table(box=None, pad_edge=False)
    for index, column in enumerate(columns):
        made.add_column(column, justify="left" if index in left else "right", overflow="fold")
    for row in rows:
        made.add_row(*row)
    console.print(f"\n{title}", style="bold", highlight=False)
    console.print(made)


def number(metric: str, value: float | None) -> str:
    """A metric with its unit."""
    if value is None:
        return "-"
    if metric in TIMES:
        return show_seconds(value)
    return f"{value:.1%}" if metric == "hit_rate" else f"{value:,.2f}"


def compare_table(console: Console, columns: Sequence[comparing.Column]) -> None:
    """Machines side by side; in brackets how many times better the first one is."""
    rows = []
    for metric in comparing.METRICS:
        cells = [number(metric, comparing.value(columns[0].summary, metric))]
        for other in columns[1:]:
            times = comparing.ratio(columns[0], other, metric)
            brackets = f" ({times:.2f}x)" if times is not None and metric != "hit_rate" else ""
            cells.append(number(metric, comparing.value(other.summary, metric)) + brackets)
        rows.append((LABELS[metric], *cells))
    title = f"The same workload on each; in brackets: how many times better {columns[0].label} is"
    print_table(console, title, ("", *(column.label for column in columns)), rows)


def machine_table(console: Console, machine: Machine) -> None:
    """Every number of a machine with its kind and source."""
    rows = [(figure.path, figure.value, figure.kind, _source(figure)) for figure in machine.figures]
    print_table(
        console, f"{machine.name}: {machine.title}", ("number", "value", "kind", "source"), rows, left=(0, 2, 3)
    )


def _source(figure: Figure) -> str:
    """Where a number is from, and its range if it states one."""
    return figure.source if figure.range is None else f"{figure.source} ({figure.range[0]} to {figure.range[1]})"


def estimate_table(console: Console, title: str, found: Estimate) -> None:
    """One call; a model of one pass launches nothing for tokens."""
    tokens = found.kernel_launches_per_token > 0
    rows = [
        ("prefill" if tokens else "one pass", show_seconds(found.prefill_s)),
        *([("decode, per token", show_seconds(found.decode_s_per_token))] if tokens else []),
        ("call overhead", show_seconds(found.call_overhead_s)),
        ("total", show_seconds(found.total_s)),
        *([("kernel launches per token", str(found.kernel_launches_per_token))] if tokens else []),
        ("share of peak HBM bandwidth", f"{found.hbm_bandwidth_fraction:.1%}"),
        ("share of peak FLOP/s", f"{found.flops_fraction:.1%}"),
        ("bound by", found.bound_by),
    ]
    print_table(console, title, ("", "value"), rows)


def composed_table(console: Console, title: str, found: ComposedEstimate) -> None:
    """One call of a composition, part by part."""
    busy = sum(part.seconds for part in found.parts)
    rows = [
        (
            part.name,
            show_bytes(part.weight_bytes),
            show_bytes(part.socket_bytes),
            f"{part.flops / 1e9:.1f}",
            show_seconds(part.seconds),
            f"{part.seconds / busy:.0%}",
            part.bound_by,
            show_seconds(part.activation_s),
        )
        for part in found.parts
    ]
    heads = ("", "weights", "on a socket", "GFLOP", "time", "share", "bound by", "DDR to HBM")
    print_table(console, title, heads, rows)
    switching = show_seconds(sum(part.activation_s for part in found.parts[1:]))
    console.print(
        f"with a call overhead of {show_seconds(found.call_overhead_s)}: {show_seconds(found.total_s)}; "
        f"{found.patches} patches an image, sockets have {found.sharing}; to switch the expert: {switching}",
        highlight=False,
    )


def kernels_table(console: Console, found: Pass) -> None:
    """The kernels of a pass, and its memory plan."""
    cells = []
    for row in found.rows():
        launches = str(row.launches) if row.iterations == 1 else f"{row.launches} x {row.iterations}"
        cells.append(
            (
                row.kernel,
                launches,
                str(row.operators),
                str(row.tiles),
                f"{row.pcus} ({row.pcu_share:.0%})",
                f"{row.pmus} ({row.pmu_share:.0%})",
                show_bytes(row.sram_bytes),
                show_seconds(row.seconds),
                f"{row.bound_by} ({row.slowest_stage})"
                if row.bound_by == "compute" and row.slowest_stage
                else row.bound_by,
                f"{row.flops / row.seconds / found.machine.compute.peak_flops_per_s:.1%}",
                f"{row.hbm_bytes / row.seconds / found.machine.hbm.bandwidth:.1%}",
            )
        )
    heads = ("kernel", "launches", "operators", "tiles", "PCUs", "PMUs", "SRAM", "time", "bound by", "FLOP/s", "HBM")
    title = (
        f"{found.model}, socket {found.rank} of {found.machine.sockets} of {found.machine.name}: kernels of one pass"
    )
    print_table(console, title, heads, cells, left=(0, 8))
    console.print(f"one pass: {show_seconds(found.seconds)}, without call overhead", highlight=False)
    _memory_table(console, found.memory())


def _memory_table(console: Console, memory: Memory) -> None:
    saved = memory.saved_by_sharing_bytes / memory.unshared_bytes if memory.unshared_bytes else 0.0
    rows = [
        ("symbols", f"{memory.symbols:,}"),
        ("HBM", f"{show_bytes(memory.hbm_bytes)} (lifetimes ask for {show_bytes(memory.lifetime_bound_bytes)})"),
        ("without sharing", show_bytes(memory.unshared_bytes)),
        ("saved by sharing", f"{show_bytes(memory.saved_by_sharing_bytes)} ({saved:.1%})"),
        ("spilled to DDR", f"{memory.spilled_symbols:,} symbols, {show_bytes(memory.ddr_bytes)}"),
        ("spilling costs", show_seconds(memory.spill_seconds)),
    ]
    print_table(console, "Static memory plan of a socket", ("", "value"), rows)


def reproduce_table(console: Console, rows: Sequence[Row]) -> None:
    """Published beside emulated."""
    cells = []
    for row in rows:
        error = f"{row.error:+.1%}" if row.within else f"OUT {row.error:+.1%}"
        cells.append((row.metric, published(row), f"{row.emulated:.4g}", error, f"{row.tolerance:.0%}", row.role))
    heads = ("result", "published", "emulated", "error", "tolerance", "role")
    print_table(console, "Published results beside the emulator's", heads, cells, left=(0, 5))
    console.print(f"headline error, mean over predicted rows: {headline(rows):.1%}")


def published(row: Row) -> str:
    """A figure or its range."""
    if isinstance(row.published, tuple):
        return f"{row.published[0]:.4g} to {row.published[1]:.4g}"
    return f"{row.published:.4g}"
