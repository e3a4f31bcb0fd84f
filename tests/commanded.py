"""A socket that takes commands one at a time, as plainly as can be: what its windows are held against."""

from __future__ import annotations

from node.events import Command, Kind
from node.hardware.rdu import RUN_KINDS, Rdu
from node.hardware.tiers import Completion
from node.units import Picoseconds


class Commanded(Rdu):
    """A copy may move the end of a run that is under way, and a decode run may be cut short."""

    def execute(self, command: Command) -> Completion:
        """Do one command; raises ``HardwareError`` for what is out of range, overlaps or is not alive."""
        start = end = command.issued
        if command.kind == Kind.COPY:
            start = max(command.issued, self.dma_free)
            end = self.dma_free = start + int(self.costs.copy_ps[command.program])
            for run in self.tile.copy(start, end):
                self.tiers._in_use[run.command.symbol] = run.end
        elif command.kind in RUN_KINDS:
            start, end = self.tile.execute(command)
        self.commands += 1
        shape = command.program, command.tokens, command.pairs, command.context, command.sequences
        ahead = self.costs.ahead(shape) if command.kind == Kind.PREFILL else 0
        return self._apply(command, start, end, start + ahead)

    def shorten(self, steps: int) -> Picoseconds:
        """The decode run last begun ends after ``steps``: when that is."""
        run = self.tile.shorten(steps)
        self.tiers._in_use[run.command.symbol] = run.end
        return run.end
