"""The table of ``coe sensitivity``."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from cluster.sensitivity import Effect
from cluster.show import print_table
from node.spec import Figure, Machine


def sensitivity_table(
    console: Console, machine: Machine, result: str, factor: float, found: Sequence[Effect], without: Sequence[Figure]
) -> None:
    """Inputs by their effect on a result; then those that cannot be varied."""
    rows = [
        (
            one.varied.figure.path,
            one.varied.figure.value,
            f"{one.varied.low} to {one.varied.high}",
            "stated" if one.varied.stated else f"/ and x {factor:g}",
            one.varied.figure.kind,
            *(_at(value, one.base) for value in (one.at_low, one.at_high)),
            f"{one.relative:.2%}",
        )
        for one in found
    ]
    heads = ("input", "value", "range", "which is", "kind", "at low", "at high", "effect")
    title = (
        f"{machine.title}: {result} by what nobody published; as it is: {found[0].base:.6g}" if found else machine.title
    )
    print_table(console, title, heads, rows, left=(0, 3, 4))
    for one in found:
        if one.reason is not None:
            console.print(f"{one.varied.figure.path}: cannot run at an end: {one.reason}", highlight=False)
    console.print(
        "one input at a time, on the same requests; what was fitted to published calls is not fitted anew",
        style="dim",
        highlight=False,
    )
    if without:
        names = ", ".join(f"{figure.path} {figure.value}" for figure in without)
        console.print(f"not varied, for a choice or 0 has no range unless the spec states one: {names}", style="dim")


def _at(value: float | None, base: float) -> str:
    if value is None:
        return "-"
    return f"{value:.4g} ({(value / base - 1):+.1%})" if base else f"{value:.4g}"
