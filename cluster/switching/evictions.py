"""What a run's commands say of copies and evictions: how long an expert had been unused when it was evicted.

The age at eviction is the time of the eviction less ``last_used`` of the runtime: when the expert's last pass was
ordered or, if it has had none, when its copy was complete. Ages far below the time between two uses of an expert mean
that experts leave before they are wanted again: that the cache thrashes.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from node.events import ROW, Command, Kind, Tier
from node.planned import Planned
from node.units import Picoseconds


@dataclass
class Evictions:
    """Collects from the planned commands of each window; ``experts`` in all, times in ps.

    ``ages`` of the evicted; ``again``: of those that were copied once more, the time from eviction to that copy;
    ``copy_ps``: the time that copies took, each counted once for all sockets of its group.
    """

    experts: int
    ages: list[Picoseconds] = field(default_factory=list)
    again: list[Picoseconds] = field(default_factory=list)
    copies: int = 0
    copy_ps: Picoseconds = 0
    _last_used: dict[tuple[int, int], Picoseconds] = field(default_factory=dict)
    _evicted: dict[tuple[int, int], Picoseconds] = field(default_factory=dict)

    def observe(self, planned: dict[int, Planned]) -> None:
        """Take a window's commands, by group, in their order."""
        for group, plan in planned.items():
            for place in np.flatnonzero(plan.columns[ROW["symbol"]] < self.experts).tolist():
                command = Command(*plan.columns[:, place].tolist())
                self._take((group, command.symbol), command, int(plan.ends[place]))

    def _take(self, expert: tuple[int, int], command: Command, end: Picoseconds) -> None:
        if command.kind in (Kind.PREFILL, Kind.DECODE):
            self._last_used[expert] = command.issued
        elif command.kind == Kind.COPY:
            self.copies += 1
            self.copy_ps += end - command.issued
            self._last_used[expert] = end
        elif command.kind == Kind.ALLOCATE and expert in self._evicted:
            self.again.append(command.issued - self._evicted.pop(expert))
        elif command.kind == Kind.FREE and command.tier == Tier.HBM:
            self.ages.append(command.issued - self._last_used[expert])
            self._evicted[expert] = command.issued
