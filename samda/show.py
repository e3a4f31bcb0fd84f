"""Tables of experiments and of scores, on the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console

from cluster.show import print_table
from node.units import show_bytes
from samda.experiment.results import NOT_ADAPTED, Pair, Row, Spread
from samda.scores import Score


def experiment_tables(console: Console, rows: Sequence[Row], pairs: Sequence[Pair], seeds: int, tests: int) -> None:
    """What arms reach, and how they differ from each other."""
    cells = [
        (
            row.arm if row.shots else f"{row.arm}, {NOT_ADAPTED}",
            str(row.shots),
            spread(row.dice),
            spread(row.iou),
            spread(row.source_dice),
            f"{row.forgotten.mean:+.3f}",
            f"{row.seconds.mean:.1f} s",
            show_bytes(row.peak_bytes),
        )
        for row in rows
    ]
    heads = ("arm", "shots", "Dice", "IoU", "source Dice", "forgotten", "training", "memory")
    title = f"On {tests} test images of the target, mean and deviation over {seeds} seed{'s' if seeds > 1 else ''}"
    print_table(console, title, heads, cells)
    cells_of_pairs = [
        (pair.arm, pair.than, str(pair.shots), signed(pair.dice), signed(pair.iou), each(pair.dice)) for pair in pairs
    ]
    heads_of_pairs = ("arm", "less", "shots", "Dice", "IoU", "Dice of each seed")
    title = "Differences of the same seed, source expert and shots"
    print_table(console, title, heads_of_pairs, cells_of_pairs, left=(0, 1))


def scores_table(console: Console, title: str, scores: Mapping[str, Score]) -> None:
    """Of images."""
    rows = [(name, f"{one.dice:.3f}", f"{one.iou:.3f}") for name, one in scores.items()]
    print_table(console, title, ("image", "Dice", "IoU"), rows)


def spread(found: Spread) -> str:
    """Mean and deviation."""
    return f"{found.mean:.3f}" + ("" if found.deviation is None else f" ± {found.deviation:.3f}")


def signed(found: Spread) -> str:
    """Mean with its sign, and deviation."""
    return f"{found.mean:+.3f}" + ("" if found.deviation is None else f" ± {found.deviation:.3f}")


def each(found: Spread) -> str:
    """A value of each seed."""
    return " ".join(f"{value:+.3f}" for value in found.values)
