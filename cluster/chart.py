"""Charts as SVG with no dependency: lines, steps, bars and dots on linear, logarithmic or named axes.

Panels stand one below the other in one document. It is light or dark as the reader's browser is, by a media query.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from textwrap import wrap

from cluster.scales import Axis, Scale

COLOURS = ("#3b74c4", "#d9742b", "#2f9e6e", "#b3509e", "#a8842a", "#c8434b", "#5f7f8f", "#7a5cc7")
DASHES = ("", "9 5", "2 4", "12 4 2 4", "5 3", "1 3 6 3")  # with WIDTHS: lines on one another are all seen
WIDTHS = (3.5, 3, 2.5, 2, 1.5)
STYLE = (
    ".chart{font-family:sans-serif}.chart .paper{fill:#fff}.chart text{fill:#222}.chart .rule{stroke:#ddd}"
    ".chart .axis{stroke:#777;fill:none}.chart .note{fill:#666}"
    "@media(prefers-color-scheme:dark){.chart .paper{fill:#181a1d}.chart text{fill:#ddd}.chart .rule{stroke:#33373c}"
    ".chart .note{fill:#9a9a9a}}"
)
PLOT_WIDTH, PLOT_HEIGHT = 560, 300
LEFT, TOP, BELOW, MARGIN, LINE = 84, 34, 72, 16, 17
BOLD, MIDDLE = 'font-weight="bold"', 'text-anchor="middle"'
NOTE_CHARACTERS = 120
CHARACTER = 6.7  # width of one at 12 px, on average


@dataclass(frozen=True)
class Series:
    """Points (x, y) as ``kind``: ``line``, ``steps`` (y holds from its x to the next), ``bars`` or ``dots``.

    ``colour``: the place in the palette, where it is not the series' own; ``hollow``: dots as rings; ``ends``: of each
    dot the ends of its interval.
    """

    label: str
    points: Sequence[tuple[float, float]]
    kind: str = "line"
    colour: int | None = None
    hollow: bool = False
    ends: Sequence[tuple[float, float]] = ()


@dataclass(frozen=True)
class Chart:
    """One panel; ``notes`` are paragraphs of text below it."""

    title: str
    x: Axis
    y: Axis
    series: Sequence[Series]
    notes: Sequence[str] = ()

    @property
    def lines(self) -> list[str]:
        """The notes in lines that are no longer than a plot and its legend are wide."""
        return [line for note in self.notes for line in wrap(note, NOTE_CHARACTERS)]


def svg(charts: Sequence[Chart]) -> str:
    """An SVG document of the panels."""
    parts: list[str] = []
    top, width = MARGIN, 0.0
    for chart in charts:
        labels = max((len(series.label) for series in chart.series), default=0)
        texts = max((len(words) for words in (chart.title, *chart.lines)), default=0)
        width = max(width, _shift(chart) + LEFT + PLOT_WIDTH + 44 + CHARACTER * labels, MARGIN + CHARACTER * texts)
        parts += _panel(chart, top)
        top += TOP + PLOT_HEIGHT + BELOW + LINE * len(chart.lines) + MARGIN
    return document(math.ceil(width) + MARGIN, top, parts)


def document(width: int, height: int, parts: Sequence[str], font_px: int = 12) -> str:
    """An SVG document of ``parts`` on paper, light or dark."""
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="chart" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" style="font-size:{font_px}px" role="img">'
    )
    paper = f'<rect class="paper" width="{width}" height="{height}"/>'
    return "\n".join([head, f"<style>{STYLE}</style>", paper, *parts, "</svg>", ""])


def _shift(chart: Chart) -> int:
    """How far the plot is moved to the right for the names of a vertical axis."""
    return max(0, math.ceil(CHARACTER * max(map(len, chart.y.names), default=0)) + 2 * MARGIN - LEFT)


def _panel(chart: Chart, top: int) -> Iterator[str]:
    usable = [
        [(x, y) for x, y in series.points if (x > 0 or not chart.x.log) and (y > 0 or not chart.y.log)]
        for series in chart.series
    ]
    xs, ys = ([point[axis] for points in usable for point in points] for axis in (0, 1))
    ys += [end for series in chart.series for ends in series.ends for end in ends if end > 0 or not chart.y.log]
    bars = [index for index, series in enumerate(chart.series) if series.kind == "bars"]
    across = Scale(chart.x, xs, PLOT_WIDTH, zero=False, pad=any(series.kind == "dots" for series in chart.series))
    up = Scale(chart.y, ys, PLOT_HEIGHT, zero=True)
    bottom = top + TOP + PLOT_HEIGHT
    yield text(MARGIN, top + LINE, chart.title, BOLD)
    yield f'<g transform="translate({_shift(chart)} 0)">'
    yield from _axes(across, up, bottom)
    for index, (series, points) in enumerate(zip(chart.series, usable, strict=True)):
        colour = COLOURS[(index if series.colour is None else series.colour) % len(COLOURS)]
        dash = f'stroke-width="{WIDTHS[min(index, len(WIDTHS) - 1)]}" stroke-dasharray="{DASHES[index % len(DASHES)]}"'
        places = [(LEFT + across.at(x), bottom - up.at(y)) for x, y in points]
        if series.kind == "bars":
            shown = [up.label(y) for _, y in points]
            yield from _bars(places, shown, (bars.index(index), len(bars)), bottom, colour)
        else:
            yield from _drawn(series, places, colour, dash)
            for (x, _), (low, high) in zip(places, series.ends, strict=False):
                yield f'<path stroke="{colour}" d="M{x:.1f} {bottom - up.at(low):.1f}V{bottom - up.at(high):.1f}"/>'
        y = top + TOP + 8 + index * LINE
        yield from _key(series, LEFT + PLOT_WIDTH + 14, y, colour, dash)
    yield "</g>"
    for row, note in enumerate(chart.lines):
        yield text(MARGIN, bottom + BELOW + row * LINE, note, 'class="note"')


def _axes(across: Scale, up: Scale, bottom: int) -> Iterator[str]:
    for tick in up.ticks:
        y = bottom - up.at(tick)
        yield f'<path class="rule" d="M{LEFT} {y:.1f}h{PLOT_WIDTH}"/>'
        yield text(LEFT - 7, y + 4, up.label(tick), 'text-anchor="end"')
    free = 0.0
    for tick in across.ticks:
        x, half = LEFT + across.at(tick), CHARACTER * len(across.label(tick)) / 2
        if not across.axis.names:
            yield f'<path class="rule" d="M{x:.1f} {bottom}v{-PLOT_HEIGHT}"/>'
        if across.axis.names:
            for row, words in enumerate(across.label(tick).split(", ", 1)):
                yield text(x, bottom + (row + 1) * (LINE - 2), words, MIDDLE)
        elif x - half >= free:  # a label that would run into the one before is left out
            yield text(x, bottom + LINE, across.label(tick), MIDDLE)
            free = x + half + 4
    yield f'<path class="axis" d="M{LEFT} {bottom - PLOT_HEIGHT}v{PLOT_HEIGHT}h{PLOT_WIDTH}"/>'
    yield text(LEFT + PLOT_WIDTH / 2, bottom + (3 if across.axis.names else 2) * LINE, across.axis.title, MIDDLE)
    middle = bottom - PLOT_HEIGHT / 2
    turned = f'{MIDDLE} transform="rotate(-90 14 {middle:.0f})"'
    if up.axis.title:
        yield text(14, middle, up.axis.title, turned)


def _drawn(series: Series, places: Sequence[tuple[float, float]], colour: str, dash: str) -> Iterator[str]:
    if series.kind == "dots":
        fill = "none" if series.hollow else colour
        for x, y in places:
            yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="{fill}" stroke="{colour}" stroke-width="1.5"/>'
        return
    if len(places) == 1:  # a line of one point would not be seen
        yield f'<circle cx="{places[0][0]:.1f}" cy="{places[0][1]:.1f}" r="3" fill="{colour}"/>'
    path, before = [], None
    for x, y in places:
        if before is not None and series.kind == "steps":
            path.append(f"L{x:.1f} {before:.1f}")
        path.append(f"{'M' if before is None else 'L'}{x:.1f} {y:.1f}")
        before = y
    yield f'<path fill="none" stroke="{colour}" {dash} d="{"".join(path)}"/>'


def _bars(
    places: Sequence[tuple[float, float]], shown: Sequence[str], which: tuple[int, int], bottom: int, colour: str
) -> Iterator[str]:
    """Bars of one series of several, side by side around their places, with their values above."""
    index, count = which
    gap = min((b[0] - a[0] for a, b in pairwise(places)), default=PLOT_WIDTH)
    wide = min(0.8 * gap / count, 60)
    for (x, y), words in zip(places, shown, strict=True):
        left = x + (index - count / 2) * wide
        yield f'<rect x="{left:.1f}" y="{y:.1f}" width="{wide - 1:.1f}" height="{bottom - y:.1f}" fill="{colour}"/>'
        if CHARACTER * len(words) <= wide + 4:
            yield text(left + wide / 2, y - 4, words, MIDDLE)


def _key(series: Series, x: int, y: int, colour: str, dash: str) -> Iterator[str]:
    if series.kind in ("line", "steps"):
        yield f'<path stroke="{colour}" {dash} d="M{x} {y}h22"/>'
    elif series.kind == "bars":
        yield f'<rect x="{x + 5}" y="{y - 5}" width="11" height="11" fill="{colour}"/>'
    else:
        fill = "none" if series.hollow else colour
        yield f'<circle cx="{x + 11}" cy="{y}" r="4.5" fill="{fill}" stroke="{colour}" stroke-width="1.5"/>'
    yield text(x + 28, y + 4, series.label)


def text(x: float, y: float, words: str, attributes: str = "") -> str:
    """A text that starts at (x, y), unless its ``attributes`` say otherwise."""
    return f'<text x="{x:.6g}" y="{y:.6g}" {attributes}>{escape(words)}</text>'
