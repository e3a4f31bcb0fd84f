"""The sockets of one group, as planned: one representative of each kind, for sockets with equal shards are equal.

A command is complete when its slowest member's is. In a decode run the members step together: a step takes as long as
its slowest member's, alone as beside a copy, and a copy is under way until the slowest member's ends. A member's own
run goes by its own steps and its own copy, so that it never ends after the group's but for what is rounded up.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from node.errors import InvariantError
from node.events import Command, Kind
from node.hardware.costs import GroupDecode
from node.hardware.overlap import Copying, append
from node.hardware.rdu import RUN_KINDS, Rdu
from node.hardware.tiers import Completion
from node.units import Picoseconds


@dataclass(slots=True)
class Planned:
    """A command as planned: what each kind of socket in the group should answer, and whether it may still change."""

    command: Command
    completions: list[Completion]
    final: bool = True


class Sockets:
    """The group ``number``; ``kinds`` are its representatives."""

    def __init__(self, number: int, kinds: Sequence[Rdu]) -> None:
        self.kinds = kinds
        self._number = number
        self._decode = GroupDecode([rdu.programs for rdu in kinds], kinds[0].costs.hbm_share)
        self._planned: deque[Planned] = deque()
        self._running: Planned | None = None
        self._copies: list[Copying] = []  # those that a run may still meet

    def take(self) -> Iterator[Planned]:
        """The commands that will not change any more, in order, each once."""
        while self._planned and self._planned[0].final:
            yield self._planned.popleft()

    def execute(self, command: Command) -> Picoseconds:
        """Do a command; when it is complete, a run as far as is known."""
        planned = Planned(command, [rdu.execute(command) for rdu in self.kinds])
        self._planned.append(planned)
        if command.kind in RUN_KINDS:
            planned.final, self._running = False, planned
            if self._copies:
                self._copies = [copy for copy in self._copies if copy.end > command.issued]
            return self._end(planned)
        if command.kind != Kind.COPY:
            return command.issued
        end = max(completion.time for completion in planned.completions)
        append(self._copies, command.issued, end)
        return end

    def moved(self) -> tuple[Picoseconds, int] | None:
        """After a COPY: when the run under way ends, and its steps; None where none is."""
        planned = self._running
        if planned is None:
            return None
        self._retime(planned, [rdu.tile.free for rdu in self.kinds])
        return self._end(planned), planned.command.steps

    def cut(self, now: Picoseconds) -> tuple[Picoseconds, int]:
        """End the decode under way with the step that it is in: when that is, and its steps."""
        planned = self._running
        if planned is None or planned.command.kind != Kind.DECODE:
            raise InvariantError(f"group {self._number}: a decode is cut at {now:,} ps, but none runs")
        command = planned.command
        steps = self._decode.run(command, self._copies).steps_until(now, command.issued, command.steps, self._copies)
        planned.command = command._replace(steps=steps)
        self._retime(planned, [rdu.shorten(steps) for rdu in self.kinds])
        return self._end(planned), steps

    def complete(self) -> None:
        """The run under way, if one is, is over."""
        if self._running is not None:
            self._running.final = True
            self._running = None

    def _retime(self, planned: Planned, ends: Sequence[Picoseconds]) -> None:
        planned.completions = [was._replace(time=end) for was, end in zip(planned.completions, ends, strict=True)]

    def _end(self, planned: Planned) -> Picoseconds:
        command, end = planned.command, max(completion.time for completion in planned.completions)
        if command.kind == Kind.PREFILL:
            return end
        if not self._copies:
            return command.issued + self._decode.cost(command).run_ps(command.context, command.growth, command.steps)
        return max(end, self._decode.run(command, self._copies).end(command.issued, command.steps, self._copies))
