"""The tile engine of one socket: kernel runs one after another, slower while DMA has its share of HBM bandwidth."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from node.errors import HardwareError
from node.events import ROW, Command, Ints, Kind
from node.hardware.costs import Costs, in_order, steps_of
from node.hardware.overlap import Copying, append
from node.units import Picoseconds


@dataclass(slots=True)
class Running:
    """A run whose end is known as far as the copies are; the link is sending for ``link`` ps of it."""

    command: Command
    start: Picoseconds
    end: Picoseconds
    link: Picoseconds


class Tile:
    """The tiles of socket ``name``: ``free`` from when on, ``busy`` and ``sending`` over its link for how long so far.

    ``execute``, ``copy`` and ``shorten`` take one thing at a time, in order; ``replay`` takes a window.
    """

    def __init__(self, name: str, costs: Costs) -> None:
        self.free = self.busy = self.sending = 0
        self._name, self._costs = name, costs
        self._running: list[Running] = []  # runs that a copy may still slow down, in order, and the last in any case
        self._copies: list[Copying] = []  # copies that a run may still meet, in order

    def execute(self, command: Command) -> tuple[Picoseconds, Picoseconds]:
        """Start and end of a run beside the copies so far."""
        start = max(command.issued, self.free)
        if self.free <= command.issued:
            self._running.clear()
        else:
            self._running = [run for run in self._running if run.end > command.issued]
        if self._copies:
            first = self._running[0].start if self._running else start
            self._copies = [copy for copy in self._copies if copy.end > first]
        self.free, link = self._end(command, start)
        self.busy += self.free - start
        self.sending += link
        self._running.append(Running(command, start, self.free, link))
        return start, self.free

    def copy(self, start: Picoseconds, end: Picoseconds) -> list[Running]:
        """A copy has its share of HBM from ``start`` to ``end``: the runs that this slows down or puts off."""
        append(self._copies, start, end)
        moved = [run for run in self._running if run.end > start]
        for index, run in enumerate(moved):
            begin = max(run.command.issued, moved[index - 1].end) if index else run.start
            done, _ = self._end(run.command, begin)
            self.busy += (done - begin) - (run.end - run.start)
            run.start, run.end = begin, done
            self.free = done
        return moved

    def shorten(self, steps: int) -> Running:
        """The run last begun, a DECODE, ends after ``steps``."""
        run = self._running[-1] if self._running else None
        if run is None or run.command.kind != Kind.DECODE:
            raise HardwareError(f"{self._name}: no decode run to shorten")
        run.command = run.command._replace(steps=steps)
        done, link = self._end(run.command, run.start)
        self.busy -= run.end - done
        self.sending -= run.link - link
        self.free, run.end, run.link = done, done, link
        return run

    def replay(self, columns: Ints, copies: Ints) -> tuple[Ints, Ints]:
        """Starts and ends of a window's runs (``columns``) beside the copies of the window, and those before it.

        ``copies`` (2, copies): when each starts and ends.
        """
        before = np.array(self._copies, dtype=np.int64).reshape(-1, 2).T
        copies = np.concatenate([before, copies], axis=1)
        run_ps, link_ps = self._costs.runs(columns)
        starts, ends = in_order(columns[ROW["issued"]], run_ps, self.free)
        if _meet(copies, starts, ends):
            starts, ends = self._one_by_one(columns, run_ps, _joined(copies))
        if len(ends):
            self.free = int(ends[-1])
        self.busy += int((ends - starts).sum())
        self.sending += int(link_ps.sum())
        self._copies = _joined(copies[:, copies[1] > self.free])
        self._copies = self.copies_ahead()
        return starts, ends

    def copies_ahead(self) -> list[Copying]:
        """The copies that the runs to come may meet."""
        return [Copying(max(copy.start, self.free), copy.end) for copy in self._copies if copy.end > self.free]

    def restore(self, free: Picoseconds, copies: Iterable[Copying]) -> None:
        """Take the state between two windows: ``free`` and ``copies_ahead``."""
        self.free, self._copies = free, list(copies)

    def _one_by_one(self, columns: Ints, run_ps: Ints, copies: list[Copying]) -> tuple[Ints, Ints]:
        starts, ends = np.empty_like(run_ps), np.empty_like(run_ps)
        first, free = 0, self.free
        for index, (issued, duration) in enumerate(zip(columns[ROW["issued"]].tolist(), run_ps.tolist(), strict=True)):
            start = max(issued, free)
            while first < len(copies) and copies[first].end <= start:
                first += 1
            free = start + duration
            if first < len(copies) and copies[first].start < free:
                command = Command(*columns[:, index].tolist())
                ahead = map(copies.__getitem__, range(first, len(copies)))
                free = self._costs.shared(command).end(start, steps_of(command), ahead)
            starts[index], ends[index] = start, free
        return starts, ends

    def _end(self, command: Command, start: Picoseconds) -> tuple[Picoseconds, Picoseconds]:
        """When a run that begins at ``start`` ends, and how long the link is sending for it."""
        duration, link = self._costs.run(command)
        end = start + duration
        if self._copies and any(copy.end > start and copy.start < end for copy in self._copies):
            end = self._costs.shared(command).end(start, steps_of(command), self._copies)
        return end, link


def _joined(copies: Ints) -> list[Copying]:
    """Copies in order, those that follow each other without a pause as one."""
    joined: list[Copying] = []
    for start, end in copies.T.tolist():
        append(joined, start, end)
    return joined


def _meet(copies: Ints, starts: Ints, ends: Ints) -> bool:
    """Whether any of the runs meets any of the copies; both are in order."""
    begin, end = copies
    following = np.searchsorted(end, starts, side="right")  # of each run, the first copy that ends after it starts
    found = following < len(end)
    return bool((begin[following[found]] < ends[found]).any())
