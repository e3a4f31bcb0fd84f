"""Kernel runs beside copies: while one is under way, DMA takes its share of HBM bandwidth.

So a run sees piecewise-constant bandwidth. Within a step progress is linear: where a copy starts or ends and r ps of
the step are left, they take ceil(r x other / current) ps at the other rate. Whole steps are summed in closed form.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from node.dataflow.decode import DecodeCost
from node.units import Picoseconds


class Copying(NamedTuple):
    """A span of time in which a DMA engine copies without a pause."""

    start: Picoseconds
    end: Picoseconds


def append(copies: list[Copying], start: Picoseconds, end: Picoseconds) -> None:
    """Put a copy behind all others; one that starts as the last ends goes on with it."""
    if copies and copies[-1].end == start:
        start = copies.pop().start
    copies.append(Copying(start, end))


@dataclass(frozen=True, slots=True)
class Run:
    """Steps that take what ``alone`` says, or ``beside`` a copy no less; the first reads ``context`` tokens.

    Each next one reads ``growth`` more. Copies are in order, with time between one and the next.
    """

    alone: DecodeCost
    beside: DecodeCost
    context: int
    growth: int

    def end(self, start: Picoseconds, steps: int, copies: Iterable[Copying]) -> Picoseconds:
        """When ``steps`` steps are done that begin at ``start``."""
        now, done, left = start, 0, 0  # of the last step that is done, ``left`` ps are still to come
        rate, other = self.alone, self.beside
        for change in _changes(start, copies):
            if now + left + self._ps(rate, done, steps - done) <= change:
                break
            if now + left <= change:
                further = rate.steps_until(change - now - left, self._context(done), self.growth, steps - done)
                left += self._ps(rate, done, further)
                done += further
            left -= change - now
            left = -(-left * self._ps(other, done - 1, 1) // self._ps(rate, done - 1, 1))
            now, rate, other = change, other, rate
        return now + left + self._ps(rate, done, steps - done)

    def steps_until(self, time: Picoseconds, start: Picoseconds, steps: int, copies: Sequence[Copying]) -> int:
        """The fewest steps (1 to ``steps``) of a run from ``start`` on that end at ``time`` or later."""
        if not copies:
            return self.alone.steps_until(time - start, self.context, self.growth, steps)
        return 1 + bisect_left(range(1, steps), time, key=lambda count: self.end(start, count, copies))

    def _context(self, done: int) -> int:
        return self.context + self.growth * done

    def _ps(self, cost: DecodeCost, done: int, steps: int) -> Picoseconds:
        return cost.run_ps(self._context(done), self.growth, steps)


def _changes(start: Picoseconds, copies: Iterable[Copying]) -> Iterator[Picoseconds]:
    """When the bandwidth that is left changes from ``start`` on, all of it being left at first."""
    for copy in copies:
        if copy.end > start:
            yield max(copy.start, start)
            yield copy.end
