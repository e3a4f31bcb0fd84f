"""Plots as inline SVG that fit any width: places across are percentages, heights and letters are pixels.

So the same plot fills a phone or a desktop with letters of the same size. Shapes lie in an inner SVG that is stretched
across; its places are per mille. Colours are classes of the page.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from cluster.scales import Scale

WIDTH = 1000  # per mille of the plot's width
NARROW_PX, CHARACTER_PX = 270, 6.5  # a plot on a phone; a letter
BAR_CHARACTERS = 44  # above a bar on a phone
ROW_PX, HEAT_PX, LINE_PX = 38, 15, 14
LEVELS = 5  # of heat
Floats = npt.NDArray[np.float64]


def plot(across: Scale, up: Scale, height: int, shapes: Iterable[str], over: Sequence[str], said: str) -> str:
    """A plot ``height`` pixels high. ``shapes`` are stretched, the marks ``over`` it not; ``said``: in words.

    ``across`` is ``WIDTH`` long and ``up`` is ``height``.
    """
    ticks = up.ticks[:: 1 + int(LINE_PX * len(up.ticks) / (height + LINE_PX))]
    rules = [f'<path class="rule" d="M0 {height - up.at(tick):.1f}h{WIDTH}"/>' for tick in ticks]
    labels = [_text("-6", height - up.at(tick) + 4, up.label(tick), "end") for tick in ticks]
    axis = f'<path class="axis" d="M0 {height}h{WIDTH}"/>'
    inner = _stretched(height, [*rules, *shapes, axis])
    head = LINE_PX * len(over) + 10
    titles = [_text("-50", -head, up.axis.title, name="title"), *_ticks(across, height)]
    return _svg("plot", height, [inner, *labels, *titles, *over], said, head + LINE_PX)


def heat(across: Scale, names: Sequence[str], shares: Floats, xs: Floats, said: str) -> str:
    """A row for each name; ``shares``: by row and bin from 0 to 1, bins between the places ``xs``."""
    height = HEAT_PX * len(names)
    levels = np.clip(np.ceil(shares * LEVELS), 0, LEVELS).astype(int)
    shapes = []
    for level in range(1, LEVELS + 1):
        path = []
        for row, of_row in enumerate(levels):
            bounds = np.flatnonzero(np.diff(np.concatenate([[0], of_row == level, [0]]).astype(int)))
            for first, last in bounds.reshape(-1, 2).tolist():
                left, wide = xs[first], xs[last] - xs[first]
                path.append(f"M{left:.1f} {row * HEAT_PX + 1}h{wide:.1f}v{HEAT_PX - 2}h{-wide:.1f}z")
        if path:
            shapes.append(f'<path class="heat h{level}" d="{"".join(path)}"/>')
    rows = [_text("-6", (row + 1) * HEAT_PX - 4, name, "end") for row, name in enumerate(names)]
    axis = f'<path class="axis" d="M0 {height}h{WIDTH}"/>'
    return _svg("plot", height, [_stretched(height, [*shapes, axis]), *rows, *_ticks(across, height)], said, 4)


def bars(rows: Sequence[tuple[str, str, Sequence[tuple[str, float]]]], said: str) -> str:
    """Horizontal bars: label, what is written at the end, and parts (class, share of the width), one after another.

    A label that is too long for a phone is cut; the table of the figure has it whole.
    """
    parts = []
    for row, (label, shown, of_row) in enumerate(rows):
        top = row * ROW_PX
        cut = label if len(label) + len(shown) < BAR_CHARACTERS else f"{label[: BAR_CHARACTERS - len(shown) - 1]}…"
        parts.append(_text("0", top + 12, cut) + _text("100%", top + 12, shown, "end", "value"))
        parts.append(f'<rect class="track" x="0" y="{top + 18}" width="100%" height="11"/>')
        left = 0.0
        for name, share in of_row:
            wide = 100 * share
            parts.append(f'<rect class="{name}" x="{left:.2f}%" y="{top + 18}" width="{wide:.2f}%" height="11"/>')
            left += wide
    return _svg("bars", ROW_PX * len(rows) - 6, parts, said)


def area(xs: Floats, low: Floats, high: Floats, height: int, name: str) -> str:
    """Steps from ``low`` to ``high`` (pixels from the bottom), one in each bin between the places ``xs``."""
    there = _stairs(xs, height - high)
    back = _stairs(xs, height - low)[::-1]
    return f'<path class="{name}" d="M{"L".join([*there, *back])}z"/>'


def steps(xs: Floats, ys: Floats, height: int, name: str) -> str:
    """A line of steps (pixels from the bottom), one in each bin between the places ``xs``."""
    return f'<path class="line {name}" d="M{"L".join(_stairs(xs, height - ys))}"/>'


def mark(place: float, row: int, height: int, words: str) -> str:
    """A vertical line at a place, with its words above the plot in a row of their own."""
    x, top = place * 100 / WIDTH, -6 - LINE_PX * row
    line = f'<line class="mark" x1="{x:.2f}%" x2="{x:.2f}%" y1="{top - 9}" y2="{height}"/>'
    right = x < 65
    shifted = f'<g transform="translate({4 if right else -4} 0)">'
    return f"{line}{shifted}{_text(f'{x:.2f}%', top, words, 'start' if right else 'end', 'value')}</g>"


def _stairs(xs: Floats, ys: Floats) -> list[str]:
    places = zip(np.repeat(xs, 2)[1:-1].tolist(), np.repeat(ys, 2).tolist(), strict=True)
    return [f"{x:.1f} {y:.1f}" for x, y in places]


def _ticks(across: Scale, height: int) -> list[str]:
    """Labels below, every one or every second ... as a phone has room for, and the axis' title."""
    places = [(across.at(tick) / WIDTH, across.label(tick)) for tick in across.ticks]
    every = next(every for every in range(1, len(places) + 2) if _apart(places[::every]))
    found = []
    for place, words in places[::every]:
        x = f"{100 * place:.2f}%"
        found.append(f'<line class="axis" x1="{x}" x2="{x}" y1="{height}" y2="{height + 4}"/>')
        found.append(_text(x, height + 17, words, "middle"))
    return [*found, _text("50%", height + 33, across.axis.title, "middle", "title")]


def _apart(places: Sequence[tuple[float, str]]) -> bool:
    """Whether labels at these places, in widths of the plot, leave space between them on a phone."""
    spans = [(place * NARROW_PX, CHARACTER_PX * len(words) / 2 + 4) for place, words in places]
    return all(left + half <= right - other for (left, half), (right, other) in pairwise(spans))


def _stretched(height: int, parts: Iterable[str]) -> str:
    inner = f'<svg viewBox="0 0 {WIDTH} {height}" width="100%" height="{height}" preserveAspectRatio="none">'
    return "\n".join([inner, *parts, "</svg>"])


def _svg(kind: str, height: int, parts: Iterable[str], said: str, above: int = 0) -> str:
    style = f' style="margin-top:{above}px"' if above else ""
    head = f'<svg class="{kind}" role="img" aria-label="{escape(said)}" height="{height}"{style}>'
    return "\n".join([head, *parts, "</svg>"])


def _text(x: str, y: float, words: str, anchor: str = "start", name: str = "") -> str:
    kind = f' class="{name}"' if name else ""
    return f'<text x="{x}" y="{y:.1f}" text-anchor="{anchor}"{kind}>{escape(words)}</text>'
