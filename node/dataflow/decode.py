"""What decode steps cost: piecewise linear in the summed context of their batch, in integers.

Segments are rounded once when made; a run of steps is then an arithmetic series per segment.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from node.units import Picoseconds

Ints = npt.NDArray[np.int64]
FAR = 2**62
MOST_CONTEXT = 10**9  # tokens; segments that begin beyond are left out


@dataclass(frozen=True)
class Segment:
    """From context ``first`` to the next segment, a step takes base + slope x (context - first) ps."""

    first: int
    base: Picoseconds
    slope: int


@dataclass(frozen=True)
class DecodeCost:
    """Decode steps of one batch size: ``segments`` by context, and ``link_ps`` of link time in every step."""

    segments: tuple[Segment, ...]
    link_ps: Picoseconds
    firsts: tuple[int, ...] = field(init=False)  # of the segments

    def __post_init__(self) -> None:
        object.__setattr__(self, "firsts", tuple(segment.first for segment in self.segments))

    def line(self, context: int) -> tuple[Picoseconds, int]:
        """Time of a step at ``context``, and what one more token adds to it."""
        segment = next(found for found in reversed(self.segments) if found.first <= context)
        return segment.base + segment.slope * (context - segment.first), segment.slope

    def run_ps(self, context: int, growth: int, steps: int) -> Picoseconds:
        """Time of ``steps`` steps; the first reads ``context`` tokens, each next one ``growth`` more."""
        index = bisect_right(self.firsts, context)
        if index == len(self.firsts) or self.firsts[index] >= context + growth * steps:  # most runs: all on one line
            segment = self.segments[index - 1]
            slope = segment.slope
            first = segment.base + slope * (context - segment.first)
            return steps * first + slope * growth * (steps * (steps - 1) // 2)
        time = 0
        for index, segment in enumerate(self.segments):
            end = self.segments[index + 1].first if index + 1 < len(self.segments) else FAR
            low, high = _steps_below(segment.first, context, growth, steps), _steps_below(end, context, growth, steps)
            count = high - low
            offset = context - segment.first
            time += count * (segment.base + segment.slope * offset)
            time += segment.slope * growth * (count * (low + high - 1) // 2)
        return time

    def runs_ps(self, context: Ints, growth: Ints, steps: Ints) -> Ints:
        """``run_ps`` for many runs at once."""
        time = np.zeros_like(context)
        for index, segment in enumerate(self.segments):
            end = self.segments[index + 1].first if index + 1 < len(self.segments) else FAR
            low, high = (_steps_below_all(first, context, growth, steps) for first in (segment.first, end))
            count = high - low
            time += count * (segment.base + segment.slope * (context - segment.first))
            time += segment.slope * growth * (count * (low + high - 1) // 2)
        return time

    def steps_until(self, elapsed: Picoseconds, context: int, growth: int, steps: int) -> int:
        """The fewest steps (1 to ``steps``) that take at least ``elapsed`` ps."""
        low, high = 1, steps
        while low < high:
            middle = (low + high) // 2
            if self.run_ps(context, growth, middle) >= elapsed:
                high = middle
            else:
                low = middle + 1
        return low


def slowest(costs: Sequence[DecodeCost]) -> DecodeCost:
    """The cost of members that step together: in each step that of the slowest; its link time is the busiest's."""
    segments: list[Segment] = []
    firsts = sorted({segment.first for cost in costs for segment in cost.segments})
    for first, end in zip(firsts, [*firsts[1:], MOST_CONTEXT], strict=True):
        here = first
        while here < end:
            lines = [cost.line(here) for cost in costs]
            top = max(lines)
            segments.append(Segment(here, *top))
            ahead = [(top[0] - base) // (slope - top[1]) + 1 for base, slope in lines if slope > top[1]]
            here = min([end, *(here + steps for steps in ahead)])
    return DecodeCost(tuple(segments), max(cost.link_ps for cost in costs))


def _steps_below(bound: int, context: int, growth: int, steps: int) -> int:
    """How many of the steps read fewer than ``bound`` tokens."""
    if context >= bound:
        return 0
    return steps if growth == 0 else min(steps, -((context - bound) // growth))


def _steps_below_all(bound: int, context: Ints, growth: Ints, steps: Ints) -> Ints:
    ceiling = -((context - bound) // np.maximum(growth, 1))
    return np.where(context >= bound, 0, np.where(growth == 0, steps, np.minimum(steps, ceiling)))
