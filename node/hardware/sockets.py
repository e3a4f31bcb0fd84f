"""How long the sockets of one group take for what they do together; sockets with equal shards are of one kind.

A command is complete when its slowest member's is. In a decode run the members step together: a step takes as long as
its slowest member's, alone as beside a copy, and a copy is under way until the slowest member's ends. A member's own
run goes by its own steps and its own copy, so that it never ends after the group's but for what is rounded up.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from node.dataflow.decode import DecodeCost
from node.dataflow.form import Step
from node.events import Command, Kind
from node.hardware.costs import Costs, GroupDecode
from node.hardware.overlap import Copying, append
from node.hardware.tile import Tile
from node.units import Bytes, Picoseconds


class Sockets:
    """Sockets that do one thing after another; ``kinds`` are the costs of each kind of them."""

    def __init__(self, kinds: Sequence[Costs]) -> None:
        self._kinds = kinds
        self._decodes = GroupDecode([costs.programs for costs in kinds], kinds[0].hbm_share)
        self._prefills: dict[tuple[int, tuple[int, ...]], Picoseconds] = {}
        self._copy_ps: list[int] = np.max([costs.copy_ps for costs in kinds], axis=0).tolist()
        self._issued: Picoseconds = 0
        self._run: tuple[DecodeCost, tuple[int, ...]] | None = None

    def copy(self, start: Picoseconds, program: int) -> Picoseconds:
        """A copy of an expert begins: when it is complete."""
        return start + self._copy_ps[program]

    def move(self, start: Picoseconds, program: int) -> Picoseconds:
        """The home copy of an expert begins to move to another group: when it is there."""
        return start + max(int(costs.move_ps[program]) for costs in self._kinds)

    def swap(self, start: Picoseconds, size: Bytes) -> Picoseconds:
        """KV cache or a program, ``size`` bytes a socket, begins to move between HBM and DDR: when it has."""
        return start + max(costs.swap_ps(size) for costs in self._kinds)

    def prefill(self, now: Picoseconds, program: int, step: tuple[int, ...]) -> Picoseconds:
        """A pass begins (``step``: tokens, pairs, context, sequences and more): when it is complete."""
        took = self._prefills.get((program, step))
        if took is None:
            shape = Step(*step[:4])
            took = max(costs.programs[program].prefill(shape)[0] for costs in self._kinds)
            self._prefills[program, step] = took
        return now + took

    def decode(self, now: Picoseconds, program: int, step: tuple[int, ...]) -> Picoseconds:
        """A decode run begins (``step``: tokens, pairs, context, sequences, growth, steps): when it is complete."""
        cost = self._decodes.cost(program, step[3])
        self._issued, self._run = now, (cost, step)
        return now + cost.run_ps(step[2], step[4], step[5])

    def cut(self, now: Picoseconds) -> tuple[Picoseconds, int]:
        """End the decode run under way with the step that it is in: when that is, and its steps."""
        assert self._run is not None
        cost, step = self._run
        steps = cost.steps_until(now - self._issued, step[2], step[4], step[5])
        return self._issued + cost.run_ps(step[2], step[4], steps), steps


class OverlappingSockets(Sockets):
    """Sockets that copy beside runs: each takes its share of HBM bandwidth, so a copy moves the end of a run."""

    def __init__(self, kinds: Sequence[Costs]) -> None:
        super().__init__(kinds)
        self._tiles = [Tile("the plan", costs) for costs in kinds]
        self._copies: list[Copying] = []  # those that a run may still meet
        self._command: Command | None = None

    def copy(self, start: Picoseconds, program: int) -> Picoseconds:
        """See ``Sockets``."""
        for tile, costs in zip(self._tiles, self._kinds, strict=True):
            tile.copy(start, start + int(costs.copy_ps[program]))
        end = super().copy(start, program)
        append(self._copies, start, end)
        return end

    def ready(self, start: Picoseconds, program: int, step: tuple[int, ...]) -> Picoseconds:
        """When a pass may begin whose weights come with the copy of ``program`` that began at ``start``."""
        kinds = ((int(costs.copy_ps[program]), costs.ahead((program, *step[:4]))) for costs in self._kinds)
        return start + max(copy_ps - ahead for copy_ps, ahead in kinds)

    def swap(self, start: Picoseconds, size: Bytes) -> Picoseconds:
        """See ``Sockets``."""
        end = super().swap(start, size)
        for tile, costs in zip(self._tiles, self._kinds, strict=True):
            tile.copy(start, start + costs.swap_ps(size))
        append(self._copies, start, end)
        return end

    def prefill(self, now: Picoseconds, program: int, step: tuple[int, ...]) -> Picoseconds:
        """See ``Sockets``."""
        return self._begin(Kind.PREFILL, now, program, step)

    def decode(self, now: Picoseconds, program: int, step: tuple[int, ...]) -> Picoseconds:
        """See ``Sockets``."""
        return self._begin(Kind.DECODE, now, program, step)

    def moved(self) -> Picoseconds:
        """When the run under way ends, the copies so far being known."""
        command = self._command
        assert command is not None
        end = max(tile.free for tile in self._tiles)
        if command.kind == Kind.PREFILL:
            return end
        if not self._copies:
            cost = self._decodes.cost(command.program, command.sequences)
            return command.issued + cost.run_ps(command.context, command.growth, command.steps)
        return max(end, self._decodes.run(command, self._copies).end(command.issued, command.steps, self._copies))

    def cut(self, now: Picoseconds) -> tuple[Picoseconds, int]:
        """See ``Sockets``."""
        command = self._command
        assert command is not None
        run = self._decodes.run(command, self._copies)
        steps = run.steps_until(now, command.issued, command.steps, self._copies)
        self._command = command._replace(steps=steps)
        for tile in self._tiles:
            tile.shorten(steps)
        return self.moved(), steps

    def _begin(self, kind: Kind, now: Picoseconds, program: int, step: tuple[int, ...]) -> Picoseconds:
        tokens, pairs, context, sequences, growth, steps = step
        self._command = Command(
            0, 0, kind, now, program=program, tokens=tokens, pairs=pairs, context=context, sequences=sequences,
            growth=growth, steps=steps,
        )  # fmt: skip
        for tile in self._tiles:
            tile.execute(self._command)
        if self._copies:
            self._copies = [copy for copy in self._copies if copy.end > now]
        return self.moved()
