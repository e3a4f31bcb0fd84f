"""One socket: DMA, tile and link engines over its own tiers; it says what a command costs and refuses what is wrong.

A copy has its share of HBM bandwidth, so it may move the end of a run that is under way (``tile``). ``replay`` takes a
window of commands, with times worked out over whole columns where no copy is beside a run. What comes of a window is
what comes of its commands one by one (a property test holds it to that).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from node.dataflow.program import Program
from node.errors import HardwareError, RefusedError
from node.events import ROW, TRANSFERS, Command, Ints, Kind, Tier
from node.hardware.at_once import Spans
from node.hardware.costs import Costs, in_order
from node.hardware.overlap import Copying
from node.hardware.tiers import Completion, Tiers
from node.hardware.tile import Tile
from node.spec import Machine
from node.units import Picoseconds

RUN_KINDS = frozenset((Kind.PREFILL, Kind.DECODE))
AT_ONCE = 64  # commands from which on a window is done all at once, which costs about as much as so many by themselves
# what DMA moves: experts and compiled programs from DDR to HBM, KV cache both ways, home copies over peer links
MOVED = ("copied", "loaded", "swapped_out", "swapped_in", "sent", "received")
_MEMORY_KINDS = frozenset((Kind.ALLOCATE, Kind.LOAD, Kind.FREE))


class Rdu:
    """A socket of ``machine``, one of ``members`` in its group; ``programs`` are compiled for its shard.

    ``sharers``: how many sockets copy at once where the host link is shared. ``partial``: whether a run may begin when
    the weights of its first kernels are there, and all others will be in time, or when all of them are.
    """

    def __init__(
        self, name: str, machine: Machine, programs: Sequence[Program], sharers: int, *, partial: bool = False
    ) -> None:
        self.name, self.programs = name, programs
        self.costs = Costs(machine, programs, sharers, partial=partial)
        self.tiers, self.tile = Tiers(name, machine), Tile(name, self.costs)
        self._sizes = np.array([program.weight_bytes for program in programs], dtype=np.int64)
        self.dma_free = self.dma_busy = 0
        self.moved = dict.fromkeys(MOVED, 0)  # bytes
        self.commands = 0

    def replay(self, columns: Ints) -> Ints:
        """A window of commands as columns -> int64 array (4, commands): the fields of ``Completion``.

        Raises ``RefusedError`` for the first command refused, with what came of those before it.
        """
        legal, reason = self._legal(columns)
        kind, issued = legal[ROW["kind"]], legal[ROW["issued"]]
        starts, ends = issued.copy(), issued.copy()
        copies = np.flatnonzero(np.isin(kind, TRANSFERS))
        runs = np.flatnonzero((kind == Kind.PREFILL) | (kind == Kind.DECODE))
        copy_ps = self.costs.transfers(legal[:, copies])
        starts[copies], ends[copies] = in_order(issued[copies], copy_ps, self.dma_free)
        if len(copies):
            self.dma_free = int(ends[copies[-1]])
        starts[runs], ends[runs] = self.tile.replay(legal[:, runs], np.stack([starts[copies], ends[copies]]))
        whole = starts.copy()
        whole[runs] += self.costs.aheads(legal[:, runs])
        spans, table = Spans(starts, ends, whole), None
        if reason is None and len(kind) >= AT_ONCE:
            table = self.tiers.do_at_once(legal, self._sizes, spans)
        if table is None:
            return self._one_by_one(legal, spans, reason)
        self.commands += len(kind)
        self.dma_busy += int((ends[copies] - starts[copies]).sum())
        self.moved["copied"] += int(self._sizes[legal[ROW["program"], copies]].sum())
        return np.concatenate([ends[None], table])

    def _one_by_one(self, columns: Ints, spans: Spans, reason: str | None) -> Ints:
        """The rest of ``replay``, command by command: it finds the first that is refused, and why."""
        results: list[Completion] = []
        for row, *span in zip(columns.T.tolist(), *(of.tolist() for of in spans), strict=True):
            try:
                results.append(self._apply(Command(*row), *span))
            except HardwareError as error:
                reason = str(error)
                break
        table = np.array(results, dtype=np.int64).reshape(len(results), len(Completion._fields))
        if reason is not None:
            raise RefusedError(f"command {self.commands + len(results)}: {reason}", table.T)
        self.commands += len(results)
        return np.ascontiguousarray(table.T)

    def _legal(self, columns: Ints) -> tuple[Ints, str | None]:
        """The commands up to the first that is out of turn, of no program or too late, and what is wrong with it."""
        sequence, program = columns[ROW["sequence"]], columns[ROW["program"]]
        late = np.zeros(len(sequence), dtype=bool)
        first_copy = np.flatnonzero(np.isin(columns[ROW["kind"]], TRANSFERS))[:1]
        late[first_copy] = np.maximum(columns[ROW["issued"], first_copy], self.dma_free) < self.tile.free
        expected = np.arange(self.commands, self.commands + len(sequence))
        wrong = {
            f"{self.name} never got it": sequence != expected,
            f"{self.name} has no such program": (program < 0) | (program >= len(self.programs)),
            f"{self.name} has reported the end of a run that this slows down": late,
        }
        first = {reason: int(found.argmax()) for reason, found in wrong.items() if found.any()}
        if not first:
            return columns, None
        reason = min(first, key=lambda reason: first[reason])
        return columns[:, : first[reason]], reason

    def _apply(self, command: Command, start: Picoseconds, end: Picoseconds, whole: Picoseconds) -> Completion:
        """What a command that takes from ``start`` to ``end`` does to the tiers; ``whole``: see ``Spans``."""
        if command.kind in _MEMORY_KINDS:
            return self.tiers.change(command)
        size = self.programs[command.program].weight_bytes
        if command.kind in RUN_KINDS:
            return self.tiers.read(command, size, (start, whole), end)
        if command.kind in (Kind.SWAP, Kind.SEND, Kind.RECEIVE):
            self.dma_busy += end - start
            if command.kind == Kind.SWAP:
                self.moved["swapped_out" if command.tier == Tier.DDR else "swapped_in"] += command.size
            else:
                self.moved["sent" if command.kind == Kind.SEND else "received"] += command.size
            return self.tiers.transfer(command, start, end)
        if command.kind not in (Kind.COPY, Kind.IMAGE):
            raise HardwareError(f"{self.name} knows no such kind")
        copying = command.kind == Kind.COPY
        completion = self.tiers.copy(command, size if copying else command.size, start, end)
        self.dma_busy += end - start
        self.moved["copied" if copying else "loaded"] += size if copying else command.size
        return completion

    def counters(self) -> dict[str, int]:
        """What the socket did so far: busy ps by engine, and until when; bytes ``MOVED``; used and peak of tiers."""
        ddr, hbm = self.tiers.ddr, self.tiers.hbm
        return {
            "dma_busy": self.dma_busy,
            "tile_busy": self.tile.busy,
            "link_busy": self.tile.sending,
            "clock": max(self.dma_free, self.tile.free),
            **self.moved,
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
            "free": [self.dma_free, self.tile.free],
            "copies": [list(copy) for copy in self.tile.copies_ahead()],
            "busy": [self.dma_busy, self.tile.busy, self.tile.sending],
            "counts": [*self.moved.values(), self.commands],
        }

    def restore(self, state: Mapping[str, object]) -> None:
        """Take the state of ``snapshot``; the socket must be new."""
        tiers, free, copies, busy, counts = (state[key] for key in ("tiers", "free", "copies", "busy", "counts"))
        assert isinstance(tiers, dict) and isinstance(free, list) and isinstance(copies, list)
        assert isinstance(busy, list) and isinstance(counts, list)
        self.tiers.restore(tiers)
        self.dma_free, tile_free = free
        self.tile.restore(tile_free, (Copying(*copy) for copy in copies))
        self.dma_busy, self.tile.busy, self.tile.sending = busy
        *moved, self.commands = counts
        self.moved = dict(zip(MOVED, moved, strict=True))
