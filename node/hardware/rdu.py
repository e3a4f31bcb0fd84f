"""One socket: DMA, tile and link engines over its own tiers; it says what a command costs and refuses what is wrong.

``execute`` takes one command; ``replay`` a window of them, with times worked out over whole columns. Both give the
same results and leave the same state (a property test holds them to it).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from node.dataflow.program import DecodeCost, Program
from node.errors import HardwareError
from node.events import ROW, Command, Ints, Kind, Tier
from node.hardware.costs import Costs, in_order
from node.hardware.memory import Memory
from node.spec import Machine
from node.units import Bytes, Picoseconds

_RUN_KINDS = frozenset((Kind.PREFILL, Kind.DECODE))
_MEMORY_KINDS = frozenset((Kind.ALLOCATE, Kind.LOAD, Kind.FREE))


class Completion(NamedTuple):
    """What came of a command: when it was complete, the symbol's address, bytes moved, bytes live in its tier."""

    time: Picoseconds
    address: int
    bytes: Bytes
    occupancy: Bytes


class Rdu:
    """A socket of ``machine``, one of ``members`` in its group; ``programs`` are compiled for its shard.

    ``sharers``: how many sockets copy at once where the host link is shared.
    """

    def __init__(self, name: str, machine: Machine, programs: Sequence[Program], sharers: int) -> None:
        self.name, self.programs = name, programs
        self.tiers: dict[int, Memory] = {
            Tier.DDR: Memory(f"DDR of {name}", machine.ddr.capacity),
            Tier.HBM: Memory(f"HBM of {name}", machine.hbm.capacity),
        }
        self.dma_free = self.tile_free = 0
        self.busy = {"dma": 0, "tile": 0, "link": 0}
        self.copied = self.commands = 0
        self._costs = Costs(machine, programs, sharers)
        self._running: Command | None = None
        self._started = 0
        self._in_use: dict[int, Picoseconds] = {}  # symbol in HBM -> until when an engine reads or writes it

    def execute(self, command: Command) -> Completion:
        """Do one command; raises ``HardwareError`` for what is out of range, overlaps or is not alive."""
        self.commands += 1
        if command.kind in _MEMORY_KINDS:
            return self._memory(command)
        program = self.programs[command.program]
        if command.kind == Kind.COPY:
            start = max(command.issued, self.dma_free)
            self.dma_free = start + int(self._costs.copy_ps[command.program])
            return self._copied(command, start, self.dma_free)
        if command.kind not in _RUN_KINDS:
            raise HardwareError(f"command {command.sequence}: {self.name} knows no kind {command.kind}")
        start = max(command.issued, self.tile_free)
        duration, link = self._costs.run(command)
        self.tile_free = start + duration
        self.busy["tile"] += duration
        self.busy["link"] += link
        self._running, self._started = command, start
        address = self._weights(command, start, self.tile_free)
        return Completion(self.tile_free, address, program.weight_bytes, self.tiers[Tier.HBM].used)

    def step_under_way(self, now: Picoseconds) -> int:
        """Of the decode run last begun, how many steps are done when the one under way at ``now`` is."""
        command, decode = self._decoding()
        return decode.steps_until(now - self._started, command.context, command.growth, command.steps)

    def shorten(self, steps: int) -> Picoseconds:
        """The decode run last begun ends after ``steps``: when that is."""
        command, decode = self._decoding()
        done = self._started + decode.run_ps(command.context, command.growth, steps)
        self.busy["tile"] -= self.tile_free - done
        self.busy["link"] -= (command.steps - steps) * decode.link_ps
        self.tile_free = self._in_use[command.symbol] = done
        self._running = command._replace(steps=steps)
        return done

    def _decoding(self) -> tuple[Command, DecodeCost]:
        command = self._running
        if command is None or command.kind != Kind.DECODE:
            raise HardwareError(f"{self.name}: no decode run to shorten")
        return command, self.programs[command.program].decode(command.sequences)

    def replay(self, columns: Ints) -> Ints:
        """A window of commands as columns -> int64 array (4, commands): the fields of ``Completion``.

        Raises ``HardwareError`` that names the sequence number of the first command refused.
        """
        expected = np.arange(self.commands, self.commands + columns.shape[1])
        if len(gaps := np.flatnonzero(columns[ROW["sequence"]] != expected)):
            raise HardwareError(f"command {expected[gaps[0]]}: {self.name} never got it")
        kind, issued = columns[ROW["kind"]], columns[ROW["issued"]]
        if len(unknown := np.flatnonzero((kind < 0) | (kind >= len(Kind)))):
            raise HardwareError(f"command {expected[unknown[0]]}: {self.name} knows no kind {kind[unknown[0]]}")
        starts, ends = issued.copy(), issued.copy()
        copies = np.flatnonzero(kind == Kind.COPY)
        runs = np.flatnonzero((kind == Kind.PREFILL) | (kind == Kind.DECODE))
        copy_ps = self._costs.copy_ps[columns[ROW["program"], copies]]
        starts[copies], ends[copies] = in_order(issued[copies], copy_ps, self.dma_free)
        run_ps, link_ps = self._costs.runs(columns[:, runs])
        starts[runs], ends[runs] = in_order(issued[runs], run_ps, self.tile_free)
        if len(copies):
            self.dma_free = int(ends[copies[-1]])
        if len(runs):
            self.tile_free = int(ends[runs[-1]])
        self.busy["tile"] += int(run_ps.sum())
        self.busy["link"] += int(link_ps.sum())
        self.commands += len(kind)
        rows = zip(columns.T.tolist(), starts.tolist(), ends.tolist(), strict=True)
        results = [self._apply(Command(*row), start, end) for row, start, end in rows]
        table = np.array(results, dtype=np.int64).reshape(len(results), len(Completion._fields))
        return np.ascontiguousarray(table.T)

    def _apply(self, command: Command, start: Picoseconds, end: Picoseconds) -> Completion:
        try:
            if command.kind in _MEMORY_KINDS:
                return self._memory(command)
            if command.kind == Kind.COPY:
                return self._copied(command, start, end)
            size = self.programs[command.program].weight_bytes
            return Completion(end, self._weights(command, start, end), size, self.tiers[Tier.HBM].used)
        except HardwareError as error:
            raise HardwareError(f"command {command.sequence}: {error}") from None

    def _memory(self, command: Command) -> Completion:
        tier = self.tiers[command.tier]
        if command.kind == Kind.FREE:
            until = self._in_use.get(command.symbol, 0) if command.tier == Tier.HBM else 0
            if command.issued < until:
                raise HardwareError(
                    f"{tier.name}: symbol {command.symbol} freed at {command.issued:,} ps, in use until {until:,}"
                )
            _same_address(tier.name, command.symbol, tier.address(command.symbol), command.address)
            address = tier.free(command.symbol)
        else:
            valid = command.issued if command.kind == Kind.LOAD else None
            tier.allocate(command.symbol, command.address, command.size, valid)
            address = command.address
        return Completion(command.issued, address, command.size, tier.used)

    def _copied(self, command: Command, start: Picoseconds, end: Picoseconds) -> Completion:
        hbm = self.tiers[Tier.HBM]
        ddr = self.tiers[Tier.DDR]
        _same_address(ddr.name, command.symbol, ddr.read(command.symbol, start), command.source)
        _same_address(hbm.name, command.symbol, hbm.address(command.symbol), command.address)
        size, room = self.programs[command.program].weight_bytes, hbm.size(command.symbol)
        if size > room:
            raise HardwareError(f"{hbm.name}: symbol {command.symbol} has room for {room:,} bytes, not {size:,}")
        hbm.fill(command.symbol, end)
        self._in_use[command.symbol] = end
        self.busy["dma"] += end - start
        self.copied += size
        return Completion(end, hbm.address(command.symbol), size, hbm.used)

    def _weights(self, command: Command, start: Picoseconds, end: Picoseconds) -> int:
        hbm = self.tiers[Tier.HBM]
        address = hbm.read(command.symbol, start)
        _same_address(hbm.name, command.symbol, address, command.address)
        self._in_use[command.symbol] = end
        return address

    def counters(self) -> dict[str, int]:
        """What the socket did so far: busy ps by engine, bytes copied, bytes used and at most used by tier."""
        ddr, hbm = self.tiers[Tier.DDR], self.tiers[Tier.HBM]
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
            "tiers": {int(tier): memory.snapshot() for tier, memory in self.tiers.items()},
            "free": [self.dma_free, self.tile_free],
            "busy": dict(self.busy),
            "counts": [self.copied, self.commands],
            "in_use": [list(use) for use in self._in_use.items()],
        }

    def restore(self, state: Mapping[str, object]) -> None:
        """Take the state of ``snapshot``; the socket must be new."""
        tiers, free, busy, counts, in_use = (state[key] for key in ("tiers", "free", "busy", "counts", "in_use"))
        assert isinstance(tiers, dict) and isinstance(free, list) and isinstance(busy, dict)
        assert isinstance(counts, list) and isinstance(in_use, list)
        for tier, memory in self.tiers.items():
            memory.restore(tiers[int(tier)])
        self.dma_free, self.tile_free = free
        self.busy = dict(busy)
        self.copied, self.commands = counts
        self._in_use = dict(in_use)


def _same_address(tier: str, symbol: int, found: int, expected: int) -> None:
    if found != expected:
        raise HardwareError(f"{tier}: symbol {symbol} is at {found:,}, not {expected:,}")
