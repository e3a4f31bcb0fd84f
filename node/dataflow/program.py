"""A model compiled for one socket of a tensor-parallel group: its kernels, and what a pass costs in virtual time.

The cost of a decode step is piecewise linear in the summed context of its batch, because every bound of every kernel
is: the lines of the kernels become segments.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from node.dataflow.decode import MOST_CONTEXT, DecodeCost, Segment
from node.dataflow.fusion import LEVELS, partition
from node.dataflow.graph import Graph, Step
from node.dataflow.kernel import Kernel, build
from node.spec import Machine
from node.units import Bytes, Picoseconds, to_ps


@dataclass(slots=True)
class Program:
    """A compiled model: ``kernels`` of one pass, the socket's shard of weights, KV bytes of one token.

    ``window``: how many of a sequence's latest tokens attention reads, where that is limited. Costs are kept per
    shape, so that no shape is worked out twice.
    """

    name: str
    machine: Machine
    members: int
    kernels: tuple[Kernel, ...]
    weight_bytes: Bytes
    kv_bytes_per_token: Bytes
    window: int | None
    _passes: dict[Step, tuple[int, int]] = field(default_factory=dict, repr=False)
    _decodes: dict[int, DecodeCost] = field(default_factory=dict, repr=False)

    @property
    def launches(self) -> int:
        """Kernel launches in one decode step."""
        return sum(kernel.repeat for kernel in self.kernels if kernel.in_decode)

    def prefill(self, step: Step) -> tuple[Picoseconds, Picoseconds]:
        """Time of one pass, and how much of it the link is sending."""
        known = self._passes.get(step)
        if known is None:
            costs = [(kernel.repeat, kernel.cost(self.machine, step, self.members)) for kernel in self.kernels]
            time = sum(repeat * cost.seconds for repeat, cost in costs)
            sending = sum(repeat * cost.link for repeat, cost in costs)
            what = f"a pass of {self.name}"
            known = self._passes[step] = (to_ps(time, what), to_ps(sending, what))
        return known

    def decode(self, batch: int) -> DecodeCost:
        """Cost of decode steps of ``batch`` sequences."""
        known = self._decodes.get(batch)
        if known is None:
            known = self._decodes[batch] = self._decode(Step(tokens=batch, pairs=0, context=0, sequences=batch))
        return known

    def _decode(self, step: Step) -> DecodeCost:
        """Segments over the context of decode steps with the tokens and sequences of ``step``."""
        costs = [(kernel, kernel.cost(self.machine, step, self.members)) for kernel in self.kernels if kernel.in_decode]
        lines = [(kernel.repeat, tuple(map(Line, cost.bounds, kernel.slopes(self.machine)))) for kernel, cost in costs]
        fixed = sum(kernel.repeat * cost.fixed for kernel, cost in costs)
        sending = sum(kernel.repeat * cost.link for kernel, cost in costs)
        segments, what = [], f"a decode step of {self.name}"
        for first in sorted({0, *(first for _, of_kernel in lines for first in _crossings(of_kernel))}):
            base, slope = fixed, 0.0
            for repeat, of_kernel in lines:
                slowest = _slowest(of_kernel, first)
                base += repeat * slowest.at(first)
                slope += repeat * slowest.slope
            segments.append(Segment(first, to_ps(base, what), to_ps(slope, what)))
        return DecodeCost(tuple(segments), to_ps(sending, what))


@dataclass(frozen=True, slots=True)
class Line:
    """A bound of a decode step in seconds, linear in its context."""

    base: float
    slope: float

    def at(self, context: float) -> float:
        """Seconds at a context."""
        return self.base + self.slope * context


def _slowest(lines: tuple[Line, ...], context: int) -> Line:
    """The highest line from ``context`` on."""
    return max(lines, key=lambda line: (line.at(context), line.slope))


def _crossings(lines: tuple[Line, ...]) -> set[int]:
    """The first whole contexts from which another line is the highest."""
    found: set[int] = set()
    context = 0
    while True:
        top = _slowest(lines, context)
        steeper = [line for line in lines if line.slope > top.slope]
        following = [int((top.base - line.base) / (line.slope - top.slope)) + 1 for line in steeper]
        if not following or min(following) >= MOST_CONTEXT:
            return found
        context = max(context + 1, min(following))
        found.add(context)


def compile_graph(graph: Graph, machine: Machine, members: int, fusion: str, orchestration: str) -> Program:
    """The program of a shard's ``graph`` on ``machine`` with ``members`` sockets in its group.

    ``fusion`` is a level of ``fusion.LEVELS``, no more than the machine can; ``orchestration`` is ``ho`` or ``so``:
    only a fused schedule can be run by the hardware, and only where the machine has a time for it.
    """
    level = min(fusion, machine.kernel.fusion, key=LEVELS.index)
    by_hardware = level == "fused" and orchestration == "ho" and machine.kernel.launch_ho is not None
    launch = machine.kernel.launch_ho if by_hardware else machine.kernel.launch_so
    assert launch is not None
    kernels = []
    for block in graph.blocks:
        groups = partition(block, level)
        for index, operators in enumerate(groups):
            later = {tensor.name for group in groups[index + 1 :] for op in group for tensor in op.inputs}
            name = block.name if len(groups) == 1 else f"{block.name}.{operators[0].name}"
            kernels.append(build(name, block, operators, later, launch))
    return Program(
        name=graph.name,
        machine=machine,
        members=members,
        kernels=tuple(kernels),
        weight_bytes=graph.weight_bytes,
        kv_bytes_per_token=graph.kv_bytes_per_token,
        window=graph.window,
    )
