"""A lane whose group loads compiled programs, too: before a run whose program is not in HBM."""

from __future__ import annotations

from node.hardware.host import Host
from node.hardware.sockets import Sockets
from node.lane import HandOver, Lane
from node.runtime.ledger import Ledger
from node.runtime.programs import ProgramGroup
from node.runtime.task import LOAD, ROUTER_PREFILL, Task
from node.units import Picoseconds


class ProgramLane(Lane):
    """See ``Lane``. Who waits for a load waits for a switch before a prefill, and in mid-answer is stalled.

    A load for the router is the router's time.
    """

    def __init__(self, group: ProgramGroup, sockets: Sockets, host: Host, ledger: Ledger, hand_over: HandOver) -> None:
        super().__init__(group, sockets, host, ledger, hand_over)
        self._group = group

    def _begin(self, stage: int, task: Task, now: Picoseconds) -> Picoseconds:
        image = self._group.wanted(stage, task) if stage >= ROUTER_PREFILL else None
        if image is None:
            return super()._begin(stage, task, now)
        task.stages.append(stage)
        self._stage = LOAD
        programs = self._group.programs
        programs.make_room(image, now)
        end = self.sockets.swap(now, image.size)
        programs.load(image, now, end)
        return end

    def _end(self, stage: int, task: Task, now: Picoseconds) -> None:
        if stage != LOAD:
            super()._end(stage, task, now)
        elif task.expert != self._group.settings.router:  # a switch, though it comes after the call
            task.copied += now - self._began
            task.called = now
