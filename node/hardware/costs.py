"""What commands cost one socket: copies and kernel runs, one at a time or as whole columns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from node.dataflow.arrival import ahead_ps
from node.dataflow.decode import DecodeCost, Segment, slowest
from node.dataflow.form import Step
from node.dataflow.program import Program
from node.events import ROW, Command, Ints, Kind
from node.hardware.overlap import Copying, Run
from node.spec import Machine
from node.units import Bytes, Picoseconds

_MIXER = 0x9E3779B97F4A7C15 - 2**64  # odd, its bits as if by chance: 2**64 over the golden ratio


class Costs:
    """Durations on a socket with these ``programs``; ``sharers`` sockets copy at once where the host link is shared.

    ``partial``: whether copies tell how far they are, or only when they are complete.
    """

    def __init__(self, machine: Machine, programs: Sequence[Program], sharers: int, *, partial: bool = False) -> None:
        self.programs, self._partial = programs, partial
        self._copy_bytes_per_s = machine.copy_bytes_per_s(sharers)
        self._ahead: dict[tuple[int, ...], Picoseconds] = {}
        self._prefills: dict[tuple[int, ...], tuple[Picoseconds, Picoseconds]] = {}
        self.hbm_share = machine.hbm_share(sharers)  # what a copy leaves
        self.copy_ps = np.array([machine.copy_ps(p.weight_bytes, sharers) for p in programs], dtype=np.int64)
        self._machine, self._sharers = machine, sharers

        self.move_ps = np.array([machine.move_ps(p.weight_bytes, sharers) for p in programs], dtype=np.int64)

    def swap_ps(self, size: Bytes) -> Picoseconds:
        """Time to move so many bytes between HBM and DDR, either way."""
        return self._machine.copy_ps(size, self._sharers)

    def transfers(self, columns: Ints) -> Ints:
        """Times of ``TRANSFERS``."""
        program, kind = columns[ROW["program"]], columns[ROW["kind"]]
        moved = (kind == Kind.SEND) | (kind == Kind.RECEIVE)
        times: Ints = np.where(moved, self.move_ps[program], self.copy_ps[program])
        for sized in np.flatnonzero((kind == Kind.SWAP) | (kind == Kind.IMAGE)).tolist():
            times[sized] = self.swap_ps(int(columns[ROW["size"], sized]))
        return times

    def run(self, command: Command) -> tuple[Picoseconds, Picoseconds]:
        """Time of a PREFILL or DECODE, and how much of it the link is sending."""
        program = self.programs[command.program]
        if command.kind == Kind.PREFILL:
            return program.prefill(Step(command.tokens, command.pairs, command.context, command.sequences))
        decode = program.decode(command.sequences)
        return decode.run_ps(command.context, command.growth, command.steps), command.steps * decode.link_ps

    def ahead(self, shape: tuple[int, ...]) -> Picoseconds:
        """By how much a PREFILL (program, tokens, pairs, context, sequences) may begin before its weights are whole."""
        known = self._ahead.get(shape)
        if known is None:
            program = self.programs[shape[0]]
            known = ahead_ps(program, Step(*shape[1:]), self.hbm_share, self._copy_bytes_per_s)
            self._ahead[shape] = known
        return known

    def shared(self, command: Command) -> Run:
        """A PREFILL or DECODE that copies may slow down."""
        alone, beside = (self._steps(command, share) for share in (1.0, self.hbm_share))
        return Run(alone, beside, command.context, command.growth)

    def _steps(self, command: Command, hbm_share: float) -> DecodeCost:
        program = self.programs[command.program]
        if command.kind == Kind.DECODE:
            return program.decode(command.sequences, hbm_share)
        step = Step(command.tokens, command.pairs, command.context, command.sequences)
        time, link = program.prefill(step, hbm_share)
        return DecodeCost((Segment(0, time, 0),), link)

    def _prefill(self, shape: tuple[int, ...]) -> tuple[Picoseconds, Picoseconds]:
        """``run`` of a PREFILL of program, tokens, pairs, context and sequences."""
        known = self._prefills.get(shape)
        if known is None:
            known = self._prefills[shape] = self.programs[shape[0]].prefill(Step(*shape[1:]))
        return known

    def aheads(self, columns: Ints) -> Ints:
        """``ahead`` of many runs; a DECODE begins when all weights are there."""
        found: Ints = np.zeros(columns.shape[1], dtype=np.int64)
        if self._partial:
            prefills, shapes, which = _prefills(columns)
            found[prefills] = np.array([self.ahead(shape) for shape in shapes], dtype=np.int64)[which]
        return found

    def runs(self, columns: Ints) -> tuple[Ints, Ints]:
        """``run`` of many: decode runs by program and batch size as whole columns, prefills once for each shape."""
        kind, program = columns[ROW["kind"]], columns[ROW["program"]]
        batch, steps = columns[ROW["sequences"]], columns[ROW["steps"]]
        times, links = np.zeros_like(kind), np.zeros_like(kind)
        prefills, shapes, which = _prefills(columns)
        if shapes:
            taken = np.array([self._prefill(shape) for shape in shapes], dtype=np.int64)
            times[prefills], links[prefills] = taken[which].T
        decodes = np.flatnonzero(kind == Kind.DECODE)
        while len(decodes):
            one = decodes[0]
            same = (program[decodes] == program[one]) & (batch[decodes] == batch[one])
            chosen, decodes = decodes[same], decodes[~same]
            cost = self.programs[program[one]].decode(int(batch[one]))
            context, growth = columns[ROW["context"], chosen], columns[ROW["growth"], chosen]
            times[chosen] = cost.runs_ps(context, growth, steps[chosen])
            links[chosen] = steps[chosen] * cost.link_ps
        return times, links


class GroupDecode:
    """Decode runs of a group, whose members step together: ``programs`` by kind of socket.

    ``hbm_share``: what a copy leaves of HBM bandwidth.
    """

    def __init__(self, programs: Sequence[Sequence[Program]], hbm_share: float) -> None:
        self._programs, self._hbm_share = programs, hbm_share
        self._costs: dict[tuple[int, int, float], DecodeCost] = {}

    def cost(self, program: int, sequences: int, hbm_share: float = 1.0) -> DecodeCost:
        """The cost of decode steps of so many sequences: each takes as long as on its slowest member."""
        known = self._costs.get((program, sequences, hbm_share))
        if known is None:
            members = [programs[program].decode(sequences, hbm_share) for programs in self._programs]
            known = members[0] if len(members) == 1 else slowest(members)
            self._costs[program, sequences, hbm_share] = known
        return known

    def run(self, command: Command, copies: Sequence[Copying]) -> Run:
        """A DECODE beside ``copies``; what it takes beside them is worked out where there are any."""
        alone = self.cost(command.program, command.sequences)
        beside = self.cost(command.program, command.sequences, self._hbm_share) if copies else alone
        return Run(alone, beside, command.context, command.growth)


def _prefills(columns: Ints) -> tuple[Ints, list[tuple[int, ...]], Ints]:
    """Where in ``columns`` the PREFILLs are, the shapes that their costs depend on, and which of these each has."""
    prefills = np.flatnonzero(columns[ROW["kind"]] == Kind.PREFILL)
    shapes = columns[[ROW[name] for name in ("program", "tokens", "pairs", "context", "sequences")]][:, prefills]
    first, which = alike(shapes)
    return prefills, list(zip(*shapes[:, first].tolist(), strict=True)), which


def alike(rows: Ints) -> tuple[Ints, Ints]:
    """Of different columns the place of one each, and which of these every column is equal to.

    Columns are told apart by one number each, mixed from their rows. Where that is the same for two that differ, every
    column stands for itself: what is worked out for it is the same, only not once for all.
    """
    mixed = np.zeros(rows.shape[1], dtype=np.int64)
    for row in rows:
        mixed = mixed * _MIXER + row  # modulo 2**64
    _, first, which = np.unique(mixed, return_index=True, return_inverse=True)
    if (rows[:, first[which]] != rows).any():
        first = which = np.arange(rows.shape[1])
    return first, which


def steps_of(command: Command) -> int:
    """The steps of a PREFILL, which is one, or of a DECODE."""
    return command.steps if command.kind == Kind.DECODE else 1


def in_order(issued: Ints, durations: Ints, free: Picoseconds) -> tuple[Ints, Ints]:
    """Starts and ends on an engine that takes one command at a time, in order: start = max(issued, free).

    With S the running sum of durations, end(i) = S(i) + max over j <= i of (issued(j) - S(j - 1)).
    """
    sums = np.cumsum(durations)
    waits = np.maximum(np.maximum.accumulate(issued - (sums - durations)), free) if len(sums) else sums
    ends = sums + waits
    return ends - durations, ends
