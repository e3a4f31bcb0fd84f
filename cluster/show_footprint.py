"""The tables of ``coe footprint``."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from cluster.footprint import Row
from cluster.footprint_curve import INPUTS, Curve
from cluster.inputs import inputs
from cluster.show import print_table
from node.units import show_seconds

STATES = {"fits": "fits", "spills": "spills", "out_of_memory": "full"}


def footprint_table(console: Console, curves: Sequence[Curve], counts: Sequence[int]) -> None:
    """Machines needed by number of experts; where each machine's tiers end; the arithmetic; the inputs."""
    limit = show_seconds(curves[0].limit_s)
    cells = [(f"{count:,}", *(_cell(one.row(count)) for one in curves)) for count in counts]
    title = f"Machines needed to hold the experts, and what one makes of them (an activation of {limit} counts as held)"
    print_table(console, title, ("experts", *(one.label for one in curves)), cells, left=range(1, len(curves) + 1))
    console.print(
        "fits: all in HBM; spills: the rest in the tier below; full: one machine has no room for all", style="dim"
    )
    most = max(counts)
    rows = [
        (
            one.label,
            f"{one.room.hbm:,}",
            f"{one.room.below:,}",
            f"{one.spills_from:,}",
            f"{one.out_of_memory_from:,}",
            show_seconds(one.room.activation_s),
            f"{one.row(most, 0.0).nodes:,}",
            f"{one.row(most, one.room.activation_s).nodes:,}",
        )
        for one in curves
    ]
    heads = ("machine", "in HBM", "below", "spills from", "full from", "activation", "too slow", "quick enough")
    print_table(
        console,
        f"Room on one machine; machines for {most:,} experts if its activation is too slow to count, and if it is not",
        heads,
        rows,
    )
    for one in curves:
        console.print(f"\n{one.label}", style="bold", highlight=False)
        held = one.room.held(one.limit_s)
        nodes = one.row(most).nodes
        machines = "machine" if nodes == 1 else "machines"
        last = f"{most:,} experts / {held:,} a machine = {most / held:.2f}: {nodes:,} {machines}"
        for line in (*one.arithmetic, last + _cost(one.row(most))):
            console.print(f"  {line}", highlight=False)
        console.print(f"  inputs: {inputs(one.machine, INPUTS)}", style="dim", highlight=False)


def _cell(row: Row) -> str:
    return f"{row.nodes:,} ({STATES[row.state]}){_cost(row)}"


def _cost(row: Row) -> str:
    return "" if row.cost_per_hour is None else f", {row.cost_per_hour:,.2f} per hour"
