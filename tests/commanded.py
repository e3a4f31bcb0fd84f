"""A socket that takes commands one at a time, as plainly as can be: what its windows are held against."""

from __future__ import annotations

from node.events import Command, Kind, to_columns
from node.hardware.rdu import RUN_KINDS, Rdu
from node.hardware.tiers import Completion
from node.units import Picoseconds


class Commanded(Rdu):
    """A copy may move the end of a run that is under way, and a decode run may be cut short."""

    def execute(self, command: Command) -> Completion:
        """Do one command; raises ``HardwareError`` for what is out of range, overlaps or is not alive."""
        start = end = command.issued
        if command.kind in (Kind.COPY, Kind.SWAP, Kind.IMAGE):
            start = max(command.issued, self.dma_free)
            copying = command.kind == Kind.COPY
            took = int(self.costs.copy_ps[command.program]) if copying else self.costs.swap_ps(command.size)
            end = self.dma_free = start + took
            for run in self.tile.copy(start, end):
                self._used_until(run.command, run.end)
        elif command.kind in RUN_KINDS:
            start, end = self.tile.execute(command)
        self.commands += 1
        return self._apply(command, start, end, start + int(self.costs.aheads(to_columns([command]))[0]))

    def shorten(self, steps: int) -> Picoseconds:
        """The decode run last begun ends after ``steps``: when that is."""
        run = self.tile.shorten(steps)
        self._used_until(run.command, run.end)
        return run.end

    def _used_until(self, run: Command, end: Picoseconds) -> None:
        self.tiers._in_use[run.symbol] = end
        if run.source:
            self.tiers._in_use[run.source] = end
