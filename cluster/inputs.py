"""What an answer rests on: numbers of a machine with where they are from, for tables and pictures."""

from __future__ import annotations

from collections.abc import Sequence

from node.spec import Machine

BARE = ("--set", ".toml")  # how the source ends of a number of which no source is given


def assumptions(machine: Machine) -> str:
    """The numbers that nobody published, by kind."""
    by_kind = {
        kind: ", ".join(f"{figure.path} {figure.value}" for figure in machine.figures if figure.kind == kind)
        for kind in ("assumed", "derived")
    }
    return "\n".join(f"{kind} inputs: {found}" for kind, found in by_kind.items() if found)


def inputs(machine: Machine, paths: Sequence[str]) -> str:
    """The numbers of a machine that an answer rests on, each with its kind; bare ones are the user's."""
    return ", ".join(
        f"{figure.path} {figure.value} ({figure.kind}{', by the user' if figure.source.endswith(BARE) else ''})"
        for figure in machine.figures
        if figure.path in paths
    )
