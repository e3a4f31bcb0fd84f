"""One socket: DMA, tile and link engines over its own tiers; it says what a command costs and refuses what is wrong.

``execute`` takes one command; ``replay`` a window of them, with times worked out over whole columns. Both give the
same results and leave the same state (a property test holds them to it).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from node.dataflow.program import Program
from node.errors import HardwareError, RefusedError
from node.events import ROW, Command, Ints, Kind
from node.hardware.costs import Costs, in_order
from node.hardware.tiers import Completion, Tiers
from node.spec import Machine
from node.units import Picoseconds

_RUN_KINDS = frozenset((Kind.PREFILL, Kind.DECODE))
_MEMORY_KINDS = frozenset((Kind.ALLOCATE, Kind.LOAD, Kind.FREE))


class Rdu:
    """A socket of ``machine``, one of ``members`` in its group; ``programs`` are compiled for its shard.

    ``sharers``: how many sockets copy at once where the host link is shared.
    """

    def __init__(self, name: str, machine: Machine, programs: Sequence[Program], sharers: int) -> None:
        self.name, self.programs = name, programs
        self.tiers = Tiers(name, machine)
        self.dma_free = self.tile_free = 0
        self.busy = {"dma": 0, "tile": 0, "link": 0}
        self.copied = self.commands = 0
        self._costs = Costs(machine, programs, sharers)
        self._running: Command | None = None
        self._started = 0

    def execute(self, command: Command) -> Completion:
        """Do one command; raises ``HardwareError`` for what is out of range, overlaps or is not alive."""
        start = end = command.issued
        if command.kind == Kind.COPY:
            start = max(command.issued, self.dma_free)
            end = self.dma_free = start + int(self._costs.copy_ps[command.program])
        elif command.kind in _RUN_KINDS:
            start = max(command.issued, self.tile_free)
            duration, link = self._costs.run(command)
            end = self.tile_free = start + duration
            self.busy["tile"] += duration
            self.busy["link"] += link
            self._running, self._started = command, start
        self.commands += 1
        return self._apply(command, start, end)

    def shorten(self, steps: int) -> Picoseconds:
        """The decode run last begun ends after ``steps``: when that is."""
        command = self._running
        if command is None or command.kind != Kind.DECODE:
            raise HardwareError(f"{self.name}: no decode run to shorten")
        decode = self.programs[command.program].decode(command.sequences)
        done = self._started + decode.run_ps(command.context, command.growth, steps)
        self.busy["tile"] -= self.tile_free - done
        self.busy["link"] -= (command.steps - steps) * decode.link_ps
        self.tile_free = done
        self.tiers.shorten(command.symbol, done)
        self._running = command._replace(steps=steps)
        return done

    def replay(self, columns: Ints) -> Ints:
        """A window of commands as columns -> int64 array (4, commands): the fields of ``Completion``.

        Raises ``RefusedError`` for the first command refused, with what came of those before it.
        """
        legal, reason = self._legal(columns)
        kind, issued = legal[ROW["kind"]], legal[ROW["issued"]]
        starts, ends = issued.copy(), issued.copy()
        copies = np.flatnonzero(kind == Kind.COPY)
        runs = np.flatnonzero((kind == Kind.PREFILL) | (kind == Kind.DECODE))
        copy_ps = self._costs.copy_ps[legal[ROW["program"], copies]]
        starts[copies], ends[copies] = in_order(issued[copies], copy_ps, self.dma_free)
        run_ps, link_ps = self._costs.runs(legal[:, runs])
        starts[runs], ends[runs] = in_order(issued[runs], run_ps, self.tile_free)
        if len(copies):
            self.dma_free = int(ends[copies[-1]])
        if len(runs):
            self.tile_free = int(ends[runs[-1]])
        self.busy["tile"] += int(run_ps.sum())
        self.busy["link"] += int(link_ps.sum())
        results: list[Completion] = []
        for row, start, end in zip(legal.T.tolist(), starts.tolist(), ends.tolist(), strict=True):
            try:
                results.append(self._apply(Command(*row), start, end))
            except HardwareError as error:
                reason = str(error)
                break
        table = np.array(results, dtype=np.int64).reshape(len(results), len(Completion._fields))
        if reason is not None:
            raise RefusedError(f"command {self.commands + len(results)}: {reason}", table.T)
        self.commands += len(results)
        return np.ascontiguousarray(table.T)

    def _legal(self, columns: Ints) -> tuple[Ints, str | None]:
        """The commands up to the first that is out of turn or of no program, and what is wrong with it."""
        sequence, program = columns[ROW["sequence"]], columns[ROW["program"]]
        expected = np.arange(self.commands, self.commands + len(sequence))
        wrong = {
            f"{self.name} never got it": sequence != expected,
            f"{self.name} has no such program": (program < 0) | (program >= len(self.programs)),
        }
        first = {reason: int(found.argmax()) for reason, found in wrong.items() if found.any()}
        if not first:
            return columns, None
        reason = min(first, key=lambda reason: first[reason])
        return columns[:, : first[reason]], reason

    def _apply(self, command: Command, start: Picoseconds, end: Picoseconds) -> Completion:
        """What a command that takes from ``start`` to ``end`` does to the tiers."""
        if command.kind in _MEMORY_KINDS:
            return self.tiers.change(command)
        size = self.programs[command.program].weight_bytes
        if command.kind in _RUN_KINDS:
            return self.tiers.read(command, size, start, end)
        if command.kind != Kind.COPY:
            raise HardwareError(f"{self.name} knows no such kind")
        completion = self.tiers.copy(command, size, start, end)
        self.busy["dma"] += end - start
        self.copied += size
        return completion

    def counters(self) -> dict[str, int]:
        """What the socket did so far: busy ps by engine, bytes copied, bytes used and at most used by tier."""
        ddr, hbm = self.tiers.ddr, self.tiers.hbm
        return {
            **{f"{engine}_busy": time for engine, time in self.busy.items()},
            "copied": self.copied,
            "commands": self.commands,
            "hbm_used": hbm.used,
            "hbm_peak": hbm.peak,
            "ddr_used": ddr.used,
            "ddr_peak": ddr.peak,
        }

    def snapshot(self) -> dict[str, object]:
        """All state between two windows, as plain numbers for a checkpoint."""
        return {
            "tiers": self.tiers.snapshot(),
            "free": [self.dma_free, self.tile_free],
            "busy": dict(self.busy),
            "counts": [self.copied, self.commands],
        }

    def restore(self, state: Mapping[str, object]) -> None:
        """Take the state of ``snapshot``; the socket must be new."""
        tiers, free, busy, counts = (state[key] for key in ("tiers", "free", "busy", "counts"))
        assert isinstance(tiers, dict) and isinstance(free, list) and isinstance(busy, dict)
        assert isinstance(counts, list)
        self.tiers.restore(tiers)
        self.dma_free, self.tile_free = free
        self.busy = dict(busy)
        self.copied, self.commands = counts
