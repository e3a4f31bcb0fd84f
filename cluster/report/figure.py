"""A figure of the page: a picture, what it says in words, and the table of the numbers behind it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from node.units import show_bytes, show_seconds

SHARES = ("hit_rate", "utilisation", "attainment")


class Cell(NamedTuple):
    """A cell of a table: what is written and, where it is a number of the summary, its name there and its value."""

    shown: str
    name: str = ""
    value: object = None


@dataclass(frozen=True)
class Figure:
    """``said``: what is to be seen, in words. ``legend``: (class, words) pairs. ``wide``: as wide as the page.

    ``pictures`` are SVG in which every word is escaped.
    """

    title: str
    said: str
    pictures: Sequence[str]
    heads: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    legend: Sequence[tuple[str, str]] = ()
    note: str = ""
    wide: bool = False


def shown(name: str, value: object) -> str:
    """A number of the summary for people: with the unit that its name tells."""
    if isinstance(value, bool) or value is None:
        return {None: "-", True: "yes", False: "no"}[value]
    if not isinstance(value, int | float):
        return str(value)
    table, _, last = name.rpartition(".")
    if table.endswith("_s") or (last.endswith("_s") and not last.endswith("_per_s")):
        return show_seconds(value)
    if "bytes" in last:
        return show_bytes(value)
    plain = f"{value:,}" if isinstance(value, int) else f"{value:,.2f}"
    return f"{value:.1%}" if last.startswith(SHARES) else plain


def cell(name: str, value: object, prefix: str = "") -> Cell:
    """The cell of a number of the summary; ``prefix``: before its name, where there are several summaries."""
    return Cell(shown(name, value), prefix + name, value)


def flat(summary: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Every number of a summary by its path, without those of single sockets, experts, nodes and classes."""
    for key, value in summary.items():
        if key in ("sockets", "experts", "nodes", "classes"):
            continue
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
