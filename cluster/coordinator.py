"""Plans windows of virtual time, and hands each over to be done by the sockets while the next one is planned."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from node.plan import Plan
from node.simulation import Mark, Simulation
from node.units import Picoseconds

MOST_COMMANDS = 2**16  # of a group in a window: it ends before its time when there are so many


@dataclass(frozen=True)
class Coordinator:
    """Runs ``simulation`` in windows of ``window`` ps of virtual time.

    ``do`` has each of them done: is given it by group, and how far the simulation is.
    """

    simulation: Simulation
    window: Picoseconds
    do: Callable[[Mapping[int, Plan], Mark], None]

    def advance(self, until: Picoseconds) -> bool:
        """Plan what happens before ``until``, up to the end of a window, which is sent; False where more is to come.

        Spans in which nothing happens are passed over. A window that ``until`` is in the middle of stays open.
        """
        due = self.simulation.next_event()
        if due is None or due >= until:
            return True
        end = (due // self.window + 1) * self.window
        self.simulation.advance(min(end, until), MOST_COMMANDS)
        due = self.simulation.next_event()
        there = due is None or due >= until
        if end <= until or not there:
            self._send()
        return there

    def finish(self) -> None:
        """Hand over what is left."""
        self._send()

    def _send(self) -> None:
        plans = self.simulation.plans()
        if plans:
            self.do(plans, self.simulation.mark())
