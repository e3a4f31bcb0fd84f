"""What commands cost one socket: copies and kernel runs, one at a time or as whole columns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from node.dataflow.decode import DecodeCost, slowest
from node.dataflow.form import Step
from node.dataflow.program import Program
from node.events import ROW, Command, Ints, Kind
from node.spec import Machine
from node.units import Picoseconds


class Costs:
    """Durations on a socket with these ``programs``; ``sharers`` sockets copy at once where the host link is shared."""

    def __init__(self, machine: Machine, programs: Sequence[Program], sharers: int) -> None:
        self._programs = programs
        self.copy_ps = np.array([machine.copy_ps(p.weight_bytes, sharers) for p in programs], dtype=np.int64)

    def run(self, command: Command) -> tuple[Picoseconds, Picoseconds]:
        """Time of a PREFILL or DECODE, and how much of it the link is sending."""
        program = self._programs[command.program]
        if command.kind == Kind.PREFILL:
            return program.prefill(Step(command.tokens, command.pairs, command.context, command.sequences))
        decode = program.decode(command.sequences)
        return decode.run_ps(command.context, command.growth, command.steps), command.steps * decode.link_ps

    def runs(self, columns: Ints) -> tuple[Ints, Ints]:
        """``run`` of many: decode runs by program and batch size as whole columns, prefills by their shapes."""
        kind, program = columns[ROW["kind"]], columns[ROW["program"]]
        batch, steps = columns[ROW["sequences"]], columns[ROW["steps"]]
        times, links = np.zeros_like(kind), np.zeros_like(kind)
        for index in np.flatnonzero(kind == Kind.PREFILL).tolist():
            times[index], links[index] = self.run(Command(*columns[:, index].tolist()))
        decodes = kind == Kind.DECODE
        for of_program in np.unique(program[decodes]).tolist():
            of_it = decodes & (program == of_program)
            for of_batch in np.unique(batch[of_it]).tolist():
                chosen = of_it & (batch == of_batch)
                cost = self._programs[of_program].decode(of_batch)
                context, growth = columns[ROW["context"], chosen], columns[ROW["growth"], chosen]
                times[chosen] = cost.runs_ps(context, growth, steps[chosen])
                links[chosen] = steps[chosen] * cost.link_ps
        return times, links


class GroupDecode:
    """Decode runs of a group, whose members step together: ``programs`` by kind of socket."""

    def __init__(self, programs: Sequence[Sequence[Program]]) -> None:
        self._programs = programs
        self._costs: dict[tuple[int, int], DecodeCost] = {}

    def cost(self, command: Command) -> DecodeCost:
        """The cost of a DECODE's steps: each takes as long as on its slowest member."""
        key = (command.program, command.sequences)
        if key not in self._costs:
            members = [programs[command.program].decode(command.sequences) for programs in self._programs]
            self._costs[key] = members[0] if len(members) == 1 else slowest(members)
        return self._costs[key]


def in_order(issued: Ints, durations: Ints, free: Picoseconds) -> tuple[Ints, Ints]:
    """Starts and ends on an engine that takes one command at a time, in order: start = max(issued, free).

    With S the running sum of durations, end(i) = S(i) + max over j <= i of (issued(j) - S(j - 1)).
    """
    sums = np.cumsum(durations)
    waits = np.maximum(np.maximum.accumulate(issued - (sums - durations)), free) if len(sums) else sums
    ends = sums + waits
    return ends - durations, ends
